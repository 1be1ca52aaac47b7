"""Linear problems discrete in space, and steps in time that they share."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import Coefficient, Discretization
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.poisson import Diffusion

__all__ = [
    "Semidiscrete",
    "check_trace",
    "even_steps",
    "everywhere",
    "frame_times",
    "near_rest",
    "nodal_trajectory",
    "rate_of_change",
    "scalar_trajectory",
    "semidiscrete",
    "smooth",
    "smooth_without_flux",
    "tr_bdf2",
]

Array = NDArray[np.float64]

_GAMMA = 2.0 - np.sqrt(2.0)


class Semidiscrete(NamedTuple):
    """M du/dt (or its second derivative) = F - K u on the free unknowns; others keep their value.

    ``boundary_values`` is zero but at the given unknowns, [D].
    """

    mass: csr_matrix
    stiffness: csr_matrix
    load: Array
    free: NDArray[np.int64]
    boundary_values: Array


def semidiscrete(space: Discretization, problem: Diffusion) -> Semidiscrete:
    """Matrices of a diffusion problem.

    Raises:
        InputError: if a coefficient does not fit or the whole boundary is Neumann.
    """
    stiffness = space.stiffness(problem.a)
    fixed = space.fixed(problem.neumann)
    free = np.setdiff1d(np.arange(stiffness.shape[0]), fixed)
    values = np.zeros(stiffness.shape[0])
    values[fixed] = space.at_dofs(problem.g)[fixed]
    load = space.load(problem.f) + space.flux_load(problem.flux, problem.neumann)
    load -= stiffness @ values
    return Semidiscrete(
        space.mass()[free][:, free], stiffness[free][:, free], load[free], free, values
    )


def check_trace(space: Discretization, system: Semidiscrete, start: Array, name: str) -> None:
    """Refuse a start, [D], that differs from the given boundary values.

    Raises:
        InputError: saying where; ``name`` is what the caller calls it.
    """
    fixed = np.setdiff1d(np.arange(len(start)), system.free)
    jump = np.abs(start - system.boundary_values)[fixed]
    if len(fixed) and jump.max() > 1e-6 * max(float(np.abs(start).max()), 1e-300):
        place = ", ".join(f"{x:g}" for x in space.locations[fixed[int(np.argmax(jump))]])
        raise InputError(
            f"the {name} differs from g by {jump.max():g} on the Dirichlet boundary at "
            f"({place}); give one that agrees"
        )


def smooth(system: Semidiscrete, load: Array, length: float) -> Array:
    r"""Solution of :math:`(1 - s^2 L)^2 w = q` on the free unknowns, s the length.

    w and Lw vanish on the Dirichlet part, and w is the same on every mesh of a domain.

    Args:
        system: with :math:`L = \nabla \cdot a \nabla`.
        load: of q, [D].
        length: s.
    """
    filtered = factorize(system.mass + length**2 * system.stiffness)
    once = filtered.solve(load[system.free])
    result: Array = filtered.solve(system.mass @ once)
    return result


def smooth_without_flux(space: Discretization, q: Coefficient, length: float) -> Array:
    r"""Solution of :math:`(1 - s^2 \Delta)^2 w = q`, s the length, [D].

    The normal derivatives of w and :math:`\Delta w` vanish, and w is the same on every mesh of a
    domain.
    """
    everything, zero = np.arange(space.basis.N), np.zeros(space.basis.N)
    free = Semidiscrete(space.mass(), space.stiffness(1.0), zero, everything, zero)
    return smooth(free, space.load(q), length)


def near_rest(system: Semidiscrete, load: Array, length: float) -> Array:
    """The steady state plus a smooth field of the given load, :func:`smooth`, [D]."""
    start = system.boundary_values.copy()
    start[system.free] = factorize(system.stiffness).solve(system.load)
    start[system.free] += smooth(system, load, length)
    return start


def rate_of_change(
    system: Semidiscrete, inner: Array, factorization: Callable[[csr_matrix], SuperLU]
) -> Array:
    """M^-1 (F - K u) of frames of the free unknowns, [T, free]."""
    right = system.load[:, None] - system.stiffness @ inner.T
    rates: Array = factorization(system.mass).solve(right).T
    return rates


def everywhere(system: Semidiscrete, inner: Array, rates: Array) -> tuple[Array, Array]:
    """Values and rates of the free unknowns and the given ones, [T, D] each.

    Raises:
        SolverError: if one is not finite.
    """
    u = np.tile(system.boundary_values, (len(inner), 1))
    u[:, system.free] = inner
    rate = np.zeros_like(u)
    rate[:, system.free] = rates
    if not (np.isfinite(u).all() and np.isfinite(rate).all()):
        raise SolverError("the solution is not finite")
    return u, rate


def scalar_trajectory(
    space: Discretization,
    fields: PointField,
    times: Array,
    u: Array,
    rate: Array,
    parameters: dict[str, float],
) -> Trajectory:
    """Frames of the unknowns, [T, D], as channel "u" at the points of a mesh."""
    return nodal_trajectory(space, fields, times, u[:, None], rate[:, None], ("u",), parameters)


def nodal_trajectory(
    space: Discretization,
    fields: PointField,
    times: Array,
    u: Array,
    rate: Array,
    channels: tuple[str, ...],
    parameters: dict[str, float],
) -> Trajectory:
    """Frames of the unknowns of every channel, [T, c, D], at the points of a mesh."""
    n = space.num_points
    at_points = [
        np.ascontiguousarray(np.moveaxis(values, 1, 2))  # [T, N, c, ...]
        for values in (u[:, :, :n], space.nodal_gradient(u), rate[:, :, :n])
    ]
    values, gradient, time_derivative = (torch.from_numpy(v.copy()) for v in at_points)
    return Trajectory(
        mesh=fields,
        times=torch.from_numpy(times.copy()),
        u=values,
        channels=channels,
        gradient=gradient,
        time_derivative=time_derivative,
        parameters=parameters,
    )


def frame_times(times: torch.Tensor, dt: float) -> Array:
    """Times of frames, [T].

    Raises:
        InputError: if they do not increase or the time step is not positive.
    """
    t = np.asarray(times, dtype=np.float64).copy()
    if t.ndim != 1 or not len(t) or (np.diff(t) <= 0).any():
        raise InputError(f"times has shape {t.shape}; expected increasing times, [frames]")
    if not dt > 0:
        raise InputError(f"dt is {dt}; expected a positive time step")
    return t


def even_steps(times: Array, dt: float) -> Iterator[tuple[int, float]]:
    """Number and length of the steps, at most ``dt``, from every frame to the next.

    Lengths that are equal up to rounding of the times are the same number.
    """
    known: list[float] = []
    for interval in np.diff(times):
        count = int(np.ceil(interval / dt - 1e-9))
        step = next((s for s in known if abs(s * count - interval) < 1e-9 * interval), None)
        if step is None:
            step = float(interval / count)
            known.append(step)
        yield count, step


def tr_bdf2(
    system: Semidiscrete,
    start: Array,
    times: Array,
    dt: float,
    factorization: Callable[[csr_matrix], SuperLU],
) -> Array:
    """TR-BDF2 (Bank et al. 1985) from frame to frame: order 2, L-stable, one matrix a step length.

    Args:
        system: what to integrate.
        start: free unknowns at the first time.
        times: of the frames, [T].
        dt: largest step.
        factorization: the one that suits the matrices.

    Returns:
        Free unknowns, [T, free].
    """
    mass, stiffness, load, _, _ = system
    frames = [start]
    factors: dict[float, SuperLU] = {}
    u = start
    for count, step in even_steps(times, dt):
        half = _GAMMA * step / 2
        if step not in factors:
            factors[step] = factorization(mass + half * stiffness)
        solve = factors[step].solve
        for _ in range(count):
            middle = solve(mass @ u + half * (2 * load - stiffness @ u))
            past = (middle - (1 - _GAMMA) ** 2 * u) / (_GAMMA * (2 - _GAMMA))
            u = solve(mass @ past + half * load)
        frames.append(u)
    return np.stack(frames)
