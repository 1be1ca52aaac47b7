r"""Plane linear elasticity.

.. math:: -\nabla \cdot \sigma = f \text{ in } \Omega,\quad
          \sigma = \lambda\,(\nabla \cdot u)\,I + \mu\,(\nabla u + \nabla u^T),\quad
          u = u_D \text{ on the clamped part},\quad \sigma n = t \text{ on the loaded part},\quad
          \sigma n = 0 \text{ on the free part},

in plane strain or plane stress (there :math:`\lambda` is :math:`2\mu\lambda/(\lambda + 2\mu)` of
the three-dimensional ones). Lagrange elements of degree p = 1, 2 or 3 on curved edges: values are
of order p + 1, gradients and the von Mises stress at mesh points (averages over triangles by area)
of order p, the gradient of the von Mises stress (from the stress projected onto the elements) of
order p - 1. Where a clamped part meets another at a corner the stress is singular and these orders
do not hold nearby. Random problems are solved with p = 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bmat

from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers.finite_elements import (
    Coefficient,
    Discretization,
    VectorCoefficient,
    discretize,
    static_fields,
)
from cst_operator.solvers.geometry import LEFT, RIGHT, Geometry
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.random_domains import RandomRectangle
from cst_operator.solvers.random_fields import FieldSampler, GaussianField
from cst_operator.solvers.system import (
    FLUX,
    PARAMETERS,
    DomainSampler,
    F,
    mesh_domain,
    naming,
    sample_parameters,
    stream,
)

__all__ = ["ELASTICITY_CHANNELS", "Elasticity", "Material", "solve_elasticity"]

Array = NDArray[np.float64]

ELASTICITY_CHANNELS = (
    "body_x",
    "body_y",
    "traction_x",
    "traction_y",
    "young",
    "poisson",
    "distance_clamped",
    "distance_loaded",
    "distance_free",
)
"""Static fields of a sample, channels of ``Trajectory.mesh``."""

_SOLUTION = ("u_x", "u_y", "von_mises")


@dataclass(frozen=True, kw_only=True)
class Material:
    """An isotropic linear elastic material in the plane.

    Args:
        young: Young's modulus, positive, in units of stress; may vary in space.
        poisson: Poisson's ratio, in [0, .49]; elements of displacement alone lock beyond.
        plane: "strain" for a long body, "stress" for a thin plate.
    """

    young: Coefficient = 1.0
    poisson: float = 0.3
    plane: Literal["strain", "stress"] = "stress"

    def __post_init__(self) -> None:
        if not 0.0 <= self.poisson <= 0.49:
            raise InputError(f"poisson is {self.poisson}; expected a ratio from 0 to .49")
        if self.plane not in ("strain", "stress"):
            raise InputError(f"plane is {self.plane!r}; expected 'strain' or 'stress'")

    @property
    def lame(self) -> tuple[float, float]:
        r""":math:`\lambda` and :math:`\mu` of the plane problem for a Young's modulus of 1."""
        nu = self.poisson
        shear = 1 / (2 * (1 + nu))
        if self.plane == "stress":
            return nu / (1 - nu**2), shear
        return nu / ((1 + nu) * (1 - 2 * nu)), shear

    @property
    def out_of_plane(self) -> float:
        r"""The ratio :math:`\sigma_{zz} / (\sigma_{xx} + \sigma_{yy})`."""
        return self.poisson if self.plane == "strain" else 0.0

    def unit_stress(self, gradient: Array) -> Array:
        """Stress xx, yy, xy for a Young's modulus of 1.

        Args:
            gradient: derivative j of displacement i, [..., 2, 2].

        Returns:
            Stress, [..., 3].
        """
        first, shear = self.lame
        xx, yy = gradient[..., 0, 0], gradient[..., 1, 1]
        spread = first * (xx + yy)
        xy = shear * (gradient[..., 0, 1] + gradient[..., 1, 0])
        return np.stack([spread + 2 * shear * xx, spread + 2 * shear * yy, xy], axis=-1)

    def von_mises(self, stress: Array) -> Array:
        """Von Mises stress of stress xx, yy, xy, [..., 3] -> [...]."""
        # rounding can make a vanishing square negative
        half = 0.5 * self._square_slope(stress)
        result: Array = np.sqrt(np.maximum((half * stress).sum(axis=-1), 0.0))
        return result

    def von_mises_slope(self, stress: Array) -> Array:
        """Its derivative in the three stresses, [..., 3]; zero where there is no stress."""
        value = self.von_mises(stress)[..., None]
        slope = self._square_slope(stress)
        return np.divide(slope, 2 * value, out=np.zeros_like(slope), where=value > 0)

    def _square_slope(self, stress: Array) -> Array:
        ratio = self.out_of_plane
        own, other = 2 * (1 - ratio + ratio**2), 1 + 2 * ratio - 2 * ratio**2
        xx, yy, xy = (stress[..., i] for i in range(3))
        return np.stack([own * xx - other * yy, own * yy - other * xx, 6 * xy], axis=-1)


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
    body: VectorCoefficient = (0.0, 0.0),
    displacement: VectorCoefficient = (0.0, 0.0),
    traction: VectorCoefficient = (0.0, 0.0),
    loaded: Sequence[int] = (),
    free: Sequence[int] = (),
    degree: int = 2,
    geometry: Geometry | None = None,
) -> PointField:
    r"""Solve plane linear elasticity on any triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]``, see
            :func:`~cst_operator.solvers.poisson.solve_poisson`.
        material: the elastic law.
        body: force per volume, in units of stress per length.
        displacement: wanted value on the clamped part, which is what is neither loaded nor free.
        traction: force per area on the loaded part.
        loaded: markers of the loaded part.
        free: markers of the free part.
        degree: of the elements, 1, 2 or 3.
        geometry: curved domain behind the mesh; without it the mesh is the domain.

    Returns:
        Field with channels "u_x", "u_y" and "von_mises" and their gradients, on the points and
        cells of ``mesh``, float64.

    Raises:
        MeshError: if the mesh cannot carry the problem.
        InputError: if a coefficient does not fit or no part is clamped.
        SolverError: if the linear system is singular.
    """
    space = discretize(mesh, degree=degree, geometry=geometry)
    problem = _Problem(
        material=material,
        body=body,
        displacement=displacement,
        traction=traction,
        loaded=tuple(loaded),
        free=tuple(free),
    )
    u, gradient = _solve(space, problem)
    return mesh.with_values(u, _SOLUTION, gradient=gradient)


def _solve(space: Discretization, problem: _Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Displacement and von Mises stress at mesh points, [N, 3], and their gradient, [N, 3, 2]."""
    material, size = problem.material, space.basis.N
    first, shear = material.lame
    young = space.positive(material.young, "young")
    xx, yy, xy = space.derivative_products(material.young)
    mixed = first * xy + shear * xy.T
    matrix = bmat(
        [
            [(first + 2 * shear) * xx + shear * yy, mixed],
            [mixed.T, (first + 2 * shear) * yy + shear * xx],
        ],
        format="csr",
    )
    load = np.concatenate(
        [
            space.load(f) + space.flux_load(t, problem.loaded)
            for f, t in zip(problem.body, problem.traction, strict=True)
        ]
    )
    fixed = space.fixed((*problem.loaded, *problem.free))
    u = np.zeros((2, size))
    for component, value in zip(u, problem.displacement, strict=True):
        component[fixed] = space.at_dofs(value)[fixed]
    free = np.setdiff1d(np.arange(2 * size), np.concatenate([fixed, size + fixed]))
    flat = u.reshape(-1)
    flat[free] = factorize(matrix[free][:, free]).solve((load - matrix @ flat)[free])
    if not np.isfinite(u).all():
        raise SolverError("the displacement is not finite; the matrix is close to singular")

    n = space.num_points
    slope = np.moveaxis(space.nodal_gradient(u), 0, 1)  # [N, 2, 2]
    nodal = space.at_dofs(material.young)[:n, None] * material.unit_stress(slope)
    at_quadrature = np.stack([space.gradient_at_quadrature(c) for c in u], axis=-2)
    stress = young[..., None] * material.unit_stress(at_quadrature)  # [cells, points, 3]
    smooth = space.project(np.moveaxis(stress, -1, 0))  # [3, D]
    steepness = np.einsum(
        "nk,knd->nd", material.von_mises_slope(smooth[:, :n].T), space.nodal_gradient(smooth)
    )
    values = np.column_stack([u[:, :n].T, material.von_mises(nodal)])
    gradient = np.concatenate([slope, steepness[:, None]], axis=1)
    return torch.from_numpy(values), torch.from_numpy(gradient)


@dataclass(frozen=True, kw_only=True)
class Elasticity:
    """Random plates with holes under load, in plane stress.

    As it is: a unit square with 1 to 3 elliptic holes, clamped on the left, pulled or pushed on
    the right, free elsewhere. The traction has a mean of standard deviation 1 and varies with
    standard deviation .5 and length .5 along the side; the force on the body is of standard
    deviation .5. Young's modulus is log-uniform in [.5, 2], Poisson's ratio uniform in [.2, .4].

    Args:
        domain: what draws the geometry.
        h: edge length of the mesh.
        body_x: what draws the force on the body, first component.
        body_y: second component.
        traction_x: what draws the traction, first component.
        traction_y: second component.
        young: smallest and largest Young's modulus.
        poisson: smallest and largest Poisson's ratio.
        plane: "strain" or "stress".
        clamped: markers of the clamped part.
        loaded: markers of the loaded part; what is neither is free.
        name: name of the system.
    """

    domain: DomainSampler = RandomRectangle()
    h: float = 0.05
    body_x: FieldSampler = GaussianField(std=0.5)
    body_y: FieldSampler = GaussianField(std=0.5)
    traction_x: FieldSampler = GaussianField(length_scale=0.5, std=0.5, mean_std=1.0)
    traction_y: FieldSampler = GaussianField(length_scale=0.5, std=0.5, mean_std=1.0)
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
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        drawn = mesh_domain(self.domain, self.h, seed=seed, index=index, refine=refine)
        rng = stream(seed, index, drawn.attempt, PARAMETERS)
        young = float(np.exp(rng.uniform(*np.log(self.young))))
        ratio = float(rng.uniform(*self.poisson))
        material = Material(young=young, poisson=ratio, plane=self.plane)
        forces, tractions = (stream(seed, index, drawn.attempt, p) for p in (F, FLUX))
        problem = _Problem(
            material=material,
            body=(self.body_x.sample(forces), self.body_y.sample(forces)),
            displacement=(0.0, 0.0),
            traction=(self.traction_x.sample(tractions), self.traction_y.sample(tractions)),
            loaded=self.loaded,
            free=tuple(set(drawn.geometry.parts) - {*self.clamped, *self.loaded}),
        )
        space = discretize(drawn.mesh, degree=3, geometry=drawn.geometry)
        with naming(seed, index):
            u, gradient = _solve(space, problem)
        coefficients = (*problem.body, *problem.traction, young, ratio)
        parts = (self.clamped, self.loaded, problem.free)
        return Trajectory(
            mesh=static_fields(
                drawn.mesh,
                space,
                dict(zip(ELASTICITY_CHANNELS[:6], coefficients, strict=True)),
                dict(zip(ELASTICITY_CHANNELS[6:], parts, strict=True)),
            ),
            times=torch.zeros(1, dtype=torch.float64),
            u=u[None],
            channels=_SOLUTION,
            gradient=gradient[None],
            parameters={
                **sample_parameters(drawn, seed, index, refine, ()),
                "young": young,
                "poisson": ratio,
            },
        )
