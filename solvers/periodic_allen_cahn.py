r"""The Allen-Cahn equation on a periodic square.

.. math:: \partial_t u = \epsilon^2 \Delta u + u - u^3.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4). The
energy :math:`\int \epsilon^2 |\nabla u|^2 / 2 + (1 - u^2)^2 / 4` never grows; on the line,
:math:`u = \tanh(x / \sqrt 2 \epsilon)` is the profile of a steady interface.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep, Semilinear, TimeStep
from cst_operator.solvers.kinetics import allen_cahn
from cst_operator.solvers.periodic import PeriodicSystem
from cst_operator.solvers.reaction_diffusion import reaction_diffusion
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField

__all__ = ["PeriodicAllenCahn"]


@dataclass(frozen=True, kw_only=True)
class PeriodicAllenCahn(PeriodicSystem):
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

    dim: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise InputError(f"epsilon is {self.epsilon}; expected a positive width")

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        diffusion = torch.tensor([self.epsilon**2], dtype=torch.float64)
        growth = torch.tensor([-1.0], dtype=torch.float64)
        return reaction_diffusion(box, diffusion, growth, allen_cahn, degree=self.degree)

    def parameters(self) -> dict[str, float]:
        """Scalar parameters of every sample."""
        return {"epsilon": self.epsilon}
