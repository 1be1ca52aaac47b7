"""FNO's ``.mat`` files: MATLAB 5 (through scipy) and 7.3 (HDF5), inputs and outputs on one grid.

The files of Li et al. (ICLR 2021, arXiv:2010.08895): Burgers ``a``, ``u`` [n, x]; Darcy ``coeff``,
``sol`` [n, x, y]; Navier-Stokes ``a`` [n, x, y], ``u`` [n, x, y, T], ``t`` [1, T].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from cst_operator.datasets.readers._reading import (
    DEFLATE,
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

__all__ = ["read_mat"]

_PAIRS: tuple[tuple[str, str, Placement], ...] = (
    ("coeff", "sol", "ends"),
    ("a", "u", "periodic"),
    ("input", "output", "periodic"),
)
_SPACE = "xyz"


def read_mat(
    path: str | Path,
    *,
    input: str | None = None,
    output: str | None = None,
    time: str = "t",
    placement: Placement | None = None,
    box: Sequence[tuple[float, float]] | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a ``.mat`` file of inputs and outputs.

    The first dimension counts samples; an output with one dimension more than the input has time
    last. Files of version 7.3 are read sample by sample, those of version 5 as a whole (their
    format cannot be read in part), but only the variables that are needed.

    Args:
        path: the ``.mat`` file.
        input: name of the input, the static channel; ``a``, ``coeff`` or ``input`` by default.
        output: name of the output, the solution; ``u``, ``sol`` or ``output`` by default.
        time: name of the times; if there is none, frames are one unit apart from 1 on.
        placement: where the samples lie; ``"ends"`` for ``coeff`` and ``sol`` (Darcy), else
            ``"periodic"``.
        box: interval of every grid axis; the unit box if omitted.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged, or has no such variables.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        is_hdf5 = h5py.is_hdf5(path)
        shapes = _hdf5_shapes(path) if is_hdf5 else _shapes(path)
        names = _names(shapes, input, output)
        source, target = shapes[names[0]], shapes[names[1]]
        transient = len(target) - len(source)
        if transient not in (0, 1) or target[: len(source)] != source or len(source) < 2:
            raise InputError(
                f"{names[0]} has shape {source} and {names[1]} {target}; expected [n, x, ...] and "
                "[n, x, ...] or [n, x, ..., T]"
            )
        dim = len(source) - 1
        box = box or [(0.0, 1.0)] * dim
        if len(box) != dim:
            raise InputError(f"box has {len(box)} intervals for a grid of {dim} axes")
        place = placement or _placement(names)
        axes = [uniform_axis(n, *ends, place) for n, ends in zip(source[1:], box, strict=True)]
        times = np.zeros(1)
        if transient:
            times = np.arange(1.0, target[-1] + 1)
            if time in shapes:
                times = _whole(path, is_hdf5, time).ravel().astype(np.float64)
        read = _Reader(
            path=path,
            names=names,
            mesh=grid_mesh(axes, place, dtype),
            times=times,
            letters="txyz"[1 : 1 + dim] + "t" * transient,
            arrays=None if is_hdf5 else tuple(_load(path, names)),
        )
    return LazyTrajectories(path, read, range(source[0]))


def _hdf5_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes as MATLAB has them; HDF5 stores the dimensions in reverse."""
    with open_hdf5(path) as file:
        return {
            name: item.shape[::-1] for name, item in file.items() if isinstance(item, h5py.Dataset)
        }


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    found = {name: tuple(shape) for name, shape, _ in whosmat(str(path))}
    size = path.stat().st_size
    for name, shape in found.items():
        if np.prod(shape, dtype=float) > DEFLATE * size:
            raise InputError(f"{name} claims shape {shape} in a file of {size:,} bytes")
    return found


def _names(
    shapes: dict[str, tuple[int, ...]], input: str | None, output: str | None
) -> tuple[str, str]:
    pairs = [(input or a, output or u) for a, u, _ in _PAIRS]
    for pair in pairs:
        if all(name in shapes for name in pair):
            return pair
    raise InputError(
        f"it has {', '.join(shapes) or 'nothing'}; name its input and output "
        f"(looked for {', '.join(' and '.join(pair) for pair in dict.fromkeys(pairs))})"
    )


def _placement(names: tuple[str, str]) -> Placement:
    for a, u, placement in _PAIRS:
        if (a, u) == names:
            return placement
    return "periodic"


def _whole(path: Path, is_hdf5: bool, name: str) -> NDArray[Any]:
    if is_hdf5:
        with open_hdf5(path) as file:
            return read_array(file[name]).T
    return next(iter(_load(path, (name,))))


def _load(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    found = loadmat(str(path), variable_names=list(names))
    arrays = [found[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
            raise InputError(f"{name} holds {getattr(array, 'dtype', type(array))}, not numbers")
    return arrays


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    names: tuple[str, str]
    mesh: PointField
    times: NDArray[np.floating]
    letters: str
    arrays: tuple[NDArray[Any], ...] | None

    def __call__(self, index: int) -> Trajectory:
        if self.arrays is not None:
            source, target = (array[index] for array in self.arrays)
        else:
            with open_hdf5(self.path) as file:
                source, target = (read_array(file[n], (..., index)).T for n in self.names)
        frames = frames_of(target, self.letters)
        times, u = sorted_frames(self.times, frames)
        pos = self.mesh.pos
        static = tensor(source, pos.dtype).reshape(-1, 1)
        return Trajectory(
            mesh=self.mesh.with_values(static, [self.names[0]]),
            times=tensor(times, pos.dtype),
            u=tensor(u, pos.dtype),
            channels=(self.names[1],),
        )
