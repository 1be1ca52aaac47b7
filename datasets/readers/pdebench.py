"""PDEBench: HDF5 files of many solutions on uniform grids.

Layouts, as PDEBench's generators write them (Takamoto et al., NeurIPS 2022, arXiv:2210.07182):

- one array a variable, ``tensor`` (advection, Burgers, reaction-diffusion, Darcy with its
  coefficient ``nu``) or ``density``, ``pressure``, ``Vx``, ... (compressible flow), [n, T, x, ...],
  with ``x-coordinate``, ... and ``t-coordinate`` (one entry longer than the frames);
- one group a sample, ``0000/data`` [T, x, ..., c] with ``0000/grid/x``, ``0000/grid/t``
  (diffusion-sorption, diffusion-reaction, shallow water);
- incompressible flow, ``velocity`` [n, T, x, y, 2], ``particles`` [n, T, x, y, 1], ``force``
  [n, x, y, 2] and ``t`` [n, T].
"""

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
from cst_operator.datasets.readers.grids import Placement, frames_of, grid_mesh, uniform_axis
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory

__all__ = ["read_pdebench"]

_VARIABLES = ("tensor", "density", "pressure", "Vx", "Vy", "Vz", "velocity", "particles")
_STATIC = ("nu", "force")
_SPACE = "xyz"


def read_pdebench(
    path: str | Path,
    *,
    channels: Sequence[str] | None = None,
    placement: Placement = "cells",
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a PDEBench file; every solution is read when it is asked for.

    PDEBench samples at the centres of cells, so every point has a whole cell as its weight, in
    periodic domains too. Numbers among the file's attributes (``beta``, ``eta``, ...) become
    parameters.

    Args:
        path: the ``.hdf5`` or ``.h5`` file.
        channels: names for the channels of the solution; by default those of the arrays, with
            ``tensor`` and ``data`` called ``u``, components numbered or called ``_x``, ``_y``.
        placement: where the samples lie, see
            :data:`~cst_operator.datasets.readers.grids.Placement`.
        dtype: of coordinates and values; torch's default if omitted.

    Returns:
        One trajectory a sample, [T, x y z, c]; ``nu`` and ``force`` are static channels.

    Raises:
        InputError: if the file is missing, damaged or of another layout.
    """
    path = existing(path)
    with reading(path), open_hdf5(path) as file:
        names = [name for name in _VARIABLES if name in file]
        if names:
            num_samples = len(file[names[0]])
            axes, times = _axes(file, file[names[0]], names[0], placement)
            keys: tuple[str, ...] = tuple(names)
            per_sample: tuple[str, ...] = ()
        else:
            per_sample = tuple(
                sorted(k for k in file if isinstance(file.get(f"{k}/data"), h5py.Dataset))
            )
            if not per_sample:
                raise InputError(
                    f"it has {', '.join(list(file)[:6]) or 'nothing'}; expected arrays named "
                    f"{', '.join(_VARIABLES)} or groups with data and grid"
                )
            first = file[per_sample[0]]
            num_samples, keys = len(per_sample), ("data",)
            shape = first["data"].shape
            axes = [read_array(first[f"grid/{_SPACE[i]}"]) for i in range(len(shape) - 2)]
            times = read_array(first["grid/t"]) if "grid/t" in first else None
        read = _Reader(
            path=path,
            keys=keys,
            static=tuple(name for name in _STATIC if name in file),
            groups=per_sample,
            mesh=grid_mesh(axes, placement, dtype or torch.get_default_dtype()),
            dim=len(axes),
            times=times,
            channels=None if channels is None else tuple(channels),
            parameters={
                name: float(value)
                for name, value in file.attrs.items()
                if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
            },
        )
    return LazyTrajectories(path, read, range(num_samples))


def _axes(
    file: h5py.File, dataset: h5py.Dataset, name: str, placement: Placement
) -> tuple[list[NDArray[np.floating]], NDArray[np.floating] | None]:
    stored = [f"{letter}-coordinate" for letter in _SPACE if f"{letter}-coordinate" in file]
    if stored:
        axes: list[NDArray[np.floating]] = [
            read_array(file[key]).astype(np.float64) for key in stored
        ]
    else:  # incompressible flow: the unit square
        dim = dataset.ndim - (3 if name in ("velocity", "particles") else 2)
        axes = [uniform_axis(n, 0.0, 1.0, placement) for n in dataset.shape[2 : 2 + dim]]
    times = read_array(file["t-coordinate"]) if "t-coordinate" in file else None
    return axes, times


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    keys: tuple[str, ...]
    static: tuple[str, ...]
    groups: tuple[str, ...]
    mesh: PointField
    dim: int
    times: NDArray[np.floating] | None
    channels: tuple[str, ...] | None
    parameters: dict[str, float]

    def __call__(self, index: int) -> Trajectory:
        with open_hdf5(self.path) as file:
            parts, names = [], []
            for key in self.keys:
                array = (
                    read_array(file[self.groups[index]]["data"])
                    if self.groups
                    else read_array(file[key], index)
                )
                part, name = self._frames(array, "u" if key in ("tensor", "data") else key, "t")
                parts.append(part)
                names += name
            u = np.concatenate(parts, axis=2)
            times = self._times(file, index, len(u))
            known = [self._frames(read_array(file[key], index), key, "") for key in self.static]
        times, u = sorted_frames(times, u)
        dtype = self.mesh.pos.dtype
        mesh = self.mesh
        if known:
            mesh = mesh.with_values(
                tensor(np.concatenate([part[0] for part, _ in known], axis=1), dtype),
                [name for _, part_names in known for name in part_names],
            )
        return Trajectory(
            mesh=mesh,
            times=tensor(times, dtype),
            u=tensor(u, dtype),
            channels=self.channels or tuple(names),
            parameters=self.parameters,
        )

    def _frames(self, array: NDArray, key: str, time: str) -> tuple[NDArray, list[str]]:
        space = _SPACE[: self.dim]
        axes = time + space
        if array.ndim == len(axes) + 1:
            axes += "c"
        frames = frames_of(array, axes)
        if frames.shape[1] != self.mesh.num_points:
            raise InputError(
                f"{key} has {frames.shape[1]} points but the grid {self.mesh.num_points}"
            )
        count = frames.shape[2]
        if count == 1:
            return frames, [key]
        endings = space if count == self.dim and key != "u" else map(str, range(count))
        joint = "" if key == "u" else "_"
        return frames, [f"{key}{joint}{ending}" for ending in endings]

    def _times(self, file: h5py.File, index: int, num_frames: int) -> NDArray[np.floating]:
        if self.times is not None and len(self.times) >= num_frames:
            return self.times[:num_frames]
        if "t" in file and file["t"].ndim == 2:
            return read_array(file["t"], index)[:num_frames]
        return np.arange(float(num_frames))
