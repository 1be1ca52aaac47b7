r"""Burgers' equation on a periodic interval.

.. math:: \partial_t u + u\,\partial_x u = \nu\,\partial_{xx} u.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4).
The Cole-Hopf transform :math:`u = -2\nu\,\partial_x \log\phi`, :math:`\partial_t\phi =
\nu\,\partial_{xx}\phi`, is the exact solution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep, Semilinear, TimeStep
from cst_operator.solvers.periodic import (
    PeriodicSystem,
    convection,
    per_member,
    solve_periodic,
)
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField

__all__ = ["PeriodicBurgers", "solve_burgers"]

_STEP = CheckedStep(dt=0.02)


def solve_burgers(
    u0: Tensor,
    times: Tensor,
    *,
    viscosity: float | Tensor,
    length: float = 1.0,
    step: TimeStep = _STEP,
) -> Tensor:
    """Solve Burgers' equation for a batch of initial values.

    Args:
        u0: values at ``times[0]`` at equidistant points from 0 on, [B, N]; device and precision
            are kept.
        times: frames to return, increasing, [T].
        viscosity: nu > 0, one number or one for every member, [B].
        length: length of the interval.
        step: what chooses the time step.

    Returns:
        Values, [B, T, N].

    Raises:
        InputError: if a shape or number does not fit.
        SolverError: if a member of the batch diverges or is not accurate enough in time.
    """
    box = PeriodicBox(tuple(u0.shape[1:]), (length,))
    nu = per_member("viscosity", viscosity, u0[:, None], positive=True)
    equation = _equation(box, nu)
    return solve_periodic(equation, box, u0[:, None], times, step)[:, :, 0]


def _equation(box: PeriodicBox, viscosity: Tensor) -> Semilinear:
    device = viscosity.device
    return Semilinear(viscosity * box.laplacian(device), convection(box, -0.5, device), box.inverse)


@dataclass(frozen=True, kw_only=True)
class PeriodicBurgers(PeriodicSystem):
    r"""Burgers' equation with random initial values.

    As it is, the problem of Li et al. (Fourier neural operator, 2021): viscosity .1, time 1,
    initial values from :math:`N(0, 625(-\Delta + 25)^{-2})` on the unit interval, here without
    their mean and with at most 24 periods.

    Args:
        viscosity: nu.
        length: length of the interval.
        num_points: number of points.
        initial: what draws the initial value.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    viscosity: float = 0.1
    length: float = 1.0
    num_points: int = 128
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=25.0, tau=5.0, alpha=2.0, num_waves=24
    )
    final_time: float = 1.0
    num_frames: int = 11
    step: TimeStep = _STEP
    name: str = "burgers_periodic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.viscosity > 0:
            raise InputError(f"viscosity is {self.viscosity}; expected a positive number")

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        return _equation(box, torch.tensor(self.viscosity, dtype=torch.float64))

    def parameters(self) -> dict[str, float]:
        """Scalar parameters of every sample."""
        return {"viscosity": self.viscosity}
