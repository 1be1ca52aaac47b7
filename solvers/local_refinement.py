"""Smaller triangles where they are needed, such as near the holes."""

import numpy as np
import torch
from numpy.typing import NDArray
from skfem import MeshTri1

from cst_operator.errors import InputError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights
from cst_operator.solvers.geometry import Geometry

__all__ = ["refine_near_holes", "refine_triangles"]

Array = NDArray[np.float64]


def refine_near_holes(mesh: PointField, geometry: Geometry, distance: float) -> PointField:
    """Halve the edges of triangles near the holes, see :func:`refine_triangles`.

    Args:
        mesh: mesh of the geometry.
        geometry: the domain.
        distance: triangles with their centre nearer than this to a hole are refined.

    Raises:
        InputError: if the distance is not positive.
    """
    if not distance > 0:
        raise InputError(f"distance is {distance}; expected a positive length")
    if len(geometry.loops) == 1:
        return mesh
    centre = np.asarray(mesh.pos[mesh.cells["triangle"]].mean(dim=1), dtype=np.float64)
    near = _to_loops(geometry, centre)[:, 1:].min(axis=1) < distance
    return refine_triangles(mesh, geometry, torch.from_numpy(near))


def refine_triangles(mesh: PointField, geometry: Geometry, chosen: torch.Tensor) -> PointField:
    """Halve the edges of some triangles.

    Red, green and blue refinement (Carstensen 2004), so that no triangle becomes flat.

    Args:
        mesh: mesh of the geometry, see :func:`~cst_operator.solvers.distmesh.mesh_geometry`.
        geometry: the domain; new boundary nodes lie on it.
        chosen: which triangles, a mask, [n].

    Returns:
        Field as of :func:`~cst_operator.solvers.distmesh.mesh_geometry`, its nodes in no
        particular order.
    """
    points, cells = np.asarray(mesh.pos, dtype=np.float64), np.asarray(mesh.cells["triangle"])
    coarse = MeshTri1(np.ascontiguousarray(points.T), np.ascontiguousarray(cells.T))
    fine = coarse.refined(np.flatnonzero(np.asarray(chosen)))
    places = fine.p.T.copy()
    edges = fine.facets[:, fine.boundary_facets()].T  # [F, 2]
    rim = np.unique(edges)
    places[rim] = geometry.project(places[rim])
    middle = places[edges].mean(axis=1)
    loop = _to_loops(geometry, middle).argmin(axis=1)
    markers = np.empty(len(edges), dtype=np.int64)
    for number in range(len(geometry.loops)):
        markers[loop == number] = geometry.edge_markers(number, middle[loop == number])
    pos = torch.from_numpy(places)
    triangles = {"triangle": torch.from_numpy(_counter_clockwise(places, fine.t.T))}
    return PointField(
        pos=pos,
        weights=node_weights(pos, triangles),
        cells=triangles,
        facets={"line": torch.from_numpy(edges.astype(np.int64))},
        facet_markers={"line": torch.from_numpy(markers)},
    )


def _to_loops(geometry: Geometry, x: Array) -> Array:
    """Distance of points to every loop, [n, loops]."""
    return np.stack([np.abs(Geometry((loop,)).distance(x)) for loop in geometry.loops], axis=1)


def _counter_clockwise(points: Array, triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    result = triangles.astype(np.int64)
    (ax, ay), (bx, by) = ((points[result[:, i]] - points[result[:, 0]]).T for i in (1, 2))
    turned = ax * by < ay * bx
    result[turned] = result[turned][:, ::-1]
    return result
