r"""The Gray-Scott model on irregular meshes.

.. math:: \partial_t u = D_u \Delta u - u v^2 + F(1 - u),\quad
          \partial_t v = D_v \Delta v + u v^2 - (F + k) v \text{ in } \Omega,\quad
          \partial_n u = \partial_n v = 0 \text{ on } \partial\Omega.

Discretized as in :mod:`cst_operator.solvers.reactions_on_meshes`: order p + 1 in space, 3 in time.
For F = k = 0, :math:`\int u + v` is conserved to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep
from cst_operator.solvers.finite_elements import Coefficient
from cst_operator.solvers.kinetics import gray_scott
from cst_operator.solvers.periodic_gray_scott import FEED_KILL
from cst_operator.solvers.reactions_on_meshes import ReactingMedium, ReactingSystem, Reaction
from cst_operator.solvers.system import DEFAULT_DOMAIN, INITIAL, PARTS, DomainSampler, stream

__all__ = ["GrayScott"]

Array = NDArray[np.float64]


def _reaction(feed: float, kill: float) -> Reaction:
    def reaction(w: Array, x: Array, t: float) -> Array:
        u, v = w
        supply, product = gray_scott(u, v, feed)
        return np.stack([supply - feed * u, product - (feed + kill) * v])

    return reaction


@dataclass(frozen=True, kw_only=True)
class GrayScott(ReactingSystem):
    r"""The Gray-Scott model from random blobs, on random domains.

    As :class:`~cst_operator.solvers.periodic_gray_scott.PeriodicGrayScott`, on domains that are
    narrower in units of the patterns: D is four times as large. Blobs lie in the box around the
    domain; until time 600.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        feed_kill: pairs (F, k) to draw from.
        diffusion: D of u and v.
        num_blobs: smallest and largest number of blobs.
        blob_radius: radius of a blob before it is smoothed.
        smoothing: length over which the initial values are smoothed.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    domain: DomainSampler = DEFAULT_DOMAIN
    h: float = 0.035
    feed_kill: tuple[tuple[float, float], ...] = FEED_KILL
    diffusion: tuple[float, float] = (8e-5, 4e-5)
    num_blobs: tuple[int, int] = (3, 9)
    blob_radius: float = 0.045
    smoothing: float = 0.012
    final_time: float = 600.0
    num_frames: int = 21
    step: CheckedStep = CheckedStep(dt=5.0, tolerance=1e-3)
    name: str = "gray_scott"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_blobs[0] <= self.num_blobs[1] or not self.blob_radius > 0:
            raise InputError(
                f"num_blobs is {self.num_blobs} and blob_radius {self.blob_radius}; "
                "expected (smallest, largest) of at least 1 and a positive length"
            )
        if not self.feed_kill:
            raise InputError("feed_kill is empty; give at least one pair")

    def draw(
        self, seed: int, index: int, attempt: int, extent: tuple[Array, Array]
    ) -> tuple[Sequence[Coefficient], ReactingMedium, dict[str, float]]:
        """Draw a pair of feed and kill, and blobs."""
        parts = stream(seed, index, attempt, PARTS)
        feed, kill = self.feed_kill[int(parts.integers(len(self.feed_kill)))]
        rng = stream(seed, index, attempt, INITIAL)
        count = int(rng.integers(self.num_blobs[0], self.num_blobs[1] + 1))
        centres = rng.uniform(*extent, (count, 2))

        def v(x: Array) -> Array:
            square = ((x[:, None] - centres) ** 2).sum(axis=2)
            total = np.exp(-square / (2 * self.blob_radius**2)).sum(axis=1)
            return np.asarray(0.5 * (1.0 - np.exp(-total)))

        return (
            (lambda x: 1.0 - v(x), v),
            ReactingMedium(self.diffusion, _reaction(feed, kill)),
            {"feed": feed, "kill": kill, "num_blobs": float(count)},
        )
