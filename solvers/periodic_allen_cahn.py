r"""The Allen-Cahn equation on a periodic square.

.. math:: \partial_t u = \epsilon^2 \Delta u + u - u^3.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4). The
energy :math:`\int \epsilon^2 |\nabla u|^2 / 2 + (1 - u^2)^2 / 4` never grows; on the line,
:math:`u = \tanh(x / \sqrt 2 \epsilon)` is the profile of a steady interface.
"""

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

__all__ = ["PeriodicAllenCahn"]


def _reaction(u: Tensor) -> Tensor:
    return -(u**3)


@dataclass(frozen=True, kw_only=True)
class PeriodicAllenCahn:
    r"""Separation into two phases from a random smooth mixture.

    As it is, on the unit square with interfaces of width .03 until time 10; initial values of
    standard deviation about .4 with at most 8 periods.

    Args:
        epsilon: width of an interface.
        length: side of the box.
        num_points: number of points along each axis.
        initial: what draws the initial value.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    epsilon: float = 0.03
    length: float = 1.0
    num_points: int = 64
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=18.0, tau=12.0, alpha=2.0, num_waves=8
    )
    final_time: float = 10.0
    num_frames: int = 21
    step: TimeStep = CheckedStep(dt=0.0625)
    name: str = "allen_cahn_periodic"

    def __post_init__(self) -> None:
        frame_times(self.final_time, self.num_frames)
        if not self.epsilon > 0:
            raise InputError(f"epsilon is {self.epsilon}; expected a positive width")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        box = PeriodicBox((self.num_points,) * 2, (self.length,) * 2).refined(refine)
        drawn = self.initial.sample(stream(seed, index, 0, INITIAL), box.lengths)
        diffusion = torch.tensor([self.epsilon**2], dtype=torch.float64)
        growth = torch.tensor([-1.0], dtype=torch.float64)
        return periodic_sample(
            reaction_diffusion(box, diffusion, growth, _reaction, degree=2),
            box,
            drawn.on(box)[None],
            frame_times(self.final_time, self.num_frames),
            self.step,
            seed=seed,
            index=index,
            refine=refine,
            channels=("u",),
            degree=2,
            parameters={"epsilon": self.epsilon},
        )
