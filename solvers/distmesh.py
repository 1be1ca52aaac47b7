r"""Triangle meshes by repulsive springs on a Delaunay triangulation.

Persson and Strang, A simple mesh generator in Matlab, SIAM Review 46 (2004), with one change:
boundary nodes lie at equal arc length and stay, and only inner nodes move, which needs far fewer
triangulations and gives a mesh whose boundary is known before it is made.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights
from cst_operator.solvers.geometry import Geometry

__all__ = ["mesh_geometry", "triangle_quality"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_STRETCH = 1.2  # springs are longer at rest than the mean edge, so they push outwards
_STEP = 0.2
_ROUNDS = 12
_STEPS_A_ROUND = 8


def triangle_quality(points: Array, triangles: Index) -> Array:
    r"""Quality :math:`4\sqrt3 A / (a^2+b^2+c^2)`, [n]: 1 for equilateral, 0 for flat triangles.

    Negative for triangles that turn clockwise.
    """
    p, q, r = (points[triangles[:, i]] for i in range(3))
    squares = ((q - p) ** 2 + (r - q) ** 2 + (p - r) ** 2).sum(axis=1)
    result: Array = 4 * np.sqrt(3) * _areas(points, triangles) / squares
    return result


def _areas(points: Array, triangles: Index) -> Array:
    p, q, r = (points[triangles[:, i]] for i in range(3))
    u, v = q - p, r - p
    result: Array = 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    return result


def mesh_geometry(
    geometry: Geometry, h: float, rng: np.random.Generator, *, min_quality: float = 0.3
) -> PointField:
    """Mesh a geometry with edges of about ``h``.

    Args:
        geometry: what to mesh.
        h: wanted edge length.
        rng: turns and shifts the lattice that the inner nodes start from.
        min_quality: least :func:`triangle_quality` to accept.

    Returns:
        Field without channels: ``cells["triangle"]`` turn counter-clockwise, ``facets["line"]``
        are the boundary edges with the domain to the left, ``facet_markers["line"]`` the markers
        of the geometry. Weights are the lumped areas. Boundary nodes come first.

    Raises:
        InputError: if ``h`` is not positive or too large for the geometry.
        SolverError: if the mesh does not follow the boundary or a triangle is too flat.
    """
    low, high = geometry.bounds
    if not 0 < h < float((high - low).min()) / 2:
        raise InputError(f"h is {h}; expected between 0 and half the width of the domain")
    loops = geometry.boundary_nodes(h, rng)
    boundary = np.concatenate(loops)
    facets, markers = _facets(loops, geometry)
    inner = _lattice(geometry, h, rng)
    points, triangles = _relax(geometry, boundary, inner, h)
    _check(points, triangles, facets, min_quality)
    pos, cells = torch.from_numpy(points), {"triangle": torch.from_numpy(triangles)}
    return PointField(
        pos=pos,
        weights=node_weights(pos, cells),
        cells=cells,
        facets={"line": torch.from_numpy(facets)},
        facet_markers={"line": torch.from_numpy(markers)},
    )


def _facets(loops: list[Array], geometry: Geometry) -> tuple[Index, Index]:
    edges, labels, offset = [], [], 0
    for index, loop in enumerate(loops):
        number = np.arange(len(loop))
        edges.append(offset + np.stack([number, (number + 1) % len(loop)], axis=1))
        labels.append(geometry.edge_markers(index, (loop + np.roll(loop, -1, axis=0)) / 2))
        offset += len(loop)
    return np.concatenate(edges), np.concatenate(labels)


def _lattice(geometry: Geometry, h: float, rng: np.random.Generator) -> Array:
    """Turned and shifted triangular lattice inside, half an edge from the boundary."""
    low, high = geometry.bounds
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2 + h
    count = int(np.ceil(radius / h)) + 1
    i, j = np.meshgrid(np.arange(-2 * count, 2 * count + 1), np.arange(-2 * count, 2 * count + 1))
    x = h * (i + 0.5 * j).ravel()
    y = h * np.sqrt(0.75) * j.ravel()
    angle = rng.uniform(0.0, np.pi / 3)
    x += h * rng.random()
    y += h * rng.random()
    c, s = np.cos(angle), np.sin(angle)
    points = np.stack([c * x - s * y, s * x + c * y], axis=1)
    points = points[np.linalg.norm(points, axis=1) < radius] + centre
    points += rng.uniform(-0.02, 0.02, points.shape) * h  # no four points on a circle
    return points[geometry.distance(points) < -0.6 * h]


def _delaunay(geometry: Geometry, points: Array, h: float) -> Index:
    # scipy turns plane triangles counter-clockwise
    triangles = Delaunay(points).simplices.astype(np.int64)
    inside = geometry.distance(points[triangles].mean(axis=1)) < -1e-3 * h
    return triangles[inside]


def _edges(triangles: Index, n: int) -> Index:
    pairs = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    key = np.unique(pairs[:, 0] * n + pairs[:, 1])
    return np.stack([key // n, key % n], axis=1)


def _relax(geometry: Geometry, boundary: Array, inner: Array, h: float) -> tuple[Array, Index]:
    fixed = len(boundary)
    points = np.concatenate([boundary, inner])
    for number in range(_ROUNDS):
        if number:  # a node that springs pushed against the boundary leaves
            keep = geometry.distance(points) < -0.3 * h
            keep[:fixed] = True
            points = points[keep]
        triangles = _delaunay(geometry, points, h)
        n = len(points)
        first, second = _edges(triangles, n).T
        start = points.copy()
        for _ in range(_STEPS_A_ROUND):
            vector = points[first] - points[second]
            length = np.sqrt((vector * vector).sum(axis=1))
            rest = _STRETCH * np.sqrt((length * length).mean())
            pull = (np.maximum(rest - length, 0.0) / length)[:, None] * vector
            for axis in range(2):
                force = np.bincount(first, pull[:, axis], n) - np.bincount(second, pull[:, axis], n)
                points[fixed:, axis] += _STEP * force[fixed:]
        if np.abs(points - start).max() < 0.05 * h:
            break
    return points, _delaunay(geometry, points, h)


def _check(points: Array, triangles: Index, facets: Index, min_quality: float) -> None:
    n = len(points)
    if len(np.unique(triangles)) != n:
        raise SolverError("the mesh leaves a node without a triangle")
    pairs = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    key, count = np.unique(pairs[:, 0] * n + pairs[:, 1], return_counts=True)
    wanted = np.sort(facets, axis=1)
    if not np.array_equal(key[count == 1], np.sort(wanted[:, 0] * n + wanted[:, 1])):
        raise SolverError("the edges of the mesh do not follow the boundary; use a smaller h")
    worst = float(triangle_quality(points, triangles).min())
    if worst < min_quality:
        raise SolverError(f"the flattest triangle has quality {worst:.2f}, below {min_quality}")
