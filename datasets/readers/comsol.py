"""COMSOL's text export of data at points (``.txt``, ``.csv``, ``.dat``).

Layout: lines that begin with ``%`` hold the model, numbers of nodes and expressions, the length
unit, and last the names of the columns, ``x y u (K) @ t=0 u (K) @ t=0.1 ...``; then one line a
point.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import existing, reading, sorted_frames, tensor
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import point_weights

__all__ = ["read_comsol"]

# A name, its unit in parentheses, and the time if the solution depends on it.
_COLUMN = re.compile(r"([^\s()@,]+(?:\([^()]*\))?)\s+\(([^()]*)\)(?:\s*@\s*t=([^\s,]+))?")


def read_comsol(
    path: str | Path,
    *,
    weights: Literal["voronoi", "knn"] = "voronoi",
    missing: Literal["refuse", "drop"] = "refuse",
    dtype: torch.dtype | None = None,
) -> Trajectory:
    """Read a text export of COMSOL: columns of coordinates, then one for every field and time.

    The export has no cells, so weights are estimated from the points, see
    :func:`~cst_operator.quadrature.point_weights`; Voronoi cells suit convex domains.

    Args:
        path: the text file.
        weights: how weights are estimated.
        missing: what is done with points where a value is NaN (outside of the geometry).
        dtype: of coordinates and values; torch's default if omitted.

    Returns:
        One frame a time (one for a stationary export) with the names and units of the columns.

    Raises:
        InputError: if the file is missing, damaged or of another layout, or a value is missing.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        header, rows = _parse(path)
        if rows.ndim != 2 or rows.shape[1] != header.dim + len(header.columns):
            raise InputError(
                f"its rows have {rows.shape[-1]} columns; the header names {header.dim} "
                f"coordinates and {len(header.columns)} values"
            )
        if header.nodes not in (None, len(rows)):
            raise InputError(
                f"it has {len(rows)} of {header.nodes} nodes; it is truncated, so export it again"
            )
        u = _frames(rows[:, header.dim :], header)
        pos = rows[:, : header.dim]
        if missing == "drop":
            kept = np.isfinite(u).all(axis=(0, 2))
            u, pos = u[:, kept], pos[kept]
        times, u = sorted_frames(np.array(header.times), u)
        where = torch.from_numpy(np.ascontiguousarray(pos))
        PointField(where)  # refuses coordinates that are not finite before weights are made
        return Trajectory(
            mesh=PointField(
                where.to(dtype), weights=point_weights(where, method=weights).to(dtype)
            ),
            times=tensor(times, dtype),
            u=tensor(u, dtype),
            channels=header.names,
            units=header.units,
        )


@dataclass(frozen=True, kw_only=True)
class _Header:
    dim: int
    nodes: int | None
    columns: list[tuple[str, str, float]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _, _ in self.columns))

    @property
    def units(self) -> tuple[str, ...]:
        found = {name: unit for name, unit, _ in self.columns}
        return tuple("" if found[name] == "1" else found[name] for name in self.names)

    @property
    def times(self) -> list[float]:
        return list(dict.fromkeys(time for _, _, time in self.columns))


def _parse(path: Path) -> tuple[_Header, NDArray[np.float64]]:
    comments = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("%"):
                break
            comments.append(line[1:].strip())
    if not comments:
        raise InputError("it has no header of lines that begin with %; export it with the header")
    entries = dict(re.findall(r"^(Dimension|Nodes):[\s,\"]*(\d+)", "\n".join(comments), re.M))
    columns = [
        (name, unit, float(time) if time else 0.0)
        for name, unit, time in _COLUMN.findall(comments[-1])
    ]
    if "Dimension" not in entries or not columns:
        raise InputError(
            "its header has no Dimension or names no columns like 'u (K) @ t=0'; "
            "export data of points with the header"
        )
    delimiter = "," if path.suffix.lower() == ".csv" else None
    with path.open(encoding="utf-8", errors="replace") as file:
        rows = np.loadtxt(file, comments="%", delimiter=delimiter, ndmin=2)
    nodes = int(entries["Nodes"]) if "Nodes" in entries else None
    return _Header(dim=int(entries["Dimension"]), nodes=nodes, columns=columns), rows


def _frames(values: NDArray[np.float64], header: _Header) -> NDArray[np.float64]:
    """Columns, in any order, as frames, [T, N, c]."""
    place = {(name, time): i for i, (name, _, time) in enumerate(header.columns)}
    if len(place) != len(header.columns):
        raise InputError("two columns have the same name and time; export each field once")
    frames = []
    for time in header.times:
        absent = [name for name in header.names if (name, time) not in place]
        if absent:
            raise InputError(f"there is no column of {', '.join(absent)} at t={time:g}")
        frames.append(values[:, [place[name, time] for name in header.names]])
    return np.stack(frames)
