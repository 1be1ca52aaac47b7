"""Geo-FNO's ``.npy`` arrays: every sample has a shape of its own, hence points of its own.

The files of Li et al. (JMLR 2023, arXiv:2207.05209), by kind: scattered points, where coordinates
are [N, d, n] and values [N, n] (elasticity, ``Random_UnitCell_XY_10``, ``..._sigma_10``); and
deformed grids, where every coordinate is [n, i, j] and values [n, c, i, j] (``NACA_Cylinder_X``,
``_Y``, ``_Q``; ``Pipe_X``, ``_Y``, ``_Q``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    LazyTrajectories,
    default_names,
    existing,
    map_array,
    reading,
    tensor,
)
from cst_operator.datasets.readers.grids import grid_cells
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights, point_weights

__all__ = ["read_geo_fno"]


def read_geo_fno(
    values: str | Path,
    *coordinates: str | Path,
    channels: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open Geo-FNO's arrays as trajectories of one frame, each on its own points.

    Files are mapped, so samples are read when they are asked for. Deformed grids become
    quadrilaterals, whose areas give the weights; scattered points have none, and theirs are
    estimated by :func:`~cst_operator.quadrature.point_weights`.

    Args:
        values: the ``.npy`` file of the solutions, [N, n] or [n, c, i, j].
        coordinates: that of the points, [N, d, n], or one per coordinate of a grid, [n, i, j].
        channels: name of every channel; ``u0``, ``u1``, ... (``u`` if there is one) by default.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if a file is missing, damaged or holds objects, or the shapes do not fit.
    """
    path, places = existing(values), tuple(existing(file) for file in coordinates)
    shapes = []
    for file in (path, *places):
        with reading(file):
            shapes.append(map_array(file).shape)
    own, *others = shapes
    is_grid = len(own) == 4 and others == [(own[0], *own[2:])] * 2
    is_scattered = len(own) == 2 and len(others) == 1 and len(others[0]) == 3
    if not is_grid and not (is_scattered and others[0][::2] == own):
        raise InputError(
            f"{path}: values have shape {own} and coordinates {', '.join(map(str, others))}; "
            "expected [N, n] with [N, d, n], or [n, c, i, j] with two of [n, i, j]"
        )
    count = own[1] if is_grid else 1
    names = tuple(channels or default_names(count))
    if len(names) != count:
        raise InputError(f"{path}: {len(names)} names for {count} channels; give one each")
    read = _Reader(
        values=path,
        coordinates=places,
        channels=names,
        cells=grid_cells(own[2:]) if is_grid else {},
        dtype=dtype or torch.get_default_dtype(),
    )
    return LazyTrajectories(path, read, range(own[0] if is_grid else own[1]))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    values: Path
    coordinates: tuple[Path, ...]
    channels: tuple[str, ...]
    cells: dict[str, torch.Tensor]
    dtype: torch.dtype

    def __call__(self, index: int) -> Trajectory:
        values = map_array(self.values)
        points = [map_array(file) for file in self.coordinates]
        if self.cells:
            pos = np.stack([axis[index].ravel() for axis in points], axis=1)
            u = values[index].reshape(len(self.channels), -1).T
        else:
            pos, u = points[0][:, :, index], values[:, index, None]
        return Trajectory(
            mesh=self._mesh(pos),
            times=torch.zeros(1, dtype=self.dtype),
            u=tensor(u[None], self.dtype),
            channels=self.channels,
        )

    def _mesh(self, pos: NDArray[np.floating]) -> PointField:
        where = tensor(pos, torch.float64)
        PointField(where)  # refuses coordinates that are not finite before weights are made
        weights = node_weights(where, self.cells) if self.cells else point_weights(where)
        return PointField(where.to(self.dtype), weights=weights.to(self.dtype), cells=self.cells)
