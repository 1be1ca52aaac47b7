r"""Transport by a flow and by diffusion.

.. math:: \partial_t u + \nabla \cdot (b u) - \nabla \cdot (a \nabla u) = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad \partial_n u = 0 \text{ on } \Gamma_N,\quad u(0) = u_0,

with a flow b free of divergence that does not enter through :math:`\Gamma_N`; all constant in time.
Lagrange elements of degree p, stabilized along the flow (SUPG, Brooks and Hughes 1982: the whole
residual is tested with :math:`v + \tau\, b \cdot \nabla v`,
:math:`\tau^{-2} = (2|b|/h)^2 + (12 a/h^2)^2`, h the size of a triangle over p): values are of order
p + 1, or at least p + 1/2 where diffusion is negligible, gradient and time derivative of order p.
TR-BDF2 in time: order 2. Where nothing is given on the boundary and nothing flows through it, the
integral of u changes by that of f alone, to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from skfem import BilinearForm, FacetBasis

from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.element_matrices import ElementFunctions
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    VectorCoefficient,
    discretize,
    static_fields,
)
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.linear_systems import factorize, factorize_unsymmetric
from cst_operator.solvers.poisson import Diffusion
from cst_operator.solvers.random_fields import Constant, FieldSampler, GaussianField
from cst_operator.solvers.semidiscrete import (
    Semidiscrete,
    check_trace,
    everywhere,
    frame_times,
    rate_of_change,
    scalar_trajectory,
    semidiscrete,
    smooth_without_flux,
    tr_bdf2,
)
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    INITIAL,
    PARAMETERS,
    VELOCITY,
    DomainSampler,
    F,
    check_frames,
    check_smoothing,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)
from cst_operator.solvers.triangulation import require_plane

__all__ = ["ADVECTION_CHANNELS", "AdvectionDiffusion", "solve_advection_diffusion"]

Array = NDArray[np.float64]

ADVECTION_CHANNELS = ("b_x", "b_y", "a", "f", "distance", "distance_neumann")
"""Static fields of a sample, channels of ``Trajectory.mesh``."""


def solve_advection_diffusion(
    mesh: PointField,
    initial: Coefficient,
    times: torch.Tensor,
    *,
    dt: float,
    velocity: VectorCoefficient,
    a: Coefficient,
    f: Coefficient = 0.0,
    g: Coefficient = 0.0,
    neumann: Sequence[int] = (),
    degree: int = 2,
    geometry: Geometry | None = None,
) -> Trajectory:
    """Solve the advection-diffusion equation on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        initial: value at ``times[0]``; its trace must be ``g`` on the Dirichlet part.
        times: frames to return, increasing, [T].
        dt: largest time step; every interval between frames is divided evenly.
        velocity: the flow b, free of divergence.
        a: positive diffusivity.
        f: source.
        g: Dirichlet value.
        neumann: markers of the Neumann part (walls and outflow), which may be all.
        degree: of the elements, 1, 2 or 3.
        geometry: curved domain behind the mesh, or the mesh is the domain.

    Returns:
        Trajectory with channel "u", its gradient and time derivative, float64; the static fields
        are channels of its mesh. Its parameter "mass" is the integral of the first frame, and
        "mass_change" that of the last less that of the first.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if times, step or a coefficient do not fit, the initial value differs from g
            on the Dirichlet boundary, or the flow enters through the Neumann part.
        SolverError: if the solution is not finite.
    """
    require_plane(mesh)
    space = discretize(mesh, degree=degree, geometry=geometry)
    b = np.stack([space.at_quadrature(component, space.basis) for component in velocity])
    through = _through(space, velocity, tuple(neumann))
    transport = _transport(space, b, a, f, g, tuple(neumann), through)
    start = space.at_dofs(initial)
    check_trace(space, transport, start, "initial value")
    fields = _static(mesh, space, velocity, a, f, neumann)
    return _trajectory(space, fields, transport, start, times, dt, {})


def _transport(
    space: Discretization,
    b: Array,
    a: Coefficient,
    f: Coefficient,
    g: Coefficient,
    neumann: tuple[int, ...],
    through: csr_matrix,
) -> Semidiscrete:
    """Matrices for a flow at the quadrature points, [2, cells, q]."""
    diffusivity = space.positive(a, "a")
    local = ElementFunctions(space.basis)
    size = np.sqrt(local.dx.sum(axis=1) * 4 / np.sqrt(3))[:, None] / space.basis.elem.maxdeg
    speed = np.sqrt((b * b).sum(axis=0))
    tau = ((2 * speed / size) ** 2 + (12 * diffusivity / size**2) ** 2) ** -0.5
    along = local.along(b)
    upwind = tau * along
    mass = local.matrix(local.value + upwind, local.value)
    strong = along - local.diffusion(space.at_dofs(a))
    stiffness = (
        space.stiffness(a)
        - local.matrix(along, local.value)
        + local.matrix(upwind, strong)
        + through
    ).tocsr()
    dirichlet = sorted(set(space.markers.tolist()) - set(neumann))
    fixed = space.boundary_dofs(dirichlet)
    free = np.setdiff1d(np.arange(space.basis.N), fixed)
    values = np.zeros(space.basis.N)
    values[fixed] = space.at_dofs(g)[fixed]
    load = local.vector(local.value + upwind, space.at_quadrature(f, space.basis))
    load -= stiffness @ values
    return Semidiscrete(mass[free][:, free], stiffness[free][:, free], load[free], free, values)


@BilinearForm
def _FLUX(u: Any, v: Any, w: Any) -> Any:
    return w["out"] * u * v


def _through(
    space: Discretization, velocity: VectorCoefficient, neumann: tuple[int, ...]
) -> csr_matrix:
    """What the flow carries out through the Neumann part."""
    space.boundary_dofs(neumann, "neumann")
    chosen = space.facets[np.isin(space.markers, neumann)]
    if not len(chosen):
        return csr_matrix((space.basis.N, space.basis.N))
    edge = FacetBasis(space.basis.mesh, space.basis.elem, facets=chosen)
    b = np.stack([space.at_quadrature(component, edge) for component in velocity])
    out = (b * edge.normals).sum(axis=0)
    fastest = float(np.sqrt((b * b).sum(axis=0)).max())
    mean = (out * edge.dx).sum(axis=1) / edge.dx.sum(axis=1)  # zero on a chord of a curved wall
    if mean.min() < -1e-3 * fastest:
        raise InputError(
            f"the flow enters through the Neumann part at speed {-mean.min():g}; make the inflow "
            "Dirichlet"
        )
    return _FLUX.assemble(edge, out=out)


def _static(
    mesh: PointField,
    space: Discretization,
    velocity: VectorCoefficient,
    a: Coefficient,
    f: Coefficient,
    neumann: Sequence[int],
) -> PointField:
    dirichlet = sorted(set(space.markers.tolist()) - set(neumann))
    return static_fields(
        mesh,
        space,
        dict(zip(ADVECTION_CHANNELS[:4], (*velocity, a, f), strict=True)),
        dict(zip(ADVECTION_CHANNELS[4:], (dirichlet, neumann), strict=True)),
    )


def _trajectory(
    space: Discretization,
    fields: PointField,
    transport: Semidiscrete,
    start: Array,
    times: torch.Tensor,
    dt: float,
    parameters: dict[str, float],
) -> Trajectory:
    t = frame_times(times, dt)
    inner = tr_bdf2(transport, start[transport.free], t, dt, factorize_unsymmetric)
    u, rate = everywhere(transport, inner, rate_of_change(transport, inner, factorize_unsymmetric))
    total = u @ space.load(1.0)
    change = float(total[-1] - total[0])
    parameters = {**parameters, "mass": float(total[0]), "mass_change": change}
    return scalar_trajectory(space, fields, t, u, rate, parameters)


@dataclass(frozen=True, kw_only=True)
class AdvectionDiffusion:
    r"""Random stirring in random closed vessels.

    The flow is :math:`b = (\partial_y \psi, -\partial_x \psi)` with :math:`-\Delta\psi = \omega` a
    Gaussian random field and :math:`\psi = 0` on the boundary, which nothing crosses; it is scaled
    to its root mean square. The initial value is made of a Gaussian random field q by
    :math:`(1 - s^2 \Delta)^2 u_0 = q` with vanishing normal derivative.

    As it is: root mean square speed uniform in [.3, 1], diffusivity log-uniform in [.001, .01],
    vorticity and q of correlation length .2, s = .03, no source; 21 frames up to time 1.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        vorticity: what draws the vorticity; only its shape matters.
        f: what draws the source.
        initial: what draws q.
        smoothing: the length s.
        speed: smallest and largest root mean square speed.
        diffusivity: smallest and largest diffusivity.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        dt: largest time step.
        name: name of the system.
    """

    domain: DomainSampler[Geometry] = DEFAULT_DOMAIN
    h: float = 0.043
    vorticity: FieldSampler = GaussianField(length_scale=0.2)
    f: FieldSampler = Constant(0.0)
    initial: FieldSampler = GaussianField(length_scale=0.2)
    smoothing: float = 0.03
    speed: tuple[float, float] = (0.3, 1.0)
    diffusivity: tuple[float, float] = (0.001, 0.01)
    final_time: float = 1.0
    num_frames: int = 21
    dt: float = 0.005
    name: str = "advection_diffusion"

    def __post_init__(self) -> None:
        for option in ("speed", "diffusivity"):
            low, high = getattr(self, option)
            if not 0 < low <= high:
                raise InputError(f"{option} is {(low, high)}; expected (smallest, largest) > 0")
        check_frames(self.num_frames, self.final_time, self.dt)
        check_smoothing(self.smoothing)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "2"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        speed = float(rng.uniform(*self.speed))
        diffusivity = float(np.exp(rng.uniform(*np.log(self.diffusivity))))
        vorticity = self.vorticity.sample(stream(seed, index, drawn.attempt, VELOCITY))
        f = self.f.sample(stream(seed, index, drawn.attempt, F))
        q = self.initial.sample(stream(seed, index, drawn.attempt, INITIAL))
        walls = drawn.geometry.parts
        space = drawn.discretize()
        with naming(seed, index):
            psi = _stream_function(space, vorticity, speed)
            slope = np.moveaxis(space.gradient_at_quadrature(psi), -1, 0)
            b = np.stack([slope[1], -slope[0]])
            closed = csr_matrix((space.basis.N, space.basis.N))
            transport = _transport(space, b, diffusivity, f, 0.0, walls, closed)
            start = smooth_without_flux(space, q, self.smoothing)
            nodal = space.nodal_gradient(psi)
            flow = (nodal[:, 1].copy(), -nodal[:, 0])
            return _trajectory(
                space,
                _static(drawn.mesh, space, flow, diffusivity, f, walls),
                transport,
                start,
                torch.linspace(0.0, self.final_time, self.num_frames, dtype=torch.float64),
                self.dt,
                {
                    **sample_parameters(drawn, seed, index, refine, walls),
                    "speed": speed,
                    "diffusivity": diffusivity,
                },
            )


def _stream_function(space: Discretization, vorticity: Coefficient, speed: float) -> Array:
    """Degrees of freedom of a stream function with this root mean square speed, [D]."""
    problem = Diffusion(f=vorticity, a=1.0, g=0.0, flux=0.0, neumann=())
    system = semidiscrete(space, problem)
    inner = factorize(system.stiffness).solve(system.load)
    area = float(space.basis.dx.sum())
    mean = np.sqrt(inner @ (system.stiffness @ inner) / area)
    psi = np.zeros(space.basis.N)
    psi[system.free] = inner * (speed / mean)
    return psi
