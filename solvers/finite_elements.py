"""Lagrange elements on triangles and tetrahedra of point fields, on top of scikit-fem."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from skfem import (
    Basis,
    BilinearForm,
    ElementTetP1,
    ElementTetP2,
    ElementTriP1,
    ElementTriP2,
    ElementTriP3,
    FacetBasis,
    LinearForm,
    MeshTet2,
    MeshTri2,
)
from skfem.helpers import dot, grad

from cst_operator.boundary import distance_to_facets
from cst_operator.errors import InputError
from cst_operator.fields import PointField
from cst_operator.solvers.linear_systems import factorize
from cst_operator.solvers.triangulation import marked_boundary, straight_mesh

__all__ = [
    "Coefficient",
    "Curved",
    "Discretization",
    "VectorCoefficient",
    "boundary_distance",
    "discretize",
    "static_fields",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Coefficient = float | Callable[[Array], Array] | torch.Tensor | Array
"""A constant, a function [n, d] -> [n], or one value per mesh point [N] (then piecewise linear)."""
VectorCoefficient = tuple[Coefficient, ...]
"""The d components of a vector field."""


@dataclass(frozen=True, eq=False)
class Discretization:
    """A finite element space on triangles (d = 2) or tetrahedra (d = 3).

    The first N degrees of freedom are the values at the mesh points.

    Args:
        basis: scikit-fem's basis.
        facets: scikit-fem's numbers of the boundary facets, [F].
        markers: marker of every boundary facet, [F].
        num_points: number N of mesh points.
    """

    basis: Basis
    facets: Index
    markers: Index
    num_points: int

    @property
    def dim(self) -> int:
        """Number of space dimensions d."""
        return int(self.basis.mesh.p.shape[0])

    @property
    def locations(self) -> Array:
        """Where the degrees of freedom are, [D, d]."""
        return np.ascontiguousarray(self.basis.doflocs.T)

    def stiffness(self, a: Coefficient) -> csr_matrix:
        r"""Matrix of :math:`\int a \nabla u \cdot \nabla v`, [D, D].

        Raises:
            InputError: if ``a`` is not positive.
        """
        return _STIFFNESS.assemble(self.basis, a=self.positive(a, "a"))

    def derivative_products(self, a: Coefficient) -> list[list[csr_matrix]]:
        r"""Matrices of :math:`\int a\,\partial_j u\,\partial_i v` at place [i][j], d by d."""
        values = self.at_quadrature(a, self.basis)
        axes = range(self.dim)
        upper = {
            (i, j): _DERIVATIVES.assemble(self.basis, a=values, i=i, j=j)
            for i in axes
            for j in axes[i:]
        }
        return [[upper[i, j] if i <= j else upper[j, i].T for j in axes] for i in axes]

    def positive(self, a: Coefficient, name: str) -> Array:
        """A coefficient at the quadrature points, [cells, points].

        Raises:
            InputError: naming the coefficient, if it is not positive.
        """
        values = self.at_quadrature(a, self.basis)
        if not values.min() > 0:
            raise InputError(
                f"the coefficient {name} is as small as {values.min():g}; "
                "it must be positive for the problem to be well posed"
            )
        return values

    def mass(self, a: Coefficient = 1.0) -> csr_matrix:
        r"""Matrix of :math:`\int a u v`, [D, D]."""
        return _MASS.assemble(self.basis, a=self.at_quadrature(a, self.basis))

    def load(self, f: Coefficient) -> Array:
        r"""Vector of :math:`\int f v`, [D]."""
        return _vector(_LOAD.assemble(self.basis, f=self.at_quadrature(f, self.basis)))

    def flux_load(self, flux: Coefficient, neumann: Sequence[int]) -> Array:
        r"""Vector of the integral of ``flux`` times v over the facets with these markers, [D]."""
        chosen = self.facets[np.isin(self.markers, neumann)]
        if not len(chosen):
            return np.zeros(self.basis.N)
        edge = FacetBasis(self.basis.mesh, self.basis.elem, facets=chosen)
        return _vector(_LOAD.assemble(edge, f=self.at_quadrature(flux, edge)))

    def edge_mass(self, markers: Sequence[int]) -> csr_matrix:
        r"""Matrix of the integral of u v over the facets with these markers, [D, D]."""
        chosen = self.facets[np.isin(self.markers, markers)]
        return _MASS.assemble(FacetBasis(self.basis.mesh, self.basis.elem, facets=chosen), a=1.0)

    def fixed(self, neumann: Sequence[int]) -> Index:
        """Degrees of freedom on boundary facets that are not Neumann, sorted.

        Raises:
            InputError: if a marker does not exist or none would be left.
        """
        self._check_markers(neumann, "neumann")
        dirichlet = sorted(set(self.markers.tolist()) - set(neumann))
        if not dirichlet:
            raise InputError(
                "the whole boundary is Neumann, so that the solution is unique only up to a "
                "constant; leave one marker out of neumann"
            )
        return self.boundary_dofs(dirichlet)

    def boundary_dofs(self, markers: Sequence[int], name: str = "markers") -> Index:
        """Degrees of freedom on boundary facets with these markers, sorted.

        Raises:
            InputError: if a marker does not exist; ``name`` is what the caller calls them.
        """
        self._check_markers(markers, name)
        chosen = self.facets[np.isin(self.markers, markers)]
        return np.asarray(self.basis.get_dofs(chosen).flatten(), dtype=np.int64)

    def _check_markers(self, markers: Sequence[int], name: str) -> None:
        known = sorted(set(self.markers.tolist()))
        unknown = sorted(set(markers) - set(known))
        if unknown:
            raise InputError(
                f"{name} names marker {unknown[0]}; the boundary has markers "
                f"{', '.join(map(str, known))}"
            )

    def at_dofs(self, value: Coefficient) -> Array:
        """A coefficient at the degrees of freedom, [D]."""
        if isinstance(value, (torch.Tensor, np.ndarray)):
            corners = self._nodal(value)[self.basis.mesh.t]  # [d + 1, cells]
            places = self.basis.elem.doflocs
            linear = np.column_stack([1 - places.sum(axis=1), places])
            result = np.zeros(self.basis.N)
            result[self.basis.element_dofs] = linear @ corners
            return result
        return _evaluate(value, self.locations)

    def at_quadrature(self, value: Coefficient, basis: Basis) -> Array:
        """A coefficient at the quadrature points of a basis, [cells, points]."""
        if isinstance(value, (torch.Tensor, np.ndarray)):
            linear = basis.with_element(_ELEMENTS[self.dim][1]())
            return np.asarray(linear.interpolate(self._nodal(value)))
        x = np.asarray(basis.global_coordinates())  # [d, cells, points]
        return _evaluate(value, x.reshape(self.dim, -1).T).reshape(x.shape[1:])

    def _nodal(self, value: torch.Tensor | Array) -> Array:
        nodal = np.asarray(value, dtype=np.float64)
        if nodal.shape != (self.num_points,):
            raise InputError(
                f"a coefficient has shape {nodal.shape}; expected one value for each of the "
                f"{self.num_points} mesh points, a number or a function"
            )
        return nodal

    def nodal_gradient(self, u: Array) -> Array:
        """Gradient at the mesh points, averaged over their cells by volume.

        Args:
            u: degrees of freedom, [..., D].

        Returns:
            Gradient, [..., N, d].
        """
        flat = u.reshape(-1, u.shape[-1])
        result = np.stack([matrix @ flat.T for matrix in self._gradient_matrices()], axis=-1)
        return np.moveaxis(result, 1, 0).reshape(*u.shape[:-1], self.num_points, self.dim)

    def gradient_at_quadrature(self, u: Array) -> Array:
        """Gradient at the quadrature points, [D] -> [cells, points, d]."""
        return np.moveaxis(np.asarray(self.basis.interpolate(u).grad), 0, -1)

    def project(self, values: Array) -> Array:
        """Degrees of freedom of the nearest functions in the mean square.

        Args:
            values: at the quadrature points, [k, cells, points].

        Returns:
            Degrees of freedom, [k, D].
        """
        right = np.stack([_vector(_LOAD.assemble(self.basis, f=v)) for v in values], axis=1)
        return np.asarray(factorize(self.mass()).solve(right).T)

    def _gradient_matrices(self) -> list[csr_matrix]:
        d = self.dim
        mesh, element = self.basis.mesh, self.basis.elem
        corners = np.eye(d, d + 1, k=1)
        at_corners = Basis(mesh, element, quadrature=(corners, np.ones(d + 1)))
        volume = self.basis.dx.sum(axis=1)  # [cells]
        vertices = mesh.t  # [d + 1, cells]
        total = np.bincount(vertices.ravel(), np.tile(volume, d + 1), self.num_points)
        share = volume / total[vertices]  # [d + 1, cells]
        rows = np.repeat(vertices[None], len(at_corners.basis), axis=0)
        columns = np.repeat(at_corners.element_dofs[:, None, :], d + 1, axis=1)
        slopes = np.stack([b[0].grad for b in at_corners.basis])  # [local, d, cells, d + 1]
        shape = (self.num_points, self.basis.N)
        return [
            csr_matrix(
                (
                    (slopes[:, i].transpose(0, 2, 1) * share).ravel(),
                    (rows.ravel(), columns.ravel()),
                ),
                shape=shape,
            )
            for i in range(d)
        ]


@BilinearForm
def _STIFFNESS(u: Any, v: Any, w: Any) -> Any:
    return w["a"] * dot(grad(u), grad(v))


@BilinearForm
def _DERIVATIVES(u: Any, v: Any, w: Any) -> Any:
    return w["a"] * grad(u)[w["j"]] * grad(v)[w["i"]]


@BilinearForm
def _MASS(u: Any, v: Any, w: Any) -> Any:
    return w["a"] * u * v


@LinearForm
def _LOAD(v: Any, w: Any) -> Any:
    return w["f"] * v


def _vector(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def _evaluate(value: float | Callable[[Array], Array], x: Array) -> Array:
    if not callable(value):
        return np.full(len(x), float(value))
    result = np.asarray(value(x), dtype=np.float64)
    if result.shape != (len(x),):
        raise InputError(
            f"a coefficient function gave shape {result.shape} for {len(x)} points; "
            "expected one value per point"
        )
    if not np.isfinite(result).all():
        raise InputError("a coefficient function gave values that are not finite")
    return result


class Curved(Protocol):
    """A domain whose boundary is known beyond the mesh."""

    def project(self, x: Array) -> Array:
        """Points of the boundary that belong to points near it, [n, d]."""
        ...


_ELEMENTS = {
    2: {1: ElementTriP1, 2: ElementTriP2, 3: ElementTriP3},
    3: {1: ElementTetP1, 2: ElementTetP2},
}


def discretize(
    mesh: PointField, *, degree: int = 2, geometry: Curved | None = None
) -> Discretization:
    """Set up Lagrange elements on triangles or tetrahedra.

    Args:
        mesh: field with ``cells["triangle"]`` in the plane or ``cells["tetra"]`` in space.
            ``facets["line"]`` or ``facets["triangle"]`` with their ``facet_markers`` name the
            parts of the boundary; without facets the boundary is found and has marker 1.
        degree: 1, 2 or, on triangles, 3.
        geometry: the curved domain that the mesh approximates; with degree 2 or 3, boundary edges
            become parabolas whose middle lies on it. Without it, cells are straight.

    Raises:
        MeshError: if the mesh is of other cells, a point belongs to no cell, or facets are not
            its boundary.
        InputError: if there are no elements of this degree.
    """
    straight = straight_mesh(mesh)
    elements = _ELEMENTS[mesh.dim]
    if degree not in elements:
        *most, last = map(str, elements)
        raise InputError(
            f"degree is {degree}; expected {', '.join(most)} or {last} in {mesh.dim} dimensions"
        )
    element = elements[degree]()
    facets, markers = marked_boundary(mesh, straight)
    if degree == 1 or geometry is None:
        return Discretization(Basis(straight, element), facets, markers, mesh.num_points)
    if mesh.dim == 2:
        curved = MeshTri2.from_mesh(straight)
        middle = curved.dofs.facet_dofs[0, facets]
    else:
        curved = MeshTet2.from_mesh(straight)
        middle = curved.dofs.edge_dofs[0, straight.boundary_edges()]
    places = curved.doflocs.copy()
    places[:, middle] = geometry.project(places[:, middle].T).T
    basis = Basis(replace(curved, doflocs=places), element)
    return Discretization(basis, facets, markers, mesh.num_points)


def boundary_distance(
    mesh: PointField, space: Discretization, markers: Sequence[int], *, cap: float
) -> Array:
    """Exact distance to the (straight) boundary facets with these markers, [N].

    Args:
        mesh: the mesh.
        space: its discretization, which knows the boundary.
        markers: which part; an empty part has distance ``cap`` everywhere.
        cap: largest distance to report.
    """
    x = mesh.pos.detach().cpu().double()
    chosen = space.basis.mesh.facets[:, space.facets[np.isin(space.markers, markers)]]
    if not chosen.shape[1]:
        return np.full(len(x), float(cap))
    corners = x[torch.from_numpy(chosen.T.astype(np.int64))]
    return np.minimum(distance_to_facets(x, corners).numpy(), cap)


def static_fields(
    mesh: PointField,
    space: Discretization,
    coefficients: Mapping[str, Coefficient],
    parts: Mapping[str, Sequence[int]],
    *,
    cap: float = 1.0,
) -> PointField:
    """What a model may read of a problem, at the mesh points.

    Args:
        mesh: the mesh.
        space: its discretization.
        coefficients: by the name of their channel.
        parts: markers of parts of the boundary by the name of the channel of their distance.
        cap: largest distance to report.
    """
    columns = [space.at_dofs(value)[: space.num_points] for value in coefficients.values()]
    columns += [boundary_distance(mesh, space, part, cap=cap) for part in parts.values()]
    return mesh.with_values(torch.from_numpy(np.stack(columns, axis=1)), [*coefficients, *parts])
