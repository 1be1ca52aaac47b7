r"""Incompressible Navier-Stokes flow in the plane, periodic, by its vorticity.

.. math:: \partial_t \omega + \nabla\cdot(\omega v) = \nu \Delta \omega + f,\quad
          v = (\partial_y \psi, -\partial_x \psi),\quad -\Delta\psi = \omega.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4).
Without viscosity and force, :math:`\int \omega`, :math:`\int \omega^2` and :math:`\int |v|^2` are
conserved.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.solvers.etdrk4 import CheckedStep, Semilinear, TimeStep
from cst_operator.solvers.periodic import (
    PeriodicSystem,
    per_member,
    solve_periodic,
)
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField

__all__ = ["PeriodicNavierStokes", "diagonal_force", "solve_vorticity"]

_STEP = CheckedStep(dt=0.25)


def solve_vorticity(
    vorticity: Tensor,
    times: Tensor,
    *,
    viscosity: float | Tensor,
    force: Tensor | float = 0.0,
    lengths: tuple[float, float] = (1.0, 1.0),
    step: TimeStep = _STEP,
) -> Tensor:
    """Solve the vorticity equation for a batch of initial values.

    Args:
        vorticity: values at ``times[0]`` at equidistant points from the origin on, [B, n_x, n_y];
            device and precision are kept.
        times: frames to return, increasing, [T].
        viscosity: nu > 0, one number or one for every member, [B].
        force: curl of the force, constant in time, [n_x, n_y] or [B, n_x, n_y], or 0.
        lengths: lengths of the box.
        step: what chooses the time step.

    Returns:
        Vorticity, [B, T, n_x, n_y].

    Raises:
        InputError: if a shape or number does not fit, or the vorticity or force has a mean, which
            no periodic velocity has.
        SolverError: if a member of the batch diverges or is not accurate enough in time.
    """
    box = PeriodicBox(tuple(vorticity.shape[1:]), lengths)
    w0 = vorticity[:, None]
    curl = torch.as_tensor(force, dtype=w0.dtype, device=w0.device)
    curl = curl.expand(torch.broadcast_shapes(curl.shape, vorticity.shape))
    for name, field in (("vorticity", vorticity), ("force", curl)):
        # twice the rounding of sums in single precision
        if bool((field.mean((-2, -1)).abs() > 1e-5 * field.abs().amax((-2, -1))).any()):
            raise InputError(f"the {name} has a mean, which no periodic flow has; subtract it")
    nu = per_member("viscosity", viscosity, w0, positive=True)
    return solve_periodic(_equation(box, nu, curl[:, None]), box, w0, times, step)[:, :, 0]


def diagonal_force(box: PeriodicBox) -> Tensor:
    """The force .1 (sin 2 pi (x + y) + cos 2 pi (x + y)) of Li et al. (2021), float64."""
    phase = 2 * math.pi * box.points().sum(dim=1).reshape(box.shape)
    return 0.1 * (torch.sin(phase) + torch.cos(phase))


def _equation(box: PeriodicBox, viscosity: Tensor, force: Tensor) -> Semilinear:
    device = viscosity.device
    k_x, k_y = box.wavenumbers(device)
    laplacian = box.laplacian(device)
    kept = box.kept(2, device)
    stream_function = torch.where(laplacian == 0, 0.0, -1.0 / laplacian)
    # velocity and vorticity of a vorticity, [3, modes]
    flow = torch.stack([1j * k_y * stream_function, -1j * k_x * stream_function, 0j + kept]) * kept
    divergence = torch.stack([1j * k_x * kept, 1j * k_y * kept])
    push = box.forward(force)

    def nonlinear(w: Tensor) -> Tensor:
        v = box.inverse(w.unsqueeze(-3) * flow.to(w.dtype))
        flux = box.forward(v[..., :2, :, :] * v[..., 2:, :, :])
        return push - (divergence.to(w.dtype) * flux).sum(dim=-3)

    return Semilinear(viscosity * laplacian, nonlinear, box.inverse)


@dataclass(frozen=True, kw_only=True)
class PeriodicNavierStokes(PeriodicSystem):
    r"""Forced two-dimensional turbulence from random initial vorticity.

    As it is, the problem of Li et al. (Fourier neural operator, 2021) on the unit square: viscosity
    .001, the force of :func:`diagonal_force`, initial vorticity from
    :math:`N(0, \sigma^2(-\Delta + 49)^{-5/2})`, until time 20 (theirs: 50, and 30 for viscosity
    .0001, 20 for .00001, which need 256 points an axis). The paper has
    :math:`\sigma^2 = 7^{3/2}`; this is the :math:`2 \cdot 7^3` with which its data were made. At
    most 14 periods.

    Args:
        viscosity: nu.
        num_points: number of points along each axis.
        initial: what draws the initial vorticity.
        forced: whether the force acts.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    viscosity: float = 1e-3
    length: float = 1.0
    num_points: int = 64
    initial: PeriodicGaussianField = PeriodicGaussianField(
        scale=math.sqrt(2 * 7.0**3), tau=7.0, alpha=2.5, num_waves=14
    )
    forced: bool = True
    final_time: float = 20.0
    num_frames: int = 21
    step: TimeStep = _STEP
    name: str = "navier_stokes_periodic"

    channels: ClassVar[tuple[str, ...]] = ("vorticity",)
    dim: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.viscosity > 0:
            raise InputError(f"viscosity is {self.viscosity}; expected a positive number")
        if self.initial.mean:
            raise InputError(f"the initial vorticity has mean {self.initial.mean}; expected 0")

    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""
        viscosity = torch.tensor(self.viscosity, dtype=torch.float64)
        return _equation(box, viscosity, self.inputs(box)["force"])

    def parameters(self) -> dict[str, float]:
        """Scalar parameters of every sample."""
        return {"viscosity": self.viscosity}

    def inputs(self, box: PeriodicBox) -> dict[str, Tensor]:
        """The force, zero where none acts."""
        force = diagonal_force(box) if self.forced else torch.zeros(box.shape, dtype=torch.float64)
        return {"force": force}
