"""What is in a mesh and what is wrong with it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator._cells import cell_geometry, cells_dim, measure, same_vertices
from cst_operator._mesh_defects import first_of, inverted, is_oriented, repeated
from cst_operator.boundary import boundary_facets
from cst_operator.fields import PointField

__all__ = ["ChannelRange", "MeshReport", "mesh_report"]

# Every vertex with its neighbours along edges, and the volume that their unit vectors span in the
# best cell (equilateral, or square).
_CORNERS: dict[str, tuple[float, tuple[tuple[int, ...], ...]]] = {
    "triangle": (3**0.5 / 2, ((0, 1, 2), (1, 2, 0), (2, 0, 1))),
    "quad": (1.0, ((0, 1, 3), (1, 2, 0), (2, 3, 1), (3, 0, 2))),
    "tetra": (0.5**0.5, ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))),
    "pyramid": (0.5**0.5, ((0, 1, 3, 4), (1, 2, 0, 4), (2, 3, 1, 4), (3, 0, 2, 4))),
    "wedge": (
        3**0.5 / 2,
        ((0, 1, 2, 3), (1, 2, 0, 4), (2, 0, 1, 5), (3, 5, 4, 0), (4, 3, 5, 1), (5, 4, 3, 2)),
    ),
    "hexahedron": (
        1.0,
        (
            (0, 1, 3, 4),
            (1, 2, 0, 5),
            (2, 3, 1, 6),
            (3, 0, 2, 7),
            (4, 7, 5, 0),
            (5, 4, 6, 1),
            (6, 5, 7, 2),
            (7, 6, 4, 3),
        ),
    ),
}

_REPAIR = "repair_mesh (cst inspect --repair)"


@dataclass(frozen=True, kw_only=True)
class ChannelRange:
    """Name, unit and range of one channel; the mean is over points."""

    name: str
    unit: str
    minimum: float
    mean: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """Counts, quality and defects of a mesh.

    Args:
        num_points: number of points.
        dim: number of coordinates.
        num_cells: cells by type.
        num_facets: marked facets by type, as the file has them.
        num_boundary_facets: facets of one cell only.
        degenerate: cells of zero volume, or twisted.
        duplicate_cells: other cells with the same points as an earlier one of their type.
        inverted: cells oriented against most others of their type, where that is defined.
        concave: quadrilaterals and hexahedra (...) with a corner that points inwards.
        duplicates: points that coincide with an earlier one.
        unused: points of no cell.
        quality_min: smallest quality of all cells: the volume that the edges at a corner span, over
            the product of their lengths, least over the corners and scaled so that equilateral
            and square cells have 1; NaN without cells.
        quality_mean: mean over the cells.
        lower: smallest coordinates, d numbers.
        upper: largest coordinates, d numbers.
        volume: total volume (area, length) of the cells, without the degenerate.
        channels: ranges of the channels.
        problems: what makes the mesh unusable, one line each with a remedy: degenerate cells, which
            have no weights, and duplicate cells, which are counted twice by every integral.
        notes: defects that the library can live with, likewise: inverted cells (weights and
            gradients do not depend on orientation, only the direction of boundary facets does),
            concave cells, points that coincide or belong to no cell.
    """

    num_points: int
    dim: int
    num_cells: dict[str, int]
    num_facets: dict[str, int]
    num_boundary_facets: int
    degenerate: int
    duplicate_cells: int
    inverted: int
    concave: int
    duplicates: int
    unused: int
    quality_min: float
    quality_mean: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    volume: float
    channels: tuple[ChannelRange, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the mesh can be used as it is; there may be notes."""
        return not self.problems


def mesh_report(field: PointField) -> MeshReport:
    """Inspect a mesh and its channels; never raises for a degenerate cell.

    Args:
        field: the mesh, e.g. ``read_mesh(path, weights=False)``; without cells, only points and
            channels are looked at.

    Raises:
        MeshError: if cells are of unsupported types, mixed dimensions or out of range.
    """
    cells = {kind: index for kind, index in (field.get("cells") or {}).items() if len(index)}
    pos = field.pos.detach().cpu().double()
    # The precision of the given coordinates decides what is degenerate or coincides.
    given = field.pos.detach().cpu()
    degenerate = copies = turned = concave = 0
    volume = 0.0
    qualities = []
    used = torch.zeros(field.num_points, dtype=torch.bool)
    if cells:
        cells_dim(cells)
    for kind, index in cells.items():
        index = index.cpu()
        _, elements, sign = cell_geometry(given, kind, index)
        degenerate += int((sign == 0).sum())
        copies += int(repeated(same_vertices(index)[sign != 0]).sum())
        turned += int(inverted(kind, sign, field.dim).sum())
        quality = _quality(pos, kind, index, sign)
        concave += int(((quality <= 0) & (sign != 0)).sum())
        qualities.append(quality)
        volume += float(elements[sign != 0].double().sum())
        used[index.flatten()] = True
    quality = torch.cat(qualities) if qualities else pos.new_full((1,), torch.nan)
    duplicates = int((first_of(given) != torch.arange(field.num_points)).sum())
    unused = int((~used).sum()) if cells else 0
    problems = (
        (degenerate, f"degenerate cells (zero volume or twisted); {_REPAIR} drops them"),
        (copies, f"duplicate cells, counted twice by integrals; {_REPAIR} drops them"),
    )
    notes = (
        (turned, f"inverted cells, which integrals and gradients ignore; {_REPAIR} turns them"),
        (concave, "concave cells; split or remesh them"),
        (duplicates, f"repeated points; {_REPAIR} merges them, or the mesh has a crack there"),
        (unused, f"points of no cell, whose weight is zero; {_REPAIR} can drop them"),
    )
    return MeshReport(
        num_points=field.num_points,
        dim=field.dim,
        num_cells={kind: len(index) for kind, index in cells.items()},
        num_facets={kind: len(index) for kind, index in (field.get("facets") or {}).items()},
        num_boundary_facets=sum(len(i) for i in boundary_facets(cells).values()) if cells else 0,
        degenerate=degenerate,
        duplicate_cells=copies,
        inverted=turned,
        concave=concave,
        duplicates=duplicates,
        unused=unused,
        quality_min=float(quality.min()),
        quality_mean=float(quality.mean()),
        lower=tuple(pos.amin(dim=0).tolist()),
        upper=tuple(pos.amax(dim=0).tolist()),
        volume=volume,
        channels=tuple(
            ChannelRange(
                name=name,
                unit=unit,
                minimum=float(column.min()),
                mean=float(column.double().mean()),
                maximum=float(column.max()),
            )
            for name, unit, column in zip(
                field.channels, field.units, field.u.detach().unbind(dim=1), strict=True
            )
        ),
        problems=_lines(problems),
        notes=_lines(notes),
    )


def _lines(defects: tuple[tuple[int, str], ...]) -> tuple[str, ...]:
    return tuple(f"{number} {what}" for number, what in defects if number)


def _quality(pos: Tensor, kind: str, index: Tensor, sign: Tensor) -> Tensor:
    if kind == "line":
        return (sign != 0).to(pos)
    best, corners = _CORNERS[kind]
    worst = pos.new_full((len(index),), torch.inf)
    for corner in corners:
        at = pos[index[:, corner]]  # [n, 1 + k, d]
        edges = (at[:, 1:] - at[:, :1]).transpose(1, 2)
        length = edges.norm(dim=1).prod(dim=1).clamp_min(1e-300)
        span = measure(edges) / length / best
        worst = worst.minimum(span * sign if is_oriented(kind, pos.shape[1]) else span)
    return worst.clamp(max=1).where(sign != 0, 0)
