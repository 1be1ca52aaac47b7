"""Sobolev losses: the error, its derivatives, and the smoothness of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator._draws import choose, names_of, per_sample
from cst_operator.derivatives import Derivatives
from cst_operator.differentiation import GradientOperator, gradient_operator
from cst_operator.dummies import Dummies
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField

__all__ = ["LossTerms", "SobolevLoss", "read_once"]


# Of the integral over all points: what a few that miss a local feature of the data divide by.
_LEAST = 0.01

_Part = list[Any]  # slices of the axes of derivatives, block by block


@dataclass(frozen=True)
class LossTerms:
    """What a loss returns."""

    total: Tensor
    """Weighted sum of the terms, the mean over the samples, a scalar."""
    terms: Mapping[str, Tensor]
    """Every term that has a weight, before it, by name, scalars."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of every term, by the same names."""


@dataclass(frozen=True, kw_only=True)
class SobolevLoss:
    r"""Norm of the error in :math:`W^{k,p}`, and of the answer's derivatives.

    For every order j up to k, with :math:`e = \hat u - u`, the *target term*

    .. math::

        \lambda_j \left( \frac{\int |D^j e|^p}{\int |D^j u|^p} \right)^{1/p}

    by the quadrature weights of the target; without ``relative`` the numerator alone. For every
    order q >= 1 with a smoothing weight :math:`\mu_q`, the *smoothing term*, with the means
    estimated at dummy points drawn anew in every step with the density of the weights,

    .. math::

        \mu_q \left( \frac{\operatorname{mean} |D^q \hat u|^p}{\operatorname{mean} |u|^p}
        \right)^{1/p},

    which asks for a smooth answer and needs no derivative of the data; the variance of the
    estimated mean is that of :math:`|D^q \hat u|^p` over the domain divided by ``num_dummies``,
    for other densities see :class:`~cst_operator.dummies.Dummies`.
    :math:`|D^j e|^p` sums over channels and all derivatives of order j in the user's coordinates,
    time included where the target knows it and the model has it as a coordinate; mixed derivatives
    count once for each of their orderings. Channels, and derivatives in time, may be terms of their
    own.

    A model with a method ``derivatives(source, target, order)`` is differentiated exactly; if it
    has a method ``encode(source, target)`` too, that is called once and its result stands for the
    source. Any other is differentiated through its nodal values, by the gradient operator of the
    target's mesh or points.

    Args:
        order: highest order k of the target terms.
        p: exponent p >= 1.
        powers: exponents of the orders 0, 1, ... where they differ; p for those not listed.
        weights: :math:`\lambda_0, \ldots, \lambda_k`; all 1 if empty. Here as in what follows, a
            term of weight 0 is left out.
        smoothing: :math:`\mu_1, \mu_2, \ldots`; no smoothing if empty.
        time_weights: weights of the orders 1 to k for terms of their own, of the derivatives that
            are taken in time at least once; the others then have those in space alone.
        time_smoothing: the same for smoothing terms.
        channel_weights: factors of the channels, whose norms are then terms of their own, each
            relative to its own data; one norm of all channels if empty.
        relative: divide by the norm of the data.
        num_points: evaluate derivatives in target terms at that many random query points of every
            sample, a Monte-Carlo estimate of the integrals, that of the data being at least a
            hundredth of what all points say; at all of them if zero, or where samples have no more
            on average. At all of some hundred points a step costs about twice as much.
        num_dummies: dummy points of every sample.
        dummies: where they are drawn.

    Raises:
        ConfigError: if a value is out of range.

    Source: the smoothing term is that of de Oliveira Fonseca et al., Continuous Spatiotemporal
    Transformers, ICML 2023; the target term of Czarnecki et al., Sobolev training for neural
    networks, 2017.
    """

    order: int = 0
    p: float = 2.0
    powers: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    smoothing: tuple[float, ...] = ()
    time_weights: tuple[float, ...] = ()
    time_smoothing: tuple[float, ...] = ()
    channel_weights: tuple[float, ...] = ()
    relative: bool = True
    num_points: int = 64
    num_dummies: int = 32
    dummies: Dummies = Dummies()

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ConfigError(f"order is {self.order}; expected zero or more")
        for p in (self.p, *self.powers):
            if p < 1:
                raise ConfigError(f"p is {p}; a norm needs at least 1")
        for name, count in (
            ("weights", self.order + 1),
            ("time_weights", self.order),
            ("time_smoothing", len(self.smoothing)),
        ):
            given = len(getattr(self, name))
            if given and given != count:
                raise ConfigError(f"{given} {name} were given; the orders need {count}")
        if min((*self._weights().values(), *self.channel_weights, 0.0)) < 0:
            raise ConfigError("weights of a loss must not be negative")
        if self.num_points < 0 or self.num_dummies < 1:
            raise ConfigError("num_points must be zero or more and num_dummies at least one")

    def __call__(
        self,
        model: nn.Module,
        batch: Example,
        generator: torch.Generator | None = None,
        *,
        encoded: Any = None,
    ) -> LossTerms:
        """Evaluate on a batch.

        Args:
            model: called as ``model(source, target)``.
            batch: an example, or a PyG batch of examples; the target needs weights.
            generator: draws the dummy points; the global one if omitted.
            encoded: what the model's ``encode`` made of the batch, where it is at hand.

        Raises:
            FieldError: if the target has no weights, or no derivatives that a term needs.
        """
        source, target = batch
        if "weights" not in target:
            raise FieldError(
                "the loss integrates over the target, which has no quadrature weights; "
                "set them with cst_operator.with_weights(field)"
            )
        exact = callable(getattr(model, "derivatives", None))
        read: Any = source if encoded is None else encoded
        if exact and encoded is None and (self.order or self.smoothing):
            read = read_once(model, source, target)
        if self.order and exact and self._takes_all(target):
            answer = model.derivatives(read, target, self.order)  # type: ignore[operator]
            u = answer.u
        else:
            answer, u = None, model(read, target)
        found = {"order0": self._norm(u - target.u, target.u, target, target.weights, 0)}
        if self.order and exact:
            points, row = target, torch.arange(len(u), device=u.device)
            if answer is None:
                points, row = choose(target, self.num_points, generator)
                answer = model.derivatives(read, points, self.order)  # type: ignore[operator]
            for j in range(1, self.order + 1):
                known, slope = _known(target, j), answer.order(j)
                both: Any = (..., *(slice(min(known.shape[-1], slope.shape[-1])),) * j)
                known, wanted = known[both], known[both][row]
                error = slope[both] - wanted
                for name, part in self._parts(j, wanted, target.pos.shape[1]).items():
                    least = None
                    if self.relative and points is not target:
                        whole = self._integral(_pick(known, part), target, target.weights, j)
                        least = _LEAST * whole
                    found[name] = self._norm(
                        _pick(error, part), _pick(wanted, part), points, points.weights, j, least
                    )
        elif self.order:
            found.update(self._nodal(u, target))
        if self.smoothing:
            if not exact:
                raise FieldError(
                    "smoothing terms need a model that is a function of the coordinate, with a "
                    "derivatives method; use target terms (order=1) for this model"
                )
            drawn = self.dummies.draw(source, target, self.num_dummies, generator)
            answer = model.derivatives(read, drawn, len(self.smoothing))  # type: ignore[operator]
            found.update(self._smooth(answer, drawn, target))
        terms, weights = self._by_channel(found, target)
        total = sum((weight * terms[name] for name, weight in weights.items()), u.new_zeros(()))
        return LossTerms(total, terms, weights)

    def check(self, example: Example) -> None:
        """Refuse an example that the loss is not defined for.

        Args:
            example: one sample, not a batch.

        Raises:
            FieldError: if an error would be divided by zero: the loss is relative and the target is
                zero everywhere or, where its derivatives are learnt, constant, or steady where
                those in time are a term; with ``channel_weights``, if one channel is.
        """
        target = example.target
        if not self.relative or "weights" not in target:
            return
        weights = self._weights()
        references = []
        if any(weights[name] for name in weights if name == "order0" or "smoothing" in name):
            references.append((target.u, 0, "zero everywhere"))
        if any(weights[f"order{j}"] for j in range(1, self.order + 1)):
            references.append((target.u - target.u[:1], 1, "constant"))
        if any(self.time_weights) and "time_derivative" in target:
            references.append((target.time_derivative, 1, "steady"))
        names = names_of(target) if self.channel_weights else ()
        counts = self.channel_weights or (1.0,)
        for reference, order, what in references:
            sizes = self._integral(reference, target, target.weights, order)[0].tolist()
            undefined = [i for i, size in enumerate(sizes[: len(counts)]) if counts[i] and not size]
            if undefined:
                name = repr(names[undefined[0]]) if names else "its target"
                raise FieldError(
                    f"{name} is {what}, so an error relative to it is not defined; leave the "
                    "example out, or use a loss with relative=False"
                )

    def _takes_all(self, target: PointField) -> bool:
        samples = len(target.ptr) - 1 if "batch" in target else 1
        return not self.num_points or target.num_points <= self.num_points * samples

    def _weights(self) -> dict[str, float]:
        """Weights of the terms, before channels are told apart."""
        weights = self.weights or (1.0,) * (self.order + 1)
        named = {f"order{j}": weight for j, weight in enumerate(weights)}
        for name, given in (
            ("time", self.time_weights),
            ("smoothing", self.smoothing),
            ("time_smoothing", self.time_smoothing),
        ):
            named.update({f"{name}{q}": weight for q, weight in enumerate(given, start=1)})
        return named

    def _by_channel(
        self, found: Mapping[str, Tensor], target: PointField
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Terms that have a weight, by name, from one number for every channel or for all."""
        used = {name: weight for name, weight in self._weights().items() if weight}
        if not self.channel_weights:
            return {name: found[name][0] for name in used}, used
        channels = names_of(target)
        if len(channels) != len(self.channel_weights):
            raise ConfigError(
                f"{len(self.channel_weights)} channel_weights were given; the target has the "
                f"{len(channels)} channels {', '.join(channels)}"
            )
        terms, weights = {}, {}
        for name, weight in used.items():
            for i, channel in enumerate(channels):
                if self.channel_weights[i]:
                    terms[f"{name}[{channel}]"] = found[name][i]
                    weights[f"{name}[{channel}]"] = weight * self.channel_weights[i]
        return terms, weights

    def _parts(
        self, order: int, value: Tensor, d: int, smoothing: bool = False
    ) -> dict[str, _Part]:
        """Where each term of an order is in its derivatives, [..., D, ..., D], block by block."""
        name, apart = ("smoothing", self.time_smoothing) if smoothing else ("", self.time_weights)
        every, space, time = slice(None), slice(d), slice(d, None)
        if not apart:
            return {f"{name or 'order'}{order}": [(every,) * order]}
        if value.shape[-1] == d:
            raise FieldError(
                "derivatives in time are to be a term, but there are none; give targets with a "
                "time_derivative and a model with CSTConfig(transient=True), or no time_weights "
                "and time_smoothing"
            )
        # By the first axis that is time. Blocks, because a mask would make the host wait for a GPU.
        timed = [(space,) * j + (time,) + (every,) * (order - 1 - j) for j in range(order)]
        return {
            f"{name or 'order'}{order}": [(space,) * order],
            f"{f'time_{name}' if name else 'time'}{order}": timed,
        }

    def _norm(
        self,
        error: Tensor,
        reference: Tensor,
        points: PointField,
        weights: Tensor,
        order: int,
        least: Tensor | None = None,
    ) -> Tensor:
        """Mean over the samples of the norm of ``error`` [M, c, ...], relative to ``reference``.

        The integral of the reference is taken to be at least ``least``, where that is given.
        """
        size = self._integral(error, points, weights, order)
        if self.relative:
            scale = self._integral(reference, points, weights, order)
            size = size / (scale if least is None else torch.maximum(scale, least))
        return self._root(size, order)

    def _root(self, size: Tensor, order: int) -> Tensor:
        # The root has no slope at zero error, where there is nothing left to learn.
        return size.clamp_min(torch.finfo(size.dtype).tiny).pow(1 / self._power(order)).mean(0)

    def _power(self, order: int) -> float:
        return self.powers[order] if order < len(self.powers) else self.p

    def _integral(self, value: Tensor, points: PointField, weights: Tensor, order: int) -> Tensor:
        """Integral of ``|value|^p`` for every sample, [B, c], or [B, 1] for all channels."""
        density = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        density = density.abs().pow(self._power(order)).reshape(*value.shape[:2], -1).sum(2)
        if not self.channel_weights:
            density = density.sum(1, keepdim=True)
        return per_sample(weights[:, None] * density, points)

    def _nodal(self, u: Tensor, target: PointField) -> dict[str, Tensor]:
        """Target terms of a model that only has values at the nodes."""
        if self.time_weights:
            raise FieldError(
                "this model has no derivatives in time; give no time_weights, or a model with a "
                "derivatives method"
            )
        operator = gradient_operator(target)
        error, reference, terms = u - target.u, target.u, {}
        c, places = u.shape[1], _evaluation_points(operator, target)
        for j in range(1, self.order + 1):
            terms[f"order{j}"] = self._norm(
                operator.apply(error).unflatten(1, (c, -1)),
                operator.apply(reference).unflatten(1, (c, -1)),
                places,
                operator.weights,
                j,
            )
            error, reference = (operator.nodal(v).flatten(1) for v in (error, reference))
        return terms

    def _smooth(
        self, answer: Derivatives, dummies: PointField, target: PointField
    ) -> dict[str, Tensor]:
        """Smoothing terms of the answer at dummy points."""
        volume = per_sample(target.weights, target)[:, None]
        terms = {}
        for q in range(1, len(self.smoothing) + 1):
            scale = self._integral(target.u, target, target.weights, q) / volume
            found = answer.order(q)
            for name, part in self._parts(q, found, target.pos.shape[1], smoothing=True).items():
                size = self._integral(_pick(found, part), dummies, dummies.weights, q) / volume
                terms[name] = self._root(size / scale if self.relative else size, q)
        return terms


def read_once(model: nn.Module, source: PointField, target: PointField) -> Any:
    """What the model's ``encode`` makes of the source; the source of a model that has none."""
    encode = getattr(model, "encode", None)
    return encode(source, target) if callable(encode) else source


def _pick(value: Tensor, part: _Part) -> Tensor:
    """Some blocks of derivatives, [M, c, D, ..., D] -> [M, c, entries]."""
    blocks = [value[(slice(None), slice(None), *block)].flatten(2) for block in part]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def _known(target: PointField, order: int) -> Tensor:
    """The data's derivatives of one order, [M, c, d, ...]; with time, [M, c, d + 1].

    The solver's where the target carries them, else those of the mesh.
    """
    if order == 1 and "gradient" in target:
        space: Tensor = target.gradient
        if "time_derivative" in target:
            return torch.cat([space, target.time_derivative[..., None]], dim=-1)
        return space
    # Neighbours are not sought across samples or frames.
    times = target.time
    if "cells" not in target and ("batch" in target or bool((times != times[0]).any())):
        raise FieldError(
            f"the target knows no derivatives of order {order} and has no cells to take them from; "
            "give targets with cells or a gradient, lower the order, or use a smoothing term"
        )
    operator = gradient_operator(target)
    known = target.gradient if "gradient" in target else operator.nodal(target.u)
    for _ in range(order - 1):
        known = operator.nodal(known.flatten(1)).reshape(*known.shape, -1)
    return known


def _evaluation_points(operator: GradientOperator, target: PointField) -> PointField:
    """The samples of a batch that the operator's evaluation points lie in."""
    places = PointField()
    if "batch" in target:
        row, node = operator.matrix.indices()  # sorted by row
        d = target.pos.shape[1]
        first = torch.arange(len(operator.weights), device=row.device) * d
        places.ptr, places.batch = target.ptr, target.batch[node[torch.searchsorted(row, first)]]
    return places
