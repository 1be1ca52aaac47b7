r"""Steps in time for :math:`M \dot u = N(t, u) - K u`: K implicitly, N explicitly.

The method (4,4,3) of Ascher, Ruuth and Spiteri (Applied Numerical Mathematics 25, 1997): order 3,
four stages with the same matrix :math:`M + \Delta t\,K / 2`, factored once a step length; L-stable
where N = 0. What N and K conserve, it conserves.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import SolverError
from cst_operator.solvers.etdrk4 import CheckedStep, FixedStep
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.semidiscrete import even_steps

__all__ = ["SplitFrames", "SplitSystem", "integrate_split", "split_rates"]

Array = NDArray[np.float64]
_Plan = Sequence[tuple[int, float]]

_ORDER = 3
_FLOOR = 1e-3  # frames below this part of the largest are not held to their own size
_TIMES = (0.0, 1 / 2, 2 / 3, 1 / 2)
_EXPLICIT = (
    (1 / 2,),
    (11 / 18, 1 / 18),
    (5 / 6, -5 / 6, 1 / 2),
    (1 / 4, 7 / 4, 3 / 4, -7 / 4),
)
_IMPLICIT = ((0.0,), (0.0, 1 / 6), (0.0, -1 / 2, 1 / 2), (0.0, 3 / 2, -3 / 2, 1 / 2))


class SplitSystem(NamedTuple):
    """What to integrate: n unknowns, those of one component after those of another.

    Args:
        mass: M, symmetric and positive definite, [n, n].
        stiffness: K, symmetric and not negative, [n, n].
        forcing: N, from time and unknowns [n] to [n].
        parts: number of unknowns of every component.
    """

    mass: csr_matrix
    stiffness: csr_matrix
    forcing: Callable[[float, Array], Array]
    parts: tuple[int, ...]


class SplitFrames(NamedTuple):
    """A solution.

    The error estimate is the largest of all frames and components, in the Euclidean norm of a frame
    and relative to it, or to a thousandth of the largest frame.
    """

    u: Array
    """Unknowns at the asked times, [T, n]."""
    dt: float
    """Largest time step that was used."""
    error: float
    """Estimate of the error in time; 0 where none was made."""


def integrate_split(
    system: SplitSystem, start: Array, times: Array, step: FixedStep | CheckedStep
) -> SplitFrames:
    """Integrate from frame to frame.

    A checked step is halved until the difference of two solutions, divided by 7 = 2^3 - 1, is small
    enough; the finer one is returned.

    Args:
        system: what to integrate.
        start: unknowns at the first time, [n].
        times: of the frames, [T].
        step: what chooses the time step.

    Raises:
        SolverError: if the solution diverges or is not accurate enough.
    """
    plan = list(even_steps(times, step.dt))
    coarse = _march(system, start, times, plan)
    if isinstance(step, FixedStep):
        if coarse is None:
            raise SolverError(f"with steps of {step.dt:g}, the solution diverged; use smaller ones")
        return SplitFrames(coarse, _largest(plan), 0.0)
    error = np.inf
    for _ in range(step.max_halvings):
        plan = [(2 * count, length / 2) for count, length in plan]
        fine = _march(system, start, times, plan)
        if coarse is not None and fine is not None:
            error = _difference(system.parts, coarse, fine) / (2**_ORDER - 1)
            if error <= step.tolerance:
                return SplitFrames(fine, _largest(plan), error)
        coarse = fine
    if coarse is None:
        raise SolverError(f"the solution diverged, with steps of {_largest(plan):g} too")
    raise SolverError(
        f"with steps of {_largest(plan):g}, the estimated error is {error:.1e}, above the "
        f"tolerance of {step.tolerance:g}; start with a smaller step or allow a larger error"
    )


def split_rates(system: SplitSystem, frames: Array, times: Array) -> Array:
    """Derivatives in time of frames, [T, n]."""
    forces = [system.forcing(float(t), u) for t, u in zip(times, frames, strict=True)]
    right = np.stack(forces, axis=1) - system.stiffness @ frames.T
    rates: Array = factorize(system.mass).solve(right).T
    return np.ascontiguousarray(rates)


def _largest(plan: _Plan) -> float:
    return max((length for _, length in plan), default=0.0)


def _march(system: SplitSystem, start: Array, times: Array, plan: _Plan) -> Array | None:
    """Frames, [T, n], or nothing if they become infinite."""
    factors: dict[float, SuperLU] = {}
    frames = [start]
    u = start
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, (count, length) in zip(times[:-1], plan, strict=True):
            if length not in factors:
                factors[length] = factorize(system.mass + length / 2 * system.stiffness)
            for number in range(count):
                u = _step(system, factors[length], u, begin + number * length, length)
            if not np.isfinite(u).all():
                return None
            frames.append(u)
    return np.stack(frames)


def _step(system: SplitSystem, factors: SuperLU, u: Array, time: float, length: float) -> Array:
    begin = system.mass @ u
    forces: list[Array] = []
    pulls: list[Array] = []
    for stage in range(len(_TIMES)):
        forces.append(system.forcing(time + _TIMES[stage] * length, u))
        pulls.append(system.stiffness @ u)
        right = begin.copy()
        for a, force in zip(_EXPLICIT[stage], forces, strict=True):
            right += (length * a) * force
        for a, pull in zip(_IMPLICIT[stage], pulls, strict=True):
            right -= (length * a) * pull
        u = factors.solve(right)
    return u


def _difference(parts: Sequence[int], coarse: Array, fine: Array) -> float:
    """Largest relative difference of a frame of a component."""
    result = 0.0
    places = np.cumsum(parts)[:-1]
    for a, b in zip(np.split(coarse, places, axis=1), np.split(fine, places, axis=1), strict=True):
        size = np.linalg.norm(b, axis=1)
        least = max(_FLOOR * float(size.max()), np.finfo(np.float64).tiny)
        result = max(result, float((np.linalg.norm(a - b, axis=1) / np.maximum(size, least)).max()))
    return result
