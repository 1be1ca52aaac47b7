"""Other samplings of a field that is known on a mesh."""

from typing import Any

import torch
from torch import Tensor

from cst_operator._precision import full_precision
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import cell_weights

__all__ = ["BOUNDARY", "distinct", "sample_cells", "thin_out", "union", "with_boundary"]

BOUNDARY = "boundary"
"""Name of the channel that :func:`with_boundary` adds."""

_FEW = 32
_SIMPLICES = ("line", "triangle", "tetra")


def distinct(available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Random numbers below ``available``, none twice, every choice and order equally likely.

    A few of many are drawn one by one, without those that came before: the cost of an order of all
    would grow with their number.

    Args:
        available: how many numbers there are.
        wanted: how many to draw; all of them if there are fewer.
        generator: draws them, on the CPU.
    """
    if wanted * _FEW < available:
        # Of so many, twice as many draws as wanted nearly always hold enough different ones.
        drawn = torch.randint(available, (2 * wanted,), generator=generator)
        values, place = drawn.unique(return_inverse=True)
        first = torch.full_like(values, len(drawn))
        first.scatter_reduce_(0, place, torch.arange(len(drawn)), "amin")
        if len(values) >= wanted:
            return drawn[first.sort().values[:wanted]]
    return torch.randperm(available, generator=generator)[:wanted]


def sample_cells(field: PointField, generator: torch.Generator) -> PointField:
    r"""One random point in every cell, with the cell's volume as its weight.

    Where the gradient is known at the vertices, the value at barycentric coordinates
    :math:`\lambda` is :math:`\sum_i \lambda_i (u_i + \tfrac12 \nabla u_i\cdot(x - x_i))`, exact for
    quadratic functions, of third order in the cell size; elsewhere it is linear. The gradient is
    interpolated linearly.

    Args:
        field: samples at the vertices of simplices.
        generator: draws the points, on the CPU.

    Raises:
        MeshError: if there are no cells, or cells that are not simplices.
    """
    cells = field.get("cells", {})
    if not cells or any(kind not in _SIMPLICES for kind in cells):
        raise MeshError(
            f"points are drawn in lines, triangles and tetrahedra; the field has "
            f"{', '.join(cells) or 'no cells'}, so split its cells or use its nodes alone"
        )
    volumes = cell_weights(field.pos, cells)
    with full_precision(field.pos):
        parts = [_in_cells(field, cells[kind], volumes[kind], generator) for kind in cells]
    joined: dict[str, Any] = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return PointField(channels=field.channels, units=field.units, **joined)


def _in_cells(
    field: PointField, index: Tensor, volume: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    exponential = -torch.log1p(-torch.rand(index.shape, generator=generator, dtype=torch.float64))
    share = (exponential / exponential.sum(1, keepdim=True)).to(field.pos)  # uniform in a simplex

    def mean(values: Tensor) -> Tensor:
        return torch.einsum("nv,nv...->n...", share.to(values), values)

    corner = field.pos[index]
    pos = mean(corner)
    u = field.u[index]
    drawn = {"pos": pos, "time": mean(field.time[index]), "weights": volume}
    if "gradient" in field:
        gradient = field.gradient[index]  # [n, v, c, d]
        u = u + torch.einsum("nvcd,nvd->nvc", gradient, (pos[:, None] - corner).to(gradient)) / 2
        drawn["gradient"] = mean(gradient)
    if "time_derivative" in field:
        drawn["time_derivative"] = mean(field.time_derivative[index])
    return {**drawn, "u": mean(u)}


def union(*fields: PointField) -> PointField:
    """Several samplings of one domain as one: all points, every weight divided by their number."""
    keys = ("pos", "time", "u", "weights", "gradient", "time_derivative")
    joined: dict[str, Any] = {
        key: torch.cat([field[key] for field in fields])
        for key in keys
        if all(key in field for field in fields)
    }
    joined["weights"] = joined["weights"] / len(fields)
    return PointField(channels=fields[0].channels, units=fields[0].units, **joined)


def with_boundary(field: PointField, boundary: PointField) -> PointField:
    """A sampling of a domain and of its boundary as one set of points.

    The points of the boundary bring their own measure: the weights of both parts add up to one
    half, so neither vanishes when the mesh is refined. A further channel ``boundary`` is 1 on the
    boundary's points and 0 on the others.

    Args:
        field: points of the domain, with weights.
        boundary: points of its boundary with surface weights and the same channels, see
            :func:`~cst_operator.boundary.boundary_points`.
    """
    parts = []
    for part, flag in ((field, 0.0), (boundary, 1.0)):
        flagged = part.with_channels(part.u.new_full((part.num_points, 1), flag), [BOUNDARY])
        flagged.weights = part.weights / part.weights.sum()
        parts.append(flagged)
    return union(*parts)


def thin_out(field: PointField, count: int, generator: torch.Generator) -> PointField:
    """A random part of a field's points that still integrates over its domain.

    Every point that is left out gives its weight to the nearest one that stays.

    Args:
        field: the points, with weights.
        count: how many stay.
        generator: draws them, on the CPU.
    """
    index = distinct(field.num_points, count, generator).to(field.pos.device)
    kept = field.subset(index)
    nearest = torch.cdist(field.pos, kept.pos).argmin(1)
    kept.weights = torch.zeros_like(kept.weights).index_add(0, nearest, field.weights)
    return kept
