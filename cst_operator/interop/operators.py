"""Neuraloperator's models in this library's training, evaluation and checkpoints."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator.errors import CheckpointError, ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.interop._networks import (
    build,
    check_config,
    check_source,
    drop_metadata,
)
from cst_operator.interop.grids import batch_layout, from_grid, to_grid
from cst_operator.normalization import Normalization
from cst_operator.peers.grid import GridBox, points_to_grid
from cst_operator.peers.samples import predict, samples

with warnings.catch_warnings():  # importing it changes the filters of the whole process
    from neuralop.layers.spectral_convolution import SpectralConv
    from neuralop.models import FNO, FNOGNO, GINO, TFNO, UNO

__all__ = [
    "GeometryOperator",
    "GeometryOperatorConfig",
    "GridOperator",
    "GridOperatorConfig",
    "load_weights",
]

_ON_GRIDS = {"fno": FNO, "tfno": TFNO, "uno": UNO}
_AT_POINTS = {"gino": GINO, "fnogno": FNOGNO}


@dataclass(frozen=True, kw_only=True)
class GridOperatorConfig:
    """Everything that makes a :class:`GridOperator`, apart from its weights."""

    architecture: str
    """"fno", "tfno" or "uno"."""
    dim: int
    """Space dimensions d."""
    in_channels: int
    """Channels of the source field."""
    out_channels: int
    """Channels of the answer."""
    arguments: Mapping[str, Any]
    """Further arguments of neuraloperator's class: numbers, strings, booleans, lists of them."""
    out_names: tuple[str, ...] = ()
    """Names of the answer's channels."""

    def __post_init__(self) -> None:
        check_config(self, _ON_GRIDS)


class GridOperator(nn.Module):
    """Neuraloperator's FNO, TFNO or UNO on fields whose points make regular grids.

    The points of a source make a grid of any shape, in any order; the answer is at the same
    points. Sources and answers are at unit scale for the network, which runs in single precision.
    For irregular points see :class:`~cst_operator.GridFNO` and :class:`GeometryOperator`.

    Args:
        config: see :class:`GridOperatorConfig`.

    Raises:
        ConfigError: if neuraloperator refuses the arguments.

    Source: Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, 2021;
    Kossaifi et al., Multi-Grid Tensorized Fourier Neural Operator, 2023; Rahman et al., U-NO,
    2023; neuraloperator 2.0.
    """

    def __init__(self, config: GridOperatorConfig) -> None:
        super().__init__()
        self.config = config
        self.normalization = Normalization(config.dim, config.in_channels, config.out_channels)
        self.network = build(_ON_GRIDS[config.architecture], config, {})
        self.register_state_dict_post_hook(drop_metadata)

    def forward(self, source: PointField, target: PointField) -> Tensor:
        """Answer at the target's points, [M, c], which are those of the source.

        Args:
            source: known field on a regular grid, or a PyG batch of such fields.
            target: the same points.

        Raises:
            FieldError: if the source makes no regular grid, or the target has other points.
        """
        check_source(source, self.config)
        shape, place = batch_layout(source)
        if target.pos.shape != source.pos.shape or not torch.allclose(
            target.pos, source.pos, atol=1e-5 * float(self.normalization.pos_scale)
        ):
            raise FieldError(
                "the target has other points than the source; this model answers where it reads, "
                "so use cst_operator.GridFNO or GeometryOperator"
            )
        x = to_grid(self.normalization.encode(source.u), shape, place)
        with torch.autocast(x.device.type, enabled=False):  # FFTs need full precision
            y = self.network(x.float())
        if y.shape[2:] != x.shape[2:]:
            raise FieldError(
                f"the network answers on {tuple(y.shape[2:])} points for {shape}; "
                "choose arguments that keep the resolution, for UNO its uno_scalings"
            )
        return self.normalization.decode(from_grid(y.to(x), place))

    def predict(self, source: PointField, target: PointField, *, chunk: int = 16384) -> PointField:
        """Answer at one field's points as a field that keeps the target's cells.

        Args:
            source: one known field.
            target: the query points.
            chunk: accepted for the common interface.
        """
        return predict(self, source, target, self.config.out_names)

    def fit_normalization(self, examples: Iterable[Example]) -> "GridOperator":
        """Measure scales on training examples; see :class:`~cst_operator.Normalization`."""
        self.normalization.fit(examples)
        return self


@dataclass(frozen=True, kw_only=True)
class GeometryOperatorConfig:
    """Everything that makes a :class:`GeometryOperator`, apart from its weights."""

    architecture: str
    """"gino" or "fnogno"."""
    dim: int
    """Space dimensions d, 2 or 3."""
    in_channels: int
    """Channels of the source field."""
    out_channels: int
    """Channels of the answer."""
    resolution: int = 16
    """Points of the latent grid along every axis."""
    arguments: Mapping[str, Any]
    """Further arguments of neuraloperator's class: numbers, strings, booleans, lists of them."""
    out_names: tuple[str, ...] = ()
    """Names of the answer's channels."""

    def __post_init__(self) -> None:
        check_config(self, _AT_POINTS)
        if self.dim not in (2, 3):
            raise ConfigError(f"dim is {self.dim}; expected 2 or 3")
        if self.resolution < 2:
            raise ConfigError(f"resolution is {self.resolution}; expected at least 2")


class GeometryOperator(nn.Module):
    """Neuraloperator's GINO or FNOGNO, from sources at any points to queries at any points.

    The training set's box becomes the unit box of the latent grid. GINO reads the source through
    neighbourhoods; FNOGNO reads it on the latent grid, to which it is interpolated linearly. Both
    know one geometry at a time, so samples of a batch are answered one after the other.

    Args:
        config: see :class:`GeometryOperatorConfig`; radii in ``arguments`` are in units of the
            training set's longest side.

    Raises:
        ConfigError: if neuraloperator refuses the arguments.

    Source: Li et al., Geometry-Informed Neural Operator for Large-Scale 3D PDEs, 2023;
    neuraloperator 2.0.
    """

    def __init__(self, config: GeometryOperatorConfig) -> None:
        super().__init__()
        self.config = config
        self.normalization = Normalization(config.dim, config.in_channels, config.out_channels)
        defaults: dict[str, Any] = {
            "gno_coord_dim": config.dim,
            "fno_n_modes": [config.resolution // 2] * config.dim,
            **({"fno_in_channels": config.in_channels} if config.architecture == "gino" else {}),
            # Neither is a dependency of neuraloperator; both need builds for one version of torch.
            "gno_use_open3d": False,
            "gno_use_torch_scatter": False,
        }
        self.network = build(_AT_POINTS[config.architecture], config, defaults)
        self.register_state_dict_post_hook(drop_metadata)

    def forward(self, source: PointField, target: PointField) -> Tensor:
        """Answer at the target's points, [M, c].

        Args:
            source: known field, or a PyG batch of fields.
            target: query points, or a batch of them.

        Raises:
            FieldError: if channels, dimensions or numbers of samples do not fit.
        """
        check_source(source, self.config)
        known, asked = samples(source), samples(target)
        if len(known) != len(asked):
            raise FieldError(
                f"the source has {len(known)} samples and the target {len(asked)}; batch both alike"
            )
        latent = self._latent(source.pos)
        rows = []
        with torch.autocast(source.pos.device.type, enabled=False):  # FFTs need full precision
            for here, there in zip(known, asked, strict=True):
                u, queries = self.normalization.encode(here.u).float(), self._unit(there.pos)
                if self.config.architecture == "gino":
                    answer = self.network(
                        input_geom=self._unit(here.pos)[None],
                        latent_queries=latent[None],
                        output_queries=queries[None],
                        x=u[None],
                    )[0]
                else:
                    stencil = points_to_grid(here.pos, here.cells or None, self._box())
                    f = stencil.apply(u).view(*latent.shape[:-1], -1)
                    answer = self.network(in_p=latent, out_p=queries, f=f)
                rows.append(answer)
        return self.normalization.decode(torch.cat(rows).to(source.u))

    def _unit(self, pos: Tensor) -> Tensor:
        """Coordinates with the box in [0, 1]."""
        return (self.normalization.coordinates(pos, None).float() + 1) / 2

    def _latent(self, like: Tensor) -> Tensor:
        """The latent grid of the unit box, [g, ..., g, d]."""
        axis = torch.linspace(0, 1, self.config.resolution, device=like.device)
        axes = torch.meshgrid(*(axis,) * self.config.dim, indexing="ij")
        return torch.stack(axes, dim=-1)

    def _box(self) -> GridBox:
        center = self.normalization.pos_center.double().cpu()
        half = self.normalization.pos_scale.double().cpu()
        lower, upper = center - half, center + half
        return GridBox(tuple(lower.tolist()), tuple(upper.tolist()), self.config.resolution)

    def predict(self, source: PointField, target: PointField, *, chunk: int = 16384) -> PointField:
        """Answer at one field's points as a field that keeps the target's cells.

        Args:
            source: one known field.
            target: the query points.
            chunk: accepted for the common interface.
        """
        return predict(self, source, target, self.config.out_names)

    def fit_normalization(self, examples: Iterable[Example]) -> "GeometryOperator":
        """Measure scales and the box on training examples; see Normalization."""
        self.normalization.fit(examples)
        return self


def load_weights(model: GridOperator | GeometryOperator, path: str | Path) -> None:
    """Put the weights of neuraloperator's own checkpoint into a model, without running code.

    Args:
        model: of the same architecture and arguments.
        path: ``NAME_state_dict.pt``, as ``save_checkpoint`` or the Trainer wrote it.

    Raises:
        CheckpointError: if the file is missing, holds objects other than tensors and settings, or
            does not fit.
    """
    path = Path(path)
    try:
        # The arguments that neuraloperator writes beside the tensors hold these by default.
        with torch.serialization.safe_globals([nn.functional.gelu, SpectralConv]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}; check the path") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise CheckpointError(
            f"{path} cannot be read as a state dict of neuraloperator: "
            f"{str(error).splitlines()[0]}; save it again with save_checkpoint"
        ) from error
    state.pop("_metadata", None)
    try:
        nn.Module.load_state_dict(model.network, state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the network: {' '.join(str(error).split())}; "
            "use the arguments it was made with"
        ) from error


checkpoint.register("neuralop-grid", GridOperatorConfig, GridOperator)
checkpoint.register("neuralop-points", GeometryOperatorConfig, GeometryOperator)
