"""Repair of a mesh, by request and with a count of everything that was done."""

from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from cst_operator._cells import cell_geometry, cells_dim, same_vertices
from cst_operator._mesh_defects import first_of, inverted, repeated
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights

__all__ = ["MeshRepair", "repair_mesh"]

# Vertices of the same cell in an order that turns its volume's sign round.
_MIRRORED: dict[str, tuple[int, ...]] = {
    "triangle": (0, 2, 1),
    "quad": (0, 3, 2, 1),
    "tetra": (0, 2, 1, 3),
    "pyramid": (0, 3, 2, 1, 4),
    "wedge": (3, 4, 5, 0, 1, 2),
    "hexahedron": (4, 5, 6, 7, 0, 1, 2, 3),
}


@dataclass(frozen=True, kw_only=True)
class MeshRepair:
    """What a repair did; the names are those of :class:`~cst_operator.mesh_report.MeshReport`.

    Args:
        duplicates: points that were merged with an earlier one.
        degenerate: cells of zero volume, or twisted, that were dropped.
        duplicate_cells: further cells that were dropped because they had the points of an earlier
            one, before or after points were merged.
        inverted: cells that were turned.
        facets: marked facets that were dropped: those with a point twice, with the points and the
            marker of an earlier one, or with a point that was dropped.
        unused: points that were dropped because no cell uses them.
        volume: integral over the dropped degenerate cells; more than rounding means that twisted
            cells were among them and have left holes, which want a remeshing.
    """

    duplicates: int
    degenerate: int
    duplicate_cells: int
    inverted: int
    facets: int
    unused: int
    volume: float

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return any(astuple(self))


def repair_mesh(
    field: PointField, *, merge: bool = True, drop_unused: bool = False
) -> tuple[PointField, MeshRepair]:
    """Remove the defects that have one remedy: points and cells twice, cells flat or turned.

    In this order, each as :func:`~cst_operator.mesh_report.mesh_report` counts it: points that
    coincide become the first of them; degenerate cells go; of cells with the same points the first
    stays; cells oriented against most others of their type are turned. Concave cells stay as they
    are. A cell that names a point which does not exist is refused: nothing tells what it was.

    Everything else is kept: values, channels, units, known derivatives, facets and their markers,
    and the order of points and cells. The repaired field has
    :func:`~cst_operator.quadrature.node_weights`. A field without a defect is returned with the
    weights that it has.

    Args:
        field: the mesh, e.g. ``read_mesh(path, weights=False)``.
        merge: False keeps coinciding points apart, where a mesh has a crack or its values jump.
        drop_unused: drop the points of no cell as well; their weight is zero.

    Returns:
        The repaired field and what was done.

    Raises:
        MeshError: if there are no cells or none is left, if points coincide whose values differ, or
            if the field is a batch.
        FieldError: if a cell names a point that does not exist.
    """
    if "batch" in field:
        raise MeshError("a batch has as many meshes as samples; repair those of to_data_list()")
    field._check(("cells", "facets"))
    cells = {kind: index for kind, index in (field.get("cells") or {}).items() if len(index)}
    cells_dim(cells)
    own = torch.arange(field.num_points, device=field.pos.device)
    first = first_of(field.pos) if merge else own
    _check_values(field, first)
    cells, counts = _repair_cells(field.pos, {kind: first[i] for kind, i in cells.items()})
    if not cells:
        raise MeshError("all cells are degenerate, so that no mesh is left; check the coordinates")
    kept = first == own
    duplicates = int((~kept).sum())
    if drop_unused:
        used = torch.zeros_like(kept)
        used[torch.cat([index.flatten() for index in cells.values()])] = True
        kept &= used
    number = kept.cumsum(0) - 1
    number[~kept] = -1
    facets, markers, dropped = _repair_facets(field, number[first])
    done = MeshRepair(
        **counts,
        duplicates=duplicates,
        facets=dropped,
        unused=field.num_points - duplicates - int(kept.sum()),
    )
    if not done.changed:
        weighted = "weights" in field
        return field if weighted else field._with(weights=node_weights(field.pos, cells)), done
    points = field.subset(kept)
    cells = {kind: number[index] for kind, index in cells.items()}
    weights = node_weights(points.pos, cells)
    return points._with(weights=weights, cells=cells, facets=facets, facet_markers=markers), done


def _check_values(field: PointField, first: Tensor) -> None:
    """Points that become one have the same values within rounding."""
    for name in ("u", "time", "gradient", "time_derivative"):
        if name not in field:
            continue
        value = field[name].detach().reshape(len(first), -1)
        if not value.shape[1]:
            continue
        reach = 4 * torch.finfo(value.dtype).eps * value.abs().amax(dim=0)
        bad = ((value - value[first]).abs() > reach).nonzero()
        if not len(bad):
            continue
        point, column = bad[0].tolist()
        what = name
        if name != "time":
            channel = column // (value.shape[1] // len(field.channels))
            what = f"{'' if name == 'u' else name + ' of '}channel {field.channels[channel]!r}"
        raise MeshError(
            f"points {int(first[point])} and {point} coincide but differ in {what} "
            f"({float(value[first[point], column]):.6g} and {float(value[point, column]):.6g}), "
            f"the first of {len(bad[:, 0].unique())} such points; correct the values, or keep the "
            "points apart with merge=False (--no-merge) if there is a crack or a jump"
        )


def _repair_cells(
    pos: Tensor, cells: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Cells without defects, and what was done to them by the names of a report."""
    repaired: dict[str, Tensor] = {}
    degenerate = copies = turned = 0
    volume = 0.0
    for kind, index in cells.items():
        _, elements, sign = cell_geometry(pos, kind, index)
        flat = sign == 0
        again = torch.zeros_like(flat)
        again[~flat] = repeated(same_vertices(index)[~flat])
        index, sign = index[~flat & ~again], sign[~flat & ~again]
        wrong = inverted(kind, sign, pos.shape[1])
        if bool(wrong.any()):
            index[wrong] = index[wrong][:, list(_MIRRORED[kind])]
        if len(index):
            repaired[kind] = index
        degenerate += int(flat.sum())
        copies += int(again.sum())
        turned += int(wrong.sum())
        volume += float(elements[flat].double().sum())
    return repaired, {
        "degenerate": degenerate,
        "duplicate_cells": copies,
        "inverted": turned,
        "volume": volume,
    }


def _repair_facets(
    field: PointField, number: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Facets and markers with the new numbers of points, -1 for a dropped one, and the loss."""
    facets: dict[str, Tensor] = {}
    markers: dict[str, Tensor] = {}
    dropped = 0
    for kind, index in (field.get("facets") or {}).items():
        if not len(index):
            continue
        index = number[index]
        marks = (field.get("facet_markers") or {}).get(kind)
        kinds = same_vertices(index + 1)
        if marks is not None:
            kinds = kinds * (len(marks) + 1) + marks.unique(return_inverse=True)[1]
        twice = (index.sort(dim=1).values.diff(dim=1) == 0).any(dim=1)
        kept = (index >= 0).all(dim=1) & ~twice & ~repeated(kinds)
        dropped += int((~kept).sum())
        if not bool(kept.any()):
            continue
        facets[kind] = index[kept]
        if marks is not None:
            markers[kind] = marks[kept]
    return facets, markers, dropped
