"""Derivatives of nodal values: sparse gradient operators of meshes and point sets."""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from cst_operator._cells import cell_geometry, cells_dim, reference_cell
from cst_operator._precision import full_precision
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import point_weights

__all__ = ["GradientOperator", "gradient_operator"]


@dataclass(frozen=True, kw_only=True)
class GradientOperator:
    r"""A linear map from nodal values to gradients at Q evaluation points.

    Sums over the evaluation points are integrals: :math:`\int |\nabla u|^2 \approx \sum_q w_q
    |\nabla u(x_q)|^2`.

    Args:
        matrix: sparse, [Q d, N]; row ``q d + j`` is the derivative along coordinate j at point q.
        weights: quadrature weights of the evaluation points, [Q].
        averaging: sparse, [N, Q]; weighted mean of the evaluation points around every node, None
            where the evaluation points are the nodes.
    """

    matrix: Tensor
    weights: Tensor
    averaging: Tensor | None = None

    def apply(self, u: Tensor) -> Tensor:
        """Gradient at the evaluation points; linear in ``u`` and differentiable.

        Args:
            u: nodal values, [N, c]; taken to the precision of the operator.

        Returns:
            Gradients, [Q, c, d].
        """
        if u.dim() != 2 or len(u) != self.matrix.shape[1]:
            raise MeshError(
                f"u has shape {tuple(u.shape)} but the operator is for [{self.matrix.shape[1]}, "
                "channels]; give one row for every point of the mesh"
            )
        flat = _multiply(self.matrix, u)
        return flat.view(len(self.weights), -1, u.shape[1]).transpose(1, 2)

    def nodal(self, u: Tensor) -> Tensor:
        """Gradient at the nodes: the weighted mean of the cells around each.

        Args:
            u: nodal values, [N, c].

        Returns:
            Gradients, [N, c, d]; zero at nodes that no cell uses.
        """
        gradient = self.apply(u)
        if self.averaging is None:
            return gradient
        return _multiply(self.averaging, gradient.flatten(1)).view(-1, *gradient.shape[1:])

    def to(self, *args: Any, **kwargs: Any) -> "GradientOperator":
        """The operator on another device or in another precision, as ``Tensor.to``."""
        return GradientOperator(
            matrix=self.matrix.to(*args, **kwargs),
            weights=self.weights.to(*args, **kwargs),
            averaging=None if self.averaging is None else self.averaging.to(*args, **kwargs),
        )


def gradient_operator(
    field: PointField, *, degree: int = 2, neighbors: int | None = None
) -> GradientOperator:
    r"""The gradient operator of a field's mesh, or of its points if it has no cells.

    With cells, the evaluation points are the quadrature points of the cells and the gradient is
    that of the (bi-, tri-)linear interpolant, :math:`\sum_i u_i \nabla\phi_i`: exact for linear
    functions, of first order in the cell size (averaged to the nodes, of second inside and first
    near the boundary). On a surface in space it is the surface gradient.

    Without cells, the evaluation points are the nodes, and the gradient is that of the polynomial
    through the node that fits its nearest neighbours best (weighted least squares): exact for
    polynomials up to ``degree``, which is also its order. Neighbours are points of the same sample
    and time. The weights are the field's, or :func:`~cst_operator.quadrature.point_weights`.

    Args:
        field: the points, with or without cells; or a PyG batch of such fields.
        degree: of the polynomials, 1 or 2; only without cells.
        neighbors: neighbours of the fit; twice the unknowns and two more if omitted.

    Raises:
        MeshError: if a cell is degenerate, or the neighbours of a point do not determine a
            gradient.
    """
    if field.get("cells"):
        with full_precision(field.pos):
            return _from_cells(field)
    return _from_points(field, degree, neighbors)


def _from_cells(field: PointField) -> GradientOperator:
    pos = field.pos
    n, d = pos.shape
    cells_dim(field.cells)
    rows, columns, entries, weights, shares, points = [], [], [], [], [], []
    count = 0
    for kind, index in field.cells.items():
        cell = reference_cell(kind)
        jacobian, volume, sign = cell_geometry(pos, kind, index)
        if bool((sign == 0).any()):
            first = int((sign == 0).nonzero()[0])
            raise MeshError(
                f"cell {first} of type {kind} is degenerate and has no gradient; "
                "repair_mesh drops it"
            )
        # Gradients of the basis: pseudo-inverse of the Jacobian, transposed.  [n, q, d, v]
        metric = jacobian.transpose(-1, -2) @ jacobian
        dual = (
            torch.linalg.inv(jacobian).transpose(-1, -2)
            if jacobian.shape[-1] == d
            else jacobian @ torch.linalg.inv(metric)
        )
        gradient = dual @ cell.basis_gradient.to(pos).transpose(-1, -2)
        q = torch.arange(volume.numel(), device=pos.device).view(volume.shape) + count
        count += volume.numel()
        row = q[..., None, None] * d + torch.arange(d, device=pos.device)[:, None]
        rows.append(row.expand(gradient.shape).flatten())
        columns.append(index[:, None, None, :].expand(gradient.shape).flatten())
        entries.append(gradient.flatten())
        weights.append(volume.flatten())
        shares.append((volume[..., None] * cell.basis.to(pos)).flatten())
        points.append(
            torch.stack(
                [
                    index[:, None, :].expand(*volume.shape, -1).flatten(),
                    q[..., None].expand(*volume.shape, index.shape[1]).flatten(),
                ]
            )
        )
    matrix = _sparse(torch.stack([torch.cat(rows), torch.cat(columns)]), entries, (count * d, n))
    where, share = torch.cat(points, dim=1), torch.cat(shares)
    total = share.new_zeros(n).index_add(0, where[0], share)
    averaging = _sparse(where, [share / total[where[0]]], (n, count))
    return GradientOperator(matrix=matrix, weights=torch.cat(weights), averaging=averaging)


def _from_points(field: PointField, degree: int, neighbors: int | None) -> GradientOperator:
    if degree not in (1, 2):
        raise ValueError(f"degree is {degree}; expected 1 or 2")
    pos = field.pos
    n, d = pos.shape
    x, frames = pos.detach().cpu().double(), _frames(field)
    fits = [_fit(x[frame], frame, degree, neighbors) for frame in frames]
    where = torch.cat([where for where, _ in fits], dim=1)
    matrix = _sparse(where, [entries for _, entries in fits], (n * d, n))
    if "weights" in field:
        return GradientOperator(matrix=matrix.to(pos), weights=field.weights)
    weights = pos.new_empty(n)
    for frame in frames:
        weights[frame.to(pos.device)] = point_weights(pos[frame.to(pos.device)])
    return GradientOperator(matrix=matrix.to(pos), weights=weights)


def _frames(field: PointField) -> list[Tensor]:
    """Numbers of the points of every sample and time, on the CPU."""
    if not len(field.time):
        return [torch.arange(0)]
    key = field.time.detach().cpu().double()[None]
    if "batch" in field:
        key = torch.cat([field.batch.cpu().double()[None], key])
    number = key.unique(dim=1, return_inverse=True)[1]
    return list(number.argsort(stable=True).split(number.bincount().tolist()))


def _fit(x: Tensor, frame: Tensor, degree: int, neighbors: int | None) -> tuple[Tensor, Tensor]:
    """Rows and columns, [2, entries], and entries of the matrix of points of one frame."""
    n, d = x.shape
    unknowns = d if degree == 1 else d + d * (d + 1) // 2
    k = 2 * unknowns + 2 if neighbors is None else neighbors
    k = min(k, n - 1)
    if k < unknowns:
        raise MeshError(
            f"least squares of degree {degree} in {d} dimensions needs {unknowns + 1} points or "
            f"more of one sample and time, got {n} with {k} neighbours; add points or give degree=1"
        )
    distance, near = cKDTree(x.numpy()).query(x.numpy(), k=k + 1)
    radius = torch.from_numpy(distance[:, -1:])
    index = torch.from_numpy(near)
    offset = (x[index] - x[:, None]) / radius.clamp_min(1e-300)[..., None]  # [n, k + 1, d]
    terms = [offset[..., j] for j in range(d)]
    if degree == 2:
        pairs = combinations_with_replacement(range(d), 2)
        terms += [offset[..., i] * offset[..., j] for i, j in pairs]
    # The point itself has offset zero, so it drops out of the fit wherever the tree lists it.
    weight = torch.exp(-2 * offset.square().sum(dim=-1))
    system = torch.stack(terms, dim=-1) * weight[..., None]
    singular = torch.linalg.svdvals(system)
    bad = (singular[:, -1] < 1e-6 * singular[:, 0]) | (radius[:, 0] == 0)
    if bool(bad.any()):
        raise MeshError(
            f"the neighbours of {int(bad.sum())} points do not determine a gradient of degree "
            f"{degree}, the first is point {int(frame[bad][0])} (coinciding points, or points "
            "in one line or plane); give more neighbors, degree=1, or a mesh with cells"
        )
    fit = torch.linalg.pinv(system)[:, :d] * weight[:, None] / radius[..., None]  # [n, d, k + 1]
    # Differences u_j - u_i: the centre takes minus the sum of the neighbours.
    row = (frame[:, None] * d + torch.arange(d))[..., None].expand_as(fit)
    column = frame[index][:, None].expand_as(fit)
    centre = frame[:, None].expand(n, d)
    where = torch.stack(
        [
            torch.cat([row.flatten(), row[..., 0].flatten()]),
            torch.cat([column.flatten(), centre.flatten()]),
        ]
    )
    return where, torch.cat([fit.flatten(), -fit.sum(dim=-1).flatten()])


def _sparse(where: Tensor, entries: list[Tensor], shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(
        where, torch.cat(entries), shape, check_invariants=False
    ).coalesce()


def _multiply(matrix: Tensor, u: Tensor) -> Tensor:
    """Sparse times dense in the precision of the matrix, also inside autocast."""
    with full_precision(u):
        return torch.sparse.mm(matrix, u.to(matrix.dtype))
