"""Reference cells: shape functions, quadrature and facets of meshio's linear cell types.

Vertex order is meshio's (that of VTK). Simplices have the one-point rule, which is exact for their
linear basis; all others a Gauss rule that is exact for basis times Jacobian of flat cells.
A pyramid is a hexahedron with its top collapsed, which is linear on its triangular sides and so
conforms to neighbouring tetrahedra.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt

import torch
from torch import Tensor

from cst_operator._precision import full_precision
from cst_operator.errors import MeshError

__all__ = [
    "CELL_DIM",
    "ReferenceCell",
    "cell_dim",
    "cell_geometry",
    "cells_dim",
    "measure",
    "reference_cell",
    "same_vertices",
]

CELL_DIM = {
    "vertex": 0,
    "line": 1,
    "triangle": 2,
    "quad": 2,
    "tetra": 3,
    "pyramid": 3,
    "wedge": 3,
    "hexahedron": 3,
}

_FACETS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vertex": (),
    "line": ((0,), (1,)),
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)),
    "pyramid": ((0, 3, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)),
    "wedge": ((0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)),
    "hexahedron": (
        (0, 3, 2, 1),
        (4, 5, 6, 7),
        (0, 1, 5, 4),
        (1, 2, 6, 5),
        (2, 3, 7, 6),
        (3, 0, 4, 7),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReferenceCell:
    """A cell type with v vertices, k dimensions and q quadrature points.

    Args:
        basis: nodal basis at the quadrature points, [q, v].
        basis_gradient: its gradient in reference coordinates, [q, v, k].
        weights: quadrature weights, [q]; their sum is the reference volume.
        facets: vertices of every facet, outward by the right-hand rule on a positive cell.
    """

    basis: Tensor
    basis_gradient: Tensor
    weights: Tensor
    facets: tuple[tuple[int, ...], ...]


def _simplex(points: Tensor) -> tuple[Tensor, Tensor]:
    """Basis [q, k+1] and gradient [q, k+1, k] of the unit simplex at points, [q, k]."""
    k = points.shape[1]
    basis = torch.cat([1 - points.sum(dim=1, keepdim=True), points], dim=1)
    gradient = torch.cat([-torch.ones(1, k).to(points), torch.eye(k).to(points)])
    return basis, gradient.expand(len(points), -1, -1)


def _product(
    a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Basis, gradient and weights of a cell times a line, the line's direction last."""
    basis = torch.einsum("pi,qj->pqji", a[0], b[0]).flatten(2).flatten(0, 1)
    da = torch.einsum("pik,qj->pqjik", a[1], b[0]).flatten(2, 3).flatten(0, 1)
    db = torch.einsum("pi,qjk->pqjik", a[0], b[1]).flatten(2, 3).flatten(0, 1)
    return basis, torch.cat([da, db], dim=2), torch.outer(a[2], b[2]).flatten()


@cache
def reference_cell(kind: str) -> ReferenceCell:
    """The reference cell of a meshio cell type, in float64 on the CPU.

    Raises:
        MeshError: if the type is not supported.
    """
    dim = cell_dim(kind)
    double = torch.float64
    if kind in ("vertex", "line", "triangle", "tetra"):
        centroid = torch.full((1, dim), 1 / (dim + 1), dtype=double)
        volume = torch.tensor([(1.0, 1.0, 1 / 2, 1 / 6)[dim]], dtype=double)
        rule = (*_simplex(centroid), volume)
    else:
        gauss = torch.tensor([[0.5 - sqrt(1 / 12)], [0.5 + sqrt(1 / 12)]], dtype=double)
        line = (*_simplex(gauss), torch.full((2,), 1 / 2, dtype=double))
        if kind == "wedge":
            midpoints = torch.tensor([[0.5, 0.0], [0.5, 0.5], [0.0, 0.5]], dtype=double)
            sixths = torch.full((3,), 1 / 6, dtype=double)
            rule = _product((*_simplex(midpoints), sixths), line)
        else:
            # Tensor order counts x first; VTK walks round each layer.
            order = [0, 1, 3, 2] if kind == "quad" else [0, 1, 3, 2, 4, 5, 7, 6]
            rule = _product(line, line)
            if kind != "quad":
                rule = _product(rule, line)
            rule = (rule[0][:, order], rule[1][:, order], rule[2])
        if kind == "pyramid":
            basis, gradient, weights = rule
            rule = (
                torch.cat([basis[:, :4], basis[:, 4:].sum(1, keepdim=True)], dim=1),
                torch.cat([gradient[:, :4], gradient[:, 4:].sum(1, keepdim=True)], dim=1),
                weights,
            )
    return ReferenceCell(
        basis=rule[0], basis_gradient=rule[1], weights=rule[2], facets=_FACETS[kind]
    )


def cell_dim(kind: str) -> int:
    """Dimension of a meshio cell type.

    Raises:
        MeshError: if the type is not supported.
    """
    if kind not in CELL_DIM:
        raise MeshError(
            f"cells of type {kind!r} are not supported, only {', '.join(CELL_DIM)}; "
            "convert the mesh to linear cells (in gmsh: Mesh.ElementOrder = 1)"
        )
    return CELL_DIM[kind]


def cells_dim(cells: Mapping[str, Tensor]) -> int:
    """The one dimension that all cells have.

    Raises:
        MeshError: if there are no cells, or cells of different dimensions.
    """
    dims = {kind: cell_dim(kind) for kind, index in cells.items() if len(index)}
    if not dims:
        raise MeshError(
            "the mesh has no cells, which this needs; read a mesh with cells, "
            "or estimate weights from the points with point_weights"
        )
    if len(set(dims.values())) > 1:
        found = ", ".join(f"{kind} ({dim}-D)" for kind, dim in dims.items())
        raise MeshError(
            f"cells of different dimensions in one mesh: {found}; "
            "keep those of the highest dimension as cells and the others as facets"
        )
    return next(iter(dims.values()))


def measure(jacobian: Tensor) -> Tensor:
    r"""Volume factor, [...], of Jacobians J, [..., d, k].

    It is :math:`\det J`, with its sign, if k = d, and :math:`\sqrt{\det J^TJ}` otherwise.

    Raises:
        MeshError: if cells have more dimensions than their points.
    """
    d, k = jacobian.shape[-2:]
    if k > d:
        raise MeshError(f"cells are {k}-dimensional but points have {d} coordinates")
    if k == 0:
        return jacobian.new_ones(jacobian.shape[:-2])
    a = jacobian[..., 0]
    if k == 1:
        return a[..., 0] if d == 1 else a.norm(dim=-1)
    b = jacobian[..., 1]
    if d == 2:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    if d > 3:
        raise MeshError(f"cells in {d} dimensions are not supported; use at most 3 coordinates")
    normal = torch.linalg.cross(a, b, dim=-1)
    return normal.norm(dim=-1) if k == 2 else (normal * jacobian[..., 2]).sum(dim=-1)


def cell_geometry(pos: Tensor, kind: str, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Jacobians and volume elements of n cells at their q quadrature points.

    A cell is degenerate where its volume factor cannot be told from zero by the precision of the
    coordinates, whatever the aspect ratio of the cell, or where it changes sign (a twisted cell).

    Args:
        pos: points, [N, d].
        kind: meshio cell type.
        index: vertices, [n, v].

    Returns:
        Jacobians, [n, q, d, k]; volume elements :math:`w_q |\det J|`, [n, q]; sign of every
        cell (0 for a degenerate one), [n].
    """
    cell = reference_cell(kind)
    if index.dim() != 2 or index.shape[1] != cell.basis.shape[1]:
        raise MeshError(
            f"cells of type {kind} have shape {tuple(index.shape)}; "
            f"expected [cells, {cell.basis.shape[1]}]"
        )
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(pos)):
        raise MeshError(
            f"cells of type {kind} name points {int(index.min())} to {int(index.max())} "
            f"but there are {len(pos)} points, numbered from 0"
        )
    corners = pos[index]  # [n, v, d]
    edges = corners - corners[:, :1]
    with full_precision(pos):
        jacobian = torch.einsum("qvk,nvd->nqdk", cell.basis_gradient.to(pos), edges)
    factor = measure(jacobian)
    if jacobian.shape[-1] == 0:
        resolution = torch.zeros_like(factor)
    else:
        columns = jacobian.norm(dim=-2)  # [n, q, k]
        reach = corners.abs().amax(dim=(1, 2))[:, None]
        shortest = columns.amin(dim=-1).clamp_min(torch.finfo(pos.dtype).tiny)
        eps = torch.finfo(pos.dtype).eps
        resolution = 2 * eps * columns.prod(dim=-1) * (4 + reach / shortest)
    sign = (factor > resolution).all(dim=1).long() - (factor < -resolution).all(dim=1).long()
    return jacobian, factor.abs() * cell.weights.to(pos), sign


def same_vertices(index: Tensor) -> Tensor:
    """A number for every row of vertices, the same for those with the same vertices, [n]."""
    columns = index.sort(dim=1).values.T
    number = columns[0]
    # Column by column: much faster than torch's unique of rows.
    for column in columns[1:]:
        number = (number * (index.max() + 1) + column).unique(return_inverse=True)[1]
    return number
