r"""Time-harmonic waves: Helmholtz's equation.

.. math:: -\Delta u - k^2 (1 + i\alpha)\, n\, u = f \text{ in } \Omega,\quad
          u = g \text{ on } \Gamma_D,\quad \partial_n u = 0 \text{ on } \Gamma_N,\quad
          \partial_n u - i k \beta u = r \text{ on } \Gamma_I,

for complex u with wave number k, loss :math:`\alpha \ge 0` and squared refractive index n > 0
(time goes as :math:`e^{-i\omega t}`). On the impedance part, :math:`\beta = 1` and r = 0 lets
waves out that meet it at a right angle, without reflection. With loss there is exactly one
solution, without an impedance part bounded by :math:`\|f\| / (\alpha k^2 \min n)`. Without
either, there is one unless :math:`k^2` is an eigenvalue of :math:`-\Delta u = \lambda n u`; closer
than 1e-4 to one, relative to :math:`k^2`, the problem is
refused. Lagrange elements of degree p: values of order p + 1 and gradients of order p once
waves are resolved; the error of the phase grows as :math:`k (kh)^{2p}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Curved,
    Discretization,
    discretize,
    static_fields,
)
from cst_operator.solvers.linear_systems import factorize_unsymmetric
from cst_operator.solvers.poisson import draw_neumann
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.system import (
    DEFAULT_DOMAIN,
    PARAMETERS,
    A,
    Domain,
    DomainSampler,
    F,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["HELMHOLTZ_CHANNELS", "Helmholtz", "solve_helmholtz"]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_COEFFICIENTS = ("f", "index", "wave_number", "loss")
_DISTANCES = ("distance", "distance_neumann", "distance_impedance")

HELMHOLTZ_CHANNELS = (*_COEFFICIENTS, *_DISTANCES)
"""Static fields of a sample, channels of ``Trajectory.mesh``."""

_SOLUTION = ("u_real", "u_imag")
_RESONANCE = 1e-4
_INVERSE_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class _Problem:
    wave_number: float
    loss: float
    index: Coefficient
    f: Coefficient
    g: tuple[Coefficient, Coefficient]
    neumann: tuple[int, ...]
    impedance: tuple[int, ...] = ()
    admittance: float = 1.0
    incoming: tuple[Coefficient, Coefficient] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.wave_number > 0 or not self.loss >= 0:
            raise InputError(
                f"wave_number is {self.wave_number} and loss {self.loss}; expected a positive "
                "wave number and a loss of 0 or more"
            )
        both = sorted(set(self.neumann) & set(self.impedance))
        if both:
            raise InputError(f"marker {both[0]} is in neumann and in impedance; leave it in one")
        if not self.admittance > 0:
            raise InputError(f"admittance is {self.admittance}; expected a positive number")


def solve_helmholtz(
    mesh: PointField,
    *,
    wave_number: float,
    loss: float = 0.0,
    index: Coefficient = 1.0,
    f: Coefficient = 0.0,
    g: tuple[Coefficient, Coefficient] = (0.0, 0.0),
    neumann: Sequence[int] = (),
    impedance: Sequence[int] = (),
    admittance: float = 1.0,
    incoming: tuple[Coefficient, Coefficient] = (0.0, 0.0),
    degree: int = 3,
    geometry: Curved | None = None,
) -> PointField:
    r"""Solve Helmholtz's equation on any mesh of triangles or tetrahedra.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        wave_number: k, in units of one over length.
        loss: :math:`\alpha`; 0 for waves that nothing weakens.
        index: squared refractive index n, positive.
        f: source, real.
        g: real and imaginary part of the value on the Dirichlet part.
        neumann: markers of the Neumann part; the rest of the boundary is Dirichlet.
        impedance: markers of the impedance part; with one, the Dirichlet part may be empty.
        admittance: :math:`\beta > 0`, relative to that of the medium.
        incoming: real and imaginary part of r.
        degree: of the elements, 1, 2 or, on triangles, 3.
        geometry: curved domain behind the mesh; without it the mesh is the domain.

    Returns:
        Field with channels "u_real" and "u_imag" and their gradients, float64.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if a coefficient does not fit.
        SolverError: if the wave number is at a resonance.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    problem = _Problem(
        wave_number=wave_number,
        loss=loss,
        index=index,
        f=f,
        g=g,
        neumann=tuple(neumann),
        impedance=tuple(impedance),
        admittance=admittance,
        incoming=incoming,
    )
    u, gradient = _nodal(space, _solve(space, problem))
    return mesh.with_values(u, _SOLUTION, gradient=gradient)


def _solve(space: Discretization, problem: _Problem) -> Complex:
    """Degrees of freedom, [D]."""
    space.positive(problem.index, "index")
    square = problem.wave_number**2
    mass = space.mass(problem.index)
    matrix = (space.stiffness(1.0) - square * (1 + 1j * problem.loss) * mass).tocsr()
    load = space.load(problem.f).astype(np.complex128)
    if problem.impedance:
        space.boundary_dofs(problem.impedance, "impedance")
        matrix -= 1j * problem.wave_number * problem.admittance * space.edge_mass(problem.impedance)
        real, imaginary = (space.flux_load(r, problem.impedance) for r in problem.incoming)
        load += real + 1j * imaginary
    fixed = _fixed(space, problem)
    free = np.setdiff1d(np.arange(space.basis.N), fixed)
    u = np.zeros(space.basis.N, dtype=np.complex128)
    real, imaginary = (space.at_dofs(part) for part in problem.g)
    u[fixed] = (real + 1j * imaginary)[fixed]
    factors = factorize_unsymmetric(matrix[free][:, free])
    u[free] = factors.solve((load - matrix @ u)[free])
    distance = _spectral_distance(factors, mass[free][:, free])
    if not distance > _RESONANCE * square or not np.isfinite(u).all():
        raise SolverError(
            f"the wave number {problem.wave_number:g} is at a resonance: its square is within "
            f"{distance / square:.1e}, relatively, of an eigenvalue; change it or add loss"
        )
    return u


def _fixed(space: Discretization, problem: _Problem) -> NDArray[np.int64]:
    """Degrees of freedom of the Dirichlet part, which may be empty where waves leave."""
    if not problem.impedance:
        return space.fixed(problem.neumann)
    space.boundary_dofs(problem.neumann, "neumann")
    others = {*problem.neumann, *problem.impedance}
    return space.boundary_dofs(sorted(set(space.markers.tolist()) - others))


def _spectral_distance(factors: SuperLU, mass: csr_matrix) -> float:
    """Distance of the shift from the nearest eigenvalue, by inverse iteration."""
    x = np.random.default_rng(0).normal(size=mass.shape[0]).astype(np.complex128)
    size = 1.0
    for _ in range(_INVERSE_STEPS):
        x /= np.sqrt(abs(np.vdot(x, mass @ x)))
        x = factors.solve(mass @ x)
        size = np.sqrt(abs(np.vdot(x, mass @ x)))
    return float(1 / size) if np.isfinite(size) else 0.0


def _nodal(space: Discretization, u: Complex) -> tuple[torch.Tensor, torch.Tensor]:
    parts = np.stack([u.real, u.imag])
    gradient = np.moveaxis(space.nodal_gradient(parts), 0, 1)  # [N, 2, 2]
    values = np.ascontiguousarray(parts[:, : space.num_points].T)
    return torch.from_numpy(values), torch.from_numpy(np.ascontiguousarray(gradient))


@dataclass(frozen=True, kw_only=True)
class Helmholtz:
    r"""Random time-harmonic waves on random domains.

    As it is: u = 0 on the boundary, the source a Gaussian random field of correlation length .1
    and standard deviation 100, the wave number uniform in [5, 20] (the domain is about three
    waves wide at the most), the loss uniform in [.05, .2], the squared index log-normal with
    standard deviation .2 and length .3. :meth:`open` lets waves out.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh; elements are of degree 3.
        f: what draws the source.
        index: what draws the squared refractive index.
        wave_number: smallest and largest.
        loss: smallest and largest.
        neumann: probability of every other part of the boundary to be Neumann.
        impedance: markers of the parts that let waves out (admittance 1, nothing comes in).
        name: name of the system.
    """

    domain: DomainSampler[Domain] = DEFAULT_DOMAIN
    h: float = 0.043
    f: FieldSampler = GaussianField(length_scale=0.1, std=100.0)
    index: FieldSampler = GaussianField(length_scale=0.3, std=0.2, log=True)
    wave_number: tuple[float, float] = (5.0, 20.0)
    loss: tuple[float, float] = (0.05, 0.2)
    neumann: float = 0.0
    impedance: tuple[int, ...] = ()
    name: str = "helmholtz"

    def __post_init__(self) -> None:
        if not 0 < self.wave_number[0] <= self.wave_number[1]:
            raise InputError(f"wave_number is {self.wave_number}; expected (smallest, largest) > 0")
        if not 0 <= self.loss[0] <= self.loss[1]:
            raise InputError(f"loss is {self.loss}; expected (smallest, largest), 0 or more")
        if not 0.0 <= self.neumann <= 1.0:
            raise InputError(f"neumann is {self.neumann}; expected a probability")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "3"

    @classmethod
    def open(cls) -> "Helmholtz":
        """Without loss and open outside; every hole is Neumann with probability 1/2."""
        return cls(loss=(0.0, 0.0), neumann=0.5, impedance=(1,), name="helmholtz_open")

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        neumann = tuple(
            marker
            for marker in draw_neumann(drawn, self.neumann, seed, index)
            if marker not in self.impedance
        )
        problem = _Problem(
            wave_number=float(rng.uniform(*self.wave_number)),
            loss=float(rng.uniform(*self.loss)),
            index=self.index.sample(stream(seed, index, drawn.attempt, A)),
            f=self.f.sample(stream(seed, index, drawn.attempt, F)),
            g=(0.0, 0.0),
            neumann=neumann,
            impedance=self.impedance,
        )
        space = drawn.discretize()
        with naming(seed, index):
            u, gradient = _nodal(space, _solve(space, problem))
        coefficients = (problem.f, problem.index, problem.wave_number, problem.loss)
        dirichlet = sorted(set(drawn.geometry.parts) - {*neumann, *self.impedance})
        parts = (dirichlet, neumann, self.impedance)
        return Trajectory(
            mesh=static_fields(
                drawn.mesh,
                space,
                dict(zip(_COEFFICIENTS, coefficients, strict=True)),
                dict(zip(_DISTANCES, parts, strict=True)),
            ),
            times=torch.zeros(1, dtype=torch.float64),
            u=u[None],
            channels=_SOLUTION,
            gradient=gradient[None],
            parameters={
                **sample_parameters(drawn, seed, index, refine, neumann),
                "wave_number": problem.wave_number,
                "loss": problem.loss,
            },
        )
