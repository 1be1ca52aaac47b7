"""Plane geometries with holes: signed distance, boundary markers, random domains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cst_operator.errors import InputError, SolverError

__all__ = ["Geometry", "RandomDomain", "disk", "rectangle"]

Array = NDArray[np.float64]

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

    Raises:
        InputError: if a loop has fewer than 3 points or encloses no area.
    """

    loops: tuple[Array, ...]
    markers: tuple[int, ...] = ()

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
        object.__setattr__(self, "loops", tuple(loops))
        object.__setattr__(self, "markers", tuple(int(m) for m in markers))

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
        """Points at equal arc length on every loop, about ``h`` apart; corners are kept.

        A hole gets at least 8 points. A loop without corners starts at a random place.
        """
        result = []
        for loop in self.loops:
            corners = np.flatnonzero(_turns(loop) > _CORNER)
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


def rectangle(width: float = 1.0, height: float = 1.0, *, holes: Sequence[Array] = ()) -> Geometry:
    """A rectangle with its lower left corner at the origin, optionally with holes."""
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    return Geometry((corners, *holes))


def disk(
    radius: float = 1.0,
    centre: tuple[float, float] = (0.0, 0.0),
    *,
    holes: Sequence[Array] = (),
    num_points: int = 2000,
) -> Geometry:
    """A disk, as a polygon of many points, optionally with holes."""
    return Geometry((_ellipse(centre, radius, radius, 0.0, num_points), *holes))


def _ellipse(
    centre: Sequence[float] | Array, major: float, minor: float, angle: float, num_points: int
) -> Array:
    t = np.linspace(0.0, 2 * np.pi, num_points, endpoint=False)
    x, y = major * np.cos(t), minor * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)


@dataclass(frozen=True, kw_only=True)
class RandomDomain:
    r"""Random domains with holes inside the unit square.

    The outer boundary is star-shaped about (.5, .5). Smooth: :math:`r(\theta) = R\,e^{s(\theta)}`
    with :math:`s = \sum_{k=2}^{6} (a_k \cos k\theta + b_k \sin k\theta) 2/k`, a and b normal with
    standard deviation ``roughness``, R such that the largest radius is uniform in [.44, .5].
    Polygon: 5 to 8 corners at jittered equal angles with radii uniform in [.6, 1] of the largest.
    Holes are ellipses: number and larger half axis uniform in the given ranges, ratio of the half
    axes uniform in [.7, 1], turned at random, placed uniformly where the gap is kept.

    Args:
        num_holes: smallest and largest number of holes.
        hole_radius: smallest and largest half axis.
        gap: least distance between two holes and between a hole and the outer boundary.
        roughness: size of the variation of the outer boundary; 0 is a disk.
        outline: "smooth" or "polygon".
    """

    num_holes: tuple[int, int] = (1, 3)
    hole_radius: tuple[float, float] = (0.045, 0.085)
    gap: float = 0.06
    roughness: float = 0.1
    outline: Literal["smooth", "polygon"] = "smooth"

    def __post_init__(self) -> None:
        if self.outline not in ("smooth", "polygon"):
            raise InputError(f"outline is {self.outline!r}; expected 'smooth' or 'polygon'")
        if not 0 <= self.num_holes[0] <= self.num_holes[1]:
            raise InputError(f"num_holes is {self.num_holes}; expected (smallest, largest)")
        if not 0 < self.hole_radius[0] <= self.hole_radius[1]:
            raise InputError(f"hole_radius is {self.hole_radius}; expected (smallest, largest) > 0")

    def sample(self, rng: np.random.Generator) -> Geometry:
        """Draw a geometry.

        Raises:
            SolverError: if a hole finds no place in 300 trials.
        """
        outer = self._smooth(rng) if self.outline == "smooth" else self._polygon(rng)
        geometry = Geometry((outer,))
        holes: list[Array] = []
        low, high = outer.min(axis=0), outer.max(axis=0)
        for number in range(int(rng.integers(self.num_holes[0], self.num_holes[1] + 1))):
            major = rng.uniform(*self.hole_radius)
            minor = major * rng.uniform(0.7, 1.0)
            angle = rng.uniform(0.0, np.pi)
            centre = rng.uniform(low, high, size=(300, 2))
            free = -geometry.distance(centre) - major > self.gap
            if not free.any():
                raise SolverError(f"hole {number + 1} found no place in 300 trials")
            holes.append(_ellipse(centre[np.argmax(free)], major, minor, angle, 256))
            geometry = Geometry((outer, *holes))
        return geometry

    def _smooth(self, rng: np.random.Generator) -> Array:
        theta = np.linspace(0.0, 2 * np.pi, 720, endpoint=False)
        k = np.arange(2, 7)[:, None]
        a, b = rng.normal(0.0, self.roughness, (2, 5, 1)) * 2 / k
        r = np.exp((a * np.cos(k * theta) + b * np.sin(k * theta)).sum(axis=0))
        r *= rng.uniform(0.44, 0.5) / r.max()
        return 0.5 + r[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)

    def _polygon(self, rng: np.random.Generator) -> Array:
        count = int(rng.integers(5, 9))
        theta = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
        r = rng.uniform(0.6, 1.0, count)
        r *= rng.uniform(0.44, 0.5) / r.max()
        return 0.5 + r[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)
