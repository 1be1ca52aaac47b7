"""Random domains with elliptic holes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers.geometry import Geometry, ellipse, rectangle

__all__ = ["RandomDomain", "RandomRectangle"]

Array = NDArray[np.float64]


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
        _check_holes(self.num_holes, self.hole_radius)

    def sample(self, rng: np.random.Generator) -> Geometry:
        """Draw a geometry.

        Raises:
            SolverError: if a hole finds no place in 300 trials.
        """
        outer = self._smooth(rng) if self.outline == "smooth" else self._polygon(rng)
        holes = _ellipses(outer, rng, self.num_holes, self.hole_radius, self.gap)
        return Geometry((outer, *holes))

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


@dataclass(frozen=True, kw_only=True)
class RandomRectangle:
    """A rectangle with random elliptic holes: a plate, or a channel with obstacles.

    The holes are drawn as those of :class:`RandomDomain`. The sides have their own markers, see
    :func:`~cst_operator.solvers.geometry.rectangle`.

    Args:
        width: in the first coordinate.
        height: in the second coordinate.
        num_holes: smallest and largest number of holes.
        hole_radius: smallest and largest half axis.
        gap: least distance between two holes and between a hole and a side.
        outlet: length before the right side in which no hole has its centre.
    """

    width: float = 1.0
    height: float = 1.0
    num_holes: tuple[int, int] = (1, 3)
    hole_radius: tuple[float, float] = (0.06, 0.12)
    gap: float = 0.08
    outlet: float = 0.0

    def __post_init__(self) -> None:
        _check_holes(self.num_holes, self.hole_radius)
        if not 0 <= self.outlet < self.width:
            raise InputError(f"outlet is {self.outlet}; expected 0 to the width, {self.width}")

    def sample(self, rng: np.random.Generator) -> Geometry:
        """Draw a geometry.

        Raises:
            SolverError: if a hole finds no place in 300 trials.
        """
        outer = rectangle(self.width, self.height).loops[0]
        holes = _ellipses(outer, rng, self.num_holes, self.hole_radius, self.gap, self.outlet)
        return rectangle(self.width, self.height, holes=holes, sides=True)


def _check_holes(num_holes: tuple[int, int], hole_radius: tuple[float, float]) -> None:
    if not 0 <= num_holes[0] <= num_holes[1]:
        raise InputError(f"num_holes is {num_holes}; expected (smallest, largest)")
    if not 0 < hole_radius[0] <= hole_radius[1]:
        raise InputError(f"hole_radius is {hole_radius}; expected (smallest, largest) > 0")


def _ellipses(
    outer: Array,
    rng: np.random.Generator,
    num_holes: tuple[int, int],
    hole_radius: tuple[float, float],
    gap: float,
    outlet: float = 0.0,
) -> list[Array]:
    geometry = Geometry((outer,))
    holes: list[Array] = []
    low, high = outer.min(axis=0), outer.max(axis=0)
    high[0] -= outlet
    for number in range(int(rng.integers(num_holes[0], num_holes[1] + 1))):
        major = rng.uniform(*hole_radius)
        minor = major * rng.uniform(0.7, 1.0)
        angle = rng.uniform(0.0, np.pi)
        centre = rng.uniform(low, high, size=(300, 2))
        free = -geometry.distance(centre) - major > gap
        if not free.any():
            raise SolverError(f"hole {number + 1} found no place in 300 trials")
        holes.append(ellipse(centre[np.argmax(free)], major, minor, angle, 256))
        geometry = Geometry((outer, *holes))
    return holes
