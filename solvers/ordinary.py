"""Problems in time alone: ordinary differential equations, and trajectories without space."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.etdrk4 import Semilinear, TimeStep
from cst_operator.solvers.periodic import frame_times

__all__ = ["refined_times", "solve_ordinary", "time_trajectory"]


def solve_ordinary(
    y0: Tensor,
    times: Tensor,
    *,
    nonlinear: Callable[[Tensor], Tensor],
    linear: float | Tensor = 0.0,
    step: TimeStep,
) -> Tensor:
    r"""Solve :math:`\dot y = L y + N(y)` with diagonal L for a batch of initial values.

    ETDRK4, of order 4; the classical Runge-Kutta method where L is 0.

    Args:
        y0: values at ``times[0]``, [B, n]; device and precision are kept.
        times: frames to return, increasing, [T].
        nonlinear: N, for any leading dimensions, [..., B, n] to the same.
        linear: diagonal of L, a number or [n]; stiff decay belongs here.
        step: what chooses the time step.

    Returns:
        Values, [B, T, n].

    Raises:
        InputError: if ``y0`` or the times do not fit.
        SolverError: if a member of the batch diverges or is not accurate enough.
    """
    if y0.dim() != 2 or not y0.is_floating_point() or not bool(torch.isfinite(y0).all()):
        raise InputError(
            f"y0 has shape {tuple(y0.shape)} and type {y0.dtype}; expected finite floating-point "
            "numbers, [batch, unknowns]"
        )
    diagonal = torch.as_tensor(linear, dtype=torch.float64, device=y0.device)
    equation = Semilinear(diagonal, lambda y: nonlinear(y.squeeze(-2)).unsqueeze(-2))
    return step.integrate(equation, y0[:, None], times).states[:, :, 0].transpose(0, 1)


def refined_times(final_time: float, num_frames: int, refine: int) -> Tensor:
    """Equidistant times from 0 on; every refinement halves the interval between frames."""
    if refine < 0:
        raise InputError(f"refine is {refine}; expected 0 or more halvings of the interval")
    frame_times(final_time, num_frames)
    return frame_times(final_time, (num_frames - 1) * 2**refine + 1)


def time_trajectory(
    times: Tensor,
    y: Tensor,
    rate: Tensor,
    channels: tuple[str, ...],
    parameters: Mapping[str, float],
) -> Trajectory:
    """Unknowns that depend on time alone, as the channels of one point of weight 1.

    Args:
        times: frames, [T].
        y: values, [T, n].
        rate: their derivatives, [T, n].
        channels: names of the unknowns.
        parameters: of the sample.
    """
    point = PointField(pos=y.new_zeros(1, 1), weights=y.new_ones(1))
    return Trajectory(
        mesh=point,
        times=times,
        u=y[:, None],
        channels=channels,
        time_derivative=rate[:, None],
        parameters={"attempts": 1.0, **parameters},
    )
