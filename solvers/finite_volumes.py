r"""Finite volumes around the vertices of triangles: the median dual of a mesh.

The cell of a vertex is bounded by segments from the middles of its edges to the centroids of its
triangles, so that its area is the vertex's lumped weight. The two segments of an edge share one
normal, as long as their sum; of a boundary edge each end has half, where values count 5/6 from the
near end and 1/6 from the far one: sums over the boundary of a cell are then exact for linear
functions (Nishikawa 2015, "Accuracy-preserving boundary quadrature for edge-based finite-volume
schemes", J. Comput. Phys. 281).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cst_operator.solvers.finite_elements import Discretization

__all__ = ["FAR", "MedianDual", "limited", "median_dual"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FAR = 1 / 6
"""Share of the far end of a boundary edge."""


class MedianDual(NamedTuple):
    """Dual cells of N vertices, divided by E edges, with B halves of boundary edges.

    Args:
        area: of every cell, [N].
        ends: vertices of every edge, [2, E].
        along: from the first to the second, [E, 2].
        normal: from the cell of the first into that of the second, as long as what they share,
            [E, 2].
        gather: sums over the edges that begin, and over those that end, at a vertex, [N, E] each.
        rim_ends: near and far vertex of every half of a boundary edge, [2, B].
        rim_normal: out of the domain, as long as the half, [B, 2].
        gather_rim: sums over the halves at a vertex, [N, B].
    """

    area: Array
    ends: Index
    along: Array
    normal: Array
    gather: tuple[csr_matrix, csr_matrix]
    rim_ends: Index
    rim_normal: Array
    gather_rim: csr_matrix

    def gathered(self, begins: Array, finishes: Array, rim: Array) -> Array:
        """Sums over the boundaries of the cells, by area.

        Args:
            begins: for the cell where an edge begins, [E, c].
            finishes: for the cell where it ends, [E, c].
            rim: for the cell with a half of a boundary edge, [B, c].

        Returns:
            Rates, [N, c].
        """
        first, second = self.gather
        total: Array = first @ begins + second @ finishes + self.gather_rim @ rim
        return total / self.area[:, None]

    def slope(self, u: Array) -> Array:
        """Gradient at the vertices, [N, c] -> [N, c, 2]; exact for linear functions."""
        i, j = self.ends
        near, far = self.rim_ends
        middle = (u[i] + u[j]) / 2
        rim = (1 - FAR) * u[near] + FAR * u[far]
        products = [
            (middle * n[:, None], rim * out[:, None])
            for n, out in zip(self.normal.T, self.rim_normal.T, strict=True)
        ]
        return np.stack([self.gathered(m, -m, r) for m, r in products], axis=-1)


def median_dual(space: Discretization) -> MedianDual:
    """The dual of the triangles of a space of degree 1."""
    mesh = space.basis.mesh
    x, triangles = mesh.p.T, mesh.t.T  # [N, 2], [T, 3]
    corners = x[triangles]
    centre = corners.mean(axis=1)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    turn = _cross(first, second)
    area = np.zeros(len(x))
    np.add.at(area, triangles, np.abs(turn)[:, None] / 6)

    ends = mesh.facets  # [2, E]
    middle, along = x[ends].mean(axis=0), x[ends[1]] - x[ends[0]]
    normal = np.zeros_like(along)
    for edge in mesh.t2f:  # every triangle adds the segment in it to its three edges
        part = _right(centre - middle[edge])
        part *= np.sign((part * along[edge]).sum(axis=1, keepdims=True))
        np.add.at(normal, edge, part)

    boundary = ends[:, space.facets]
    inside = centre[mesh.f2t[0, space.facets]]
    half = _right(x[boundary[1]] - x[boundary[0]]) / 2
    half *= np.sign((half * (x[boundary[0]] - inside)).sum(axis=1, keepdims=True))
    rim_ends = np.concatenate([boundary, boundary[::-1]], axis=1)
    return MedianDual(
        area=area,
        ends=ends,
        along=along,
        normal=normal,
        gather=(_gather(ends[0], len(x)), _gather(ends[1], len(x))),
        rim_ends=rim_ends,
        rim_normal=np.concatenate([half, half]),
        gather_rim=_gather(rim_ends[0], len(x)),
    )


def limited(a: Array, b: Array, threshold: Array) -> Array:
    r"""Mean of two differences that is zero where they disagree.

    .. math:: \frac{\max(ab + \epsilon, 0)\,(a + b)}{a^2 + b^2 + 2\epsilon}

    (van Albada, van Leer and Roberts 1982). Differences that are small compared with
    :math:`\sqrt\epsilon` count as smooth: of these it is the mean, whatever their signs.

    Args:
        a: differences, any shape.
        b: others of the same places.
        threshold: :math:`\epsilon`, positive.
    """
    agreement = np.maximum(a * b + threshold, 0.0)
    result: Array = agreement * (a + b) / (a**2 + b**2 + 2 * threshold)
    return result


def _gather(vertex: Index, num_points: int) -> csr_matrix:
    count = len(vertex)
    return csr_matrix((np.ones(count), (vertex, np.arange(count))), shape=(num_points, count))


def _cross(a: Array, b: Array) -> Array:
    result: Array = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return result


def _right(a: Array) -> Array:
    """Turned clockwise by a right angle."""
    return np.stack([a[:, 1], -a[:, 0]], axis=1)
