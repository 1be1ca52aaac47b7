r"""Quadrature weights of meshes and point sets, :math:`\sum_i w_i f(x_i) \approx \int f`."""

from collections.abc import Mapping
from math import gamma, pi

import numpy as np
import torch
from scipy.spatial import (
    ConvexHull,
    Delaunay,
    HalfspaceIntersection,
    QhullError,
    Voronoi,
    cKDTree,
)
from torch import Tensor

from cst_operator._cells import cell_geometry, cells_dim, reference_cell
from cst_operator._precision import full_precision
from cst_operator.errors import MeshError
from cst_operator.fields import PointField

__all__ = ["cell_weights", "integrate", "node_weights", "point_weights", "with_weights"]


def integrate(u: Tensor, weights: Tensor) -> Tensor:
    r"""Approximate :math:`\int_\Omega u\,dx` by :math:`\sum_i w_i u_i`.

    Args:
        u: samples, [N, c].
        weights: quadrature weights, [N], in units of volume.

    Returns:
        One integral per channel, [c].
    """
    with full_precision(u):
        return weights.to(u.dtype) @ u


def node_weights(pos: Tensor, cells: Mapping[str, Tensor]) -> Tensor:
    r"""Lumped weights :math:`w_i = \int \phi_i` of the (bi-, tri-)linear nodal basis.

    The sum is the volume of the mesh, linear functions are integrated exactly on simplices and on
    parallelepipeds, smooth ones with an error of second order in the cell size. Surfaces and
    curves (triangles, quadrilaterals, lines in more dimensions) have their area and length.
    Orientation does not matter. A point that no cell uses has weight 0.

    Args:
        pos: points, [N, d].
        cells: vertex numbers by meshio's cell type (line, triangle, quad, tetra, pyramid, wedge,
            hexahedron, also mixed), each [n, v].

    Returns:
        Weights, [N], in units of volume (area, length).

    Raises:
        MeshError: if there are no cells, or one is degenerate, unsupported or out of range.
    """
    cells_dim(cells)
    weights = pos.new_zeros(len(pos))
    for kind, index in cells.items():
        volume = _volume_elements(pos, kind, index)
        with full_precision(pos):
            shares = volume @ reference_cell(kind).basis.to(pos)
        weights = weights.index_add(0, index.flatten(), shares.flatten())
    return weights


def cell_weights(pos: Tensor, cells: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Volume (area, length) of every cell, for values known at the centres of cells.

    Args:
        pos: points, [N, d].
        cells: vertex numbers by meshio's cell type, each [n, v].

    Returns:
        Volumes by the same keys, each [n].

    Raises:
        MeshError: as :func:`node_weights`.
    """
    cells_dim(cells)
    return {kind: _volume_elements(pos, kind, i).sum(dim=1) for kind, i in cells.items()}


def _volume_elements(pos: Tensor, kind: str, index: Tensor) -> Tensor:
    """Volume elements of cells at their quadrature points, [n, q]."""
    _, volume, sign = cell_geometry(pos, kind, index)
    bad = (sign == 0).nonzero().flatten()
    if len(bad):
        first = int(bad[0])
        raise MeshError(
            f"{len(bad)} cells of type {kind} are degenerate (zero volume or twisted), the first "
            f"is number {first} with points {index[first].tolist()}; repair_mesh drops them"
        )
    return volume


def point_weights(
    pos: Tensor, *, method: str = "knn", k: int | None = None, volume: float | None = None
) -> Tensor:
    r"""Estimate weights of points that have no cells.

    ``knn`` takes the inverse of a density estimate, :math:`w_i = V_d r_{i,k}^d / k` with
    :math:`r_{i,k}` the distance to the k-th neighbour and :math:`V_d` the volume of the unit ball.
    For random points the estimate is unbiased inside, with a relative scatter of
    :math:`1/\sqrt k` a point; near the boundary it is too large (the ball reaches outside; twice
    too large on a flat side) and on lattices it is off by a constant factor. Giving ``volume``
    removes the bias of the sum, not its share near the boundary. Integrals are then about as good
    as Monte Carlo with the same points, order 1/2 in N.

    ``voronoi`` takes the volumes of the Voronoi cells inside the *convex hull* of the points (1 to
    3 dimensions): the sum is exactly the volume of the hull, so a domain that is not convex or
    has holes gets its outside counted in. Coinciding points share their cell. Order about 1 in N
    for random points of the plane. It costs far more than ``knn``, mostly near the hull.

    Args:
        pos: points, [N, d].
        method: ``"knn"`` or ``"voronoi"``.
        k: neighbours of ``knn``; 4, 8, 16 in 1, 2, 3 dimensions if omitted.
        volume: known volume of the domain, to which the sum is scaled.

    Returns:
        Weights, [N], in units of volume.

    Raises:
        MeshError: if there are too few points, or they coincide or lie in one plane.
    """
    x = pos.detach().cpu().double().numpy()
    if method == "knn":
        weights = _knn_weights(x, 2 ** (x.shape[1] + 1) if k is None else k)
    elif method == "voronoi":
        weights = _voronoi_weights(x)
    else:
        raise ValueError(f"method is {method!r}; expected 'knn' or 'voronoi'")
    if volume is not None:
        weights *= volume / weights.sum()
    return torch.from_numpy(weights).to(pos)


def _knn_weights(x: np.ndarray, k: int) -> np.ndarray:
    n, d = x.shape
    if n <= k:
        raise MeshError(f"{n} points are too few for {k} neighbours each; give a smaller k")
    distance = cKDTree(x).query(x, k=[k + 1])[0][:, 0]
    if (distance == 0).any():
        raise MeshError(
            f"point {int((distance == 0).argmax())} coincides with {k} others or more; "
            "remove repeated points or give a larger k"
        )
    ball = pi ** (d / 2) / gamma(d / 2 + 1)
    return ball * distance**d / k


def _voronoi_weights(x: np.ndarray) -> np.ndarray:
    unique, inverse, count = np.unique(x, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    n, d = unique.shape
    if d > 3 or n <= d:
        raise MeshError(
            f"Voronoi weights need more than d distinct points in d = 1, 2 or 3 dimensions, "
            f"got {n} in {d}; use method='knn'"
        )
    if d == 1:  # np.unique has sorted them
        half = np.diff(unique[:, 0]) / 2
        volume = np.append(half, 0) + np.append(0, half)
    else:
        try:
            volume = _clipped_voronoi(unique)
        except QhullError as error:
            raise MeshError(
                "Voronoi cells failed, probably because all points lie in one line or plane; "
                "drop the constant coordinate or use method='knn'"
            ) from error
    return (volume / count)[inverse]


def _clipped_voronoi(x: np.ndarray) -> np.ndarray:
    """Volumes of the Voronoi cells of distinct points within their convex hull, [N]."""
    size = np.ptp(x, axis=0).max()
    x = (x - x.mean(axis=0)) / size  # so that tolerances and Qhull see coordinates of order one
    hull = ConvexHull(x)
    planes = np.unique(hull.equations.round(12), axis=0)  # one a facet, though Qhull splits them
    voronoi = Voronoi(x)
    outside = (voronoi.vertices @ planes[:, :-1].T + planes[:, -1] > 1e-12).any(axis=1)
    # Voronoi ridges are incomplete where many points lie on one sphere (grids), Delaunay edges are
    # not; the bisector of any further pair does no harm.
    start, linked = Delaunay(x).vertex_neighbor_vertices
    distance, near = cKDTree(x).query(x, k=min(len(x), 17))
    centre = x[hull.vertices].mean(axis=0)
    volume = np.empty(len(x))
    for i, p in enumerate(x):
        region = voronoi.regions[voronoi.point_region[i]]
        if -1 not in region and not outside[region].any():
            corners = voronoi.vertices[region]
        else:
            # The cell is the half-spaces of its bisectors and of the hull. Moving from the point
            # less than half way to any bisector, towards the centre, is strictly inside of both.
            others = x[np.union1d(linked[start[i] : start[i + 1]], near[i, 1:])]
            bisectors = np.column_stack([others - p, -((others - p) * (others + p)).sum(1) / 2])
            towards = centre - p
            step = min(0.5, 0.25 * distance[i, 1] / max(np.linalg.norm(towards), 1e-300))
            spaces = np.concatenate([bisectors, planes])
            corners = HalfspaceIntersection(spaces, p + step * towards).intersections
        volume[i] = ConvexHull(corners).volume
    if abs(volume.sum() / hull.volume - 1) > 1e-6:
        raise MeshError("Voronoi cells do not fill the hull of the points; use method='knn'")
    return volume * size ** x.shape[1]


def with_weights(field: PointField) -> PointField:
    """The field with :func:`node_weights` of its cells, or :func:`point_weights` if it has none.

    Raises:
        MeshError: as those functions.
    """
    cells = field.get("cells")
    weights = node_weights(field.pos, cells) if cells else point_weights(field.pos)
    return field._with(weights=weights)
