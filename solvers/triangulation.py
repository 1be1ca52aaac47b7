"""Triangular point fields as scikit-fem sees them: cells and marked boundary facets."""

import numpy as np
from numpy.typing import NDArray
from skfem import MeshTri1

from cst_operator.errors import MeshError
from cst_operator.fields import PointField

__all__ = ["marked_boundary", "plane_triangles"]

Index = NDArray[np.int64]


def plane_triangles(mesh: PointField) -> Index:
    """Triangles of a plane mesh, [n, 3].

    Raises:
        MeshError: if it has other cells or dimensions, or a point belongs to no triangle.
    """
    cells = mesh.get("cells", {})
    if mesh.dim != 2 or set(cells) != {"triangle"}:
        found = ", ".join(sorted(cells)) or "no cells"
        raise MeshError(
            f"the mesh has {found} in {mesh.dim} dimensions; this solver needs triangles in 2, "
            "so split quadrilaterals and drop the third coordinate of a plane mesh"
        )
    triangles = np.asarray(cells["triangle"], dtype=np.int64)
    unused = np.setdiff1d(np.arange(mesh.num_points), triangles)
    if len(unused):
        raise MeshError(
            f"{len(unused)} points belong to no triangle, the first is point {unused[0]}; "
            "remove them"
        )
    return triangles


def marked_boundary(mesh: PointField, straight: MeshTri1) -> tuple[Index, Index]:
    """scikit-fem's numbers of the boundary facets and their markers, [F] each.

    Raises:
        MeshError: if the facets of the mesh are not its boundary.
    """
    facets = np.asarray(straight.boundary_facets(), dtype=np.int64)
    if "line" not in mesh.get("facets", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    n = mesh.num_points
    own = np.sort(straight.facets[:, facets], axis=0)
    given = np.sort(np.asarray(mesh.facets["line"], dtype=np.int64), axis=1)
    own_key, given_key = own[0] * n + own[1], given[:, 0] * n + given[:, 1]
    stray = ~np.isin(given_key, own_key)
    if stray.any():
        a, b = given[np.argmax(stray)]
        raise MeshError(f"facet {a}-{b} is not on the boundary of the mesh; remove inner facets")
    order = np.argsort(given_key)
    place = np.minimum(np.searchsorted(given_key[order], own_key), max(len(given_key) - 1, 0))
    if not len(given_key) or (given_key[order][place] != own_key).any():
        raise MeshError(
            f"the boundary has {len(own_key)} edges but facets name only {len(given_key)} of them; "
            "name all, or leave facets out to have one marker everywhere"
        )
    if "line" not in mesh.get("facet_markers", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    markers = np.asarray(mesh.facet_markers["line"], dtype=np.int64)
    return facets, markers[order][place]
