r"""Heat conduction.

.. math:: \partial_t u - \nabla \cdot (a \nabla u) = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad a\,\partial_n u = \text{flux on } \Gamma_N,\quad
          u(0) = u_0,

with a, f, g and flux constant in time. Lagrange elements of degree p in space (order p + 1 for
values and time derivative, p for the gradient; random problems are solved with p = 3), TR-BDF2 in
time (Bank et al. 1985: one step, order 2, L-stable, one matrix for both stages, factored once).
The time derivative solves :math:`M \dot u = F - K u`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    discretize,
)
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.poisson import (
    SAMPLE_DEGREE,
    Diffusion,
    diffusion_inputs,
    draw_diffusion,
    draw_neumann,
)
from cst_operator.solvers.random_fields import Constant, FieldSampler, GaussianField
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    INITIAL,
    DomainSampler,
    mesh_domain,
    sample_parameters,
    stream,
)

__all__ = ["Heat", "solve_heat"]

Array = NDArray[np.float64]

_GAMMA = 2.0 - np.sqrt(2.0)


class _Semidiscrete(NamedTuple):
    """M du/dt = F - K u on the free unknowns; fixed ones keep their value."""

    mass: csr_matrix
    stiffness: csr_matrix
    load: Array
    free: NDArray[np.int64]
    boundary_values: Array
    """Zero but at fixed unknowns, [D]."""


def solve_heat(
    mesh: PointField,
    initial: Coefficient,
    times: torch.Tensor,
    *,
    dt: float,
    f: Coefficient = 0.0,
    a: Coefficient = 1.0,
    g: Coefficient = 0.0,
    flux: Coefficient = 0.0,
    neumann: tuple[int, ...] = (),
    degree: int = 2,
    geometry: Geometry | None = None,
) -> Trajectory:
    r"""Solve the heat equation on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: value at ``times[0]``; its trace must be ``g`` on the Dirichlet part.
        times: frames to return, increasing, [T].
        dt: largest time step; every interval between frames is divided evenly.
        f: source.
        a: positive coefficient.
        g: Dirichlet value.
        flux: Neumann value.
        neumann: markers of the Neumann part.
        degree: of the elements, 1, 2 or 3.
        geometry: curved domain behind the mesh, or the mesh is the domain.

    Returns:
        Trajectory with channel "u", its gradient and time derivative, float64; the static fields
        are channels of its mesh. The time derivative at ``times[0]`` is one order less accurate
        in space, because the initial value is interpolated.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times, step or a coefficient do not fit, or the initial value differs from
            g on the Dirichlet boundary.
        SolverError: if the solution is not finite.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    problem = Diffusion(f=f, a=a, g=g, flux=flux, neumann=neumann)
    system = _semidiscrete(space, problem)
    start = space.at_dofs(initial)
    fixed = np.setdiff1d(np.arange(len(start)), system.free)
    jump = np.abs(start - system.boundary_values)[fixed]
    if len(fixed) and jump.max() > 1e-6 * max(float(np.abs(start).max()), 1e-300):
        x, y = space.locations[fixed[int(np.argmax(jump))]]
        raise InputError(
            f"the initial value differs from g by {jump.max():g} on the Dirichlet boundary at "
            f"({x:g}, {y:g}); give an initial value that agrees"
        )
    return _trajectory(space, mesh, problem, system, start, times, dt, {})


def _semidiscrete(space: Discretization, problem: Diffusion) -> _Semidiscrete:
    stiffness = space.stiffness(problem.a)
    fixed = space.fixed(problem.neumann)
    free = np.setdiff1d(np.arange(stiffness.shape[0]), fixed)
    values = np.zeros(stiffness.shape[0])
    values[fixed] = space.at_dofs(problem.g)[fixed]
    load = space.load(problem.f) + space.flux_load(problem.flux, problem.neumann)
    load -= stiffness @ values
    return _Semidiscrete(
        space.mass()[free][:, free], stiffness[free][:, free], load[free], free, values
    )


def _trajectory(
    space: Discretization,
    mesh: PointField,
    problem: Diffusion,
    system: _Semidiscrete,
    start: Array,
    times: torch.Tensor,
    dt: float,
    parameters: dict[str, float],
) -> Trajectory:
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 1 or not len(t) or (np.diff(t) <= 0).any():
        raise InputError(f"times has shape {t.shape}; expected increasing times, [frames]")
    if not dt > 0:
        raise InputError(f"dt is {dt}; expected a positive time step")
    inner = _integrate(system, start[system.free], t, dt)
    u = np.tile(system.boundary_values, (len(t), 1))
    u[:, system.free] = inner
    rate = np.zeros_like(u)
    right = system.load[:, None] - system.stiffness @ inner.T
    rate[:, system.free] = factorize(system.mass).solve(right).T
    if not (np.isfinite(u).all() and np.isfinite(rate).all()):
        raise SolverError("the solution is not finite")
    n = space.num_points
    return Trajectory(
        mesh=diffusion_inputs(mesh, space, problem),
        times=torch.from_numpy(t.copy()),
        u=torch.from_numpy(u[:, :n, None].copy()),
        channels=("u",),
        gradient=torch.from_numpy(space.nodal_gradient(u)[:, :, None].copy()),
        time_derivative=torch.from_numpy(rate[:, :n, None].copy()),
        parameters=parameters,
    )


def _integrate(system: _Semidiscrete, start: Array, times: Array, dt: float) -> Array:
    """TR-BDF2 from frame to frame, [T, free unknowns]."""
    mass, stiffness, load, _, _ = system
    frames = [start]
    factors: dict[float, SuperLU] = {}
    u = start
    for interval in np.diff(times):
        steps = int(np.ceil(interval / dt - 1e-9))
        # equal up to rounding of the times: one factorization
        step = next((s for s in factors if abs(s * steps - interval) < 1e-9 * interval), None)
        if step is None:
            step = float(interval / steps)
            factors[step] = factorize(mass + (0.5 * _GAMMA * step) * stiffness)
        solve = factors[step].solve
        for _ in range(steps):
            half = _GAMMA * step / 2
            middle = solve(mass @ u + half * (2 * load - stiffness @ u))
            past = (middle - (1 - _GAMMA) ** 2 * u) / (_GAMMA * (2 - _GAMMA))
            u = solve(mass @ past + half * load)
        frames.append(u)
    return np.stack(frames)


@dataclass(frozen=True, kw_only=True)
class Heat:
    r"""Random heat conduction on random domains.

    The initial value is the steady state plus a perturbation w, which then decays. With q a
    Gaussian random field and :math:`L = \nabla\cdot a\nabla`, :math:`(1 - s^2 L)^2 w = q` with w
    and Lw zero on the Dirichlet part: w and its first time derivative fit the boundary condition,
    and both are the same on every mesh of the same domain.

    As it is: a = 1, u = 0 on the boundary, f static with standard deviation 20 about a mean of
    standard deviation 20 (steady states of about .5), q of standard deviation 2 and length .2,
    s = .07; 11 frames up to time .02, which is about the slowest time constant.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh.
        f: what draws the source.
        a: what draws the coefficient.
        g: what draws the Dirichlet value.
        flux: what draws the Neumann value.
        initial: what draws q.
        smoothing: the length s.
        neumann: probability of every boundary loop to be Neumann.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: largest time step.
        name: name of the system.
    """

    domain: DomainSampler = DEFAULT_DOMAIN
    h: float = 0.043
    f: FieldSampler = GaussianField(std=20.0, mean_std=20.0)
    a: FieldSampler = Constant(1.0)
    g: FieldSampler = Constant(0.0)
    flux: FieldSampler = Constant(0.0)
    initial: FieldSampler = GaussianField(length_scale=0.2, std=2.0)
    smoothing: float = 0.07
    neumann: float = 0.0
    final_time: float = 0.02
    num_frames: int = 11
    dt: float = 0.0005
    name: str = "heat"

    def __post_init__(self) -> None:
        if not 0.0 <= self.neumann <= 1.0:
            raise InputError(f"neumann is {self.neumann}; expected a probability")
        if self.num_frames < 2 or not self.final_time > 0 or not self.dt > 0:
            raise InputError("expected num_frames of 2 or more, final_time > 0 and dt > 0")
        if not self.smoothing > 0:
            raise InputError(f"smoothing is {self.smoothing}; expected a positive length")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "2"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        neumann = draw_neumann(drawn, self.neumann, seed, index)
        problem = draw_diffusion(self, seed, index, drawn.attempt, neumann)
        q = self.initial.sample(stream(seed, index, drawn.attempt, INITIAL))
        space = discretize(drawn.mesh, degree=SAMPLE_DEGREE, geometry=drawn.geometry)
        system = _semidiscrete(space, problem)
        start = system.boundary_values.copy()
        start[system.free] = factorize(system.stiffness).solve(system.load)
        filtered = factorize(system.mass + self.smoothing**2 * system.stiffness)
        once = filtered.solve(space.load(q)[system.free])
        start[system.free] += filtered.solve(system.mass @ once)
        times = torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64)
        parameters = sample_parameters(drawn, seed, index, refine, neumann)
        return _trajectory(space, drawn.mesh, problem, system, start, times, self.dt, parameters)
