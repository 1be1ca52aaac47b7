"""Fourier neural operator on irregular meshes: through a grid and back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.normalization import Normalization
from cst_operator.peers.grid import GridBox, grid_to_points, points_to_grid
from cst_operator.peers.samples import channel_names, predict, samples, starts

__all__ = ["GridFNO", "GridFNOConfig"]


@dataclass(frozen=True, kw_only=True)
class GridFNOConfig:
    """Everything that makes a :class:`GridFNO`, apart from its weights."""

    dim: int
    """Space dimensions d, 2 or 3."""
    in_channels: int
    """Channels of the source field."""
    out_channels: int
    """Channels of the answer."""
    in_names: tuple[str, ...] = ()
    """Names of the source channels, checked against the data where given."""
    out_names: tuple[str, ...] = ()
    """Names of the answer's channels."""
    transient: bool = False
    """Whether the time that has passed since the source is an input."""
    modes: int = 16
    """Fourier modes kept along every axis."""
    width: int = 24
    """Hidden channels."""
    layers: int = 4
    """Number of Fourier layers."""
    resolution: int = 32
    """Grid points along every axis."""
    padding: float = 0.05
    """Margin of the grid on every side, in parts of the training box's side."""

    def __post_init__(self) -> None:
        if self.dim not in (2, 3):
            raise ConfigError(f"dim is {self.dim}; expected 2 or 3")
        for name in ("in_channels", "out_channels", "modes", "width", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.modes > self.resolution:
            raise ConfigError(
                f"modes is {self.modes} but a grid of {self.resolution} points a side has no more "
                f"than {self.resolution}; lower modes or raise resolution"
            )
        if self.resolution < 2:
            raise ConfigError(f"resolution is {self.resolution}; expected at least 2")
        if self.padding < 0:
            raise ConfigError(f"padding is {self.padding}; expected zero or more")
        for name, count in (("in_names", self.in_channels), ("out_names", self.out_channels)):
            names = getattr(self, name)
            if names and len(names) != count:
                raise ConfigError(f"{name} lists {len(names)} channels; expected {count}")


class GridFNO(nn.Module):
    r"""Neuraloperator's FNO between two interpolations, for sources and queries at any points.

    The source goes to a regular grid over the training set's bounding box by linear
    interpolation on its own cells (on a Delaunay triangulation without cells), with the value of
    the nearest point outside the domain; a mask of the domain, the distance to it, and the
    coordinates join as channels; the FNO runs; its answer is read at the query points by
    multilinear interpolation. Gradients flow through both interpolations. The network runs in
    single precision whatever the precision of the fields, because the FNO knows no other.

    Args:
        config: see :class:`GridFNOConfig`.

    Raises:
        ConfigError: if neuraloperator is not installed.

    Source: Li et al., Fourier Neural Operator for Parametric Partial Differential Equations,
    ICLR 2021; neuraloperator 2.0.
    """

    box_lower: Tensor
    box_upper: Tensor

    def __init__(self, config: GridFNOConfig) -> None:
        super().__init__()
        try:
            from neuralop.models import FNO
        except ImportError as error:
            raise ConfigError(
                "GridFNO needs neuraloperator, which is not installed; "
                "install it with: pip install neuraloperator"
            ) from error
        self.config = config
        self.normalization = Normalization(config.dim, config.in_channels, config.out_channels)
        self.register_buffer("box_lower", torch.full((config.dim,), -1.0))
        self.register_buffer("box_upper", torch.full((config.dim,), 1.0))
        self.fno = FNO(
            n_modes=(config.modes,) * config.dim,
            in_channels=config.in_channels + 2 + config.dim + int(config.transient),
            out_channels=config.out_channels,
            hidden_channels=config.width,
            n_layers=config.layers,
            positional_embedding=None,  # its cache forgets the device; coordinates come from here
        )
        self.register_state_dict_post_hook(_drop_metadata)

    @property
    def grid(self) -> GridBox:
        """The grid: the training set's box with its margin."""
        lower, upper = self.box_lower.double().cpu(), self.box_upper.double().cpu()
        margin = self.config.padding * (upper - lower)
        return GridBox(
            tuple((lower - margin).tolist()),
            tuple((upper + margin).tolist()),
            self.config.resolution,
        )

    def forward(self, source: PointField, target: PointField) -> Tensor:
        """Answer at the target's points.

        Args:
            source: known field with N points, or a PyG batch of such fields.
            target: query points, M in all; only their coordinates are read.

        Returns:
            One row per query point in the user's units, [M, c].

        Raises:
            FieldError: if the channels do not fit, a sample's source spans several times, or the
                target asks for another time than the source's and the model is not transient.
        """
        self._check(source, target)
        grid = self.grid
        queried = _sample_of_rows(target)
        x = self._to_grid(source, grid)
        if self.config.transient:
            now = source.time[torch.tensor(starts(source)[:-1], device=source.time.device)]
            passed = (target.time - now[queried]) / self.normalization.time_scale
            pairs, row = torch.unique(
                torch.stack([queried.to(passed), passed], dim=1), dim=0, return_inverse=True
            )
            clock = pairs[:, 1:].to(x)[..., None].expand(-1, -1, grid.num_points)
            x = torch.cat([x[pairs[:, 0].long()], clock], dim=1)
        else:
            row = queried
        x = x.unflatten(2, (grid.resolution,) * grid.dim)
        with torch.autocast(x.device.type, enabled=False):  # FFTs need full precision
            y = self.fno(x.float())
        u = grid_to_points(y.to(target.pos.dtype), target.pos, row, grid)
        return self.normalization.decode(u).to(target.pos.dtype)

    def _to_grid(self, source: PointField, grid: GridBox) -> Tensor:
        """Channels, mask, distance to the domain and coordinates on the grid, [B, ., G]."""
        values = self.normalization.encode(source.u)
        bounds = starts(source)
        rows = []
        for sample, low, high in zip(samples(source), bounds[:-1], bounds[1:], strict=True):
            stencil = points_to_grid(sample.pos, sample.cells or None, grid)
            here = stencil.apply(values[low:high])
            rows.append(torch.cat([here, stencil.outside.to(here)], dim=1))
        unit = torch.linspace(-1, 1, grid.resolution, dtype=values.dtype, device=values.device)
        axes = torch.meshgrid(*(unit,) * grid.dim, indexing="ij")
        place = torch.stack([a.flatten() for a in axes])  # [d, G]
        return torch.cat(
            [torch.stack(rows).transpose(1, 2), place.expand(len(rows), -1, -1)], dim=1
        )

    def _check(self, source: PointField, target: PointField) -> None:
        config = self.config
        names = channel_names(source)
        if source.u.shape[1] != config.in_channels or (
            config.in_names and names != config.in_names
        ):
            wanted = ", ".join(config.in_names) or f"{config.in_channels} channels"
            raise FieldError(
                f"the source has channels {', '.join(names) or 'none'}; the model reads {wanted}; "
                "choose them with field.select(...)"
            )
        for field in (source, target):
            if field.pos.shape[1] != config.dim:
                raise FieldError(
                    f"the points have {field.pos.shape[1]} space dimensions; "
                    f"the model was made for {config.dim}"
                )
        if len(starts(source)) != len(starts(target)):
            raise FieldError(
                f"the source has {len(starts(source)) - 1} samples and the target "
                f"{len(starts(target)) - 1}; batch both alike"
            )
        now = source.time[torch.tensor(starts(source)[:-1], device=source.time.device)]
        if bool((source.time != now[_sample_of_rows(source)]).any()):
            raise FieldError("GridFNO reads one frame but the source spans several times; give one")
        if not config.transient and bool((target.time != now[_sample_of_rows(target)]).any()):
            raise FieldError(
                "the target asks for another time than the source's; "
                "make the model with GridFNOConfig(transient=True)"
            )

    def predict(self, source: PointField, target: PointField, *, chunk: int = 16384) -> PointField:
        """Answer at one field's points as a field that keeps the target's cells.

        Args:
            source: one known field.
            target: the query points.
            chunk: accepted for the common interface; the grid bounds the memory.
        """
        return predict(self, source, target, self.config.out_names)

    def fit_normalization(self, examples: Iterable[Example]) -> "GridFNO":
        """Measure scales and the grid's box on training examples, in one pass.

        Raises:
            FieldError: if there are no examples, weights are missing, or the points lie on one
                line along an axis.
        """
        boxes: list[Tensor] = []
        self.normalization.fit(_measured(examples, boxes))
        corners = torch.stack(boxes)  # [examples, 2, d]
        lower, upper = corners[:, 0].amin(dim=0), corners[:, 1].amax(dim=0)
        if bool((upper <= lower).any()):
            raise FieldError(
                "the training points have no extent along an axis, so no grid covers them; "
                "drop that coordinate"
            )
        self.box_lower.copy_(lower)
        self.box_upper.copy_(upper)
        return self


def _measured(examples: Iterable[Example], boxes: list[Tensor]) -> Iterator[Example]:
    for example in examples:
        pos = torch.cat([example.source.pos, example.target.pos])
        boxes.append(torch.stack([pos.amin(dim=0), pos.amax(dim=0)]).cpu())
        yield example


def _sample_of_rows(field: PointField) -> Tensor:
    """Number of the sample that each point belongs to, [rows]."""
    batch: Tensor | None = field.get("batch")
    if batch is None:
        return torch.zeros(len(field.pos), dtype=torch.long, device=field.pos.device)
    return batch


def _drop_metadata(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Neuraloperator adds its constructor's arguments to the state, which are not tensors."""
    state.pop("_metadata", None)
