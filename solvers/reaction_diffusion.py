r"""Reaction and diffusion on periodic boxes of any dimension.

.. math:: \partial_t u_i = D_i \Delta u_i - r_i u_i + R_i(u).

Fourier series in space (spectral accuracy), ETDRK4 in time (order 4). Cut off by the two-thirds
rule: without derivatives in R, what a cubic term aliases there takes three factors whose periods
add up to two thirds of the points, less than what the cut itself leaves out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import Semilinear, TimeStep
from cst_operator.solvers.periodic import solve_periodic
from cst_operator.solvers.spectral import PeriodicBox

__all__ = ["reaction_diffusion", "solve_reaction_diffusion"]


def solve_reaction_diffusion(
    u0: Tensor,
    times: Tensor,
    *,
    diffusion: Sequence[float] | Tensor,
    reaction: Callable[[Tensor], Tensor],
    decay: Sequence[float] | Tensor = (),
    degree: int = 2,
    lengths: Sequence[float],
    step: TimeStep,
) -> Tensor:
    """Solve a system of reaction and diffusion for a batch of initial values.

    Args:
        u0: values at ``times[0]`` at equidistant points from the origin on, [B, c, shape]; device
            and precision are kept.
        times: frames to return, increasing, [T].
        diffusion: D of every channel, [c] or [B, c], not negative.
        reaction: R, for any leading dimensions, [..., B, c, shape] to the same.
        decay: r of every channel, [c] or [B, c]; the stiff linear part of the reaction, 0 if empty.
        degree: of the products that are free of aliasing, see
            :meth:`~cst_operator.solvers.spectral.PeriodicBox.kept`.
        lengths: length of the box along every axis, d numbers.
        step: what chooses the time step.

    Returns:
        Values, [B, T, c, shape].

    Raises:
        InputError: if a shape or number does not fit.
        SolverError: if a member of the batch diverges or is not accurate enough in time.
    """
    box = PeriodicBox(tuple(u0.shape[2:]), tuple(lengths))
    channels = u0.shape[1]
    d, r = (
        torch.as_tensor(v if len(v) else [0.0] * channels, dtype=torch.float64, device=u0.device)
        for v in (diffusion, decay)
    )
    for name, values in (("diffusion", d), ("decay", r)):
        if tuple(values.shape) not in ((channels,), (len(u0), channels)):
            raise InputError(
                f"{name} has shape {tuple(values.shape)}; expected one number for each of "
                f"{channels} channels, or [{len(u0)}, {channels}]"
            )
    if not bool((d >= 0).all()):
        raise InputError(f"diffusion is {diffusion}; expected numbers that are not negative")
    return solve_periodic(reaction_diffusion(box, d, r, reaction, degree), box, u0, times, step)


def reaction_diffusion(
    box: PeriodicBox,
    diffusion: Tensor,
    decay: Tensor,
    reaction: Callable[[Tensor], Tensor],
    degree: int,
) -> Semilinear:
    """The equation for Fourier coefficients, [B, c, modes]; D and r are [c] or [B, c]."""
    device = diffusion.device
    kept = box.kept(degree, device)
    spread = (..., *[None] * box.dim)

    def nonlinear(v: Tensor) -> Tensor:
        return box.forward(reaction(box.inverse(v * kept))) * kept

    linear = diffusion[spread] * box.laplacian(device) - decay[spread]
    return Semilinear(linear, nonlinear, box.inverse)
