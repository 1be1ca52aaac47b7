r"""Heat conduction.

.. math:: \partial_t u - \nabla \cdot (a \nabla u) = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad a\,\partial_n u = \text{flux on } \Gamma_N,\quad
          u(0) = u_0,

with a, f, g and flux constant in time. Lagrange elements of degree p in space (order p + 1 for
values and time derivative, p for the gradient; random problems are solved with p = 3 in the plane
and 2 in space), TR-BDF2 in
time (Bank et al. 1985: one step, order 2, L-stable, one matrix for both stages, factored once).
The time derivative solves :math:`M \dot u = F - K u`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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
from cst_operator.solvers.random_solids import RandomSolid
from cst_operator.solvers.semidiscrete import (
    Semidiscrete,
    check_trace,
    everywhere,
    frame_times,
    near_rest,
    rate_of_change,
    scalar_trajectory,
    semidiscrete,
    tr_bdf2,
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

__all__ = ["Heat", "solve_heat"]

Array = NDArray[np.float64]


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
    geometry: Curved | None = None,
) -> Trajectory:
    r"""Solve the heat equation on any mesh of triangles or tetrahedra.

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
        degree: of the elements, 1, 2 or, on triangles, 3.
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
    system = semidiscrete(space, problem)
    start = space.at_dofs(initial)
    check_trace(space, system, start, "initial value")
    return _trajectory(space, mesh, problem, system, start, times, dt, {})


def _trajectory(
    space: Discretization,
    mesh: PointField,
    problem: Diffusion,
    system: Semidiscrete,
    start: Array,
    times: torch.Tensor,
    dt: float,
    parameters: dict[str, float],
) -> Trajectory:
    t = frame_times(times, dt)
    inner = tr_bdf2(system, start[system.free], t, dt, factorize)
    u, rate = everywhere(system, inner, rate_of_change(system, inner, factorize))
    return scalar_trajectory(space, diffusion_inputs(mesh, space, problem), t, u, rate, parameters)


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

    domain: DomainSampler[Domain] = DEFAULT_DOMAIN
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
        check_frames(self.num_frames, self.final_time, self.dt)
        check_smoothing(self.smoothing)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "3"

    @classmethod
    def solid(cls) -> "Heat":
        """In smooth random solids, of some hundred points."""
        return cls(domain=RandomSolid(), h=0.09, name="heat_solid")

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
            return _trajectory(
                space, drawn.mesh, problem, system, start, times, self.dt, parameters
            )
