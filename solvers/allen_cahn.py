r"""The Allen-Cahn equation on irregular meshes.

.. math:: \partial_t u = \epsilon^2 \Delta u + u - u^3 \text{ in } \Omega,\quad
          \partial_n u = 0 \text{ on } \partial\Omega.

Discretized as in :mod:`cst_operator.solvers.reactions_on_meshes`: order p + 1 in space, 3 in time.
The energy :math:`\int \epsilon^2 |\nabla u|^2 / 2 + (1 - u^2)^2 / 4` never grows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep
from cst_operator.solvers.finite_elements import Coefficient
from cst_operator.solvers.kinetics import allen_cahn
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.reactions_on_meshes import ReactingMedium, ReactingSystem
from cst_operator.solvers.system import DEFAULT_DOMAIN, INITIAL, DomainSampler, stream

__all__ = ["AllenCahn"]

Array = NDArray[np.float64]


def _reaction(u: Array, x: Array, t: float) -> Array:
    return u + allen_cahn(u)


@dataclass(frozen=True, kw_only=True)
class AllenCahn(ReactingSystem):
    r"""Separation into two phases from a random smooth mixture, on random domains.

    As it is, interfaces of width .03 until time 10, from a Gaussian random field of standard
    deviation .6 and length .08, smoothed over .03.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        epsilon: width of an interface.
        initial: what draws the initial value before it is smoothed.
        smoothing: length over which the initial value is smoothed.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    domain: DomainSampler = DEFAULT_DOMAIN
    h: float = 0.043
    epsilon: float = 0.03
    initial: FieldSampler = GaussianField(length_scale=0.08, std=0.6)
    smoothing: float = 0.03
    final_time: float = 10.0
    num_frames: int = 21
    step: CheckedStep = CheckedStep(dt=0.25, tolerance=1e-4)
    name: str = "allen_cahn"

    channels: ClassVar[tuple[str, ...]] = ("u",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise InputError(f"epsilon is {self.epsilon}; expected a positive width")

    def draw(
        self, seed: int, index: int, attempt: int, extent: tuple[Array, Array]
    ) -> tuple[Sequence[Coefficient], ReactingMedium, dict[str, float]]:
        """Draw the initial value."""
        q = self.initial.sample(stream(seed, index, attempt, INITIAL))
        medium = ReactingMedium((self.epsilon**2,), _reaction)
        return (q,), medium, {"epsilon": self.epsilon}
