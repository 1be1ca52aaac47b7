"""The transformer as one of neuraloperator's models."""

import dataclasses
import difflib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cst_operator.config_json import config_to_json
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField
from cst_operator.interop.grids import unit_grid
from cst_operator.model import CSTOperator

with warnings.catch_warnings():  # importing it changes the filters of the whole process
    from neuralop.models.base_model import BaseModel

__all__ = ["CST"]

_SETTINGS = dataclasses.fields(CSTConfig)


class CST(BaseModel, name="CST"):  # type: ignore[call-arg]
    """A :class:`~cst_operator.CSTOperator` on the dense tensors that neuraloperator passes around.

    It is registered as ``"cst"``, so that ``neuralop.models.get_model`` builds it, trains under
    neuraloperator's ``Trainer``, and has its ``save_checkpoint`` and ``from_checkpoint``. Arguments
    are keywords, numbers, strings and tuples of them, so that its state dict is read with torch's
    ``weights_only=True``; keys that begin with an underscore, which zencfg adds, are ignored.

    Args:
        lower: smallest coordinate, one number or d of them; [lower, upper] becomes the unit scale
            in which lengths of the configuration are given. ``operator.fit_normalization``
            overrides it.
        upper: largest coordinate.
        start: first time of a transient problem.
        end: last time.
        **settings: every field of :class:`~cst_operator.CSTConfig`: ``dim``, ``in_channels`` and
            ``out_channels`` must be given.

    Raises:
        ConfigError: if a setting is unknown, missing or out of range.

    Source: neuraloperator 2.0, Kossaifi et al., A Library for Learning Neural Operators, 2024.
    """

    operator: CSTOperator
    """The model itself; :func:`cst_operator.save` writes it."""

    def __init__(
        self,
        *,
        lower: float | Sequence[float] = 0.0,
        upper: float | Sequence[float] = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        config = _config(settings)
        self.operator = CSTOperator(config)
        low, high = (torch.as_tensor(v).float().expand(config.dim) for v in (lower, upper))
        if bool((high <= low).any()) or end <= start:
            raise ConfigError(
                f"the box from {lower} to {upper}, times {start} to {end}, is empty; upper and end "
                "must be larger than lower and start"
            )
        normalization = self.operator.normalization
        normalization.pos_center.copy_((low + high) / 2)
        normalization.pos_scale.copy_((high - low).amax() / 2)
        normalization.time_center.fill_((start + end) / 2)
        normalization.time_scale.fill_((end - start) / 2)

    @classmethod
    def from_operator(cls, operator: CSTOperator) -> "CST":
        """Neuraloperator's form of a model of this library, with a copy of its weights.

        Args:
            operator: e.g. what :func:`cst_operator.load` returned.
        """
        model = cls(**config_to_json(operator.config))
        weights = operator.state_dict()
        model.operator.to(next(operator.parameters()))  # its device and precision
        model.operator.load_state_dict(weights)
        return model.train(operator.training)

    def forward(
        self,
        x: Tensor,
        pos: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
        time: Tensor | None = None,
        query_pos: Tensor | None = None,
        query_mask: Tensor | None = None,
        query_time: Tensor | None = None,
        output_shape: Sequence[int] | None = None,
        **ignored: Any,
    ) -> Tensor:
        """Answer on a grid or at points.

        On a grid, ``x`` is [B, c, n1, ..., nd] with points at i / n of the unit box, which is where
        neuraloperator's models have them; the answer is [B, c_out, n1, ..., nd], or on the grid of
        ``output_shape``. With ``pos``, ``x`` is [B, N, c] at points, and the answer is
        [B, M, c_out], zero where there is no query.

        Args:
            x: samples of the source.
            pos: coordinates of the source, [B, N, d], or [N, d] for one geometry.
            weights: quadrature weights of the source, [B, N] or [N]; equal if omitted.
            mask: true at points, false at padding, [B, N]; all points if omitted.
            time: times of the source, [B, N]; zeros if omitted.
            query_pos: where to answer, [B, M, d] or [M, d]; at the source if omitted.
            query_mask: true at queries, false at padding, [B, M].
            query_time: times of the queries, [B, M].
            output_shape: points along every axis of the grid of the answer.
            **ignored: what else a batch holds, e.g. ``y``.

        Raises:
            FieldError: if shapes do not fit, or a sample has no points.
        """
        if pos is None:
            return self._on_grid(x, output_shape)
        _check_points(x, pos, self.operator.config)
        source, _ = _field(pos, x, weights, mask, time, len(x))
        if query_pos is None:
            query_mask = mask if query_mask is None else query_mask
            query_time = time if query_time is None else query_time
        target, asked = _field(
            pos if query_pos is None else query_pos, None, None, query_mask, query_time, len(x)
        )
        rows = self.operator(source, target)
        out: Tensor = rows.new_zeros(*asked.shape, rows.shape[-1])
        out[asked] = rows
        return out

    def _on_grid(self, x: Tensor, output_shape: Sequence[int] | None) -> Tensor:
        dim = self.operator.config.dim
        if x.dim() != dim + 2:
            raise FieldError(
                f"x has shape {tuple(x.shape)}; without pos a model with dim={dim} expects "
                f"[batch, channels] and {dim} axes of a grid; give pos for [batch, points, "
                "channels] at points"
            )
        shape = tuple(x.shape[2:]) if output_shape is None else tuple(output_shape)
        here = unit_grid(x.shape[2:]).to(x)
        there = unit_grid(shape).to(x)
        source, _ = _field(here, x.flatten(2).transpose(1, 2), None, None, None, len(x))
        target, _ = _field(there, None, None, None, None, len(x))
        rows = self.operator(source, target)
        return rows.view(len(x), -1, rows.shape[-1]).transpose(1, 2).unflatten(2, shape)


# What BaseModel inspects for defaults and records in checkpoints, without listing every setting of
# the configuration twice.
CST.__signature__ = inspect.Signature(
    [
        *(
            parameter
            for name, parameter in inspect.signature(CST.__init__).parameters.items()
            if name not in ("self", "settings")
        ),
        *(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.default is dataclasses.MISSING
                else field.default,
            )
            for field in _SETTINGS
        ),
    ]
)


def _config(settings: Mapping[str, Any]) -> CSTConfig:
    known = [field.name for field in _SETTINGS]
    # Configuration files have lists where the class has tuples.
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
        if not key.startswith("_")
    }
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"CST has no setting {key!r}"
                + (f"; nearest: {near[0]!r}" if near else f"; it has {', '.join(known)}")
            )
    for field in _SETTINGS:
        if field.default is dataclasses.MISSING and field.name not in given:
            raise ConfigError(f"{field.name} is missing; build CST with CST({field.name}=..., ...)")
    return CSTConfig(**given)


def _check_points(x: Tensor, pos: Tensor, config: CSTConfig) -> None:
    if x.dim() != 3 or pos.shape[-1] != config.dim or x.shape[1] != pos.shape[-2]:
        raise FieldError(
            f"x has shape {tuple(x.shape)} and pos {tuple(pos.shape)}; expected [batch, points, "
            f"channels] and [batch, points, {config.dim}] with as many points"
        )


def _field(
    pos: Tensor,
    u: Tensor | None,
    weights: Tensor | None,
    mask: Tensor | None,
    time: Tensor | None,
    size: int,
) -> tuple[PointField, Tensor]:
    """Padded tensors as one batch of fields, as PyG's loader makes it, and its mask, [B, N]."""
    pos = pos.expand(size, -1, -1) if pos.dim() == 3 else pos[None].expand(size, -1, -1)
    if mask is None:
        mask = torch.ones(pos.shape[:2], dtype=torch.bool, device=pos.device)
    mask = mask.to(pos.device, torch.bool).expand(pos.shape[:2])
    counts = mask.sum(1)
    if bool((counts == 0).any()):
        raise FieldError("a sample has no points; leave it out, or correct its mask")
    field = PointField()
    field.pos = pos[mask]
    field.time = pos.new_zeros(len(field.pos)) if time is None else time.expand(mask.shape)[mask]
    field.u = pos.new_zeros(len(field.pos), 0) if u is None else u[mask]
    field.weights = (
        pos.new_ones(len(field.pos)) if weights is None else weights.expand(mask.shape)[mask]
    )
    field.batch = torch.arange(size, device=pos.device).repeat_interleave(counts)
    # On the host, where the layout is made.
    field.ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).cpu()
    return field, mask
