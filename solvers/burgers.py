r"""Burgers' equation in the plane, on irregular meshes.

.. math:: \partial_t u + (u \cdot \nabla) u - \nu \Delta u = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad \partial_n u_i = 0 \text{ elsewhere},\quad u(0) = u_0.

Lagrange elements of degree p in space (order p + 1 for values and time derivatives, p for
gradients; random problems are solved with p = 3), the implicit-explicit method of
:mod:`cst_operator.solvers.implicit_explicit` in time, with the viscosity implicit (order 3,
about 2.5 for time derivatives). Without f each component stays between its extremes on the
boundary and at the start, so what a solution exceeds them by tells fronts too thin for the mesh.
The transform of Cole and Hopf, :math:`u = -2\nu \nabla \log \phi` with
:math:`\partial_t \phi = \nu \Delta \phi`, is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_matrix

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.element_matrices import ElementFunctions
from cst_operator.solvers.etdrk4 import CheckedStep, FixedStep
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    VectorCoefficient,
    discretize,
    static_fields,
)
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.implicit_explicit import SplitSystem, integrate_split, split_rates
from cst_operator.solvers.periodic import frame_times as even_times
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import (
    Semidiscrete,
    check_trace,
    frame_times,
    nodal_trajectory,
    smooth,
)
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    INITIAL,
    PARAMETERS,
    DomainSampler,
    check_smoothing,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["Burgers", "solve_burgers_on_mesh"]

Array = NDArray[np.float64]

_CHANNELS = ("u_x", "u_y")
_MAX_OVERSHOOT = 0.05


def solve_burgers_on_mesh(
    mesh: PointField,
    initial: VectorCoefficient,
    times: torch.Tensor,
    *,
    viscosity: float,
    step: FixedStep | CheckedStep,
    velocity: VectorCoefficient = (0.0, 0.0),
    neumann: tuple[Sequence[int], Sequence[int]] = ((), ()),
    body: Callable[[float], VectorCoefficient] | None = None,
    degree: int = 2,
    geometry: Geometry | None = None,
) -> Trajectory:
    """Solve Burgers' equation on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: velocity at ``times[0]``; its trace must be ``velocity`` on the Dirichlet part.
        times: frames to return, increasing, [T].
        viscosity: nu, positive.
        step: what chooses the time step.
        velocity: value on the Dirichlet part.
        neumann: markers of the parts where each component has no slope along the normal instead.
        body: force per mass as a function of time.
        degree: of the elements, 1, 2 or 3.
        geometry: curved domain behind the mesh, or the mesh is the domain.

    Returns:
        Trajectory with channels "u_x" and "u_y", their gradients and time derivatives, float64.
        Its parameters are "viscosity", the largest time step "dt", the estimate of the relative
        error in time "time_error" and, relative to the largest speed at the start and on the
        boundary, what a component exceeds that by, "overshoot".

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times, viscosity or a coefficient do not fit, or the initial value differs
            from that on the boundary.
        SolverError: if the solution diverges or is not accurate enough in time.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    walls = [_component(space, g, markers) for g, markers in zip(velocity, neumann, strict=True)]
    start = np.stack([space.at_dofs(value) for value in initial])
    for wall, value, name in zip(walls, start, _CHANNELS, strict=True):
        check_trace(space, wall, value, f"initial value of {name}")
    return _trajectory(space, mesh, walls, start, times, viscosity, body, step, {})


def _component(space: Discretization, g: Coefficient, neumann: Sequence[int]) -> Semidiscrete:
    """Diffusion of one component."""
    space.boundary_dofs(neumann, "neumann")
    fixed = space.boundary_dofs(sorted(set(space.markers.tolist()) - set(neumann)))
    free = np.setdiff1d(np.arange(space.basis.N), fixed)
    stiffness = space.stiffness(1.0)
    values = np.zeros(space.basis.N)
    values[fixed] = space.at_dofs(g)[fixed]
    load = -(stiffness @ values)
    return Semidiscrete(
        space.mass()[free][:, free], stiffness[free][:, free], load[free], free, values
    )


def _convection(space: Discretization) -> Callable[[Array], Array]:
    r"""From a velocity, [2, D], to the integrals of :math:`(u \cdot \nabla) u_i v`, [2, D]."""
    local = ElementFunctions(space.basis)
    count, cells, points = local.value.shape
    shape = (cells * points, space.basis.N)
    rows = np.broadcast_to(np.arange(shape[0]).reshape(cells, points), (count, cells, points))
    columns = np.broadcast_to(space.basis.element_dofs[:, :, None], rows.shape)
    places = (rows.ravel(), columns.ravel())
    value, x, y = (
        csr_matrix((entries.ravel(), places), shape=shape)
        for entries in (local.value, local.gradient[:, 0], local.gradient[:, 1])
    )
    tested = csr_matrix(value.multiply(local.dx.ravel()[:, None]).T)

    def convection(u: Array) -> Array:
        along_x, along_y = value @ u[0], value @ u[1]
        return np.stack([tested @ (along_x * (x @ v) + along_y * (y @ v)) for v in u])

    return convection


def _split(
    space: Discretization,
    walls: Sequence[Semidiscrete],
    viscosity: float,
    body: Callable[[float], VectorCoefficient] | None,
) -> SplitSystem:
    convection = _convection(space)
    given = np.stack([wall.boundary_values for wall in walls])
    free = np.concatenate([number * space.basis.N + w.free for number, w in enumerate(walls)])
    pull = viscosity * np.concatenate([wall.load for wall in walls])

    def forcing(time: float, inner: Array) -> Array:
        u = given.copy()
        u.ravel()[free] = inner
        force = -convection(u)
        if body is not None:
            force += np.stack([space.load(f) for f in body(time)])
        return force.ravel()[free] + pull

    return SplitSystem(
        mass=block_diag([wall.mass for wall in walls], format="csr"),
        stiffness=block_diag([viscosity * wall.stiffness for wall in walls], format="csr"),
        forcing=forcing,
        parts=tuple(len(wall.free) for wall in walls),
    )


def _trajectory(
    space: Discretization,
    mesh: PointField,
    walls: Sequence[Semidiscrete],
    start: Array,
    times: torch.Tensor,
    viscosity: float,
    body: Callable[[float], VectorCoefficient] | None,
    step: FixedStep | CheckedStep,
    parameters: dict[str, float],
) -> Trajectory:
    if not viscosity > 0:
        raise InputError(f"viscosity is {viscosity}; expected a positive number")
    t = frame_times(times, step.dt)
    system = _split(space, walls, viscosity, body)
    inner = np.concatenate([u[w.free] for u, w in zip(start, walls, strict=True)])
    frames = integrate_split(system, inner, t, step)
    rates = split_rates(system, frames.u, t)
    u = np.tile(np.stack([wall.boundary_values for wall in walls]), (len(t), 1, 1))
    rate = np.zeros_like(u)
    place = 0
    for number, wall in enumerate(walls):
        columns = slice(place, place + len(wall.free))
        u[:, number, wall.free] = frames.u[:, columns]
        rate[:, number, wall.free] = rates[:, columns]
        place = columns.stop
    speeds = np.abs(u).max(axis=(1, 2))
    overshoot = float(speeds.max() / max(speeds[0], np.finfo(np.float64).tiny) - 1)
    boundary = sorted(set(space.markers.tolist()))
    return nodal_trajectory(
        space,
        static_fields(mesh, space, {"viscosity": viscosity}, {"distance": boundary}),
        t,
        u,
        rate,
        _CHANNELS,
        {
            **parameters,
            "viscosity": viscosity,
            "dt": frames.dt,
            "time_error": frames.error,
            "overshoot": overshoot,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Burgers:
    r"""Random fronts on random domains.

    The walls rest. Each component of the initial velocity is made of a Gaussian random field q by
    :math:`(1 - s^2 \Delta)^2 w = q` with w and its Laplacian zero on the walls: it fits the
    boundary and is the same on every mesh of the same domain. It is scaled to its root mean square
    speed. A sample whose components exceed the largest one at the start by more than 5 % is
    refused: its fronts are too thin for the mesh.

    As it is: q of length .2, s = .05, the root mean square speed uniform in [.2, .5], the viscosity
    log-uniform in [.005, .015]; 21 frames up to time .5.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        initial: what draws q, for each component; only its shape matters.
        smoothing: the length s.
        speed: smallest and largest root mean square speed.
        viscosity: smallest and largest viscosity.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    domain: DomainSampler = DEFAULT_DOMAIN
    h: float = 0.043
    initial: FieldSampler = GaussianField(length_scale=0.2)
    smoothing: float = 0.05
    speed: tuple[float, float] = (0.2, 0.5)
    viscosity: tuple[float, float] = (0.005, 0.015)
    final_time: float = 0.5
    num_frames: int = 21
    step: CheckedStep = CheckedStep(dt=0.0125, tolerance=1e-4)
    name: str = "burgers"

    def __post_init__(self) -> None:
        even_times(self.final_time, self.num_frames)
        for option in ("speed", "viscosity"):
            low, high = getattr(self, option)
            if not 0 < low <= high:
                raise InputError(f"{option} is {(low, high)}; expected (smallest, largest) > 0")
        check_smoothing(self.smoothing)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        viscosity = float(np.exp(rng.uniform(*np.log(self.viscosity))))
        speed = float(rng.uniform(*self.speed))
        draws = stream(seed, index, drawn.attempt, INITIAL)
        functions = [self.initial.sample(draws) for _ in _CHANNELS]
        space = drawn.discretize()
        with naming(seed, index):
            wall = _component(space, 0.0, ())
            start = np.zeros((2, space.basis.N))
            for component, q in zip(start, functions, strict=True):
                component[wall.free] = smooth(wall, space.load(q), self.smoothing)
            mass, area = space.mass(), float(space.basis.dx.sum())
            start *= speed / np.sqrt(sum(float(c @ (mass @ c)) for c in start) / area)
            found = _trajectory(
                space,
                drawn.mesh,
                [wall, wall],
                start,
                even_times(self.final_time, self.num_frames),
                viscosity,
                None,
                self.step,
                {**sample_parameters(drawn, seed, index, refine, ()), "speed": speed},
            )
            overshoot = found.parameters["overshoot"]
            if overshoot > _MAX_OVERSHOOT:
                raise SolverError(
                    f"a component exceeds its largest value at the start by {overshoot:.1%}, "
                    f"expected {_MAX_OVERSHOOT:.0%} at the most; use a smaller h or more viscosity"
                )
        return found
