"""GAOT's netCDF files: many samples on irregular points.

Layout by the reference code of Wen et al. (arXiv:2505.18781): ``u`` [n, T, N, c] solutions, ``c``
[n, T, N, k] conditions where there are any, ``x`` [1 or n, 1, N, d] coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import LazyTrajectories, existing, reading, tensor
from cst_operator.datasets.readers.netcdf import open_netcdf
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import point_weights

__all__ = ["read_gaot"]


def read_gaot(
    path: str | Path,
    *,
    u: str = "u",
    c: str = "c",
    x: str = "x",
    channels: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a netCDF file of GAOT (needs the extra ``netcdf``); samples are read when asked for.

    The files hold no cells, so weights are estimated, see
    :func:`~cst_operator.quadrature.point_weights`. Times are equally spaced from 0 to 1; the
    condition of the first frame is the static channels ``c0``, ``c1``, ...

    Args:
        path: the ``.nc`` file.
        u: name of the solution.
        c: name of the condition; may be absent.
        x: name of the coordinates.
        channels: name of every channel of the solution; ``u0``, ``u1``, ... by default.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged or of another layout, or xarray is not
            installed.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path), open_netcdf(path) as data:
        for name in (u, x):
            if name not in data.variables or data[name].ndim != 4:
                raise InputError(
                    f"it has no {name} with four dimensions [n, T, N, ...]; its variables are "
                    f"{', '.join(f'{k} {v.shape}' for k, v in data.variables.items())}"
                )
        samples, frames, points, count = data[u].shape
        if data[x].shape[0] not in (1, samples) or data[x].shape[2] != points:
            raise InputError(f"x has shape {data[x].shape} but u {data[u].shape}")
        read = _Reader(
            path=path,
            names=(u, c if c in data.variables else None, x),
            channels=tuple(channels or (f"u{i}" for i in range(count))),
            times=np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1),
            dtype=dtype,
        )
    return LazyTrajectories(path, read, range(samples))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    names: tuple[str, str | None, str]
    channels: tuple[str, ...]
    times: NDArray[np.floating]
    dtype: torch.dtype

    def __call__(self, index: int) -> Trajectory:
        u, c, x = self.names
        with open_netcdf(self.path) as data:
            frames = data[u][index].to_numpy()
            pos = data[x][index if data[x].shape[0] > 1 else 0, 0].to_numpy()
            condition = None if c is None else data[c][index, 0].to_numpy()
        where = tensor(pos, torch.float64)
        PointField(where)  # refuses coordinates that are not finite before weights are made
        known = pos[:, :0] if condition is None else condition
        mesh = PointField(
            pos=where.to(self.dtype),
            u=tensor(known, self.dtype),
            weights=point_weights(where).to(self.dtype),
            channels=[f"c{i}" for i in range(known.shape[1])],
        )
        return Trajectory(
            mesh=mesh,
            times=tensor(self.times, self.dtype),
            u=tensor(frames, self.dtype),
            channels=self.channels,
        )
