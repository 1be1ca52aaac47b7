r"""Spirals in the plane from an integral equation, in the manner of the CST paper.

.. math:: y(t) = e^{-\gamma t} R(\omega t)\, z + \kappa \int_0^1
          \begin{pmatrix} \cos r & -\sin r \\ -\sin r & -\cos r \end{pmatrix} \cosh y(s)\,ds,
          \quad r = t - s,

with the rotation R, by fixed-point iteration on 32 Gauss-Legendre nodes (spectral accuracy). Kernel
and cosh are those of de Oliveira Fonseca et al. (Continuous spatiotemporal transformers, 2023); how
their 500 spirals were forced is not public, the damped rotation is ours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import Trajectory
from cst_operator.solvers.integral_equations import FixedPoint, solve_integral_equation
from cst_operator.solvers.ordinary import refined_times, time_trajectory
from cst_operator.solvers.system import INITIAL, PARTS, stream

__all__ = ["IntegralSpirals"]


def spiral_kernel(t: Tensor, s: Tensor) -> Tensor:
    """The kernel without its factor, [T] and [m] -> [T, m, 2, 2]."""
    r = t[:, None] - s
    c, d = torch.cos(r), torch.sin(r)
    return torch.stack([torch.stack([c, -d], dim=-1), torch.stack([-d, -c], dim=-1)], dim=-2)


@dataclass(frozen=True, kw_only=True)
class IntegralSpirals:
    r"""Spirals from random starting points z, uniform in [-1, 1]^2.

    Args:
        strength: kappa; at .75 the iteration converges for no z.
        decay: gamma.
        frequency: omega.
        noise: standard deviation of white noise on the values, as in the paper's data (.022); the
            derivative is that of the values without it.
        num_frames: number of frames in [0, 1]; ``refine`` halves their interval.
        iteration: how the fixed point is found.
        name: name of the system.
    """

    strength: float = 0.25
    decay: float = 1.0
    frequency: float = 4 * math.pi
    noise: float = 0.0
    num_frames: int = 100
    iteration: FixedPoint = FixedPoint()
    name: str = "integral_spirals"

    def __post_init__(self) -> None:
        refined_times(1.0, self.num_frames, 0)
        if self.noise < 0:
            raise InputError(f"noise is {self.noise}; expected a standard deviation")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        z = torch.from_numpy(stream(seed, index, 0, INITIAL).uniform(-1.0, 1.0, 2))
        times = refined_times(1.0, self.num_frames, refine)

        def forcing(t: Tensor) -> Tensor:
            size, angle = torch.exp(-self.decay * t), self.frequency * t
            c, s = size * torch.cos(angle), size * torch.sin(angle)
            return torch.stack([c * z[0] - s * z[1], s * z[0] + c * z[1]], dim=-1)[None]

        try:
            y = solve_integral_equation(
                forcing,
                lambda t, s: self.strength * spiral_kernel(t, s),
                torch.cosh,
                like=z,
                iteration=self.iteration,
            )
        except SolverError as error:
            raise SolverError(f"sample {index} of seed {seed}: {error}") from error
        values = y(times)[0]
        if self.noise:
            rng = stream(seed, index, 0, PARTS)
            values = values + torch.from_numpy(rng.normal(0.0, self.noise, tuple(values.shape)))
        parameters = {"seed": float(seed), "index": float(index), "refine": float(refine)}
        parameters |= {"z0": float(z[0]), "z1": float(z[1])}
        return time_trajectory(times, values, y.derivative(times)[0], ("y0", "y1"), parameters)
