r"""Poisson and Darcy problems.

.. math:: -\nabla \cdot (a \nabla u) = f \text{ in } \Omega,\quad u = g \text{ on } \Gamma_D,\quad
          a\,\partial_n u = \text{flux on } \Gamma_N.

Lagrange elements of degree p: 1, 2 or 3 on triangles, 1 or 2 on tetrahedra. Values are of order
p + 1, gradients at mesh points (averages over cells by volume) of order p. Where the curved domain
is known its edges are parabolas and the order is at most 3 for values; straight edges in place of a
curved boundary limit it to 2. Random plane problems are solved with p = 3, so that their values at
mesh points are good to about 2e-4 and their gradients to 1e-2 (relative, on meshes of 280 points),
those in space with p = 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Curved,
    Discretization,
    discretize,
    static_fields,
)
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.random_fields import Constant, FieldSampler, GaussianField, Inclusions
from cst_operator.solvers.random_solids import RandomSolid
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    FLUX,
    PARTS,
    A,
    Domain,
    DomainSampler,
    F,
    G,
    MeshedDomain,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["POISSON_CHANNELS", "Diffusion", "Poisson", "poisson_inputs", "solve_poisson"]

Array = NDArray[np.float64]

POISSON_CHANNELS = ("f", "a", "g", "flux", "distance", "distance_neumann")
"""Static fields of a sample, channels of ``Trajectory.mesh``."""


def solve_poisson(
    mesh: PointField,
    *,
    f: Coefficient = 0.0,
    a: Coefficient = 1.0,
    g: Coefficient = 0.0,
    flux: Coefficient = 0.0,
    neumann: Sequence[int] = (),
    degree: int = 2,
    geometry: Curved | None = None,
) -> PointField:
    r"""Solve :math:`-\nabla\cdot(a\nabla u) = f` on any mesh of triangles or tetrahedra.

    Args:
        mesh: field with ``cells["triangle"]`` in the plane or ``cells["tetra"]`` in space;
            ``facets["line"]`` or ``facets["triangle"]`` and their ``facet_markers`` name the parts
            of the boundary (marker 1 everywhere if omitted).
        f: source; a number, a function [n, d] -> [n] or one value per mesh point.
        a: positive coefficient.
        g: wanted value on the Dirichlet part.
        flux: wanted :math:`a\,\partial_n u` on the Neumann part.
        neumann: markers of the Neumann part; the rest of the boundary is Dirichlet.
        degree: of the elements, 1, 2 or, on triangles, 3.
        geometry: curved domain behind the mesh; without it the mesh is the domain.

    Returns:
        Field with channel "u" and its gradient, on the points and cells of ``mesh``, float64.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if a coefficient does not fit or the problem is not well posed.
        SolverError: if the linear system is singular.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    u = _solve(space, Diffusion(f=f, a=a, g=g, flux=flux, neumann=tuple(neumann)))
    return mesh.with_values(
        torch.from_numpy(u[: space.num_points, None].copy()),
        ["u"],
        gradient=torch.from_numpy(space.nodal_gradient(u)[:, None].copy()),
    )


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Coefficients of a diffusion problem and the markers of its Neumann part."""

    f: Coefficient
    a: Coefficient
    g: Coefficient
    flux: Coefficient
    neumann: tuple[int, ...]


def _solve(space: Discretization, problem: Diffusion) -> Array:
    matrix = space.stiffness(problem.a)
    load = space.load(problem.f) + space.flux_load(problem.flux, problem.neumann)
    fixed = space.fixed(problem.neumann)
    free = np.setdiff1d(np.arange(len(load)), fixed)
    u = np.zeros(len(load))
    u[fixed] = space.at_dofs(problem.g)[fixed]
    rows = matrix[free]
    u[free] = factorize(rows[:, free]).solve((load - matrix @ u)[free])
    if not np.isfinite(u).all():
        raise SolverError("the solution is not finite; the matrix is close to singular")
    return u


def poisson_inputs(
    mesh: PointField,
    *,
    f: Coefficient = 0.0,
    a: Coefficient = 1.0,
    g: Coefficient = 0.0,
    flux: Coefficient = 0.0,
    neumann: Sequence[int] = (),
    cap: float = 1.0,
) -> PointField:
    """What a model may read of a Poisson problem, at the mesh points.

    Args:
        mesh: as for :func:`solve_poisson`.
        f: source.
        a: coefficient.
        g: Dirichlet value.
        flux: Neumann value.
        neumann: markers of the Neumann part.
        cap: largest distance to report, in units of the coordinates. It is also the distance to
            a Neumann part that does not exist.

    Returns:
        Field with channels :data:`POISSON_CHANNELS`: the coefficients, and the exact distances to
        the Dirichlet and to the Neumann facets.
    """
    problem = Diffusion(f=f, a=a, g=g, flux=flux, neumann=tuple(neumann))
    return diffusion_inputs(mesh, discretize(mesh, degree=1), problem, cap=cap)


def diffusion_inputs(
    mesh: PointField, space: Discretization, problem: Diffusion, *, cap: float = 1.0
) -> PointField:
    """:func:`poisson_inputs` where the mesh is already discretized."""
    part = problem.neumann
    dirichlet = sorted(set(space.markers.tolist()) - set(part))
    coefficients = (problem.f, problem.a, problem.g, problem.flux)
    return static_fields(
        mesh,
        space,
        dict(zip(POISSON_CHANNELS[:4], coefficients, strict=True)),
        dict(zip(POISSON_CHANNELS[4:], (dirichlet, part), strict=True)),
        cap=cap,
    )


class _DiffusionSamplers(Protocol):
    """What draws the four coefficients."""

    @property
    def f(self) -> FieldSampler: ...
    @property
    def a(self) -> FieldSampler: ...
    @property
    def g(self) -> FieldSampler: ...
    @property
    def flux(self) -> FieldSampler: ...


def draw_diffusion(
    samplers: _DiffusionSamplers, seed: int, index: int, attempt: int, neumann: tuple[int, ...]
) -> Diffusion:
    """Draw the coefficients, each from its own stream: changing one leaves the others."""
    return Diffusion(
        a=samplers.a.sample(stream(seed, index, attempt, A)),
        f=samplers.f.sample(stream(seed, index, attempt, F)),
        g=samplers.g.sample(stream(seed, index, attempt, G)),
        flux=samplers.flux.sample(stream(seed, index, attempt, FLUX)),
        neumann=neumann,
    )


def draw_neumann(
    drawn: MeshedDomain[Domain], probability: float, seed: int, index: int
) -> tuple[int, ...]:
    """Draw which parts are Neumann; if all were, the first is Dirichlet."""
    markers = drawn.geometry.parts
    draws = stream(seed, index, drawn.attempt, PARTS).random(len(markers))
    chosen = [m for m, r in zip(markers, draws, strict=True) if r < probability]
    return tuple(chosen if len(chosen) < len(markers) else chosen[1:])


@dataclass(frozen=True, kw_only=True)
class Poisson:
    r"""Random Poisson problems on random domains.

    As it is: a = 1, u = 0 on the boundary, f a Gaussian random field of correlation length .3 and
    standard deviation 1 about a normally distributed mean of standard deviation 1; about 280
    points a mesh. :meth:`darcy` has a log-normal coefficient, :meth:`mixed` Neumann parts,
    :meth:`solid` is in space.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh.
        f: what draws the source.
        a: what draws the coefficient.
        g: what draws the Dirichlet value, a smooth function on the whole domain.
        flux: what draws the Neumann value, likewise.
        neumann: probability of every boundary loop to be Neumann; if all were, the outer one is
            Dirichlet.
        name: name of the system.
    """

    domain: DomainSampler[Domain] = DEFAULT_DOMAIN
    h: float = 0.043
    f: FieldSampler = GaussianField(mean_std=1.0)
    a: FieldSampler = Constant(1.0)
    g: FieldSampler = Constant(0.0)
    flux: FieldSampler = Constant(0.0)
    neumann: float = 0.0
    name: str = "poisson"

    def __post_init__(self) -> None:
        if not 0.0 <= self.neumann <= 1.0:
            raise InputError(f"neumann is {self.neumann}; expected a probability")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "3"

    @classmethod
    def darcy(cls) -> "Poisson":
        r"""Darcy flow: log-normal a, :math:`\log a` of standard deviation 1 and length .2."""
        return cls(a=GaussianField(length_scale=0.2, log=True), name="darcy")

    @classmethod
    def inclusions(cls) -> "Poisson":
        """Darcy flow through disks of other permeability.

        Of order 1, see :class:`~cst_operator.solvers.random_fields.Inclusions`.
        """
        return cls(a=Inclusions(), name="darcy_inclusions")

    @classmethod
    def mixed(cls) -> "Poisson":
        """Every loop is Neumann with probability 1/2; g and flux are Gaussian random fields."""
        return cls(
            g=GaussianField(length_scale=0.5, std=0.1),
            flux=GaussianField(length_scale=0.5, std=0.5),
            neumann=0.5,
            name="poisson_mixed",
        )

    @classmethod
    def solid(cls) -> "Poisson":
        """Log-normal coefficient in smooth random solids, of some hundred points."""
        a = GaussianField(length_scale=0.3, std=0.5, log=True)
        return cls(domain=RandomSolid(), h=0.09, a=a, name="poisson_solid")

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        neumann = draw_neumann(drawn, self.neumann, seed, index)
        problem = draw_diffusion(self, seed, index, drawn.attempt, neumann)
        space = drawn.discretize()
        with naming(seed, index):
            u = _solve(space, problem)
        return Trajectory(
            mesh=diffusion_inputs(drawn.mesh, space, problem),
            times=torch.zeros(1, dtype=torch.float64),
            u=torch.from_numpy(u[None, : space.num_points, None].copy()),
            channels=("u",),
            gradient=torch.from_numpy(space.nodal_gradient(u)[None, :, None].copy()),
            parameters=sample_parameters(drawn, seed, index, refine, neumann),
        )
