r"""The FitzHugh-Nagumo model of an excitable medium on irregular meshes.

.. math:: \partial_t u = D_u \Delta u + u - u^3 - k - v,\quad
          \partial_t v = D_v \Delta v + u - v \text{ in } \Omega,\quad
          \partial_n u = \partial_n v = 0 \text{ on } \partial\Omega.

Discretized as in :mod:`cst_operator.solvers.reactions_on_meshes`: order p + 1 in space, 3 in time.
The form is that of Takamoto et al. (PDEBench, 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_operator.solvers.etdrk4 import CheckedStep
from cst_operator.solvers.finite_elements import Coefficient
from cst_operator.solvers.kinetics import fitzhugh_nagumo
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.reactions_on_meshes import ReactingMedium, ReactingSystem, Reaction
from cst_operator.solvers.system import DEFAULT_DOMAIN, INITIAL, DomainSampler, stream

__all__ = ["FitzHughNagumo"]

Array = NDArray[np.float64]


def _reaction(k: float) -> Reaction:
    def reaction(w: Array, x: Array, t: float) -> Array:
        u, v = w
        growth, feeding = fitzhugh_nagumo(u, v, k)
        return np.stack([u + growth, feeding - v])

    return reaction


@dataclass(frozen=True, kw_only=True)
class FitzHughNagumo(ReactingSystem):
    r"""Activator and inhibitor from random smooth fields, on random domains.

    As it is, the coefficients of PDEBench for domains of half the width, initial values from
    Gaussian random fields of standard deviation 1 and length .05, smoothed over .02, until time 5.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        diffusion: D of u and v.
        k: the constant k.
        initial: what draws the initial values, each, before they are smoothed.
        smoothing: length over which the initial values are smoothed.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    domain: DomainSampler = DEFAULT_DOMAIN
    h: float = 0.035
    diffusion: tuple[float, float] = (2.5e-4, 1.25e-3)
    k: float = 5e-3
    initial: FieldSampler = GaussianField(length_scale=0.05)
    smoothing: float = 0.02
    final_time: float = 5.0
    num_frames: int = 21
    step: CheckedStep = CheckedStep(dt=0.125, tolerance=1e-4)
    name: str = "fitzhugh_nagumo"

    def draw(
        self, seed: int, index: int, attempt: int, extent: tuple[Array, Array]
    ) -> tuple[Sequence[Coefficient], ReactingMedium, dict[str, float]]:
        """Draw the initial values."""
        rng = stream(seed, index, attempt, INITIAL)
        functions = [self.initial.sample(rng) for _ in self.channels]
        return functions, ReactingMedium(self.diffusion, _reaction(self.k)), {"k": self.k}
