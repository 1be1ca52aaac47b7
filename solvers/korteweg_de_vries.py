r"""The Korteweg-de Vries equation on a periodic interval.

.. math:: \partial_t u + 6u\,\partial_x u + \partial_{xxx} u = 0.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4).
Conserved: :math:`\int u`, :math:`\int u^2`, :math:`\int u^3 - (\partial_x u)^2/2`; on the line,
:math:`u = \frac c2 \operatorname{sech}^2 \frac{\sqrt c}{2}(x - ct)` is a soliton of speed c.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.solvers.etdrk4 import CheckedStep, Semilinear, TimeStep
from cst_operator.solvers.periodic import (
    PeriodicSystem,
    convection,
    solve_periodic,
)
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField

__all__ = ["KortewegDeVries", "solve_korteweg_de_vries"]

_STEP = CheckedStep(dt=0.01, tolerance=1e-5)


def solve_korteweg_de_vries(
    u0: Tensor, times: Tensor, *, length: float, step: TimeStep = _STEP
) -> Tensor:
    """Solve the Korteweg-de Vries equation for a batch of initial values.

    Args:
        u0: values at ``times[0]`` at equidistant points from 0 on, [B, N]; device and precision
            are kept.
        times: frames to return, increasing, [T].
        length: length of the interval.
        step: what chooses the time step.

    Returns:
        Values, [B, T, N].

    Raises:
        InputError: if a shape or number does not fit.
        SolverError: if a member of the batch diverges or is not accurate enough in time.
    """
    box = PeriodicBox(tuple(u0.shape[1:]), (length,))
    return solve_periodic(_equation(box, u0.device), box, u0[:, None], times, step)[:, :, 0]


def _equation(box: PeriodicBox, device: torch.device | str = "cpu") -> Semilinear:
    (k,) = box.wavenumbers(device)
    return Semilinear(1j * k**3, convection(box, -3.0, device), box.inverse)


@dataclass(frozen=True, kw_only=True)
class KortewegDeVries(PeriodicSystem):
    r"""The Korteweg-de Vries equation with random smooth initial values.

    As it is, initial values of standard deviation about .35 and at most 4 periods on an interval of
    length 32, which break up into solitons and waves until time 10.

    Args:
        length: length of the interval.
        num_points: number of points.
        initial: what draws the initial value.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    length: float = 32.0
    num_points: int = 128
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=0.35, tau=0.6, alpha=2.0, num_waves=4
    )
    final_time: float = 10.0
    num_frames: int = 21
    step: TimeStep = _STEP
    name: str = "korteweg_de_vries"

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        return _equation(box)
