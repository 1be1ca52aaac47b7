"""``.npy`` and ``.npz`` files: arrays whose dimensions are named by letters."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    LazyTrajectories,
    default_names,
    existing,
    map_array,
    reading,
    sorted_frames,
    tensor,
)
from cst_operator.datasets.readers.grids import Placement, frames_of, grid_mesh, uniform_axis
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights, point_weights

__all__ = ["read_arrays", "read_numpy"]

_SPACE = "xyz"
_MEMORY = 8 * 2**30
_VERTICES = {2: "line", 3: "triangle", 4: "quad"}


def read_numpy(
    path: str | Path,
    axes: str,
    *,
    u: str = "u",
    pos: str | NDArray[Any] | None = None,
    times: str | NDArray[Any] | None = None,
    weights: str | NDArray[Any] | None = None,
    cells: str | NDArray[Any] | None = None,
    channels: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    box: Sequence[tuple[float, float]] | None = None,
    placement: Placement = "ends",
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a ``.npy`` file, or the arrays of an ``.npz`` file, as trajectories on one point set.

    A ``.npy`` file is mapped, so samples are read when they are asked for; an ``.npz`` file is read
    once as a whole. Nothing is unpickled.

    Args:
        path: the file.
        axes: a letter for every dimension of ``u``: ``n`` samples, ``t`` time, ``x``, ``y``, ``z``
            the axes of a grid or ``p`` points, ``c`` channels; e.g. ``"ntpc"``.
        u: name of the samples in an ``.npz`` file.
        pos: coordinates of points, [N, d], as an array or by name; for grids see ``box``.
        times: times of the frames, [T], as an array or by name; 0, 1, 2, ... if omitted.
        weights: quadrature weights, [N], as an array or by name. If omitted, those of the cells, of
            the grid, or estimated by :func:`~cst_operator.quadrature.point_weights`.
        cells: vertices of lines, triangles or quadrilaterals, [n, 2..4], as an array or by name.
        channels: name of every channel; ``u0``, ``u1``, ... (``u`` if there is one) by default.
        units: unit of every channel.
        box: interval of every grid axis; the unit box if omitted.
        placement: where the samples of a grid lie.
        dtype: of coordinates and values; torch's default if omitted.

    Returns:
        One trajectory a sample; one in all if ``axes`` has no ``n``.

    Raises:
        InputError: if the file is missing, damaged, holds objects, or the shapes do not fit.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        known = {"pos": pos, "times": times, "weights": weights, "cells": cells}
        named = {key: value for key, value in known.items() if isinstance(value, str)}
        if path.suffix.lower() == ".npy":
            if named:
                raise InputError(f"a .npy file has no array {next(iter(named.values()))!r}")
            samples = map_array(path)
            arrays: dict[str, Any] = {}
        else:
            arrays = read_arrays(path, [u, *named.values()])
            samples = arrays[u]
        given = {
            key: arrays[value] if isinstance(value, str) else value for key, value in known.items()
        }
        if len(axes) != samples.ndim:
            frames_of(samples, axes)  # says what is wrong
        sizes = dict(zip(axes, samples.shape, strict=True))
        read = _Reader(
            samples=samples,
            sample_axis=axes.find("n"),
            axes=axes.replace("n", ""),
            mesh=_mesh(given, sizes, box, placement, dtype),
            times=_times(given["times"], sizes.get("t", 1)),
            channels=tuple(channels or default_names(sizes.get("c", 1))),
            units=tuple(units or ()),
        )
        frames_of(np.empty([sizes[letter] for letter in read.axes], dtype=np.int8), read.axes)
    return LazyTrajectories(path, read, range(sizes.get("n", 1)))


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of numbers of an ``.npz`` file, after a comparison of what each claims and holds.

    Raises:
        InputError: if one is missing, holds objects, or claims more than the file holds or 8 GiB.
    """
    path = existing(path)
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {Path(info.filename).stem: info for info in archive.infolist()}
        found = {}
        for name in names:
            if name not in members:
                raise InputError(f"there is no array {name!r}; it has {', '.join(members)}")
            size = members[name].file_size
            if size > _MEMORY:
                raise InputError(f"{name} has {size:,} bytes, more than {_MEMORY:,}; split it")
            with archive.open(members[name]) as file:
                if _claimed(file) > size:
                    raise InputError(f"{name} claims more values than the file holds")
            with archive.open(members[name]) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            if array.dtype.kind not in "iufb":
                raise InputError(f"{name} holds {array.dtype}; expected numbers")
            found[name] = array
        return found


def _claimed(file: IO[bytes]) -> int:
    """Bytes of the array that a header announces."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version >= (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    return int(np.prod(shape, dtype=object)) * kind.itemsize


def _mesh(
    given: dict[str, Any],
    sizes: dict[str, int],
    box: Sequence[tuple[float, float]] | None,
    placement: Placement,
    dtype: torch.dtype,
) -> PointField:
    grid = [sizes[letter] for letter in _SPACE if letter in sizes]
    if grid:
        if given["pos"] is not None:
            raise InputError("pos is for points (p); a grid (x, y, z) has a box")
        box = box or [(0.0, 1.0)] * len(grid)
        if len(box) != len(grid):
            raise InputError(f"box has {len(box)} intervals for a grid of {len(grid)} axes")
        axes = [uniform_axis(n, *ends, placement) for n, ends in zip(grid, box, strict=True)]
        return grid_mesh(axes, placement, dtype)
    num_points = sizes.get("p", 1)
    pos = given["pos"]
    if pos is None and num_points == 1:  # a function of time alone
        return PointField(torch.zeros(1, 1, dtype=dtype), weights=torch.ones(1, dtype=dtype))
    if pos is None or np.shape(pos)[:1] != (num_points,) or np.ndim(pos) != 2:
        raise InputError(
            f"pos has shape {None if pos is None else np.shape(pos)}; "
            f"expected [{num_points}, dimensions] for the points (p)"
        )
    where = tensor(np.asarray(pos), torch.float64)
    cells = {}
    if given["cells"] is not None:
        index = np.asarray(given["cells"])
        if index.ndim != 2 or index.shape[1] not in _VERTICES or index.dtype.kind not in "iu":
            raise InputError(f"cells have shape {index.shape}; expected integers, [n, 2, 3 or 4]")
        cells[_VERTICES[index.shape[1]]] = torch.from_numpy(index.astype(np.int64))
    PointField(where, cells=cells)  # refuses cells out of range before weights are made of them
    if given["weights"] is not None:
        weights = tensor(np.asarray(given["weights"]), dtype)
    else:
        weights = (node_weights(where, cells) if cells else point_weights(where)).to(dtype)
    return PointField(where.to(dtype), weights=weights, cells=cells)


def _times(given: Any, num_frames: int) -> NDArray[np.floating]:
    if given is None:
        return np.arange(float(num_frames))
    times = np.asarray(given, dtype=np.float64)
    if times.shape != (num_frames,):
        raise InputError(f"times have shape {times.shape}; expected [{num_frames}]")
    return times


@dataclass(frozen=True, kw_only=True)
class _Reader:
    samples: NDArray[Any]
    sample_axis: int
    axes: str
    mesh: PointField
    times: NDArray[np.floating]
    channels: tuple[str, ...]
    units: tuple[str, ...]

    def __call__(self, index: int) -> Trajectory:
        one = self.samples
        if self.sample_axis >= 0:
            one = one.take(index, axis=self.sample_axis)
        times, frames = sorted_frames(self.times, frames_of(np.asarray(one), self.axes))
        dtype = self.mesh.pos.dtype
        return Trajectory(
            mesh=self.mesh,
            times=tensor(times, dtype),
            u=tensor(frames, dtype),
            channels=self.channels,
            units=self.units,
        )
