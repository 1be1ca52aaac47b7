r"""Wing sections of the NACA four-digit series.

Jacobs, Ward and Pinkerton, NACA Report 460 (1933): half thickness
:math:`5 t (.2969 \sqrt x - .126 x - .3516 x^2 + .2843 x^3 - .1036 x^4)` at right angles to a mean
line of two parabolas with maximum camber m at p; the last coefficient is the one that closes the
trailing edge.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers.geometry import Geometry, rectangle

__all__ = ["RandomProfile", "naca_profile"]

Array = NDArray[np.float64]


def naca_profile(
    camber: float, position: float, thickness: float, *, num_points: int = 128
) -> Array:
    """Outline of a section with its chord from (0, 0) to (1, 0).

    Args:
        camber: largest camber m, in chords: the first digit of its name over 100, 0 to .095.
        position: place p of the largest camber, in chords: the second digit over 10.
        thickness: largest thickness t, in chords: the last two digits over 100.
        num_points: about the number of points, denser at both ends.

    Returns:
        A loop, counter-clockwise from the trailing edge, [m, 2].

    Raises:
        InputError: if a number is out of range.
    """
    if not (0 <= camber < 0.1 and 0.05 <= position <= 0.95 and 0.01 <= thickness <= 0.4):
        raise InputError(
            f"camber is {camber}, position {position}, thickness {thickness}; expected 0 to .1, "
            ".05 to .95 and .01 to .4, in chords"
        )
    if num_points < 16:
        raise InputError(f"num_points is {num_points}; expected 16 or more")
    half = num_points // 2
    x = 0.5 * (1 + np.cos(np.linspace(0.0, np.pi, half + 1)))  # from the trailing edge to the nose
    y = (0.2969 * np.sqrt(x) - 0.126 * x - 0.3516 * x**2 + 0.2843 * x**3 - 0.1036 * x**4) * 5
    y *= thickness
    side = np.where(x < position, position, 1 - position)
    line = camber * (1 - ((x - position) / side) ** 2)
    slope = np.arctan(2 * camber * (position - x) / side**2)
    upper = np.stack([x - y * np.sin(slope), line + y * np.cos(slope)], axis=1)
    lower = np.stack([x + y * np.sin(slope), line - y * np.cos(slope)], axis=1)
    return np.concatenate([upper, lower[-2:0:-1]])


@dataclass(frozen=True, kw_only=True)
class RandomProfile:
    """A random wing section in a channel, for flows past it or for diffusion around it.

    Camber, its position, thickness, chord and angle are uniform in their ranges; the middle of the
    chord is uniform where the section keeps its gap to the walls and its distance to the outlet.
    The sides have their own markers, see :func:`~cst_operator.solvers.geometry.rectangle`, and the
    section has the marker 5.

    Args:
        width: of the channel, in the first coordinate.
        height: of the channel.
        camber: smallest and largest.
        position: smallest and largest.
        thickness: smallest and largest.
        chord: smallest and largest length.
        angle: smallest and largest angle of attack against a flow to the right, in degrees.
        gap: least distance to a wall.
        outlet: length before the right side that stays free.
    """

    width: float = 2.0
    height: float = 1.0
    camber: tuple[float, float] = (0.0, 0.06)
    position: tuple[float, float] = (0.3, 0.6)
    thickness: tuple[float, float] = (0.1, 0.2)
    chord: tuple[float, float] = (0.3, 0.5)
    angle: tuple[float, float] = (-5.0, 15.0)
    gap: float = 0.1
    outlet: float = 1.0

    def __post_init__(self) -> None:
        for name in ("camber", "position", "thickness", "chord", "angle"):
            low, high = getattr(self, name)
            if not low <= high:
                raise InputError(f"{name} is {(low, high)}; expected (smallest, largest)")
        for end in (0, 1):
            naca_profile(self.camber[end], self.position[end], self.thickness[end])
        if not self.chord[0] > 0 or not 0 <= self.outlet < self.width:
            raise InputError(
                f"chord is {self.chord} and outlet {self.outlet}; expected positive lengths, the "
                f"outlet below the width, {self.width}"
            )

    def sample(self, rng: np.random.Generator) -> Geometry:
        """Draw a geometry.

        Raises:
            SolverError: if the section is too large for the channel.
        """
        camber, position, thickness, chord, angle = (
            float(rng.uniform(*span))
            for span in (self.camber, self.position, self.thickness, self.chord, self.angle)
        )
        place = rng.random(2)
        loop = (naca_profile(camber, position, thickness) - [0.5, 0.0]) * chord
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        loop = loop @ np.array([[c, -s], [s, c]])  # clockwise: the nose goes up
        low = self.gap - loop.min(axis=0)
        high = np.array([self.width - self.outlet, self.height - self.gap]) - loop.max(axis=0)
        if not (low <= high).all():
            raise SolverError(f"a section of length {chord:.3g} finds no place in the channel")
        return rectangle(
            self.width, self.height, holes=(loop + low + place * (high - low),), sides=True
        )
