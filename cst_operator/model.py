"""The Continuous Spatiotemporal Transformer as a neural operator on point sets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from cst_operator._layers import make_layers
from cst_operator._precision import full_precision
from cst_operator._query_memory import fitting_chunk
from cst_operator._ragged import Ragged
from cst_operator.cst_config import CSTConfig
from cst_operator.derivatives import Derivatives, differentiate
from cst_operator.errors import FieldError
from cst_operator.fields import Example, PointField
from cst_operator.nn import (
    Block,
    FourierFeatures,
    HiddenFlow,
    HilbertCurve,
    LocalAverage,
    Modulation,
    SmoothInterpolant,
    TokenNorm,
    choose_anchors,
    modulate,
)
from cst_operator.nn.transforms import in_transform
from cst_operator.normalization import Normalization

__all__ = ["CSTOperator", "Encoded"]


class Encoded(NamedTuple):
    """A source field as a function: everything queries need, independent of the queries."""

    samples: tuple[Tensor, Tensor, Tensor]
    """What queries interpolate: places at unit scale, [B, N, D], values at unit scale, [B, N, c],
    and logarithms of each point's share of the domain, up to a constant, [B, N]."""
    memories: list[Any]
    """What the layers read that queries go through."""
    factors: list[Tensor]
    """By what each of these layers is modulated, [B, 2, width]; none without modulation."""
    nearby: list[Tensor]
    """Tokens of the samples, [B, N, width], and logarithms of their shares of the domain, [B, N],
    if queries are told of their neighbourhood."""


class CSTOperator(nn.Module):
    r"""Continuous Spatiotemporal Transformer: from a sampled field to a smooth function.

    Source points become tokens from their coordinates and samples, query points from their
    coordinates and a smooth interpolant of the source; both go through the same layers, whose
    attention is a quadrature over the source. The answer is an infinitely differentiable function
    of the query coordinate. In the "operator" form it does not depend on which other points are
    asked; in the "joint" form, that of the paper, the query points are attended to as well.

    Args:
        config: see :class:`CSTConfig`.

    Source: de Oliveira Fonseca, Zappala, Ortega Caro, van Dijk, Continuous Spatiotemporal
    Transformers, ICML 2023.
    """

    def __init__(self, config: CSTConfig) -> None:
        super().__init__()
        self.config = config
        self.normalization = Normalization(config.dim, config.in_channels, config.out_channels)
        self.interpolant = SmoothInterpolant(config.coordinates, config.interpolant_radius)
        self.fourier = FourierFeatures(
            config.coordinates, config.fourier_features, config.fourier_scale
        )
        features = config.in_channels + config.coordinates + config.fourier_features
        self.curve = HilbertCurve(config.coordinates)
        self.embed = nn.Sequential(
            nn.Linear(features, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.width)
        )
        self.blocks = nn.ModuleList(make_layers(config))
        self.modulation = None
        if config.modulators:
            self.modulation = Modulation(
                len(config.modulators), config.hidden, len(self.blocks), config.width
            )
        self.read_out = nn.Sequential(
            TokenNorm(config.width), nn.Linear(config.width, config.out_channels)
        )
        self.aggregate = None
        if config.anchors:
            self.aggregate = LocalAverage(config.width, config.aggregation_radius)
        # Functions of the class, not of this object: a copy of the model calls them with itself.
        self._read: Callable[..., Encoded] = CSTOperator._read_dense
        self._write: Callable[..., Tensor] = CSTOperator.decode

    def forward(self, source: "PointField | Encoded", target: PointField) -> Tensor:
        """Answer at the target's points.

        Args:
            source: known field with N points, a PyG batch of such fields, or what
                :meth:`encode` made of it.
            target: query points, M in all; only their coordinates are read.

        Returns:
            One row per query point in the user's units, [M, c].

        Raises:
            FieldError: if the source lacks weights, or channels, precision or the numbers of
                samples do not fit.
        """
        encoded = source if isinstance(source, Encoded) else self.encode(source, target)
        queries = Ragged.of(target)
        s = queries.pad(self.coordinates(target))
        _check_samples(encoded, s)
        u = self._write(self, encoded, s)
        return queries.unpad(self.normalization.decode(u))

    def encode(self, source: PointField, target: PointField | None = None) -> Encoded:
        """Read the source once, for any number of queries afterwards.

        Args:
            source: known field, or a PyG batch of fields.
            target: the query points; used by the joint form alone, where they belong to the
                memory.

        Raises:
            FieldError: if the source does not fit, or the joint form gets no target.
        """
        self._check(source)
        points = Ragged.of(source)
        if not points.fewest:
            raise FieldError("a source without points says nothing; expected one point or more")
        s = points.pad(self.coordinates(source))
        values = self.normalization.encode(points.pad(source.u))
        log_weights = points.log_share(source.weights)
        asked = None
        if self.config.form == "joint":
            if target is None:
                raise FieldError("the joint form attends to the queries too; encode needs a target")
            queries = Ragged.of(target)
            places = self.coordinates(target)
            asked = queries.pad(places), queries.log_share(torch.ones_like(places[:, 0]))
        return self._read(self, s, values, log_weights, asked)

    def _read_dense(
        self,
        s: Tensor,
        values: Tensor,
        log_weights: Tensor,
        asked: tuple[Tensor, Tensor] | None,
    ) -> Encoded:
        """Read samples at unit scale; in the joint form, the places and shares of queries too."""
        if self.training:
            values = values + self.config.noise * torch.randn_like(values)
            s = s + self.config.coordinate_noise * torch.randn_like(s)
        samples = self._few(s, values, log_weights)
        factors = self._factors(values, log_weights)
        h, at, measure = self._embed(values, s), s, log_weights
        if asked is not None:
            places, share = asked
            dummies = self.interpolant(places, *samples)
            h = torch.cat([h, self._embed(dummies, places)], dim=1)
            at = torch.cat([s, places], dim=1)
            measure = torch.cat([log_weights, share], dim=1)
        blocks = cast(Sequence[Block | HiddenFlow], self.blocks)
        memories = [blocks[0].memory(h, at, measure)]
        nearby = []
        if self.aggregate is not None:
            offset = torch.rand(len(at), device=at.device) if self.training else 0.5
            index, share = choose_anchors(self.curve, at, measure, self.config.anchors, offset)
            anchors = _take(at, index)
            h = self.aggregate(_take(h, index), anchors, h, at, measure)
            at, measure = anchors, share
            if self.config.aggregate_at_queries:
                places, values, share = samples
                nearby += [self._embed(values, places), share.log_softmax(-1)]
        for layer, (block, after) in enumerate(pairwise(blocks)):
            h = self._update(block, h, at, memories[-1])
            if factors:
                h = modulate(h, factors[layer])
            memories.append(after.memory(h, at, measure))
        read = self.config.query_depth * (len(blocks) // self.config.depth) or len(blocks)
        return Encoded(samples, memories[-read:], factors[-read:], nearby)

    def decode(self, encoded: Encoded, s: Tensor) -> Tensor:
        """Evaluate an encoded source at unit-scale coordinates, [B, M, D] -> [B, M, c]."""
        places, values, log_weights = encoded.samples
        h = self._embed(self.interpolant(s, places, values, log_weights), s)
        if self.aggregate is not None and encoded.nearby:
            tokens, share = encoded.nearby
            h = self.aggregate(h, s, tokens, places, share)
        blocks = cast(Sequence[Block | HiddenFlow], self.blocks)[-len(encoded.memories) :]
        for layer, (block, memory) in enumerate(zip(blocks, encoded.memories, strict=True)):
            h = self._update(block, h, s, memory)
            if encoded.factors:
                h = modulate(h, encoded.factors[layer])
        out: Tensor = self.read_out(h)
        return out

    def derivatives(
        self,
        source: "PointField | Encoded",
        target: PointField,
        order: int = 1,
        *,
        chunk: int = 16384,
    ) -> Derivatives:
        """The answer and its derivatives in the user's coordinates, by forward mode.

        In the joint form the other query points are held fixed. Under autocast the source is read
        in low precision, derivatives are taken in that of the parameters.

        Args:
            source: known field, a PyG batch of fields, or what :meth:`encode` made of it.
            target: query points.
            order: highest order of derivatives.
            chunk: query points of a sample at a time; bounds the memory where nothing is learned.

        Raises:
            ValueError: if ``order`` is negative.
        """
        encoded = source if isinstance(source, Encoded) else self.encode(source, target)
        queries = Ragged.of(target)
        s = queries.pad(self.coordinates(target))
        _check_samples(encoded, s)
        exact = tree_map(lambda x: x.to(s), encoded)
        with torch.autocast(s.device.type, enabled=False):
            parts = [
                differentiate(lambda x: self.decode(exact, x), part, order)
                for part in s.split(chunk, dim=1)
            ]
        tensors = [torch.cat(alike, dim=1) for alike in zip(*parts, strict=True)]
        tensors = self.normalization.decode_derivatives(tensors, self.config.transient)
        return Derivatives([queries.unpad(tensor) for tensor in tensors], dim=self.config.dim)

    @torch.no_grad()
    def predict(
        self,
        source: PointField,
        target: PointField,
        *,
        chunk: int = 16384,
        memory_limit: int = 0,
    ) -> PointField:
        """Answer at one field's points, however many, in chunks of bounded memory.

        Args:
            source: one known field.
            target: the query points; cells and facets are kept.
            chunk: query points at a time; the joint form answers all at once.
            memory_limit: bytes that the queries may take beside the encoded source, their answers
                included; where needed, chunks are smaller. No limit if 0.

        Returns:
            The target with the answer as its samples.

        Raises:
            FieldError: if the source is a batch of several fields.
            InputError: if the limit is too small for the answers.
            ConfigError: if a limit is set in the joint form.
        """
        if getattr(source, "num_graphs", 1) > 1:
            raise FieldError(
                f"the source is a batch of {source.num_graphs} fields; expected one, so predict "
                "for each of batch.to_data_list(), or call model(source, target)"
            )
        if memory_limit:
            itemsize = self.normalization.pos_scale.itemsize
            fits = fitting_chunk(self.config, target.num_points, itemsize, memory_limit)
            chunk = min(chunk, fits)
        training = self.training
        self.eval()
        try:
            if self.config.form == "joint":
                u = self(source, target)
            else:
                encoded = self.encode(source)
                u = torch.cat([self._answer(encoded, part) for part in _split(target, chunk)])
        finally:
            self.train(training)
        return target.with_values(u, channels=self.config.out_names or None)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the model in place, for batches of any form.

        What is compiled is everything between the dense layout of a batch, which the host knows,
        and its answers, as two graphs without breaks: reading the source and answering. Numbers of
        points may change from call to call. :meth:`derivatives` are not compiled.

        Args:
            args: of :func:`torch.compile`.
            options: of :func:`torch.compile`, e.g. ``fullgraph=True`` to refuse breaks.
        """
        self._read = torch.compile(CSTOperator._read_dense, *args, **options)
        self._write = torch.compile(CSTOperator.decode, *args, **options)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weight matrices inside the layers, which Muon trains; see ``FitConfig.muon_lr``."""
        named = self.blocks.named_parameters()
        return [p for name, p in named if p.dim() == 2 and name.endswith(".weight")]

    def fit_normalization(self, examples: Iterable[Example]) -> "CSTOperator":
        """Measure scales on training examples; see :class:`Normalization`."""
        self.normalization.fit(examples)
        return self

    def coordinates(self, field: PointField) -> Tensor:
        """Unit-scale coordinates of a field's points, [rows, D].

        Raises:
            FieldError: if the field has another number of space dimensions than the model, or more
                digits.
        """
        if field.pos.shape[1] != self.config.dim:
            raise FieldError(
                f"the field has {field.pos.shape[1]} space dimensions; the model was made for "
                f"{self.config.dim}, so make another with CSTConfig(dim={field.pos.shape[1]})"
            )
        self._check_precision("coordinates", field.pos)
        if not self.config.transient:
            return self.normalization.coordinates(field.pos, None)
        self._check_precision("times", field.time)
        return self.normalization.coordinates(field.pos, field.time)

    def _answer(self, encoded: Encoded, part: PointField) -> Tensor:
        """Answers of an encoded source at a few points, in the user's units, [M, c]."""
        dense = self._write(self, encoded, self.coordinates(part)[None])
        return self.normalization.decode(dense[0])

    def _few(self, s: Tensor, values: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Samples to interpolate, no more of them than the configuration says."""
        if s.shape[1] <= self.config.interpolant_points:
            return s, values, log_weights
        index, share = choose_anchors(self.curve, s, log_weights, self.config.interpolant_points)
        return _take(s, index), _take(values, index), share

    def _update(self, block: Block | HiddenFlow, h: Tensor, at: Tensor, memory: Any) -> Tensor:
        # The transforms of torch.func do not go through checkpoints.
        if self.config.recompute and torch.is_grad_enabled() and not in_transform():
            return cast(Tensor, checkpoint(block, h, at, memory, use_reentrant=False))
        return cast(Tensor, block(h, at, memory))

    def _factors(self, values: Tensor, log_weights: Tensor) -> list[Tensor]:
        """What modulates every layer, of means over the samples; nothing without modulation."""
        if self.modulation is None:
            return []
        columns = [self.config.in_names.index(name) for name in self.config.modulators]
        with full_precision(values):
            chosen = torch.stack([values[..., i] for i in columns], dim=-1)
            means = log_weights.exp()[:, None] @ chosen
        return list(self.modulation(means[:, 0]).unbind(1))

    def _embed(self, values: Tensor, s: Tensor) -> Tensor:
        out: Tensor = self.embed(torch.cat([values, s, self.fourier(s)], dim=-1))
        return out

    def _check_precision(self, name: str, values: Tensor) -> None:
        own = self.normalization.pos_scale.dtype
        if torch.promote_types(values.dtype, own) != own:
            raise FieldError(
                f"the {name} are {values.dtype} but the model's numbers {own}; convert the data, "
                f"e.g. trajectory.to({own}), or the model, e.g. model.double()"
            )

    def _check(self, source: PointField) -> None:
        if source.u.shape[1] != self.config.in_channels:
            raise FieldError(
                f"the source has {source.u.shape[1]} channels; the model reads "
                f"{self.config.in_channels}{_listed(self.config.in_names)}; "
                "choose them with field.select(...)"
            )
        self._check_precision("source's samples", source.u)
        if self.config.in_names:
            given = source.get("channels", self.config.in_names)
            for names in given if isinstance(given, list) else [given]:  # a batch has a list
                if tuple(names) != tuple(self.config.in_names):
                    raise FieldError(
                        f"the source has the channels{_listed(names)}; the model reads"
                        f"{_listed(self.config.in_names)}; choose them with field.select(...)"
                    )
        if "weights" not in source:
            raise FieldError(
                "the source has no quadrature weights; "
                "set them with cst_operator.with_weights(field)"
            )


def _check_samples(encoded: Encoded, s: Tensor) -> None:
    """As many samples are asked as were read, or all ask the same one."""
    read, asked = len(encoded.samples[0]), len(s)
    if read not in (1, asked):
        raise FieldError(
            f"the source is a batch of {read} samples but the target of {asked}; "
            "give as many targets as sources, or one source for all targets"
        )


def _split(field: PointField, chunk: int) -> Iterator[PointField]:
    """The places of a field, so many at a time; a field without points as it is."""
    times = field.time.split(chunk)
    for pos, time in zip(field.pos.split(chunk), times, strict=True):
        yield PointField(pos=pos, time=time)


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _take(rows: Tensor, index: Tensor) -> Tensor:
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
