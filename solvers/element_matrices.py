"""Matrices from arrays of the functions on every triangle, for forms with a given flow."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from skfem import Basis

__all__ = ["ElementFunctions"]

Array = NDArray[np.float64]


class ElementFunctions:
    """The l functions of a basis on every triangle, at its q quadrature points.

    Args:
        basis: scikit-fem's basis.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.dx: Array = basis.dx
        shape = self.dx.shape
        self.value = np.stack([np.broadcast_to(np.asarray(b[0]), shape) for b in basis.basis])
        """Values, [l, cells, q]."""
        self.gradient = np.stack([b[0].grad for b in basis.basis])
        """Gradients, [l, 2, cells, q]."""

    @cached_property
    def _nodal_gradient(self) -> Array:
        """Gradients where the degrees of freedom are, [l, 2, cells, l]."""
        places = self.basis.elem.doflocs.T
        rule = (places, np.ones(places.shape[1]))
        there = Basis(self.basis.mesh, self.basis.elem, quadrature=rule)
        return np.stack([b[0].grad for b in there.basis])

    def diffusion(self, a: Array) -> Array:
        r""":math:`\nabla \cdot (a \nabla \varphi)` inside every triangle, [l, cells, q].

        The flux is interpolated by the same functions: exact on straight triangles if a is
        constant.

        Args:
            a: at the degrees of freedom, [D].
        """
        flux = self._nodal_gradient * a[self.basis.element_dofs].T
        return np.einsum("lick,kicq->lcq", flux, self.gradient, optimize=True)

    def along(self, b: Array) -> Array:
        r""":math:`b \cdot \nabla \varphi` for b at the quadrature points, [2, cells, q]."""
        return np.einsum("icq,licq->lcq", b, self.gradient)

    def matrix(self, test: Array, trial: Array) -> csr_matrix:
        """Integrals of test times trial functions, [l, cells, q] each, as a matrix [D, D]."""
        return self.assemble(np.einsum("icq,jcq,cq->ijc", test, trial, self.dx, optimize=True))

    def vector(self, test: Array, f: Array) -> Array:
        """Integrals of test functions, [l, cells, q], times f, [cells, q], as a vector [D]."""
        local = np.einsum("icq,cq->ic", test, f * self.dx)
        dofs = self.basis.element_dofs
        result: Array = np.bincount(dofs.ravel(), local.ravel(), self.basis.N).astype(np.float64)
        return result

    def assemble(self, local: Array) -> csr_matrix:
        """Matrix [D, D] of the matrices of triangles, [l, l, cells]."""
        dofs = self.basis.element_dofs
        rows = np.broadcast_to(dofs[:, None], local.shape).ravel()
        columns = np.broadcast_to(dofs[None], local.shape).ravel()
        size = self.basis.N
        return csr_matrix((local.ravel(), (rows, columns)), shape=(size, size))
