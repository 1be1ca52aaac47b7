r"""Waves.

.. math:: \partial_t^2 u - \nabla \cdot (a \nabla u) = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad a\,\partial_n u = \text{flux on } \Gamma_N,\quad
          u(0) = u_0,\quad \partial_t u(0) = v_0,

with a (the squared speed), f, g and flux constant in time. Lagrange elements of degree p in space
(order p + 1 for values, p for the gradient and the time derivative: the error of an interpolated
initial value swings on undamped), the implicit midpoint rule in time, which is Newmark's method
with 1/4 and 1/2: order 2, stable for every step, and the energy

.. math:: E = \tfrac12 \int (\partial_t u)^2 + a |\nabla u|^2 - \int f u
          - \int_{\Gamma_N} \text{flux}\, u

of the discrete solution stays the same to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Curved,
    Discretization,
    discretize,
)
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.poisson import (
    Diffusion,
    diffusion_inputs,
    draw_diffusion,
    draw_neumann,
)
from cst_operator.solvers.random_fields import Constant, FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import (
    Semidiscrete,
    check_trace,
    even_steps,
    everywhere,
    frame_times,
    near_rest,
    scalar_trajectory,
    semidiscrete,
)
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    INITIAL,
    Domain,
    DomainSampler,
    check_frames,
    check_smoothing,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["Wave", "solve_wave"]

Array = NDArray[np.float64]


def solve_wave(
    mesh: PointField,
    initial: Coefficient,
    times: torch.Tensor,
    *,
    dt: float,
    velocity: Coefficient = 0.0,
    f: Coefficient = 0.0,
    a: Coefficient = 1.0,
    g: Coefficient = 0.0,
    flux: Coefficient = 0.0,
    neumann: Sequence[int] = (),
    degree: int = 2,
    geometry: Curved | None = None,
) -> Trajectory:
    """Solve the wave equation on any mesh of triangles or tetrahedra.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: value at ``times[0]``; its trace must be ``g`` on the Dirichlet part.
        times: frames to return, increasing, [T].
        dt: largest time step; every interval between frames is divided evenly.
        velocity: time derivative at ``times[0]``; set to zero on the Dirichlet part.
        f: source.
        a: squared speed of the waves, positive.
        g: Dirichlet value.
        flux: Neumann value.
        neumann: markers of the Neumann part.
        degree: of the elements, 1, 2 or, on triangles, 3.
        geometry: curved domain behind the mesh, or the mesh is the domain.

    Returns:
        Trajectory with channel "u", its gradient and time derivative, float64; the static fields
        are channels of its mesh. Its parameters are the energy of the first frame, "energy", and
        the largest difference of another frame's, "energy_drift".

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times, step or a coefficient do not fit, or the initial value differs from
            g on the Dirichlet boundary.
        SolverError: if the solution is not finite.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    problem = Diffusion(f=f, a=a, g=g, flux=flux, neumann=tuple(neumann))
    system = semidiscrete(space, problem)
    start = space.at_dofs(initial)
    check_trace(space, system, start, "initial value")
    speed = space.at_dofs(velocity)[system.free]
    return _trajectory(space, mesh, problem, system, start, speed, times, dt, {})


def _trajectory(
    space: Discretization,
    mesh: PointField,
    problem: Diffusion,
    system: Semidiscrete,
    start: Array,
    speed: Array,
    times: torch.Tensor,
    dt: float,
    parameters: dict[str, float],
) -> Trajectory:
    t = frame_times(times, dt)
    inner, rates = _midpoint(system, start[system.free], speed, t, dt)
    u, rate = everywhere(system, inner, rates)
    energy = _energy(system, inner, rates)
    drift = float(np.abs(energy - energy[0]).max())
    parameters = {**parameters, "energy": float(energy[0]), "energy_drift": drift}
    return scalar_trajectory(space, diffusion_inputs(mesh, space, problem), t, u, rate, parameters)


def _energy(system: Semidiscrete, u: Array, rate: Array) -> Array:
    """Energy of every frame, [T], without the constant part of the boundary values."""
    kinetic = 0.5 * (rate * (system.mass @ rate.T).T).sum(axis=1)
    elastic = 0.5 * (u * (system.stiffness @ u.T).T).sum(axis=1)
    result: Array = kinetic + elastic - u @ system.load
    return result


def _midpoint(
    system: Semidiscrete, start: Array, speed: Array, times: Array, dt: float
) -> tuple[Array, Array]:
    """The implicit midpoint rule from frame to frame: value and time derivative, [T, free]."""
    mass, stiffness, load, _, _ = system
    u, v = start, speed
    frames, rates = [u], [v]
    factors: dict[float, SuperLU] = {}
    for count, step in even_steps(times, dt):
        quarter = step**2 / 4
        if step not in factors:
            factors[step] = factorize(mass + quarter * stiffness)
        for _ in range(count):
            force = load - stiffness @ (u + step / 4 * v)
            faster = v + factors[step].solve(step * force - quarter * (stiffness @ v))
            u = u + step / 2 * (v + faster)
            v = faster
        frames.append(u)
        rates.append(v)
    return np.stack(frames), np.stack(rates)


@dataclass(frozen=True, kw_only=True)
class Wave:
    r"""Random waves on random domains.

    The initial displacement w is made of a Gaussian random field q by
    :math:`(1 - s^2 L)^2 w = q` with :math:`L = \nabla\cdot a\nabla` and w and Lw zero on the
    Dirichlet part: it fits the boundary and is the same on every mesh of the same domain. It is
    added to the state of rest and let go.

    As it is: a = 1, u = 0 on the boundary, no source, q of standard deviation 2 and length .15,
    s = .05; 21 frames up to time 1, in which a wave crosses the domain.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh.
        f: what draws the source.
        a: what draws the squared speed.
        g: what draws the Dirichlet value.
        flux: what draws the Neumann value.
        initial: what draws q.
        smoothing: the length s.
        neumann: probability of every part of the boundary to be Neumann.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: largest time step.
        name: name of the system.
    """

    domain: DomainSampler[Domain] = DEFAULT_DOMAIN
    h: float = 0.043
    f: FieldSampler = Constant(0.0)
    a: FieldSampler = Constant(1.0)
    g: FieldSampler = Constant(0.0)
    flux: FieldSampler = Constant(0.0)
    initial: FieldSampler = GaussianField(length_scale=0.15, std=2.0)
    smoothing: float = 0.05
    neumann: float = 0.0
    final_time: float = 1.0
    num_frames: int = 21
    dt: float = 0.0025
    name: str = "wave"

    def __post_init__(self) -> None:
        if not 0.0 <= self.neumann <= 1.0:
            raise InputError(f"neumann is {self.neumann}; expected a probability")
        check_frames(self.num_frames, self.final_time, self.dt)
        check_smoothing(self.smoothing)

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
        space = drawn.discretize()
        times = torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64)
        parameters = sample_parameters(drawn, seed, index, refine, neumann)
        with naming(seed, index):
            system = semidiscrete(space, problem)
            start = near_rest(system, space.load(q), self.smoothing)
            speed = np.zeros(len(system.free))
            return _trajectory(
                space, drawn.mesh, problem, system, start, speed, times, self.dt, parameters
            )
