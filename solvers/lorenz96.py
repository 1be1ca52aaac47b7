r"""The model of Lorenz (1996) for a quantity of the atmosphere along a circle of latitude.

.. math:: \dot x_i = (x_{i+1} - x_{i-2})\,x_{i-1} - x_i + F, \quad i \in \mathbb{Z}/n.

ETDRK4 (order 4). The quadratic terms conserve :math:`\sum x_i^2`. Chaotic for n = 40 and F = 8:
errors grow as :math:`e^{1.7t}`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import Trajectory
from cst_operator.solvers.etdrk4 import CheckedStep, TimeStep
from cst_operator.solvers.ordinary import refined_times, solve_ordinary, time_trajectory
from cst_operator.solvers.system import INITIAL, stream

__all__ = ["Lorenz96", "solve_lorenz96"]

_STEP = CheckedStep(dt=0.02, tolerance=1e-4)


def solve_lorenz96(
    x0: Tensor, times: Tensor, *, force: float = 8.0, step: TimeStep = _STEP
) -> Tensor:
    """Solve the model for a batch of initial values.

    Args:
        x0: values at ``times[0]``, [B, n]; device and precision are kept.
        times: frames to return, increasing, [T].
        force: F.
        step: what chooses the time step.

    Returns:
        Values, [B, T, n].

    Raises:
        InputError: if a shape or number does not fit.
        SolverError: if a member of the batch diverges or is not accurate enough.
    """
    if x0.shape[-1] < 4:
        raise InputError(f"there are {x0.shape[-1]} unknowns; expected at least 4")
    return solve_ordinary(
        x0, times, nonlinear=lambda x: _advection(x) + force, linear=-1.0, step=step
    )


def _advection(x: Tensor) -> Tensor:
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1)


@dataclass(frozen=True, kw_only=True)
class Lorenz96:
    """Random initial values near the attractor: independent, normal, of mean 2.3 and deviation 3.6.

    Args:
        num_unknowns: n.
        force: F.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0; ``refine`` halves their interval.
        step: what chooses the time step.
        name: name of the system.
    """

    num_unknowns: int = 40
    force: float = 8.0
    final_time: float = 5.0
    num_frames: int = 101
    step: TimeStep = _STEP
    name: str = "lorenz96"

    def __post_init__(self) -> None:
        refined_times(self.final_time, self.num_frames, 0)
        if self.num_unknowns < 4:
            raise InputError(f"num_unknowns is {self.num_unknowns}; expected at least 4")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        rng = stream(seed, index, 0, INITIAL)
        x0 = torch.from_numpy(rng.normal(2.3, 3.6, self.num_unknowns))
        times = refined_times(self.final_time, self.num_frames, refine)
        try:
            x = solve_lorenz96(x0[None], times, force=self.force, step=self.step)[0]
        except SolverError as error:
            raise SolverError(f"sample {index} of seed {seed}: {error}") from error
        return time_trajectory(
            times,
            x,
            _advection(x) - x + self.force,
            tuple(f"x{i}" for i in range(self.num_unknowns)),
            {"seed": float(seed), "index": float(index), "refine": float(refine)}
            | {"force": self.force},
        )
