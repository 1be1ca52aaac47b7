"""The boundary of a mesh: its facets, its points with surface weights, the distance to it."""

from collections.abc import Mapping

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from cst_operator._cells import cells_dim, reference_cell, same_vertices
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights

__all__ = [
    "boundary_facets",
    "boundary_points",
    "distance_to_boundary",
    "distance_to_facets",
]

_FACET_KIND = {(1, 1): "vertex", (2, 2): "line", (3, 3): "triangle", (3, 4): "quad"}


def boundary_facets(cells: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Facets that belong to exactly one cell, the rims of holes included.

    Args:
        cells: vertex numbers by meshio's cell type, each [n, v], all of one dimension.

    Returns:
        Vertex numbers by meshio's cell type (vertex, line, triangle, quad), each [n, k], ordered
        as in their cell: outward by the right-hand rule (in the plane: the domain on the left) if
        the cell is positively oriented. Empty for a closed surface.

    Raises:
        MeshError: if there are no cells or they have different dimensions.
    """
    dim = cells_dim(cells)
    groups: dict[str, list[Tensor]] = {}
    for kind, index in cells.items():
        for corners in reference_cell(kind).facets:
            groups.setdefault(_FACET_KIND[dim, len(corners)], []).append(index[:, corners])
    boundary = {}
    for kind, parts in groups.items():
        facets = torch.cat(parts)
        number = same_vertices(facets)
        alone = number.bincount()[number] == 1
        if bool(alone.any()):
            boundary[kind] = facets[alone]
    return boundary


def boundary_points(field: PointField) -> PointField:
    r"""The boundary as a field of its own: vertices, values and surface weights.

    Its weights approximate :math:`\int_{\partial\Omega}`: their sum is the perimeter (the area of
    the surface) of the mesh. Its cells are the boundary facets, numbered by its own points.

    Args:
        field: a field with cells.

    Returns:
        One point a boundary vertex, in the order of the field's points.

    Raises:
        MeshError: if the field has no cells or is a closed surface.
    """
    facets = _facets(field)
    vertices = torch.cat([index.flatten() for index in facets.values()]).unique()
    number = vertices.new_full((field.num_points,), -1)
    number[vertices] = torch.arange(len(vertices), device=vertices.device)
    cells = {kind: number[index] for kind, index in facets.items()}
    points = field.subset(vertices)
    return points._with(weights=node_weights(points.pos, cells), cells=cells)


def distance_to_boundary(field: PointField, pos: Tensor | None = None) -> Tensor:
    """Exact distance to the boundary facets of the mesh, holes included; positive on both sides.

    The distance is to segments in the plane and to triangles in space (quadrilateral facets are
    split along a diagonal).

    Args:
        field: a field with cells.
        pos: where, [M, d]; the points of the field if omitted.

    Returns:
        Distances, [M], in units of length, in the precision of ``pos``.

    Raises:
        MeshError: if the field has no cells or is a closed surface.
    """
    pos = field.pos if pos is None else pos
    simplices = _simplices({k: i.cpu() for k, i in _facets(field).items()})
    corners = field.pos.detach().cpu().double()[simplices]
    return distance_to_facets(pos.detach().cpu().double(), corners).to(pos)


def distance_to_facets(x: Tensor, corners: Tensor) -> Tensor:
    """Exact distance to the nearest of some segments or triangles.

    Candidates come from a k-d tree of the facets' centres, and their number grows until no other
    facet can be nearer.

    Args:
        x: points, [M, d], float64 on the CPU.
        corners: of the facets, [F, v, d], v = 1, 2 or 3 (points, segments, triangles in space).

    Returns:
        Distances, [M].
    """
    centres = corners.mean(dim=1)
    radius = float((corners - centres[:, None]).norm(dim=-1).max())
    tree = cKDTree(centres.numpy())
    distance = x.new_empty(len(x))
    open_points = torch.arange(len(x))
    k = 8
    while len(open_points):
        k = min(k, len(corners))
        unsure = []
        for part in open_points.split(max(1, 2**18 // k)):
            away, nearest = tree.query(x[part].numpy(), k=range(1, k + 1))
            found = _to_simplices(x[part, None], corners[torch.from_numpy(nearest)]).amin(dim=1)
            distance[part] = found
            # Any facet left out is at least its centre's distance less the largest radius away.
            certain = found <= torch.from_numpy(away[:, -1]) - radius
            if k < len(corners):
                unsure.append(part[~certain])
        open_points = torch.cat(unsure) if unsure else open_points[:0]
        k *= 4
    return distance


def _facets(field: PointField) -> dict[str, Tensor]:
    if "batch" in field:
        raise MeshError("a batch has as many boundaries as samples; use batch.to_data_list()")
    facets = boundary_facets(field.get("cells") or {})
    if not facets:
        raise MeshError("the mesh is a closed surface without boundary; use a mesh that has one")
    return facets


def _simplices(facets: Mapping[str, Tensor]) -> Tensor:
    """Facets as simplices of one kind, [F, v]."""
    parts = []
    for kind, index in facets.items():
        if kind == "quad":
            parts += [index[:, [0, 1, 2]], index[:, [0, 2, 3]]]
        else:
            parts.append(index)
    return torch.cat(parts)


def _to_simplices(x: Tensor, corners: Tensor) -> Tensor:
    """Distance of points, [M, 1, d], to points, segments or triangles, [M, k, v, d] -> [M, k]."""
    v = corners.shape[-2]
    if v == 1:
        return (x - corners[..., 0, :]).norm(dim=-1)
    if v == 2:
        return _to_segments(x, corners[..., 0, :], corners[..., 1, :])
    a, b, c = corners.unbind(dim=-2)
    edges = torch.stack([_to_segments(x, p, q) for p, q in ((a, b), (b, c), (c, a))]).amin(dim=0)
    ab, ac, ax = b - a, c - a, x - a
    normal = torch.linalg.cross(ab, ac, dim=-1)
    square = normal.square().sum(dim=-1).clamp_min(1e-300)
    # Barycentric coordinates of the foot of the perpendicular.
    beta = (torch.linalg.cross(ax, ac, dim=-1) * normal).sum(dim=-1) / square
    gamma = (torch.linalg.cross(ab, ax, dim=-1) * normal).sum(dim=-1) / square
    inside = (beta >= 0) & (gamma >= 0) & (beta + gamma <= 1)
    height = (ax * normal).sum(dim=-1).abs() / square.sqrt()
    return torch.where(inside, height.minimum(edges), edges)


def _to_segments(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    ab = b - a
    length = ab.square().sum(dim=-1).clamp_min(1e-300)
    t = (((x - a) * ab).sum(dim=-1) / length).clamp(0, 1)
    return (x - a - t[..., None] * ab).norm(dim=-1)
