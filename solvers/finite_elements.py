"""Lagrange elements of degree 1, 2 and 3 on triangular point fields, on top of scikit-fem."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU, splu
from skfem import (
    Basis,
    BilinearForm,
    ElementTriP1,
    ElementTriP2,
    ElementTriP3,
    FacetBasis,
    LinearForm,
    MeshTri1,
    MeshTri2,
)
from skfem.helpers import dot, grad

from cst_operator.errors import InputError, MeshError, SolverError
from cst_operator.fields import PointField
from cst_operator.solvers.geometry import Geometry

__all__ = ["Coefficient", "Discretization", "boundary_distance", "discretize", "factorize"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Coefficient = float | Callable[[Array], Array] | torch.Tensor | Array
"""A constant, a function [n, 2] -> [n], or one value per mesh point [N] (then piecewise linear)."""


@dataclass(frozen=True, eq=False)
class Discretization:
    """A finite element space on a triangular mesh.

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
    def locations(self) -> Array:
        """Where the degrees of freedom are, [D, 2]."""
        return np.ascontiguousarray(self.basis.doflocs.T)

    def stiffness(self, a: Coefficient) -> csr_matrix:
        r"""Matrix of :math:`\int a \nabla u \cdot \nabla v`, [D, D].

        Raises:
            InputError: if ``a`` is not positive.
        """
        values = self.at_quadrature(a, self.basis)
        if not values.min() > 0:
            raise InputError(
                f"the coefficient a is as small as {values.min():g}; "
                "it must be positive for the problem to be well posed"
            )
        return _STIFFNESS.assemble(self.basis, a=values)

    def mass(self) -> csr_matrix:
        r"""Matrix of :math:`\int u v`, [D, D]."""
        return _MASS.assemble(self.basis)

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

    def fixed(self, neumann: Sequence[int]) -> Index:
        """Degrees of freedom on boundary facets that are not Neumann, sorted.

        Raises:
            InputError: if a marker does not exist or none would be left.
        """
        unknown = sorted(set(neumann) - set(self.markers.tolist()))
        if unknown:
            raise InputError(
                f"neumann names marker {unknown[0]}; the boundary has markers "
                f"{', '.join(map(str, sorted(set(self.markers.tolist()))))}"
            )
        chosen = self.facets[~np.isin(self.markers, neumann)]
        if not len(chosen):
            raise InputError(
                "the whole boundary is Neumann, so that the solution is unique only up to a "
                "constant; leave one marker out of neumann"
            )
        return np.asarray(self.basis.get_dofs(chosen).flatten(), dtype=np.int64)

    def at_dofs(self, value: Coefficient) -> Array:
        """A coefficient at the degrees of freedom, [D]."""
        if isinstance(value, (torch.Tensor, np.ndarray)):
            corners = self._nodal(value)[self.basis.mesh.t]  # [3, cells]
            x, y = self.basis.elem.doflocs.T
            result = np.zeros(self.basis.N)
            result[self.basis.element_dofs] = np.stack([1 - x - y, x, y], axis=1) @ corners
            return result
        return _evaluate(value, self.locations)

    def at_quadrature(self, value: Coefficient, basis: Basis) -> Array:
        """A coefficient at the quadrature points of a basis, [cells, points]."""
        if isinstance(value, (torch.Tensor, np.ndarray)):
            linear = basis.with_element(ElementTriP1())
            return np.asarray(linear.interpolate(self._nodal(value)))
        x = np.asarray(basis.global_coordinates())  # [2, cells, points]
        return _evaluate(value, x.reshape(2, -1).T).reshape(x.shape[1:])

    def _nodal(self, value: torch.Tensor | Array) -> Array:
        nodal = np.asarray(value, dtype=np.float64)
        if nodal.shape != (self.num_points,):
            raise InputError(
                f"a coefficient has shape {nodal.shape}; expected one value for each of the "
                f"{self.num_points} mesh points, a number or a function"
            )
        return nodal

    def nodal_gradient(self, u: Array) -> Array:
        """Gradient at the mesh points, averaged over their triangles by area.

        Args:
            u: degrees of freedom, [..., D].

        Returns:
            Gradient, [..., N, 2].
        """
        flat = u.reshape(-1, u.shape[-1])
        result = np.stack([matrix @ flat.T for matrix in self._gradient_matrices()], axis=-1)
        return np.moveaxis(result, 1, 0).reshape(*u.shape[:-1], self.num_points, 2)

    def _gradient_matrices(self) -> tuple[csr_matrix, csr_matrix]:
        corners = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        mesh, element = self.basis.mesh, self.basis.elem
        at_corners = Basis(mesh, element, quadrature=(corners, np.full(3, 1.0 / 6.0)))
        area = self.basis.dx.sum(axis=1)  # [cells]
        vertices = mesh.t  # [3, cells]
        total = np.bincount(vertices.ravel(), np.tile(area, 3), self.num_points)
        share = area / total[vertices]  # [3, cells]
        rows = np.repeat(vertices[None], len(at_corners.basis), axis=0)
        columns = np.repeat(at_corners.element_dofs[:, None, :], 3, axis=1)
        slopes = np.stack([b[0].grad for b in at_corners.basis])  # [local, 2, cells, 3]
        shape = (self.num_points, self.basis.N)
        x, y = (
            csr_matrix(
                (
                    (slopes[:, i].transpose(0, 2, 1) * share).ravel(),
                    (rows.ravel(), columns.ravel()),
                ),
                shape=shape,
            )
            for i in range(2)
        )
        return x, y


@BilinearForm
def _STIFFNESS(u: Any, v: Any, w: Any) -> Any:
    return w["a"] * dot(grad(u), grad(v))


@BilinearForm
def _MASS(u: Any, v: Any, w: Any) -> Any:
    return u * v


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


_ELEMENTS = {1: ElementTriP1, 2: ElementTriP2, 3: ElementTriP3}


def discretize(
    mesh: PointField, *, degree: int = 2, geometry: Geometry | None = None
) -> Discretization:
    """Set up Lagrange elements on a triangular mesh.

    Args:
        mesh: field with ``cells["triangle"]`` in the plane. ``facets["line"]`` with
            ``facet_markers["line"]`` name the parts of the boundary; without facets the boundary
            is found and has marker 1.
        degree: 1, 2 or 3.
        geometry: the curved domain that the mesh approximates; with degree 2 or 3, boundary edges
            become parabolas whose middle lies on it. Without it, edges are straight.

    Raises:
        MeshError: if the mesh is not a plane triangular mesh, a point belongs to no triangle, or
            facets are not its boundary.
        InputError: if the degree is not 1, 2 or 3.
    """
    if degree not in _ELEMENTS:
        raise InputError(f"degree is {degree}; expected 1, 2 or 3")
    element = _ELEMENTS[degree]()
    triangles = _triangles(mesh)
    points = np.asarray(mesh.pos, dtype=np.float64)
    straight = MeshTri1(np.ascontiguousarray(points.T), np.ascontiguousarray(triangles.T))
    facets, markers = _boundary(mesh, straight)
    if degree == 1 or geometry is None:
        return Discretization(Basis(straight, element), facets, markers, len(points))
    curved = MeshTri2.from_mesh(straight)
    middle = curved.dofs.facet_dofs[0, facets]
    places = curved.doflocs.copy()
    places[:, middle] = geometry.project(places[:, middle].T).T
    basis = Basis(replace(curved, doflocs=places), element)
    return Discretization(basis, facets, markers, len(points))


def _triangles(mesh: PointField) -> Index:
    cells = mesh.get("cells", {})
    if mesh.dim != 2 or set(cells) != {"triangle"}:
        found = ", ".join(sorted(cells)) or "no cells"
        raise MeshError(
            f"the mesh has {found} in {mesh.dim} dimensions; this solver needs triangles in 2, "
            "so split quadrilaterals and drop the third coordinate of a plane mesh"
        )
    triangles = np.asarray(cells["triangle"], dtype=np.int64)
    unused = np.setdiff1d(np.arange(mesh.num_points), triangles)
    if len(unused):
        raise MeshError(
            f"{len(unused)} points belong to no triangle, the first is point {unused[0]}; "
            "remove them"
        )
    return triangles


def _boundary(mesh: PointField, straight: MeshTri1) -> tuple[Index, Index]:
    facets = np.asarray(straight.boundary_facets(), dtype=np.int64)
    if "line" not in mesh.get("facets", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    n = mesh.num_points
    own = np.sort(straight.facets[:, facets], axis=0)
    given = np.sort(np.asarray(mesh.facets["line"], dtype=np.int64), axis=1)
    own_key, given_key = own[0] * n + own[1], given[:, 0] * n + given[:, 1]
    stray = ~np.isin(given_key, own_key)
    if stray.any():
        a, b = given[np.argmax(stray)]
        raise MeshError(f"facet {a}-{b} is not on the boundary of the mesh; remove inner facets")
    order = np.argsort(given_key)
    place = np.minimum(np.searchsorted(given_key[order], own_key), max(len(given_key) - 1, 0))
    if not len(given_key) or (given_key[order][place] != own_key).any():
        raise MeshError(
            f"the boundary has {len(own_key)} edges but facets name only {len(given_key)} of them; "
            "name all, or leave facets out to have one marker everywhere"
        )
    if "line" not in mesh.get("facet_markers", {}):
        return facets, np.ones(len(facets), dtype=np.int64)
    markers = np.asarray(mesh.facet_markers["line"], dtype=np.int64)
    return facets, markers[order][place]


def factorize(matrix: csr_matrix) -> SuperLU:
    """Factorization of a symmetric positive definite matrix.

    Raises:
        SolverError: if the matrix is singular.
    """
    try:
        return splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError as error:
        raise SolverError(f"the matrix of {matrix.shape[0]} unknowns is singular") from error


def boundary_distance(
    mesh: PointField, space: Discretization, markers: Sequence[int], *, cap: float
) -> Array:
    """Exact distance to the (straight) boundary edges with these markers, [N].

    Args:
        mesh: the mesh.
        space: its discretization, which knows the boundary.
        markers: which part; an empty part has distance ``cap`` everywhere.
        cap: largest distance to report.
    """
    x = np.asarray(mesh.pos, dtype=np.float64)
    first, second = space.basis.mesh.facets[:, space.facets[np.isin(space.markers, markers)]]
    result = np.full(len(x), float(cap))
    if not len(first):
        return result
    a, edge = x[first], x[second] - x[first]
    square = (edge * edge).sum(axis=1)
    chunk = max(1, 4_000_000 // len(a))  # bounds memory to some hundred MB
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk, None]  # [chunk, 1, 2]
        t = np.clip(((part - a) * edge).sum(axis=2) / square, 0.0, 1.0)
        foot = a + t[..., None] * edge
        near = np.sqrt(((part - foot) ** 2).sum(axis=2).min(axis=1))
        result[start : start + chunk] = np.minimum(near, cap)
    return result
