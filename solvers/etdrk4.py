r"""Exponential time differencing for semilinear equations, with checked steps.

.. math:: \dot v = L v + N(v), \quad L \text{ diagonal.}

ETDRK4 (Cox and Matthews 2002) of order 4 in time, exact for N = 0, so that stiff linear terms do
not limit the step; its coefficients by means over circles in the complex plane (Kassam and
Trefethen 2005). With L = 0 it is the classical Runge-Kutta method.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cst_operator.errors import InputError, SolverError

__all__ = ["CheckedStep", "FixedStep", "Frames", "Semilinear", "TimeStep"]

_CIRCLE = 32  # points; the mean of an entire function over them is exact to rounding

_FLOOR = 1e-3  # frames below this part of the largest are not held to their own size


def _same(v: Tensor) -> Tensor:
    return v


@dataclass(frozen=True, eq=False)
class Semilinear:
    """The right-hand side of a semilinear equation for a batch of states, [B, c, ...].

    Args:
        linear: diagonal of L, float64 or complex128, broadcasting to the state.
        nonlinear: N, for any leading dimensions, [..., B, c, ...].
        values: what the state stands for, e.g. the values of Fourier coefficients; errors are
            measured there.
    """

    linear: Tensor
    nonlinear: Callable[[Tensor], Tensor]
    values: Callable[[Tensor], Tensor] = _same

    def derivative(self, state: Tensor) -> Tensor:
        """Derivative in time of states, [..., B, c, ...]."""
        linear = self.linear.to(state.dtype) if state.is_complex() else self.linear.to(state)
        return linear * state + self.nonlinear(state)


class Frames(NamedTuple):
    """A batch of solutions.

    The step is that of all. An error estimate is the largest of all frames and channels, in the
    Euclidean norm of a frame and relative to it, or to a thousandth of the largest frame.
    """

    states: Tensor
    """States at the asked times, [T, B, c, ...]."""
    dt: float
    """Largest time step that was used."""
    error: Tensor
    """Estimate of the error of every member of the batch, [B]; zeros where none was made."""


class TimeStep(Protocol):
    """Chooses time steps and integrates."""

    def integrate(self, equation: Semilinear, start: Tensor, times: Tensor) -> Frames:
        """Integrate a batch from ``times[0]``, [B, c, ...].

        Raises:
            InputError: if the times do not increase.
            SolverError: if a member of the batch diverges or is not accurate enough.
        """
        ...


@dataclass(frozen=True)
class FixedStep:
    """Steps of at most ``dt``: every interval between frames is divided evenly.

    Only divergence is noticed. For measurements of order; :class:`CheckedStep` is for data.
    """

    dt: float

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise InputError(f"dt is {self.dt}; expected a positive time step")

    def integrate(self, equation: Semilinear, start: Tensor, times: Tensor) -> Frames:
        """Integrate; see :class:`TimeStep`."""
        plan = _plan(times, self.dt)
        states = _march(equation, start, plan)
        bad = _not_finite(states)
        if bad:
            raise SolverError(f"with steps of {self.dt:g}, {_rows(bad)} diverged; use smaller ones")
        return Frames(states, _largest(plan), torch.zeros(start.shape[0], device=start.device))


@dataclass(frozen=True, kw_only=True)
class CheckedStep:
    """Halves the step until the difference from the step before says that it is small enough.

    The estimate is the difference between the solutions with steps dt and dt / 2, divided by
    15 = 2^4 - 1; the finer one is returned. The step of a batch is that of its hardest member.

    Args:
        dt: first time step.
        tolerance: largest estimate that is accepted; single precision supports about 1e-4.
        max_halvings: halvings after which the solution is given up.
    """

    dt: float
    tolerance: float = 1e-6
    max_halvings: int = 6

    def __post_init__(self) -> None:
        if not self.dt > 0 or not self.tolerance > 0 or self.max_halvings < 1:
            raise InputError(
                f"dt is {self.dt}, tolerance {self.tolerance}, max_halvings {self.max_halvings}; "
                "expected positive numbers"
            )

    def integrate(self, equation: Semilinear, start: Tensor, times: Tensor) -> Frames:
        """Integrate; see :class:`TimeStep`."""
        plan = _plan(times, self.dt)
        coarse = _march(equation, start, plan)
        for _ in range(self.max_halvings):
            plan = [(interval, 2 * steps) for interval, steps in plan]
            fine = _march(equation, start, plan)
            error = _difference(equation, coarse, fine) / 15
            if bool((error <= self.tolerance).all()):  # false where it is not a number
                return Frames(fine, _largest(plan), error)
            coarse = fine
        dt = _largest(plan)
        bad = _not_finite(coarse)
        if bad:
            raise SolverError(f"{_rows(bad)} diverged, with steps of {dt:g} too")
        rows = (~(error <= self.tolerance)).nonzero()[:, 0].tolist()
        raise SolverError(
            f"with steps of {dt:g}, the estimated error of {_rows(rows)} is "
            f"{float(error.max()):.1e}, above the tolerance of {self.tolerance:g}; "
            "start with a smaller step or allow a larger error"
        )


def _plan(times: Tensor, dt: float) -> list[tuple[float, int]]:
    """Length and number of steps of every interval between frames."""
    moments = [float(t) for t in times]
    intervals = [b - a for a, b in pairwise(moments)]
    if times.dim() != 1 or not moments or not all(i > 0 for i in intervals):
        raise InputError(f"times has shape {tuple(times.shape)}; expected increasing times, [T]")
    return [(i, max(math.ceil(i / dt - 1e-9), 1)) for i in intervals]


def _largest(plan: Sequence[tuple[float, int]]) -> float:
    return max((interval / steps for interval, steps in plan), default=0.0)


def _march(equation: Semilinear, start: Tensor, plan: Sequence[tuple[float, int]]) -> Tensor:
    """States at the frames, [T, B, c, ...]; nothing in here waits for the device."""
    frames = [start]
    state = start
    made: dict[float, _Coefficients] = {}
    for interval, steps in plan:
        # equal up to rounding of the times: the same coefficients
        step = next((s for s in made if abs(s * steps - interval) < 1e-9 * interval), None)
        if step is None:
            step = interval / steps
            made[step] = _coefficients(equation.linear, step, start)
        for _ in range(steps):
            state = _step(made[step], equation.nonlinear, state)
        frames.append(state)
    return torch.stack(frames)


class _Coefficients(NamedTuple):
    full: Tensor
    half: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor


def _coefficients(linear: Tensor, dt: float, like: Tensor) -> _Coefficients:
    z = linear * dt
    sums = [torch.zeros_like(z, dtype=torch.complex128) for _ in range(4)]
    for point in range(_CIRCLE):
        angle = 2 * math.pi * (point + 0.5) / _CIRCLE
        r = z + complex(math.cos(angle), math.sin(angle))
        e = torch.exp(r)
        sums[0] += (torch.exp(r / 2) - 1) / r
        sums[1] += (-4 - r + e * (4 - 3 * r + r**2)) / r**3
        sums[2] += (2 + r + e * (r - 2)) / r**3
        sums[3] += (-4 - 3 * r - r**2 + e * (4 - r)) / r**3
    means = [dt * s / _CIRCLE for s in sums]
    if not linear.is_complex():
        means = [m.real for m in means]
    precision = torch.empty((), dtype=like.dtype).real.dtype
    if linear.is_complex():
        precision = precision.to_complex()
    return _Coefficients(*(m.to(precision) for m in (torch.exp(z), torch.exp(z / 2), *means)))


def _step(by: _Coefficients, nonlinear: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    n_v = nonlinear(v)
    drift = by.half * v
    a = drift + by.stage * n_v
    n_a = nonlinear(a)
    n_b = nonlinear(drift + by.stage * n_a)
    n_c = nonlinear(by.half * a + by.stage * (2 * n_b - n_v))
    return by.full * v + by.first * n_v + 2 * by.middle * (n_a + n_b) + by.last * n_c


def _difference(equation: Semilinear, coarse: Tensor, fine: Tensor) -> Tensor:
    """Largest relative difference of a frame, [B]."""
    u = equation.values(fine.detach()).flatten(start_dim=3)
    change = (equation.values(coarse.detach()).flatten(start_dim=3) - u).norm(dim=-1)
    size = u.norm(dim=-1)
    least = (_FLOOR * size.amax(dim=0)).clamp_min(torch.finfo(u.dtype).tiny)
    return (change / size.maximum(least)).amax(dim=(0, 2))


def _not_finite(states: Tensor) -> list[int]:
    bad = ~torch.isfinite(states).flatten(start_dim=2).all(dim=2).all(dim=0)
    return [int(i) for i in bad.nonzero()[:, 0]]


def _rows(rows: list[int]) -> str:
    shown = ", ".join(str(i) for i in rows[:8]) + (", ..." if len(rows) > 8 else "")
    return f"member {shown} of the batch"
