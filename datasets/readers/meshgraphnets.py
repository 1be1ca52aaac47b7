"""Trajectories on meshes by MeshGraphNets' names, in HDF5 or netCDF-4.

Names of Pfaff et al. (ICLR 2021, arXiv:2010.03409): ``mesh_pos`` [N, d], ``cells`` [n, 3],
``node_type`` [N, 1] and fields such as ``velocity`` [T, N, 2] and ``pressure`` [T, N, 1]. What does
not change may be repeated in every frame, as in the original records; a file holds one
trajectory, or one a group.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    LazyTrajectories,
    existing,
    open_hdf5,
    read_array,
    reading,
    sorted_frames,
    tensor,
)
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights

__all__ = ["read_meshgraphnets"]

_POS = ("mesh_pos", "pos")
_TIMES = ("time", "times")
_KINDS = {(3, 2): "triangle", (3, 3): "triangle", (4, 2): "quad", (4, 3): "tetra"}


def read_meshgraphnets(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    interval: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a file of trajectories on meshes; each is read when it is asked for.

    Weights are those of the cells. ``node_type`` is a static channel; components of vectors are
    called ``velocity_x``, ``velocity_y``. Groups are taken by the numbers in their names.

    Args:
        path: an HDF5 (``.h5``) or netCDF-4 (``.nc``) file.
        fields: names of fields in time; by default all arrays [T, N, ...].
        interval: time between frames, where the file has no ``time``.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged or of another layout.
        MeshError: if the mesh changes in time or has degenerate cells.
    """
    path = existing(path)
    with reading(path), open_hdf5(path) as file:
        found = (name for name in file if isinstance(file[name], h5py.Group))
        groups = tuple(sorted(found, key=_by_number))
        if not groups:
            groups = ("/",)
        for name in groups:
            if "cells" not in file[name] or not any(key in file[name] for key in _POS):
                raise InputError(
                    f"{name} has no mesh_pos and cells; it has {', '.join(file[name])}"
                )
    read = _Reader(
        path=path,
        groups=groups,
        fields=None if fields is None else tuple(fields),
        interval=interval,
        dtype=dtype or torch.get_default_dtype(),
    )
    return LazyTrajectories(path, read, range(len(groups)))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    groups: tuple[str, ...]
    fields: tuple[str, ...] | None
    interval: float
    dtype: torch.dtype

    def __call__(self, index: int) -> Trajectory:
        with open_hdf5(self.path) as file:
            group = file[self.groups[index]]
            where = tensor(_still(group, next(k for k in _POS if k in group)), torch.float64)
            cells = _cells(_still(group, "cells"), where)
            names = self.fields or _moving(group, len(where))
            absent = [name for name in names if name not in group]
            if absent or not names:
                raise InputError(
                    f"there is no field {', '.join(absent) or 'in time'}; it has {', '.join(group)}"
                )
            parts = [read_array(group[name]) for name in names]
            kind = _still(group, "node_type") if "node_type" in group else None
            given = next((read_array(group[k]).ravel() for k in _TIMES if k in group), None)
        parts = [part.reshape(len(part), len(where), -1) for part in parts]
        times = np.arange(len(parts[0])) * self.interval if given is None else given
        times, u = sorted_frames(times, np.concatenate(parts, axis=2))
        PointField(where, cells=cells)  # refuses cells out of range before weights are made of them
        return Trajectory(
            mesh=PointField(
                where.to(self.dtype),
                None if kind is None else tensor(kind.reshape(len(where), 1), self.dtype),
                node_weights(where, cells).to(self.dtype),
                channels=() if kind is None else ("node_type",),
                cells=cells,
            ),
            times=tensor(times, self.dtype),
            u=tensor(u, self.dtype),
            channels=tuple(
                label
                for name, part in zip(names, parts, strict=True)
                for label in _labels(name, part.shape[2])
            ),
        )


def _by_number(name: str) -> list[int | str]:
    """What sorts ``trajectory_2`` before ``trajectory_10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _still(group: h5py.Group, name: str) -> NDArray:
    """An array that does not change in time, [rows, columns], even if every frame repeats it."""
    array = read_array(group[name])
    if array.ndim == 3:
        if not (array == array[:1]).all():
            raise InputError(f"{name} changes in time; only fixed meshes are read")
        array = array[0]
    return array


def _cells(index: NDArray, pos: torch.Tensor) -> dict[str, torch.Tensor]:
    kind = _KINDS.get((index.shape[-1], pos.shape[1]))
    if kind is None or index.dtype.kind not in "iu":
        raise InputError(f"cells have shape {index.shape} in {pos.shape[1]} dimensions")
    return {kind: torch.from_numpy(index.astype(np.int64))}


def _moving(group: h5py.Group, num_points: int) -> tuple[str, ...]:
    skip = {*_POS, *_TIMES, "cells", "node_type"}
    return tuple(
        name
        for name, item in group.items()
        if name not in skip
        and isinstance(item, h5py.Dataset)
        and item.ndim in (2, 3)
        and item.shape[1] == num_points
        and item.dtype.kind in "iuf"
    )


def _labels(name: str, count: int) -> list[str]:
    if count == 1:
        return [name]
    return [f"{name}_{end}" for end in ("xyz"[:count] if count < 4 else range(count))]
