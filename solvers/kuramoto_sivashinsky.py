r"""The Kuramoto-Sivashinsky equation on a periodic interval.

.. math:: \partial_t u + u\,\partial_x u + \partial_{xx} u + \partial_{xxxx} u = 0.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4).
Conserved: :math:`\int u`. Chaotic on long intervals: nearby solutions part as
:math:`e^{\lambda t}` with :math:`\lambda \approx .09`, and so do numerical errors.
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

__all__ = ["KuramotoSivashinsky", "solve_kuramoto_sivashinsky"]

_STEP = CheckedStep(dt=0.1, tolerance=1e-5)


def solve_kuramoto_sivashinsky(
    u0: Tensor, times: Tensor, *, length: float, step: TimeStep = _STEP
) -> Tensor:
    """Solve the Kuramoto-Sivashinsky equation for a batch of initial values.

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
    return Semilinear(k**2 - k**4, convection(box, -0.5, device), box.inverse)


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky(PeriodicSystem):
    r"""The Kuramoto-Sivashinsky equation with random smooth initial values.

    As it is, an interval of length 64 up to time 50: initial values of standard deviation about 1
    and at most 12 periods grow into chaos.

    Args:
        length: length of the interval.
        num_points: number of points.
        initial: what draws the initial value.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    length: float = 64.0
    num_points: int = 192
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=2.0, tau=0.5, alpha=1.0, num_waves=12
    )
    final_time: float = 50.0
    num_frames: int = 51
    step: TimeStep = _STEP
    name: str = "kuramoto_sivashinsky"

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        return _equation(box)
