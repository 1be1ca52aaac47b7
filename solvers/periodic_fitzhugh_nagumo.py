r"""The FitzHugh-Nagumo model of an excitable medium on a periodic square.

.. math:: \partial_t u = D_u \Delta u + u - u^3 - k - v,\quad
          \partial_t v = D_v \Delta v + u - v.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4). The
form and the coefficients are those of Takamoto et al. (PDEBench, 2022), there without flux through
the boundary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep, Semilinear, TimeStep
from cst_operator.solvers.kinetics import fitzhugh_nagumo
from cst_operator.solvers.periodic import PeriodicSystem
from cst_operator.solvers.reaction_diffusion import reaction_diffusion
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField

__all__ = ["PeriodicFitzHughNagumo"]


def _reaction(k: float) -> Callable[[Tensor], Tensor]:
    def reaction(w: Tensor) -> Tensor:
        u, v = w.unbind(-3)
        return torch.stack(fitzhugh_nagumo(u, v, k), dim=-3)

    return reaction


@dataclass(frozen=True, kw_only=True)
class PeriodicFitzHughNagumo(PeriodicSystem):
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

    channels: ClassVar[tuple[str, ...]] = ("u", "v")
    dim: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.diffusion) < 0:
            raise InputError(f"diffusion is {self.diffusion}; expected numbers not below 0")

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        diffusion = torch.tensor(self.diffusion, dtype=torch.float64)
        decay = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        return reaction_diffusion(box, diffusion, decay, _reaction(self.k), degree=self.degree)

    def parameters(self) -> dict[str, float]:
        """Scalar parameters of every sample."""
        return {"k": self.k}
