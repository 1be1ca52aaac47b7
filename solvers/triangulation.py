"""Triangular and tetrahedral point fields as scikit-fem sees them: cells and marked boundary."""

import numpy as np
from numpy.typing import NDArray
from skfem import MeshTet1, MeshTri1

from cst_operator.errors import MeshError
from cst_operator.fields import PointField

__all__ = ["marked_boundary", "require_plane", "straight_mesh"]

Index = NDArray[np.int64]

_MESHES = {(2, "triangle"): MeshTri1, (3, "tetra"): MeshTet1}
_FACETS = {2: "line", 3: "triangle"}


def straight_mesh(mesh: PointField) -> MeshTri1 | MeshTet1:
    """Triangles in the plane or tetrahedra in space, with the vertices in the order of the points.

    Raises:
        MeshError: if it has other cells or dimensions, or a point belongs to no cell.
    """
    cells = mesh.get("cells", {})
    kind = next(iter(cells), "")
    if len(cells) != 1 or (mesh.dim, kind) not in _MESHES:
        found = ", ".join(sorted(cells)) or "no cells"
        raise MeshError(
            f"the mesh has {found} in {mesh.dim} dimensions; this solver needs triangles in 2 "
            "dimensions or tetrahedra in 3, so split other cells into these and drop the third "
            "coordinate of a plane mesh"
        )
    points = np.asarray(mesh.pos, dtype=np.float64)
    vertices = np.asarray(cells[kind], dtype=np.int64)
    unused = np.setdiff1d(np.arange(len(points)), vertices)
    if len(unused):
        raise MeshError(
            f"{len(unused)} points belong to no cell, the first is point {unused[0]}; remove them"
        )
    made = _MESHES[mesh.dim, kind]
    return made(np.ascontiguousarray(points.T), np.ascontiguousarray(vertices.T))


def require_plane(mesh: PointField) -> None:
    """Refuse a mesh in other dimensions than two.

    Raises:
        MeshError: if it is not in the plane.
    """
    if mesh.dim != 2:
        raise MeshError(
            f"the mesh is in {mesh.dim} dimensions but this equation is solved in the plane; "
            "give triangles in 2 dimensions"
        )


def marked_boundary(mesh: PointField, straight: MeshTri1 | MeshTet1) -> tuple[Index, Index]:
    """scikit-fem's numbers of the boundary facets and their markers, [F] each.

    Raises:
        MeshError: if the facets of the mesh are not its boundary.
    """
    kind = _FACETS[mesh.dim]
    facets = np.asarray(straight.boundary_facets(), dtype=np.int64)
    if kind not in mesh.get("facets", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    given = np.asarray(mesh.facets[kind], dtype=np.int64)
    own_key = _keys(straight.facets[:, facets].T, mesh.num_points)
    given_key = _keys(given, mesh.num_points)
    stray = ~np.isin(given_key, own_key)
    if stray.any():
        name = "-".join(map(str, np.sort(given[np.argmax(stray)])))
        raise MeshError(f"facet {name} is not on the boundary of the mesh; remove inner facets")
    order = np.argsort(given_key)
    place = np.minimum(np.searchsorted(given_key[order], own_key), max(len(given_key) - 1, 0))
    if not len(given_key) or (given_key[order][place] != own_key).any():
        raise MeshError(
            f"the boundary has {len(own_key)} parts but facets name only {len(given_key)} of them; "
            "name all, or leave facets out to have one marker everywhere"
        )
    if kind not in mesh.get("facet_markers", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    markers = np.asarray(mesh.facet_markers[kind], dtype=np.int64)
    return facets, markers[order][place]


def _keys(facets: Index, num_points: int) -> Index:
    """A number for every facet, [F, v] -> [F], the same for those with the same vertices."""
    ordered = np.sort(facets.astype(np.int64), axis=1)
    key = ordered[:, 0]
    for column in ordered.T[1:]:
        key = key * num_points + column
    return key
