"""Regular grids of the unit box as neuraloperator has them, and its grid data as examples."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cst_operator.errors import FieldError
from cst_operator.fields import Example, PointField
from cst_operator.peers.samples import starts

__all__ = [
    "GridExamples",
    "batch_layout",
    "from_grid",
    "grid_field",
    "layout",
    "to_grid",
    "unit_grid",
]


def unit_grid(shape: Sequence[int]) -> Tensor:
    """Points i / n along every axis, the last axis fastest, [n1 ... nd, d].

    These are the coordinates that neuraloperator's grid embedding gives its models, and those of
    its strided data: its Darcy flow at 16 points a side is every second point of that at 32.
    """
    axes = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    return torch.stack([a.flatten() for a in torch.meshgrid(*axes, indexing="ij")], dim=1)


@lru_cache(maxsize=32)
def grid_field(shape: tuple[int, ...], *, periodic: bool = False) -> PointField:
    """The points of a grid, float64, with cells and weights 1 / (n1 ... nd).

    Args:
        shape: points along every axis; 1 to 3 axes.
        periodic: repeat the first points of every axis beyond its last ones, so that cells cover
            the unit box; those of the repetition, [n1 + 1, ...], weigh nothing.

    Raises:
        FieldError: if there are more than three axes, or an axis with a single point.
    """
    if not 1 <= len(shape) <= 3 or min(shape) < 2:
        raise FieldError(f"a grid of shape {shape} has no cells; expected 1 to 3 axes of 2 or more")
    full = tuple(n + int(periodic) for n in shape)
    index = torch.arange(math.prod(full)).view(full)
    low, high = slice(None, -1), slice(1, None)
    # Corner by corner in meshio's order.
    side = [(low, low), (high, low), (high, high), (low, high)]
    corners: dict[str, list[tuple[slice, ...]]] = {
        "line": [(low,), (high,)],
        "quad": [*side],
        "hexahedron": [(*corner, top) for top in (low, high) for corner in side],
    }
    kind = ("line", "quad", "hexahedron")[len(shape) - 1]
    axes = [torch.arange(m, dtype=torch.float64) / n for m, n in zip(full, shape, strict=True)]
    places = torch.meshgrid(*axes, indexing="ij")
    inside = torch.stack([p < 1 for p in places]).all(0).flatten()
    return PointField(
        torch.stack([p.flatten() for p in places], dim=1),
        weights=inside.double() / math.prod(shape),
        cells={kind: torch.stack([index[c].flatten() for c in corners[kind]], dim=1)},
    )


def layout(pos: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """The shape of the regular grid that points make, in whatever order they come.

    Args:
        pos: coordinates, [N, d].

    Returns:
        Points along every axis, and the number of every point on the grid, last axis fastest, [N].

    Raises:
        FieldError: if the points make no regular grid.
    """
    place = torch.zeros(len(pos), dtype=torch.long, device=pos.device)
    shape = []
    for x in pos.T:
        ordered = x.sort().values
        extent = ordered[-1] - ordered[0]
        first = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered.diff() > 1e-5 * extent])
        lines = ordered[first]
        n = len(lines)
        # Single precision rounds coordinates to about 1e-7 of the extent.
        even = torch.linspace(float(lines[0]), float(lines[-1]), n, dtype=x.dtype).to(x)
        if n < 2 or bool(((lines - even).abs() > 1e-4 * extent / (n - 1)).any()):
            break
        place = place * n + ((x - lines[0]) / extent * (n - 1)).round().long()
        shape.append(n)
    if len(shape) < pos.shape[1] or not torch.equal(
        place.sort().values, torch.arange(math.prod(shape), device=place.device)
    ):
        raise FieldError(
            f"the {len(pos)} points make no regular grid of at least two equidistant points along "
            "every axis, which this model or loss needs; for other points use "
            "cst_operator.GridFNO, GeometryOperator or RelativeSobolev"
        )
    return tuple(shape), place


def batch_layout(field: PointField) -> tuple[tuple[int, ...], Tensor]:
    """:func:`layout` of every field of a batch, which must have one shape; places are [B, N].

    Raises:
        FieldError: if a field is no regular grid, or their shapes differ.
    """
    bounds = starts(field)
    if len({high - low for low, high in itertools.pairwise(bounds)}) > 1:
        raise FieldError("the grids of a batch have different shapes; batch those of one shape")
    parts = field.pos.view(len(bounds) - 1, -1, field.pos.shape[1])
    shape, place = layout(parts[0])
    if torch.equal(parts, parts[:1].expand_as(parts)):  # as in most data sets of grids
        return shape, place.expand(len(parts), -1)
    found = [layout(part) for part in parts]
    if any(other != shape for other, _ in found):
        raise FieldError("the grids of a batch have different shapes; batch those of one shape")
    return shape, torch.stack([p for _, p in found])


def to_grid(u: Tensor, shape: tuple[int, ...], place: Tensor) -> Tensor:
    """Rows at the points of B grids, [B N, c], on the grids, [B, c, n1, ..., nd]."""
    rows = u.view(*place.shape, u.shape[1])
    index = place.argsort(1)[..., None].expand_as(rows)
    return rows.gather(1, index).transpose(1, 2).unflatten(2, shape)


def from_grid(values: Tensor, place: Tensor) -> Tensor:
    """The inverse of :func:`to_grid`."""
    rows = values.flatten(2).transpose(1, 2)
    return rows.gather(1, place[..., None].expand_as(rows)).flatten(0, 1)


class _Samples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class GridExamples(Dataset[Example]):
    """A data set of neuraloperator on a grid as examples of this library.

    Args:
        samples: items ``{"x": [c, n1, ..., nd], "y": [c_out, n1, ..., nd]}``, such as the
            ``train_db`` and ``test_dbs`` of ``neuralop.data.datasets.DarcyDataset``.
        in_names: names of the channels of ``x``; ``x0``, ``x1``, ... if empty.
        out_names: names of the channels of ``y``; ``y0``, ``y1``, ... if empty.

    Raises:
        FieldError: on reading an item that has no such form.
    """

    def __init__(
        self,
        samples: _Samples,
        *,
        in_names: Sequence[str] = (),
        out_names: Sequence[str] = (),
    ) -> None:
        self.samples = samples
        self.in_names = tuple(in_names)
        self.out_names = tuple(out_names)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        """One sample: source and target on the same grid, with cells."""
        sample = self.samples[index]
        if not isinstance(sample, dict) or not {"x", "y"} <= set(sample):
            raise FieldError(
                f"item {index} is no dictionary with x and y; give a data set such as DarcyDataset "
                "or a list of such dictionaries"
            )
        x, y = sample["x"], sample["y"]
        if x.dim() < 2 or x.shape[1:] != y.shape[1:]:
            raise FieldError(
                f"item {index} has x of shape {tuple(x.shape)} and y of {tuple(y.shape)}; expected "
                "[channels, n1, ..., nd] on the same grid"
            )
        grid = grid_field(tuple(y.shape[1:]))
        pos, weights = grid.pos.to(y), grid.weights.to(y)
        return Example(
            PointField(pos, _rows(x).to(y), weights, channels=self.in_names or _named("x", x)),
            PointField(
                pos,
                _rows(y),
                weights,
                channels=self.out_names or _named("y", y),
                cells=grid.cells,
            ),
        )


def _rows(values: Tensor) -> Tensor:
    return values.flatten(1).T.contiguous()


def _named(prefix: str, values: Tensor) -> list[str]:
    return [f"{prefix}{i}" for i in range(len(values))]
