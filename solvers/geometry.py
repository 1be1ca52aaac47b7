"""Plane geometries with holes: signed distance and boundary markers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cst_operator.errors import InputError
from cst_operator.fields import PointField

__all__ = [
    "BOTTOM",
    "LEFT",
    "RIGHT",
    "TOP",
    "Geometry",
    "disk",
    "ellipse",
    "rectangle",
]

Array = NDArray[np.float64]

BOTTOM, RIGHT, TOP, LEFT = 1, 2, 3, 4
"""Markers of the sides of a rectangle with ``sides=True``; its holes have 5, 6, ..."""

_CORNER = np.deg2rad(25.0)  # a sharper turn between two chords is a corner, kept as a mesh node


@dataclass(frozen=True, eq=False)
class Geometry:
    """A plane domain: one outer loop minus the inside of hole loops.

    Loops are closed polylines; a smooth curve is given by many points. Orientation does not
    matter on input; kept are the outer loop counter-clockwise and holes clockwise, so that the
    domain lies to the left.

    Args:
        loops: points of every loop without repeating the first, outer loop first, [m, 2] each.
        markers: one number per loop; 1 for the outer loop and 2, 3, ... for holes if omitted.
        sides: one number per chord of the outer loop (from a point to the next), instead of the
            first of ``markers``; meshes have a node where they change.

    Raises:
        InputError: if a loop has fewer than 3 points or encloses no area.
    """

    loops: tuple[Array, ...]
    markers: tuple[int, ...] = ()
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        loops = []
        for number, loop in enumerate(self.loops):
            points = np.asarray(loop, dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
                raise InputError(
                    f"loop {number} has shape {points.shape}; expected [3 points or more, 2]"
                )
            area = _area(points)
            if area == 0.0:
                raise InputError(f"loop {number} encloses no area; give a simple closed polyline")
            loops.append(points[::-1].copy() if (area > 0) == (number > 0) else points.copy())
        markers = self.markers or tuple(range(1, len(loops) + 1))
        if len(markers) != len(loops):
            raise InputError(f"{len(markers)} markers for {len(loops)} loops; give one per loop")
        sides = [int(side) for side in self.sides]
        if sides and len(sides) != len(loops[0]):
            raise InputError(
                f"{len(sides)} sides for {len(loops[0])} chords of the outer loop; give one each"
            )
        if sides and _area(np.asarray(self.loops[0], dtype=np.float64)) < 0:  # was turned round
            sides = [*sides[-2::-1], sides[-1]]
        object.__setattr__(self, "loops", tuple(loops))
        object.__setattr__(self, "markers", tuple(int(m) for m in markers))
        object.__setattr__(self, "sides", tuple(sides))

    @property
    def parts(self) -> tuple[int, ...]:
        """Markers of all parts of the boundary, outer ones first."""
        outer = tuple(dict.fromkeys(self.sides)) or self.markers[:1]
        return outer + self.markers[1:]

    @property
    def measures(self) -> dict[str, float]:
        """What a sample on this domain records of it: number of holes and area."""
        return {"num_holes": float(len(self.loops) - 1), "area": self.area}

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """:func:`~cst_operator.solvers.distmesh.mesh_geometry` of this domain."""
        from cst_operator.solvers.distmesh import mesh_geometry  # it imports this module

        return mesh_geometry(self, h, rng)

    def edge_markers(self, number: int, middle: Array) -> NDArray[np.int64]:
        """Markers of edges on a loop, [n].

        Args:
            number: of the loop, 0 for the outer one.
            middle: a point on or near every edge, [n, 2].
        """
        if number or not self.sides:
            return np.full(len(middle), self.markers[number])
        start = self.loops[0]
        chord = np.roll(start, -1, axis=0) - start  # [m, 2]
        offset = middle[:, None] - start  # [n, m, 2]
        along = np.clip((offset * chord).sum(axis=2) / (chord * chord).sum(axis=1), 0.0, 1.0)
        nearest = ((offset - along[..., None] * chord) ** 2).sum(axis=2).argmin(axis=1)
        return np.array(self.sides)[nearest]

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper corner of the bounding box, [2] each."""
        return self.loops[0].min(axis=0), self.loops[0].max(axis=0)

    @property
    def area(self) -> float:
        """Area of the domain."""
        return float(sum(_area(loop) for loop in self.loops))

    def distance(self, x: Array) -> Array:
        """Signed distance to the boundary, negative inside.

        Args:
            x: points, [n, 2].

        Returns:
            Distance, [n]. Two neighbouring chords of the nearest of many boundary samples are
            examined, so that the error is below rounding unless two boundary parts are equally
            near to the spacing of the samples (1/400 of the outer loop), then of second order
            in that spacing.
        """
        return self._nearest(x)[0]

    def project(self, x: Array) -> Array:
        """Nearest point of the boundary, [n, 2]."""
        return self._nearest(x)[1]

    def _nearest(self, x: Array) -> tuple[Array, Array]:
        points, following, previous, normal, tree = self._samples
        x = np.asarray(x, dtype=np.float64)
        nearest = tree.query(x)[1]
        best = np.full(len(x), np.inf)
        foot = np.zeros_like(x)
        outward = np.zeros_like(x)
        for start, end in ((previous[nearest], nearest), (nearest, following[nearest])):
            a = points[start]
            edge = points[end] - a
            t = ((x - a) * edge).sum(axis=1) / (edge * edge).sum(axis=1)
            t = np.clip(t, 0.0, 1.0)
            p = a + t[:, None] * edge
            square = ((x - p) ** 2).sum(axis=1)
            # at a corner the sum of both unit normals gives the sign (pseudo-normal)
            at = np.where(
                (t == 0.0)[:, None], _vertex_normal(normal, previous, start), normal[start]
            )
            at = np.where((t == 1.0)[:, None], _vertex_normal(normal, previous, end), at)
            closer = square < best
            best = np.where(closer, square, best)
            foot = np.where(closer[:, None], p, foot)
            outward = np.where(closer[:, None], at, outward)
        sign = np.where(((x - foot) * outward).sum(axis=1) > 0, 1.0, -1.0)
        return sign * np.sqrt(best), foot

    @cached_property
    def _samples(self) -> tuple[Array, NDArray[np.intp], NDArray[np.intp], Array, cKDTree]:
        spacing = _length(self.loops[0]) / 400
        points, following, previous = [], [], []
        offset = 0
        for loop in self.loops:
            dense = _densify(loop, spacing)
            number = np.arange(len(dense))
            points.append(dense)
            following.append(offset + (number + 1) % len(dense))
            previous.append(offset + (number - 1) % len(dense))
            offset += len(dense)
        p = np.concatenate(points)
        after = np.concatenate(following)
        edge = p[after] - p
        normal = np.stack([edge[:, 1], -edge[:, 0]], axis=1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return p, after, np.concatenate(previous), normal, cKDTree(p)

    def boundary_nodes(self, h: float, rng: np.random.Generator) -> list[Array]:
        """Points at equal arc length on every loop, about ``h`` apart.

        Corners are kept, and ends of sides. A hole gets at least 8 points. A loop without corners
        starts at a random place.
        """
        result = []
        for number, loop in enumerate(self.loops):
            kept = _turns(loop) > _CORNER
            if self.sides and number == 0:
                kept |= np.array(self.sides) != np.roll(self.sides, 1)
            corners = np.flatnonzero(kept)
            along = np.concatenate([[0.0], np.cumsum(_chords(loop))])
            closed = np.concatenate([loop, loop[:1]])
            total = along[-1]
            if len(corners):
                stops = along[corners]
                ends = np.append(stops[1:], stops[0] + total)
                places = np.concatenate(
                    [
                        np.linspace(s, e, max(int(round((e - s) / h)), 1), endpoint=False)
                        for s, e in zip(stops, ends, strict=True)
                    ]
                )
            else:
                count = max(int(round(total / h)), 8)
                places = (np.arange(count) + rng.random()) * total / count
            places = places % total
            result.append(
                np.stack([np.interp(places, along, closed[:, i]) for i in range(2)], axis=1)
            )
        return result


def _area(loop: Array) -> float:
    x, y = loop.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _chords(loop: Array) -> Array:
    result: Array = np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1)
    return result


def _length(loop: Array) -> float:
    return float(_chords(loop).sum())


def _turns(loop: Array) -> Array:
    """Angle between the chord before and the chord after every point, [m]."""
    after = np.roll(loop, -1, axis=0) - loop
    before = np.roll(after, 1, axis=0)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.abs(np.arctan2(cross, (before * after).sum(axis=1)))


def _densify(loop: Array, spacing: float) -> Array:
    """The same polyline with chords no longer than ``spacing``."""
    pieces = np.maximum(np.ceil(_chords(loop) / spacing).astype(int), 1)
    index = np.repeat(np.arange(len(loop)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    t = (np.arange(len(index)) - first) / pieces[index]
    result: Array = loop[index] + t[:, None] * (np.roll(loop, -1, axis=0) - loop)[index]
    return result


def _vertex_normal(normal: Array, previous: NDArray[np.intp], vertex: NDArray[np.intp]) -> Array:
    result: Array = normal[vertex] + normal[previous[vertex]]
    return result


def rectangle(
    width: float = 1.0, height: float = 1.0, *, holes: Sequence[Array] = (), sides: bool = False
) -> Geometry:
    """A rectangle with its lower left corner at the origin, optionally with holes.

    Args:
        width: in the first coordinate.
        height: in the second coordinate.
        holes: loops, [m, 2] each.
        sides: whether the sides have their own markers :data:`BOTTOM`, :data:`RIGHT`,
            :data:`TOP` and :data:`LEFT`, and the holes those from 5 on.
    """
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    if not sides:
        return Geometry((corners, *holes))
    markers = (BOTTOM, *range(5, 5 + len(holes)))
    return Geometry((corners, *holes), markers, (BOTTOM, RIGHT, TOP, LEFT))


def disk(
    radius: float = 1.0,
    centre: tuple[float, float] = (0.0, 0.0),
    *,
    holes: Sequence[Array] = (),
    num_points: int = 2000,
) -> Geometry:
    """A disk, as a polygon of many points, optionally with holes."""
    return Geometry((ellipse(centre, radius, radius, 0.0, num_points), *holes))


def ellipse(
    centre: Sequence[float] | Array, major: float, minor: float, angle: float, num_points: int
) -> Array:
    """Loop of an ellipse, [num_points, 2]: half axes, the major one turned by ``angle``."""
    t = np.linspace(0.0, 2 * np.pi, num_points, endpoint=False)
    x, y = major * np.cos(t), minor * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)
