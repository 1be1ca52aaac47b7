r"""The FitzHugh-Nagumo model of an excitable medium on a periodic square.

.. math:: \partial_t u = D_u \Delta u + u - u^3 - k - v,\quad
          \partial_t v = D_v \Delta v + u - v.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4). The
form and the coefficients are those of Takamoto et al. (PDEBench, 2022), there without flux through
the boundary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.fields import Trajectory
from cst_operator.solvers.etdrk4 import CheckedStep, TimeStep
from cst_operator.solvers.periodic import frame_times, periodic_sample
from cst_operator.solvers.reaction_diffusion import reaction_diffusion
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField
from cst_operator.solvers.system import INITIAL, stream

__all__ = ["PeriodicFitzHughNagumo"]


def _reaction(k: float) -> Callable[[Tensor], Tensor]:
    def reaction(w: Tensor) -> Tensor:
        u, v = w.unbind(-3)
        return torch.stack([-(u**3) - k - v, u], dim=-3)

    return reaction


@dataclass(frozen=True, kw_only=True)
class PeriodicFitzHughNagumo:
    r"""Activator and inhibitor from random smooth fields on a square of side 2.

    As it is, initial values of both of standard deviation about .8 with at most 8 periods, until
    time 5.

    Args:
        diffusion: D of u and v.
        k: the constant k.
        length: side of the box.
        num_points: number of points along each axis.
        initial: what draws the initial values, each.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    diffusion: tuple[float, float] = (1e-3, 5e-3)
    k: float = 5e-3
    length: float = 2.0
    num_points: int = 80
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=24.0, tau=8.0, alpha=2.0, num_waves=8
    )
    final_time: float = 5.0
    num_frames: int = 21
    step: TimeStep = CheckedStep(dt=0.03125)
    name: str = "fitzhugh_nagumo_periodic"

    def __post_init__(self) -> None:
        frame_times(self.final_time, self.num_frames)
        if min(self.diffusion) < 0:
            raise InputError(f"diffusion is {self.diffusion}; expected numbers not below 0")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        box = PeriodicBox((self.num_points,) * 2, (self.length,) * 2).refined(refine)
        rng = stream(seed, index, 0, INITIAL)
        start = torch.stack([self.initial.sample(rng, box.lengths).on(box) for _ in range(2)])
        diffusion = torch.tensor(self.diffusion, dtype=torch.float64)
        decay = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        return periodic_sample(
            reaction_diffusion(box, diffusion, decay, _reaction(self.k), degree=2),
            box,
            start,
            frame_times(self.final_time, self.num_frames),
            self.step,
            seed=seed,
            index=index,
            refine=refine,
            channels=("u", "v"),
            degree=2,
            parameters={"k": self.k},
        )
