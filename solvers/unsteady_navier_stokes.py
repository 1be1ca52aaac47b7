r"""Incompressible flow in time.

.. math:: \partial_t u + (u \cdot \nabla) u - \nu \Delta u + \nabla p = f,\quad
          \nabla \cdot u = 0 \text{ in } \Omega,\quad u = g(t) \text{ on } \Gamma_D,\quad
          \nu\,\partial_n u = p\,n \text{ on the outflow},\quad u(0) = u_0.

Taylor-Hood elements on curved edges: velocities are of order 3 in space and their gradients of
order 2. BDF2 in time with the transporting velocity extrapolated (Oseen's equations, one linear
system a step): order 2. The factors of an earlier step precondition GMRES until it needs too many
iterations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag, bmat, csr_matrix
from scipy.sparse.linalg import LinearOperator, gmres

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import VectorCoefficient
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.semidiscrete import even_steps, frame_times
from cst_operator.solvers.taylor_hood import FLOW_CHANNELS, SaddlePoint, TaylorHood, taylor_hood

__all__ = ["UnsteadyFlow", "solve_unsteady_navier_stokes"]

Array = NDArray[np.float64]

_TOLERANCE = 1e-9  # of the linear systems, relative to their right side
_KRYLOV = 15
_GROWTH = 100.0  # of the speed, which narrow gaps raise too


@dataclass(frozen=True, kw_only=True)
class UnsteadyFlow:
    """A flow in time.

    Args:
        trajectory: channels "u_x", "u_y" and "p" with their gradients; the pressure of the first
            frame is that of the first step.
        step_times: end of every time step, [S].
        forces: force of the fluid on every part of the boundary with given velocity, by marker,
            [S, 2].
    """

    trajectory: Trajectory
    step_times: Array
    forces: dict[int, Array]


def solve_unsteady_navier_stokes(
    mesh: PointField,
    initial: VectorCoefficient,
    times: torch.Tensor,
    *,
    dt: float,
    viscosity: float,
    velocity: Callable[[float], VectorCoefficient],
    body: VectorCoefficient = (0.0, 0.0),
    outflow: Sequence[int] = (),
    geometry: Geometry | None = None,
) -> UnsteadyFlow:
    """Solve incompressible flow of density 1 in time on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: velocity at ``times[0]``, free of divergence.
        times: frames to return, increasing evenly, [T].
        dt: largest time step; the intervals between frames are divided evenly.
        viscosity: kinematic, positive.
        velocity: value on the boundary but the outflow, as a function of time.
        body: force per mass.
        outflow: markers of the part where the flow leaves freely.
        geometry: curved domain behind the mesh; without it the mesh is the domain.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times, step or a coefficient do not fit.
        SolverError: if the flow diverges, which is when it is faster than 100 times what the
            initial and given velocities and the force account for: the time step or the mesh is
            too coarse for it.
    """
    if not viscosity > 0:
        raise InputError(f"viscosity is {viscosity}; expected a positive number")
    space = taylor_hood(mesh, outflow=outflow, geometry=geometry)
    return advance(
        space,
        mesh,
        initial,
        times,
        dt=dt,
        viscosity=viscosity,
        velocity=velocity,
        body=body,
        growth=_GROWTH,
    )


def advance(
    space: TaylorHood,
    mesh: PointField,
    initial: VectorCoefficient,
    times: torch.Tensor,
    *,
    dt: float,
    viscosity: float,
    velocity: Callable[[float], VectorCoefficient],
    body: VectorCoefficient,
    growth: float,
) -> UnsteadyFlow:
    """:func:`solve_unsteady_navier_stokes` where the mesh is already discretized.

    A flow that is faster than ``growth`` times what the initial value, the boundary and the force
    account for diverges.
    """
    t = frame_times(times, dt)
    steps = set(even_steps(t, dt))
    if len(steps) != 1:
        raise InputError(
            f"the frames need {len(steps)} different time steps; give two or more equally spaced "
            "times"
        )
    count, step = steps.pop()
    stepper = _Stepper(space, viscosity, space.load(body), step)
    size = 2 * space.velocity.basis.N
    before = now = np.concatenate(
        [*(space.velocity.at_dofs(g) for g in initial), np.zeros(space.pressure.basis.N)]
    )
    walls = sorted(set(space.velocity.markers.tolist()) - set(space.outflow))
    forces: dict[int, list[tuple[float, float]]] = {marker: [] for marker in walls}
    frames = [now]
    known = float(np.abs(now).max())
    pull = max(float(np.abs(space.velocity.at_dofs(f)).max()) for f in body)
    for number in range(1, count * (len(t) - 1) + 1):
        given = space.given(velocity(t[0] + number * step))
        after, residual = stepper.advance(before, now, given, first=number == 1)
        known = max(known, float(np.abs(given[:size]).max()))
        speed = float(np.abs(after[:size]).max())
        if not speed <= growth * (known + pull * number * step) or not np.isfinite(after).all():
            raise SolverError(
                f"the flow diverges: after {number} steps of {step:g} its speed is {speed:.1e}, "
                f"of given velocities of {known:.1e}; use a smaller dt or a finer mesh"
            )
        before, now = now, after
        for marker in walls:
            forces[marker].append(space.force(residual, marker))
        if number == 1:
            frames[0][size:] = now[size:]
        if number % count == 0:
            frames.append(now)
    nodal = [space.nodal(space.level(flow)) for flow in frames]
    return UnsteadyFlow(
        trajectory=Trajectory(
            mesh=mesh.with_values(mesh.pos.new_zeros(mesh.num_points, 0), []),
            times=torch.from_numpy(t),
            u=torch.stack([values for values, _ in nodal]),
            channels=FLOW_CHANNELS,
            gradient=torch.stack([gradient for _, gradient in nodal]),
            parameters={"viscosity": viscosity},
        ),
        step_times=t[0] + step * np.arange(1, count * (len(t) - 1) + 1),
        forces={marker: np.array(history) for marker, history in forces.items()},
    )


class _Stepper:
    """BDF2 with the transporting velocity extrapolated; one step of BDF1 to begin with."""

    def __init__(self, space: TaylorHood, viscosity: float, load: Array, step: float) -> None:
        self._space = space
        self._load = load
        self._step = step
        one, mass = space.velocity.stiffness(viscosity), space.velocity.mass()
        self._viscous: csr_matrix = block_diag([one, one], format="csr")
        self._mass: csr_matrix = block_diag([mass, mass], format="csr")
        self._scale = 1 / viscosity
        self._factors: SaddlePoint | None = None

    def advance(
        self, before: Array, now: Array, given: Array, *, first: bool
    ) -> tuple[Array, Array]:
        """The next flow and the residual of its equations before values are given."""
        size = self._mass.shape[0]
        lead, past, carrier = (
            (1.0, now, now) if first else (1.5, 2 * now - 0.5 * before, 2 * now - before)
        )
        momentum = (
            (lead / self._step) * self._mass + self._viscous + self._space.convection(carrier)
        )
        right = self._load.copy()
        right[:size] += self._mass @ past[:size] / self._step
        b = self._space.divergence
        matrix = bmat([[momentum, -b.T], [-b, None]], format="csr")
        guess = now.copy()
        guess[self._space.fixed] = given[self._space.fixed]
        flow = guess + self._solve(momentum, matrix, right - matrix @ guess)
        return flow, matrix @ flow - right

    def _solve(self, momentum: csr_matrix, matrix: csr_matrix, right: Array) -> Array:
        free = self._space.free
        wanted = right[free]
        if self._factors is not None:
            inner = matrix[free][:, free]
            frozen = LinearOperator(inner.shape, matvec=self._factors.precondition)
            tolerance = _TOLERANCE * float(np.linalg.norm(self._load) + np.linalg.norm(wanted))
            x, unfinished = gmres(
                inner, wanted, M=frozen, rtol=0.0, atol=tolerance, restart=_KRYLOV, maxiter=1
            )
            if not unfinished:
                result = np.zeros_like(right)
                result[free] = x
                return result
        self._factors = SaddlePoint(self._space, momentum, scale=self._scale)
        return self._factors.solve(right)
