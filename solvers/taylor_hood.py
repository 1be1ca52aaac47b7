"""Velocity of degree 2 and pressure of degree 1 on the same triangles (Taylor and Hood 1973)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bmat, csr_matrix, hstack
from scipy.sparse.linalg import SuperLU
from skfem import BilinearForm, ElementTriP1

from cst_operator.errors import InputError
from cst_operator.fields import PointField
from cst_operator.solvers.element_matrices import ElementFunctions
from cst_operator.solvers.finite_elements import (
    Discretization,
    VectorCoefficient,
    discretize,
)
from cst_operator.solvers.geometry import Geometry
from cst_operator.solvers.linear_systems import factorize_unsymmetric
from cst_operator.solvers.triangulation import require_plane

__all__ = ["FLOW_CHANNELS", "SaddlePoint", "TaylorHood", "taylor_hood"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FLOW_CHANNELS = ("u_x", "u_y", "p")
"""Channels of a flow."""

_PENALTY = 1e-6
_REFINEMENTS = 3


@dataclass(frozen=True, eq=False)
class TaylorHood:
    """The pair of spaces. Flows are vectors: D numbers for each component, then the pressure.

    Args:
        velocity: space of one component, D degrees of freedom.
        pressure: space of the pressure, N degrees of freedom.
        outflow: markers of the part where the flow leaves freely; the velocity is given elsewhere.
    """

    velocity: Discretization
    pressure: Discretization
    outflow: tuple[int, ...]

    @cached_property
    def divergence(self) -> csr_matrix:
        r"""Matrix of :math:`\int q\,\nabla \cdot u`, [N, 2 D]."""
        v, q = self.velocity.basis, self.pressure.basis
        return hstack([_SLOPE.assemble(v, q, i=i) for i in range(2)], format="csr")

    @cached_property
    def fixed(self) -> Index:
        """Numbers of given unknowns: velocities, and one pressure where nothing flows out."""
        size = self.velocity.basis.N
        markers = set(self.velocity.markers.tolist()) - set(self.outflow)
        wall = self.velocity.boundary_dofs(sorted(markers))
        level = np.array([] if self.outflow else [2 * size], dtype=np.int64)
        return np.concatenate([wall, size + wall, level])

    @cached_property
    def free(self) -> Index:
        """Numbers of the other unknowns."""
        return np.setdiff1d(
            np.arange(2 * self.velocity.basis.N + self.pressure.basis.N), self.fixed
        )

    def given(self, velocity: VectorCoefficient) -> Array:
        """A flow that is zero but for the given velocities."""
        size = self.velocity.basis.N
        flow = np.zeros(2 * size + self.pressure.basis.N)
        flow[: 2 * size] = np.concatenate([self.velocity.at_dofs(g) for g in velocity])
        flow[self.free] = 0.0
        if not self.outflow:
            flow[2 * size] = 0.0
        return flow

    def load(self, body: VectorCoefficient) -> Array:
        """Vector of the force on the volume."""
        forces = [self.velocity.load(f) for f in body]
        return np.concatenate([*forces, np.zeros(self.pressure.basis.N)])

    def convection(self, flow: Array) -> csr_matrix:
        r"""Matrix of :math:`\int (w \cdot \nabla u) \cdot v` for the velocity w, [2 D, 2 D]."""
        local = self._functions
        block = local.matrix(local.value, local.along(self._at_quadrature(flow)))
        return bmat([[block, None], [None, block]], format="csr")

    def reaction(self, flow: Array) -> csr_matrix:
        r"""Matrix of :math:`\int (u \cdot \nabla w) \cdot v` for the velocity w, [2 D, 2 D]."""
        local = self._functions
        dofs = self._components(flow)[:, self.velocity.basis.element_dofs]  # [2, l, cells]
        slope = np.einsum("ilc,ljcq->ijcq", dofs, local.gradient)
        blocks = [
            [local.matrix(local.value, local.value * slope[i, j]) for j in range(2)]
            for i in range(2)
        ]
        return bmat(blocks, format="csr")

    def force(self, residual: Array, marker: int) -> tuple[float, float]:
        """Force of the fluid on a part of the boundary, from the residual of the momentum there.

        Args:
            residual: of the equations before values are given, in the order of a flow.
            marker: of the part.
        """
        at = self.velocity.boundary_dofs((marker,))
        x, y = (-float(r[at].sum()) for r in self._components(residual))
        return x, y

    def nodal(self, flow: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocity and pressure at mesh points, [N, 3], and their gradients, [N, 3, 2]."""
        n = self.velocity.num_points
        u, p = self._components(flow), flow[2 * self.velocity.basis.N :]
        slope = np.concatenate(
            [self.velocity.nodal_gradient(u), self.pressure.nodal_gradient(p)[None]]
        )
        values = np.column_stack([u[:, :n].T, p])
        return torch.from_numpy(values), torch.from_numpy(np.moveaxis(slope, 0, 1).copy())

    def level(self, flow: Array) -> Array:
        """The same flow with a pressure of mean zero, unless an outflow sets its level."""
        if self.outflow:
            return flow
        start = 2 * self.velocity.basis.N
        result = flow.copy()
        weights = self.pressure.load(1.0)
        result[start:] -= weights @ flow[start:] / weights.sum()
        return result

    def _components(self, flow: Array) -> Array:
        return flow[: 2 * self.velocity.basis.N].reshape(2, -1)

    def _at_quadrature(self, flow: Array) -> Array:
        dofs = self._components(flow)[:, self.velocity.basis.element_dofs]
        return np.einsum("ilc,lcq->icq", dofs, self._functions.value)

    @cached_property
    def _functions(self) -> ElementFunctions:
        return ElementFunctions(self.velocity.basis)


@BilinearForm
def _SLOPE(u: Any, q: Any, w: Any) -> Any:
    return u.grad[w["i"]] * q


def taylor_hood(
    mesh: PointField, *, outflow: Sequence[int] = (), geometry: Geometry | None = None
) -> TaylorHood:
    """Set up the spaces on a triangular mesh.

    Args:
        mesh: see :func:`~cst_operator.solvers.finite_elements.discretize`.
        outflow: markers of the part where the flow leaves freely.
        geometry: the curved domain that the mesh approximates.

    Raises:
        MeshError: if the mesh cannot carry the elements.
        InputError: if a marker does not exist or the flow leaves everywhere.
    """
    require_plane(mesh)
    velocity = discretize(mesh, degree=2, geometry=geometry)
    velocity.boundary_dofs(outflow, "outflow")
    if not set(velocity.markers.tolist()) - set(outflow):
        raise InputError("the whole boundary is outflow; give the velocity on one part of it")
    linear = replace(velocity, basis=velocity.basis.with_element(ElementTriP1()))
    return TaylorHood(velocity, linear, tuple(outflow))


class SaddlePoint:
    r"""A factored system of momentum and continuity.

    .. math:: \begin{pmatrix} A & -B^T \\ -B & 0 \end{pmatrix}

    The factors are those of the matrix with a small multiple of the pressure mass in place of the
    zero, so that pivots may stay on the diagonal; iterative refinement removes the difference.

    Args:
        space: the spaces, which know what is given.
        momentum: the matrix A, [2 D, 2 D].
        scale: size of the pressure's Schur complement, one over the viscosity.

    Raises:
        SolverError: if the matrix is singular.
    """

    def __init__(self, space: TaylorHood, momentum: csr_matrix, *, scale: float) -> None:
        b, free = space.divergence, space.free
        penalty = -_PENALTY * scale * space.pressure.mass()
        self.matrix: csr_matrix = bmat([[momentum, -b.T], [-b, None]], format="csr")
        nearby = bmat([[momentum, -b.T], [-b, penalty]], format="csr")
        self._free = free
        self._inner = self.matrix[free][:, free]
        self._factors: SuperLU = factorize_unsymmetric(nearby[free][:, free])

    def precondition(self, right: Array) -> Array:
        """Approximate solution on the free unknowns."""
        return np.asarray(self._factors.solve(right), dtype=np.float64)

    def solve(self, right: Array) -> Array:
        """Solution with zero where values are given; the right side counts elsewhere."""
        wanted = right[self._free]
        x = self._factors.solve(wanted)
        for _ in range(_REFINEMENTS):
            x += self._factors.solve(wanted - self._inner @ x)
        result = np.zeros_like(right)
        result[self._free] = x
        return result
