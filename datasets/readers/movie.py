"""Movies, ``.npy`` and ``.tif``, as regular points in space and time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    DEFLATE,
    default_names,
    existing,
    map_array,
    needs,
    reading,
    tensor,
)
from cst_operator.datasets.readers.grids import frames_of, grid_mesh
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = ["read_movie"]


def read_movie(
    path: str | Path,
    *,
    interval: float = 1.0,
    pixel: float = 1.0,
    channels: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    frames: slice = slice(None),
    dtype: torch.dtype | None = None,
) -> Trajectory:
    """Read a movie: frames of rows and columns of pixels, [T, rows, columns] or [..., c].

    Pixels are cells: their centres are the points, their area the weights. x runs along the
    columns; y runs upwards, so the first row, which is drawn at the top, has the largest y.

    Args:
        path: a ``.npy`` file, of which only the chosen frames are read, or a ``.tif`` file (needs
            the extra ``movies``).
        interval: time between frames.
        pixel: width and height of a pixel, e.g. in micrometres.
        channels: name of every channel; ``intensity`` or ``u0``, ``u1``, ... by default.
        units: unit of every channel.
        frames: which frames.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged or no movie, or tifffile is not installed.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    if not (interval > 0 and pixel > 0):
        raise InputError(f"interval is {interval}, pixel {pixel}; expected positive numbers")
    with reading(path):
        array, number = _npy(path, frames) if path.suffix.lower() == ".npy" else _tif(path, frames)
        if array.ndim not in (3, 4) or not array.size:
            raise InputError(
                f"its frames have shape {array.shape}; expected [T, rows, columns] or [..., c]"
            )
        u = frames_of(array[:, ::-1], "tyx" if array.ndim == 3 else "tyxc")
        rows, columns = array.shape[1:3]
        axes = [pixel * (np.arange(n) + 0.5) for n in (columns, rows)]
        count = u.shape[2]
        return Trajectory(
            mesh=grid_mesh(axes, "cells", dtype),
            times=torch.tensor(number, dtype=dtype) * interval,
            u=tensor(u, dtype),
            channels=tuple(channels or default_names(count, "intensity")),
            units=tuple(units or ()),
        )


def _npy(path: Path, frames: slice) -> tuple[NDArray, list[int]]:
    array = map_array(path)
    return np.asarray(array[frames]), list(range(len(array))[frames])


def _tif(path: Path, frames: slice) -> tuple[NDArray, list[int]]:
    try:
        import tifffile
    except ImportError as error:
        raise needs("tifffile", "movies") from error
    with tifffile.TiffFile(path) as file:
        series: Any = file.series[0]
        if series.nbytes > DEFLATE * path.stat().st_size:
            raise InputError(f"it claims {series.nbytes:,} bytes; the file is damaged")
        number = list(range(series.shape[0])[frames])
        if series.shape[0] == len(series.pages) > 1:
            parts = [series.pages[i].asarray() for i in number]
            return np.stack(parts) if parts else np.empty((0, 0, 0)), number
        return series.asarray()[frames], number  # frames of one block, as ImageJ writes them
