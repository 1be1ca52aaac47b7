"""Random solids: smooth star-shaped bodies and boxes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError
from cst_operator.solvers.random_fields import GaussianField, SmoothField
from cst_operator.solvers.solids import Box, StarBody, icosphere_directions

__all__ = ["RandomBox", "RandomSolid"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RandomSolid:
    r"""Random smooth star-shaped bodies inside the unit cube.

    About (.5, .5, .5) the boundary is at :math:`r(n) = R\,e^{s(n)}` in the direction n, with s a
    Gaussian random field on the unit sphere and R such that the largest radius is uniform in
    [.44, .5].

    Args:
        roughness: standard deviation of s; 0 is a ball.
        length_scale: correlation length of s, on the unit sphere.
    """

    roughness: float = 0.15
    length_scale: float = 0.8

    def __post_init__(self) -> None:
        if not self.roughness >= 0 or not self.length_scale > 0:
            raise InputError(
                f"roughness is {self.roughness} and length_scale {self.length_scale}; "
                "expected 0 or more, and a positive length"
            )

    def sample(self, rng: np.random.Generator) -> StarBody:
        """Draw a body."""
        field = GaussianField(length_scale=self.length_scale, std=self.roughness, log=True)
        shape = field.sample(rng)
        largest = float(shape(icosphere_directions(16)[0]).max())
        return StarBody(_Scaled(shape, rng.uniform(0.44, 0.5) / largest), (0.5, 0.5, 0.5))


@dataclass(frozen=True, eq=False)
class _Scaled:
    shape: SmoothField | Callable[[Array], Array]
    factor: float

    def __call__(self, direction: Array) -> Array:
        return self.factor * self.shape(direction)


@dataclass(frozen=True, kw_only=True)
class RandomBox:
    """Boxes of random sides, each uniform in a range; markers as for ``Box``.

    Args:
        length: smallest and largest side.
    """

    length: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.length[0] <= self.length[1]:
            raise InputError(f"length is {self.length}; expected (smallest, largest) > 0")

    def sample(self, rng: np.random.Generator) -> Box:
        """Draw a box."""
        x, y, z = map(float, rng.uniform(*self.length, 3))
        return Box((x, y, z))
