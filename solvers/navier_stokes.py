r"""Steady incompressible flow: Navier-Stokes, and Stokes without inertia.

.. math:: \rho\,(u \cdot \nabla) u - \nu \Delta u + \nabla p = f,\quad \nabla \cdot u = 0
          \text{ in } \Omega,\quad u = g \text{ on } \Gamma_D,\quad
          \nu\,\partial_n u = p\,n \text{ on the outflow}.

Taylor-Hood elements on curved edges: velocities are of order 3, their gradients and the pressure
of order 2, the gradient of the pressure of order 1. Picard's iteration from the Stokes flow, then
Newton's until the velocity stands still. Where nothing flows out, the pressure has mean zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_matrix

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import VectorCoefficient, static_fields
from cst_operator.solvers.geometry import LEFT, RIGHT, Geometry
from cst_operator.solvers.local_refinement import refine_near_holes
from cst_operator.solvers.profiles import RandomProfile
from cst_operator.solvers.random_domains import RandomRectangle
from cst_operator.solvers.system import (
    PARAMETERS,
    MeshedDomain,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)
from cst_operator.solvers.taylor_hood import FLOW_CHANNELS, SaddlePoint, TaylorHood, taylor_hood

__all__ = ["CHANNEL_CHANNELS", "Flow", "NavierStokes", "solve_navier_stokes"]

Array = NDArray[np.float64]

CHANNEL_CHANNELS = (
    "inflow",
    "viscosity",
    "distance_wall",
    "distance_inflow",
    "distance_outflow",
)
"""Static fields of a sample of a channel flow, channels of ``Trajectory.mesh``."""

_TOLERANCE = 1e-10  # of the last change of the velocity, relative; Newton's is then converged
_ROUNDING = 1e-13  # of the residual, relative to the forces, where nothing is left to improve
_NEWTON_FROM = 0.1


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A steady flow.

    Args:
        field: channels "u_x", "u_y" and "p" with their gradients, on the points of the mesh.
        forces: force of the fluid on every part of the boundary with given velocity, by marker.
        iterations: number of linear systems after the Stokes flow.
    """

    field: PointField
    forces: dict[int, tuple[float, float]]
    iterations: int


def solve_navier_stokes(
    mesh: PointField,
    *,
    viscosity: float,
    velocity: VectorCoefficient,
    density: float = 1.0,
    body: VectorCoefficient = (0.0, 0.0),
    outflow: Sequence[int] = (),
    geometry: Geometry | None = None,
    max_iterations: int = 30,
) -> Flow:
    """Solve steady incompressible flow on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        viscosity: positive, in units of density times length times velocity.
        velocity: value on the boundary but the outflow; without an outflow it must carry as much
            into the domain as out of it.
        density: of the fluid; 0 for Stokes flow.
        body: force per volume.
        outflow: markers of the part where the flow leaves freely.
        geometry: curved domain behind the mesh; without it the mesh is the domain.
        max_iterations: largest number of linear systems after the Stokes flow.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if a coefficient does not fit or the problem is not well posed.
        SolverError: if the iteration does not converge: the Reynolds number may be too large for
            a steady flow, or for the mesh.
    """
    space = taylor_hood(mesh, outflow=outflow, geometry=geometry)
    found = _solve(space, viscosity, velocity, density, body, max_iterations)
    values, gradient = space.nodal(space.level(found.flow))
    return Flow(
        field=mesh.with_values(values, FLOW_CHANNELS, gradient=gradient),
        forces=found.forces,
        iterations=found.iterations,
    )


class _Solution(NamedTuple):
    flow: Array
    forces: dict[int, tuple[float, float]]
    iterations: int


def _solve(
    space: TaylorHood,
    viscosity: float,
    velocity: VectorCoefficient,
    density: float,
    body: VectorCoefficient,
    max_iterations: int,
) -> _Solution:
    if not viscosity > 0 or not density >= 0:
        raise InputError(
            f"viscosity is {viscosity} and density {density}; expected a positive viscosity and "
            "a density of 0 or more"
        )
    flow, load = space.given(velocity), space.load(body)
    _check_balance(space, flow)
    one = space.velocity.stiffness(viscosity)
    viscous = block_diag([one, one], format="csr")

    stokes = SaddlePoint(space, viscous, scale=1 / viscosity)
    flow = flow + stokes.solve(load - stokes.matrix @ flow)
    size = viscous.shape[0]
    iterations, change = 0, np.inf
    while True:
        momentum = viscous + density * space.convection(flow)
        residual = _residual(space, momentum, flow, load)
        forces = np.linalg.norm(load) + np.linalg.norm(space.divergence.T @ flow[size:])
        still = np.linalg.norm(residual[space.free]) <= _ROUNDING * forces
        if still or change <= _TOLERANCE:
            break
        if iterations == max_iterations or not np.isfinite(flow).all():
            raise SolverError(
                f"the flow did not converge in {iterations} iterations; the last changed the "
                f"velocity by {change:.1e} of its largest value; try a larger viscosity or a "
                "finer mesh"
            )
        if change < _NEWTON_FROM:
            momentum = momentum + density * space.reaction(flow)
        step = SaddlePoint(space, momentum, scale=1 / viscosity).solve(-residual)
        flow = flow + step
        change = float(np.abs(step[:size]).max() / max(np.abs(flow[:size]).max(), 1e-300))
        iterations += 1
    if not np.isfinite(flow).all():
        raise SolverError("the flow is not finite; the matrix is close to singular")
    walls = sorted(set(space.velocity.markers.tolist()) - set(space.outflow))
    return _Solution(flow, {m: space.force(residual, m) for m in walls}, iterations)


def _residual(space: TaylorHood, momentum: csr_matrix, flow: Array, load: Array) -> Array:
    size = momentum.shape[0]
    u, p = flow[:size], flow[size:]
    b = space.divergence
    return np.concatenate([momentum @ u - b.T @ p, -(b @ u)]) - load


def _check_balance(space: TaylorHood, flow: Array) -> None:
    """The sum of all rows of the divergence is the net outflow."""
    if space.outflow:
        return
    u = flow[: 2 * space.velocity.basis.N]
    net = float((space.divergence @ u).sum())
    length = np.sqrt(space.velocity.basis.dx.sum())
    if abs(net) > 1e-2 * float(np.abs(u).max()) * length:
        raise InputError(
            f"the given velocity carries {net:g} more out of the domain than into it; without an "
            "outflow both must be equal"
        )


@dataclass(frozen=True, kw_only=True)
class Inflow:
    """The profile :math:`4 y (1 - y) (1 + s (2 y - 1))`, y the height over that of the channel.

    Args:
        height: of the channel.
        skew: s.
    """

    height: float
    skew: float

    def __call__(self, x: Array) -> Array:
        """The profile everywhere, [n, 2] -> [n]."""
        y = x[:, 1] / self.height
        return np.asarray(4 * y * (1 - y) * (1 + self.skew * (2 * y - 1)))

    def on_boundary(self, x: Array) -> Array:
        """The velocity along the channel on its boundary: the profile on the left, else 0."""
        return np.where(x[:, 0] < 1e-9 * self.height, self(x), 0.0)


def channel_fields(
    drawn: MeshedDomain[Geometry], space: TaylorHood, inflow: Inflow, viscosity: float
) -> PointField:
    """Mesh of a channel with the channels :data:`CHANNEL_CHANNELS`."""
    walls = sorted(set(drawn.geometry.parts) - {LEFT, RIGHT})
    return static_fields(
        drawn.mesh,
        space.pressure,
        dict(zip(CHANNEL_CHANNELS[:2], (inflow, viscosity), strict=True)),
        dict(zip(CHANNEL_CHANNELS[2:], (walls, (LEFT,), (RIGHT,)), strict=True)),
    )


@dataclass(frozen=True, kw_only=True)
class NavierStokes:
    r"""Steady flow around random obstacles in a channel.

    As it is: a channel of length 2 and height 1 with 1 to 3 elliptic obstacles. The fluid of
    density 1 enters on the left with velocity :math:`4 y (1 - y) (1 + s (2 y - 1))`, s uniform in
    [-.5, .5], sticks to walls and obstacles and leaves on the right. The viscosity is log-uniform
    in [.01, .1]: Reynolds numbers of the obstacles are about 1 to 25, where the flow is steady.
    Meshes have half the edge length near the obstacles.

    Args:
        domain: what draws the channel.
        h: edge length of the mesh far from obstacles.
        near: distance from the obstacles up to which edges are h / 2.
        viscosity: smallest and largest viscosity.
        skew: largest skewness s of the inflow.
        density: of the fluid; 0 for Stokes flow.
        name: name of the system.
    """

    domain: RandomRectangle | RandomProfile = RandomRectangle(
        width=2.0, hole_radius=(0.06, 0.12), gap=0.1
    )
    h: float = 0.08
    near: float = 0.06
    viscosity: tuple[float, float] = (0.01, 0.1)
    skew: float = 0.5
    density: float = 1.0
    name: str = "navier_stokes"

    def __post_init__(self) -> None:
        if not 0 < self.viscosity[0] <= self.viscosity[1]:
            raise InputError(f"viscosity is {self.viscosity}; expected (smallest, largest) > 0")
        if not 0 <= self.skew <= 1:
            raise InputError(f"skew is {self.skew}; expected 0 to 1, so that nothing flows back")
        if not self.density >= 0:
            raise InputError(f"density is {self.density}; expected 0 or more")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "2"

    @classmethod
    def stokes(cls) -> "NavierStokes":
        """The same without inertia."""
        return cls(density=0.0, name="stokes")

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        drawn = replace(drawn, mesh=refine_near_holes(drawn.mesh, drawn.geometry, self.near))
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        viscosity = float(np.exp(rng.uniform(*np.log(self.viscosity))))
        skew = float(rng.uniform(-self.skew, self.skew))
        inflow = Inflow(height=self.domain.height, skew=skew)
        space = taylor_hood(drawn.mesh, outflow=(RIGHT,), geometry=drawn.geometry)
        with naming(seed, index):
            found = _solve(
                space, viscosity, (inflow.on_boundary, 0.0), self.density, (0.0, 0.0), 30
            )
        values, gradient = space.nodal(found.flow)
        forces = {marker: found.forces[marker] for marker in drawn.geometry.markers[1:]}
        return Trajectory(
            mesh=channel_fields(drawn, space, inflow, viscosity),
            times=torch.zeros(1, dtype=torch.float64),
            u=values[None],
            channels=FLOW_CHANNELS,
            gradient=gradient[None],
            parameters={
                **sample_parameters(drawn, seed, index, refine, ()),
                "viscosity": viscosity,
                "skew": skew,
                **{f"force_x_{marker}": f[0] for marker, f in forces.items()},
                **{f"force_y_{marker}": f[1] for marker, f in forces.items()},
            },
        )
