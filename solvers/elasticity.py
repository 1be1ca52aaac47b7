r"""Linear elasticity of plates and solids.

.. math:: -\nabla \cdot \sigma = f \text{ in } \Omega,\quad
          \sigma = \lambda\,(\nabla \cdot u)\,I + \mu\,(\nabla u + \nabla u^T),\quad
          u = u_D \text{ on the clamped part},\quad \sigma n = t \text{ on the loaded part},\quad
          \sigma n = 0 \text{ on the free part},

in space, in plane strain or in plane stress (there :math:`\lambda` is
:math:`2\mu\lambda/(\lambda + 2\mu)` of the three-dimensional ones). Lagrange elements of degree p
(1, 2 or 3 on triangles with curved edges, 1 or 2 on straight tetrahedra): values are of order
p + 1, gradients and the von Mises stress at mesh points (averages over cells by volume) of order p,
the gradient of the von Mises stress (from the stress projected onto the elements) of order p - 1.
Where a clamped part meets another at a corner the stress is singular and these orders do not hold
nearby. Random problems are solved with p = 3 in the plane and p = 2 in space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bmat, csr_matrix

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Curved,
    Discretization,
    VectorCoefficient,
    discretize,
    static_fields,
)
from cst_operator.solvers.geometry import LEFT, RIGHT
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.random_domains import RandomRectangle
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.random_solids import RandomBox
from cst_operator.solvers.solids import X_MAX, X_MIN
from cst_operator.solvers.system import (
    FLUX,
    PARAMETERS,
    Domain,
    DomainSampler,
    F,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["ELASTICITY_CHANNELS", "SOLID_CHANNELS", "Elasticity", "Material", "solve_elasticity"]

Array = NDArray[np.float64]


def _components(name: str, dim: int) -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for axis in "xyz"[:dim])


def _inputs(dim: int) -> tuple[str, ...]:
    forces = (*_components("body", dim), *_components("traction", dim))
    return (*forces, "young", "poisson", "distance_clamped", "distance_loaded", "distance_free")


ELASTICITY_CHANNELS = _inputs(2)
"""Static fields of a plane sample, channels of ``Trajectory.mesh``."""

SOLID_CHANNELS = _inputs(3)
"""Static fields of a sample in space, with a third component of the forces."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """An isotropic linear elastic material.

    Args:
        young: Young's modulus, positive, in units of stress; may vary in space.
        poisson: Poisson's ratio, in [0, .49]; elements of displacement alone lock beyond.
        plane: on plane meshes, "strain" for a long body, "stress" for a thin plate; tetrahedra
            need neither.
    """

    young: Coefficient = 1.0
    poisson: float = 0.3
    plane: Literal["strain", "stress"] = "stress"

    def __post_init__(self) -> None:
        if not 0.0 <= self.poisson <= 0.49:
            raise InputError(f"poisson is {self.poisson}; expected a ratio from 0 to .49")
        if self.plane not in ("strain", "stress"):
            raise InputError(f"plane is {self.plane!r}; expected 'strain' or 'stress'")

    def lame(self, dim: int) -> tuple[float, float]:
        r""":math:`\lambda` and :math:`\mu` in 2 or 3 dimensions for a Young's modulus of 1."""
        nu = self.poisson
        shear = 1 / (2 * (1 + nu))
        if dim == 2 and self.plane == "stress":
            return nu / (1 - nu**2), shear
        return nu / ((1 + nu) * (1 - 2 * nu)), shear

    @property
    def out_of_plane(self) -> float:
        r"""The ratio :math:`\sigma_{zz} / (\sigma_{xx} + \sigma_{yy})` of a plane problem."""
        return self.poisson if self.plane == "strain" else 0.0

    def unit_stress(self, gradient: Array) -> Array:
        """Stress for a Young's modulus of 1.

        Args:
            gradient: derivative j of displacement i, [..., d, d].

        Returns:
            Stress, [..., d, d]; in the plane without the component out of it.
        """
        dim = gradient.shape[-1]
        first, shear = self.lame(dim)
        spread = first * np.trace(gradient, axis1=-2, axis2=-1)
        result: Array = shear * (gradient + np.swapaxes(gradient, -1, -2))
        return result + spread[..., None, None] * np.eye(dim)

    def von_mises(self, stress: Array) -> Array:
        """Von Mises stress, [..., d, d] -> [...]."""
        deviator, outer = self._deviator(stress)
        square = (deviator**2).sum(axis=(-2, -1)) + outer**2
        result: Array = np.sqrt(1.5 * square)
        return result

    def von_mises_slope(self, stress: Array) -> Array:
        """Its derivative in the stresses, [..., d, d]; zero where there is no stress."""
        deviator, outer = self._deviator(stress)
        if stress.shape[-1] == 2:
            deviator = deviator + self.out_of_plane * outer[..., None, None] * np.eye(2)
        value = self.von_mises(stress)[..., None, None]
        return np.divide(1.5 * deviator, value, out=np.zeros_like(stress), where=value > 0)

    def _deviator(self, stress: Array) -> tuple[Array, Array]:
        """Deviatoric stress in and out of the plane, [..., d, d] and [...]."""
        dim = stress.shape[-1]
        trace = np.trace(stress, axis1=-2, axis2=-1)
        across = self.out_of_plane * trace if dim == 2 else np.zeros_like(trace)
        mean = (trace + across) / 3
        outer = across - mean if dim == 2 else across
        return stress - mean[..., None, None] * np.eye(dim), outer


@dataclass(frozen=True, kw_only=True)
class _Problem:
    material: Material
    body: VectorCoefficient
    displacement: VectorCoefficient
    traction: VectorCoefficient
    loaded: tuple[int, ...]
    free: tuple[int, ...]


def solve_elasticity(
    mesh: PointField,
    *,
    material: Material,
    body: VectorCoefficient = (),
    displacement: VectorCoefficient = (),
    traction: VectorCoefficient = (),
    loaded: Sequence[int] = (),
    free: Sequence[int] = (),
    degree: int = 2,
    geometry: Curved | None = None,
) -> PointField:
    r"""Solve linear elasticity on any mesh of triangles in the plane or tetrahedra in space.

    Args:
        mesh: field with cells, see :func:`~cst_operator.solvers.poisson.solve_poisson`.
        material: the elastic law.
        body: force per volume, d components in units of stress per length; zero if empty.
        displacement: wanted value on the clamped part, which is what is neither loaded nor free;
            d components, zero if empty.
        traction: force per area on the loaded part, d components, zero if empty.
        loaded: markers of the loaded part.
        free: markers of the free part.
        degree: of the elements, 1, 2 or, on triangles, 3.
        geometry: curved domain behind the mesh; without it the mesh is the domain.

    Returns:
        Field with channels "u_x", "u_y" (, "u_z") and "von_mises" and their gradients, on the
        points and cells of ``mesh``, float64.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if a coefficient does not fit or no part is clamped.
        SolverError: if the linear system is singular.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    problem = _Problem(
        material=material,
        body=_vector("body", body, mesh.dim),
        displacement=_vector("displacement", displacement, mesh.dim),
        traction=_vector("traction", traction, mesh.dim),
        loaded=tuple(loaded),
        free=tuple(free),
    )
    u, gradient = _solve(space, problem)
    return mesh.with_values(u, _solution(mesh.dim), gradient=gradient)


def _solution(dim: int) -> tuple[str, ...]:
    return (*_components("u", dim), "von_mises")


def _vector(name: str, value: VectorCoefficient, dim: int) -> VectorCoefficient:
    if value and len(value) != dim:
        raise InputError(f"{name} has {len(value)} components; expected {dim}, or none for zero")
    return tuple(value) or (0.0,) * dim


def _solve(space: Discretization, problem: _Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Displacement and von Mises stress at mesh points, [N, d + 1], and their gradient."""
    material, size, dim = problem.material, space.basis.N, space.dim
    young = space.positive(material.young, "young")
    load = np.concatenate(
        [
            space.load(f) + space.flux_load(t, problem.loaded)
            for f, t in zip(problem.body, problem.traction, strict=True)
        ]
    )
    fixed = space.fixed((*problem.loaded, *problem.free))
    u = np.zeros((dim, size))
    for component, value in zip(u, problem.displacement, strict=True):
        component[fixed] = space.at_dofs(value)[fixed]
    given = np.concatenate([axis * size + fixed for axis in range(dim)])
    free = np.setdiff1d(np.arange(dim * size), given)
    matrix = _stiffness(space, material)
    flat = u.reshape(-1)
    flat[free] = factorize(matrix[free][:, free]).solve((load - matrix @ flat)[free])
    if not np.isfinite(u).all():
        raise SolverError("the displacement is not finite; the matrix is close to singular")

    n = space.num_points
    slope = np.moveaxis(space.nodal_gradient(u), 0, 1)  # [N, d, d]
    nodal = space.at_dofs(material.young)[:n, None, None] * material.unit_stress(slope)
    at_quadrature = np.stack([space.gradient_at_quadrature(c) for c in u], axis=-2)
    stress = young[..., None, None] * material.unit_stress(at_quadrature)
    i, j = np.triu_indices(dim)
    parts = space.project(np.moveaxis(stress[..., i, j], -1, 0))  # [d (d + 1) / 2, D]
    smooth = np.zeros((n, dim, dim))
    smooth[:, i, j] = smooth[:, j, i] = parts[:, :n].T
    twice = np.where(i == j, 1.0, 2.0)  # off the diagonal, a part stands for two stresses
    steepness = np.einsum(
        "nk,knd->nd",
        twice * material.von_mises_slope(smooth)[:, i, j],
        space.nodal_gradient(parts),
    )
    values = np.column_stack([u[:, :n].T, material.von_mises(nodal)])
    gradient = np.concatenate([slope, steepness[:, None]], axis=1)
    return torch.from_numpy(values), torch.from_numpy(gradient)


def _stiffness(space: Discretization, material: Material) -> csr_matrix:
    """Matrix of the elastic energy, [d D, d D], one component after the other."""
    first, shear = material.lame(space.dim)
    products = space.derivative_products(material.young)
    spread = shear * sum(products[i][i] for i in range(space.dim))
    blocks = [
        [first * products[i][k] + shear * products[k][i] for k in range(space.dim)]
        for i in range(space.dim)
    ]
    for i in range(space.dim):
        blocks[i][i] = blocks[i][i] + spread
    return bmat(blocks, format="csr")


_BODY = GaussianField(std=0.5)
_TRACTION = GaussianField(length_scale=0.5, std=0.5, mean_std=1.0)


@dataclass(frozen=True, kw_only=True)
class Elasticity:
    """Random plates with holes, or solids, under load.

    As it is: a unit square with 1 to 3 elliptic holes, clamped on the left, pulled or pushed on
    the right, free elsewhere. The traction has a mean of standard deviation 1 and varies with
    standard deviation .5 and length .5 along the side; the force on the body is of standard
    deviation .5. Young's modulus is log-uniform in [.5, 2], Poisson's ratio uniform in [.2, .4].
    :meth:`solid` has boxes.

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh.
        body: what draws the force on the body, for each of d components.
        traction: what draws the traction, likewise.
        young: smallest and largest Young's modulus.
        poisson: smallest and largest Poisson's ratio.
        plane: "strain" or "stress"; without effect in space.
        clamped: markers of the clamped part.
        loaded: markers of the loaded part; what is neither is free.
        name: name of the system.
    """

    domain: DomainSampler[Domain] = RandomRectangle()
    h: float = 0.05
    body: tuple[FieldSampler, ...] = (_BODY,) * 2
    traction: tuple[FieldSampler, ...] = (_TRACTION,) * 2
    young: tuple[float, float] = (0.5, 2.0)
    poisson: tuple[float, float] = (0.2, 0.4)
    plane: Literal["strain", "stress"] = "stress"
    clamped: tuple[int, ...] = (LEFT,)
    loaded: tuple[int, ...] = (RIGHT,)
    name: str = "elasticity"

    def __post_init__(self) -> None:
        if not 0 < self.young[0] <= self.young[1]:
            raise InputError(f"young is {self.young}; expected (smallest, largest) > 0")
        if not self.poisson[0] <= self.poisson[1]:
            raise InputError(f"poisson is {self.poisson}; expected (smallest, largest)")
        for ratio in self.poisson:
            Material(poisson=ratio, plane=self.plane)

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "2"

    @classmethod
    def solid(cls) -> "Elasticity":
        """Boxes of random sides, clamped and loaded at opposite ends, of some hundred points."""
        return cls(
            domain=RandomBox(),
            h=0.12,
            body=(_BODY,) * 3,
            traction=(_TRACTION,) * 3,
            clamped=(X_MIN,),
            loaded=(X_MAX,),
            name="elasticity_solid",
        )

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        young = float(np.exp(rng.uniform(*np.log(self.young))))
        ratio = float(rng.uniform(*self.poisson))
        material = Material(young=young, poisson=ratio, plane=self.plane)
        dim = drawn.mesh.dim
        forces, tractions = (stream(seed, index, drawn.attempt, p) for p in (F, FLUX))
        problem = _Problem(
            material=material,
            body=_vector("body", tuple(s.sample(forces) for s in self.body), dim),
            displacement=(0.0,) * dim,
            traction=_vector("traction", tuple(s.sample(tractions) for s in self.traction), dim),
            loaded=self.loaded,
            free=tuple(set(drawn.geometry.parts) - {*self.clamped, *self.loaded}),
        )
        space = drawn.discretize()
        with naming(seed, index):
            u, gradient = _solve(space, problem)
        coefficients = (*problem.body, *problem.traction, young, ratio)
        parts = (self.clamped, self.loaded, problem.free)
        names, given = _inputs(dim), len(coefficients)
        return Trajectory(
            mesh=static_fields(
                drawn.mesh,
                space,
                dict(zip(names[:given], coefficients, strict=True)),
                dict(zip(names[given:], parts, strict=True)),
            ),
            times=torch.zeros(1, dtype=torch.float64),
            u=u[None],
            channels=_solution(dim),
            gradient=gradient[None],
            parameters={
                **sample_parameters(drawn, seed, index, refine, ()),
                "young": young,
                "poisson": ratio,
            },
        )
