r"""Between scattered points and a regular grid: sparse linear maps that depend on geometry alone.

A grid has ``resolution`` points along every axis, ends included, over the box
[lower, upper]; its G points are numbered with the last axis fastest.
"""

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor

from cst_operator.errors import FieldError

__all__ = ["GridBox", "Stencil", "grid_to_points", "points_to_grid", "simplices_of"]

# How cells become simplices: rows of corner numbers. Hexahedra in meshio's (VTK's) corner order.
_SPLITS: dict[int, dict[str, tuple[tuple[int, ...], ...]]] = {
    2: {"triangle": ((0, 1, 2),), "quad": ((0, 1, 2), (0, 2, 3))},
    3: {
        "tetra": ((0, 1, 2, 3),),
        "hexahedron": (
            (0, 1, 2, 6),
            (0, 2, 3, 6),
            (0, 3, 7, 6),
            (0, 7, 4, 6),
            (0, 4, 5, 6),
            (0, 5, 1, 6),
        ),
    },
}
# A Delaunay simplex belongs to the domain if its longest edge is at most this many local spacings
# (distance to the 2d-th neighbour): wider ones bridge holes and notches of the point set.
_GAP = 2.0


@dataclass(frozen=True)
class GridBox:
    """A regular grid over a box.

    Args:
        lower: smallest coordinates, d numbers.
        upper: largest coordinates, d numbers.
        resolution: points along every axis, ends included.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    resolution: int

    @property
    def dim(self) -> int:
        """Number of space dimensions d."""
        return len(self.lower)

    @property
    def num_points(self) -> int:
        """Number of grid points G."""
        return int(self.resolution**self.dim)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance between neighbours along every axis, [d]."""
        return (np.asarray(self.upper) - np.asarray(self.lower)) / (self.resolution - 1)

    def points(self) -> NDArray[np.float64]:
        """Coordinates of the grid points, [G, d]."""
        axes = [
            np.linspace(low, high, self.resolution)
            for low, high in zip(self.lower, self.upper, strict=True)
        ]
        return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)


@dataclass(frozen=True)
class Stencil:
    """A sparse linear map with k entries a row: row r is sum_j weight[r, j] * u[index[r, j]].

    Args:
        index: numbers of the points read, [R, k], int32.
        weight: their weights, [R, k], float32.
        outside: 1 where a row lies outside the domain that the points cover, and its distance to
            the nearest point there in grid spacings, else zeros, [R, 2], float32.
    """

    index: Tensor
    weight: Tensor
    outside: Tensor

    def apply(self, u: Tensor) -> Tensor:
        """Map samples [N, c] to [R, c]; differentiable in ``u``."""
        return _weighted_rows(u, self.index, self.weight)

    @property
    def num_bytes(self) -> int:
        """Memory of the three tensors."""
        return sum(t.numel() * t.element_size() for t in (self.index, self.weight, self.outside))


def _weighted_rows(u: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    rows = u.index_select(0, index.reshape(-1)).view(*index.shape, u.shape[1])
    return (rows * weight.to(u.dtype)[..., None]).sum(dim=1)


def simplices_of(cells: Mapping[str, Tensor], dim: int) -> NDArray[np.int64] | None:
    """Cells of full dimension split into triangles or tetrahedra, [S, d + 1]; None without any."""
    parts = [
        cells[kind].cpu().numpy()[:, corners]
        for kind, split in _SPLITS.get(dim, {}).items()
        if kind in cells and len(cells[kind])
        for corners in split
    ]
    return np.concatenate(parts).astype(np.int64) if parts else None


def points_to_grid(pos: Tensor, cells: Mapping[str, Tensor] | None, box: GridBox) -> Stencil:
    r"""Linear interpolation from points to the grid, on the cells or else a Delaunay triangulation.

    A grid point in a simplex takes the barycentric combination of its corners, so a linear
    function is reproduced exactly; one outside takes the value of the nearest point, and
    ``outside`` says so. Without cells, simplices with an edge much longer than the local
    spacing of the points count as outside, though they interpolate. The result depends on
    geometry alone and is remembered.

    Args:
        pos: coordinates of the points, [N, d].
        cells: vertex numbers by meshio's cell type, or None.
        box: the grid.

    Returns:
        The map from [N, c] to [G, c], on the device of ``pos``.

    Raises:
        FieldError: if there are no points.
    """
    if not len(pos):
        raise FieldError("the source has no points; give at least one")
    array = pos.detach().cpu().double().numpy()
    simplices = None if cells is None else simplices_of(cells, box.dim)
    key = hashlib.blake2b(array.tobytes(), digest_size=16)
    key.update(b"" if simplices is None else simplices.tobytes())
    key.update(repr(box).encode())
    stencil = _remembered.get(key.digest())
    if stencil is None:
        stencil = _interpolate(array, simplices, box)
        _remembered.put(key.digest(), stencil)
    device = pos.device
    return Stencil(stencil.index.to(device), stencil.weight.to(device), stencil.outside.to(device))


def _interpolate(
    pos: NDArray[np.float64], simplices: NDArray[np.int64] | None, box: GridBox
) -> Stencil:
    grid, d = box.points(), box.dim
    index = np.zeros((len(grid), d + 1), dtype=np.int32)
    weight = np.zeros((len(grid), d + 1), dtype=np.float32)
    covered = np.zeros(len(grid), dtype=bool)
    inside = np.zeros(len(grid), dtype=bool)
    in_domain = None
    if simplices is None:
        simplices = _triangulation(pos)
        in_domain = _without_gaps(pos, simplices)
    rows, owner, barycentric = _rasterize(pos, simplices, box)
    index[rows], weight[rows], covered[rows] = simplices[owner], barycentric, True
    if in_domain is None:
        inside[rows] = True
    else:
        np.logical_or.at(inside, rows, in_domain[owner])
    outside = np.zeros((len(grid), 2), dtype=np.float32)
    if not inside.all():
        distance, nearest = cKDTree(pos).query(grid[~inside])
        outside[~inside, 0] = 1
        outside[~inside, 1] = distance / box.spacing.max()
        bare = ~covered[~inside]
        index[~covered] = nearest[bare, None]
        weight[~covered, 0] = 1
    return Stencil(torch.from_numpy(index), torch.from_numpy(weight), torch.from_numpy(outside))


def _triangulation(pos: NDArray[np.float64]) -> NDArray[np.int64]:
    try:
        return Delaunay(pos).simplices.astype(np.int64)
    except (QhullError, ValueError):  # too few points, or all on one line
        return np.zeros((0, pos.shape[1] + 1), dtype=np.int64)


def _without_gaps(pos: NDArray[np.float64], simplices: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(simplices):
        return np.zeros(0, dtype=bool)
    neighbours = min(2 * pos.shape[1], len(pos) - 1)
    spacing = cKDTree(pos).query(pos, k=[neighbours + 1])[0][:, 0]
    longest = np.zeros(len(simplices))
    for i, j in itertools.combinations(range(simplices.shape[1]), 2):
        edge = pos[simplices[:, i]] - pos[simplices[:, j]]
        longest = np.maximum(longest, np.linalg.norm(edge, axis=1))
    return longest <= _GAP * np.median(spacing[simplices], axis=1)


def _rasterize(
    pos: NDArray[np.float64], simplices: NDArray[np.int64], box: GridBox
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Grid points in each simplex: their numbers, the simplex of each, barycentric coordinates."""
    d, n = box.dim, box.resolution
    corner = pos[simplices]  # [S, d + 1, d]
    edges = corner[:, 1:] - corner[:, :1]
    scale = np.abs(edges).max(axis=(1, 2), initial=0.0)
    keep = np.abs(np.linalg.det(edges)) > 1e-12 * scale**d  # flat ones have no interior
    kept = np.flatnonzero(keep)
    corner, inverse = corner[kept], np.linalg.inv(edges[kept])
    unit = (corner - np.asarray(box.lower)) / box.spacing
    first = np.clip(np.ceil(unit.min(axis=1) - 1e-9), 0, n).astype(np.int64)
    last = np.clip(np.floor(unit.max(axis=1) + 1e-9), -1, n - 1).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    total = counts.prod(axis=1)
    owner = np.repeat(np.arange(len(kept)), total)
    local = np.arange(total.sum()) - np.repeat(total.cumsum() - total, total)
    steps = np.empty((len(owner), d), dtype=np.int64)
    for axis in reversed(range(d)):
        steps[:, axis] = first[owner, axis] + local % counts[owner, axis]
        local //= counts[owner, axis]
    x = np.asarray(box.lower) + steps * box.spacing
    rest = np.einsum("rd,rde->re", x - corner[owner, 0], inverse[owner])
    barycentric = np.concatenate([1 - rest.sum(axis=1, keepdims=True), rest], axis=1)
    hit = barycentric.min(axis=1, initial=np.inf) >= -1e-9
    rows = np.ravel_multi_index(tuple(steps[hit].T), (n,) * d)
    return rows, kept[owner[hit]], barycentric[hit]


def grid_to_points(values: Tensor, pos: Tensor, row: Tensor, box: GridBox) -> Tensor:
    r"""Multilinear interpolation from grids to points; continuous, exact for linear functions.

    Points outside the box take the value at the nearest point of the box.

    Args:
        values: samples on B grids, [B, c, n, ..., n] with d axes.
        pos: coordinates of the queries, [M, d].
        row: the grid that each query reads, [M].
        box: the grid.

    Returns:
        Samples at the queries, [M, c].
    """
    n, d = box.resolution, box.dim
    lower = torch.as_tensor(box.lower, dtype=pos.dtype, device=pos.device)
    spacing = torch.as_tensor(box.spacing, dtype=pos.dtype, device=pos.device)
    unit = ((pos - lower) / spacing).clamp(0, n - 1)
    first = unit.floor().clamp(max=n - 2)
    part = unit - first
    strides = torch.tensor([n ** (d - 1 - k) for k in range(d)], device=pos.device)
    base = row * n**d + (first.long() * strides).sum(dim=1)
    index, weight = [], []
    for corner in itertools.product((0, 1), repeat=d):
        high = torch.tensor(corner, dtype=torch.bool, device=pos.device)
        index.append(base + (high * strides).sum())
        weight.append(torch.where(high, part, 1 - part).prod(dim=1))
    flat = values.flatten(2).transpose(1, 2).reshape(-1, values.shape[1])  # [B * G, c]
    return _weighted_rows(flat, torch.stack(index, dim=1), torch.stack(weight, dim=1))


class _Memory:
    """The stencils used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._lock = limit, 0, Lock()
        self._known: OrderedDict[bytes, Stencil] = OrderedDict()

    def get(self, key: bytes) -> Stencil | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: bytes, stencil: Stencil) -> None:
        with self._lock:
            if key not in self._known:
                self._used += stencil.num_bytes
            self._known[key] = stencil
            while self._used > self._limit and len(self._known) > 1:
                self._used -= self._known.popitem(last=False)[1].num_bytes


# 2,000 geometries on a 64 x 64 grid take 200 MB.
_remembered = _Memory(512 * 2**20)
