"""What the solvers on periodic boxes share: from values to values, from a draw to a trajectory."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import Trajectory
from cst_operator.solvers.etdrk4 import Semilinear, TimeStep
from cst_operator.solvers.spectral import PeriodicBox, PeriodicGaussianField, spectral_gradient
from cst_operator.solvers.system import INITIAL, stream

__all__ = [
    "PeriodicSystem",
    "convection",
    "frame_times",
    "per_member",
    "periodic_sample",
    "solve_periodic",
]

# Systems refuse a solution whose spectrum does not fall to this part of its largest coefficient.
_MAX_TAIL = 0.01


def frame_times(final_time: float, num_frames: int) -> Tensor:
    """Equidistant times from 0 on, [T], float64.

    Raises:
        InputError: if there are fewer than two frames or the final time is not positive.
    """
    if num_frames < 2 or not final_time > 0:
        raise InputError(
            f"num_frames is {num_frames} and final_time {final_time}; expected 2 or more and a "
            "positive time"
        )
    return torch.linspace(0.0, final_time, num_frames, dtype=torch.float64)


def per_member(name: str, value: float | Tensor, u0: Tensor, *, positive: bool = False) -> Tensor:
    """A coefficient for every member of a batch, float64, broadcasting to [B, shape].

    Args:
        name: what the coefficient is called, for messages.
        value: one number, or one for every member, [B].
        u0: the batch, [B, ...].
        positive: whether it must be positive; else it must be finite.
    """
    number = torch.as_tensor(value, dtype=torch.float64, device=u0.device)
    if number.dim() > 1 or (number.dim() == 1 and len(number) != len(u0)):
        raise InputError(
            f"{name} has shape {tuple(number.shape)}; expected one number, or one for each of the "
            f"{len(u0)} members of the batch"
        )
    fits = number > 0 if positive else torch.isfinite(number)
    if not bool((fits & torch.isfinite(number)).all()):
        kind = "positive" if positive else "finite"
        raise InputError(f"{name} is {value}; expected {kind} numbers")
    return number.reshape(-1, *[1] * (u0.dim() - 1))


def convection(
    box: PeriodicBox, factor: float, device: torch.device | str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """Coefficients of ``factor`` times d(u^2)/dx on an interval, without aliasing.

    Args:
        box: the interval.
        factor: the factor.
        device: where the coefficients are.
    """
    (k,) = box.wavenumbers(device)
    kept = box.kept(2, device)
    slope = 1j * factor * k * kept

    def nonlinear(v: Tensor) -> Tensor:
        return slope.to(v.dtype) * box.forward(box.inverse(v * kept) ** 2)

    return nonlinear


def solve_periodic(
    equation: Semilinear, box: PeriodicBox, u0: Tensor, times: Tensor, step: TimeStep
) -> Tensor:
    """Integrate values on a periodic box.

    Args:
        equation: its states are the coefficients of [B, c, shape] on the box.
        box: the box.
        u0: values at ``times[0]``, [B, c, shape]; device and precision are kept.
        times: frames to return, increasing, [T].
        step: what chooses the time step.

    Returns:
        Values, [B, T, c, shape].

    Raises:
        InputError: if ``u0`` or the times do not fit.
        SolverError: see :class:`~cst_operator.solvers.etdrk4.TimeStep`.
    """
    frames = step.integrate(equation, box.forward(_checked(u0, box)), times)
    return box.inverse(frames.states).transpose(0, 1)


def _checked(u0: Tensor, box: PeriodicBox) -> Tensor:
    if tuple(u0.shape[2:]) != box.shape:
        raise InputError(
            f"the initial values have shape {tuple(u0.shape)}; expected [batch, channels, "
            f"{', '.join(map(str, box.shape))}] for this box"
        )
    if u0.dtype not in (torch.float32, torch.float64) or not bool(torch.isfinite(u0).all()):
        raise InputError("the initial values must be finite and float32 or float64")
    return u0


def periodic_sample(
    equation: Semilinear,
    box: PeriodicBox,
    u0: Tensor,
    times: Tensor,
    step: TimeStep,
    *,
    seed: int,
    index: int,
    refine: int,
    channels: tuple[str, ...],
    degree: int,
    parameters: Mapping[str, float],
    inputs: Mapping[str, Tensor] | None = None,
) -> Trajectory:
    """Solve one drawn problem, with derivatives, and refuse it where it is not resolved.

    Args:
        equation: for a batch of one.
        box: the box.
        u0: initial values, [c, shape], float64.
        times: frames, [T].
        step: what chooses the time step.
        seed: seed of the set.
        index: number of the sample.
        refine: doublings of the points.
        channels: names of the unknowns.
        degree: of the products in the equation.
        parameters: what was drawn.
        inputs: static fields by name, [shape] each.

    Raises:
        SolverError: naming seed and index, if the solution diverges or is not resolved in time or
            space.
    """
    label = f"sample {index} of seed {seed}"
    try:
        frames = step.integrate(equation, box.forward(_checked(u0[None], box)), times)
    except SolverError as error:
        raise SolverError(f"{label}: {error}") from error
    u = box.inverse(frames.states)[:, 0]  # [T, c, shape]
    tail = float(box.tail(u, degree).max())
    if not tail <= _MAX_TAIL:
        raise SolverError(
            f"{label} is not resolved by {' x '.join(map(str, box.shape))} points: its spectrum "
            f"falls to {tail:.1e} only, expected {_MAX_TAIL:g}; use more points"
        )
    rate = box.inverse(equation.derivative(frames.states))[:, 0]
    mesh = box.field()
    if inputs:
        static = torch.stack([f.reshape(-1) for f in inputs.values()], dim=1)
        mesh = mesh.with_channels(static, list(inputs))
    return Trajectory(
        mesh=mesh,
        times=times,
        u=_by_point(u, box),
        channels=channels,
        gradient=_by_point(spectral_gradient(u, box), box, trailing=1),
        time_derivative=_by_point(rate, box),
        parameters={
            "seed": float(seed),
            "index": float(index),
            "refine": float(refine),
            "attempts": 1.0,
            "dt": frames.dt,
            "time_error": float(frames.error),
            "spectral_tail": tail,
            **parameters,
        },
    )


@dataclass(frozen=True, kw_only=True)
class PeriodicSystem(ABC):
    """A system on a periodic box: what is drawn, the box and the frames.

    Subclasses name the system, its unknowns (``channels``), the number of axes (``dim``) and the
    degree of the products in its equation, and write the equation down.

    Args:
        length: side of the box.
        num_points: number of points along each axis.
        initial: what draws the initial values, each of the unknowns by itself.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    length: float
    num_points: int
    initial: PeriodicGaussianField
    final_time: float
    num_frames: int
    step: TimeStep
    name: str

    channels: ClassVar[tuple[str, ...]] = ("u",)
    dim: ClassVar[int] = 1
    degree: ClassVar[int] = 2

    def __post_init__(self) -> None:
        frame_times(self.final_time, self.num_frames)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    @abstractmethod
    def equation(self, box: PeriodicBox) -> Semilinear:
        """The equation on a box, for a batch of one."""

    def parameters(self) -> dict[str, float]:
        """Scalar parameters of every sample."""
        return {}

    def inputs(self, box: PeriodicBox) -> dict[str, Tensor]:
        """Static fields by name, each in the shape of the box."""
        return {}

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        box = PeriodicBox((self.num_points,) * self.dim, (self.length,) * self.dim).refined(refine)
        rng = stream(seed, index, 0, INITIAL)
        drawn = [self.initial.sample(rng, box.lengths).on(box) for _ in self.channels]
        return periodic_sample(
            self.equation(box),
            box,
            torch.stack(drawn),
            frame_times(self.final_time, self.num_frames),
            self.step,
            seed=seed,
            index=index,
            refine=refine,
            channels=self.channels,
            degree=self.degree,
            parameters=self.parameters(),
            inputs=self.inputs(box),
        )


def _by_point(u: Tensor, box: PeriodicBox, trailing: int = 0) -> Tensor:
    """[T, c, *shape, ...] -> [T, N, c, ...]."""
    t, c = u.shape[:2]
    rest = u.shape[u.dim() - trailing :]
    return u.reshape(t, c, math.prod(box.shape), *rest).transpose(1, 2).contiguous()
