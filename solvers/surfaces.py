r"""Closed surfaces in space and linear finite elements on them.

.. math:: \int_\Gamma \nabla_\Gamma u \cdot \nabla_\Gamma v,\quad \int_\Gamma u v

on the triangles themselves (Dziuk 1988): values are of order 2, tangential gradients at mesh points
(averages over triangles by area, three components) of order 1 or better, if the points lie on a
smooth surface.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

from cst_operator.differentiation import GradientOperator, gradient_operator
from cst_operator.errors import InputError, MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import cell_weights, node_weights
from cst_operator.solvers.finite_elements import Coefficient
from cst_operator.solvers.solids import icosphere_directions, random_rotation

__all__ = ["ClosedSurface", "Sphere", "SurfaceElements", "surface_elements"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_MOVE = 0.12  # of nodes of a sphere, of an edge


@dataclass(frozen=True, eq=False)
class SurfaceElements:
    """Linear elements on the N points of a closed surface.

    Args:
        points: coordinates, [N, 3].
        triangles: vertex numbers, [n, 3].
        area: of every triangle, [n].
        slopes: gradients in the triangles and their averages at the points.
    """

    points: Array
    triangles: Index
    area: Array
    slopes: GradientOperator

    def mass(self) -> csr_matrix:
        r"""Matrix of :math:`\int u v`, [N, N]."""
        local = (np.ones((3, 3)) + np.eye(3)) / 12
        entries = self.area[:, None, None] * local
        rows = np.broadcast_to(self.triangles[:, :, None], entries.shape)
        columns = np.broadcast_to(self.triangles[:, None, :], entries.shape)
        size = len(self.points)
        places = (rows.ravel(), columns.ravel())
        return csr_matrix((entries.ravel(), places), shape=(size, size))

    def stiffness(self, a: Coefficient = 1.0) -> csr_matrix:
        r"""Matrix of :math:`\int a \nabla u \cdot \nabla v` with a by its triangles' means, [N, N].

        Raises:
            InputError: if ``a`` is not positive.
        """
        values = self.at_points(a, "a")
        if not values.min() > 0:
            raise InputError(f"the coefficient a is as small as {values.min():g}; give a positive")
        weight = self.area * values[self.triangles].mean(axis=1)
        slope = self._slope
        return csr_matrix(slope.T @ diags_array(np.repeat(weight, 3)) @ slope)

    def at_points(self, value: Coefficient, name: str) -> Array:
        """A coefficient at the points, [N].

        Raises:
            InputError: naming the coefficient, if it does not fit or is not finite.
        """
        found = value(self.points) if callable(value) else value
        nodal = np.asarray(found, dtype=np.float64)
        nodal = np.full(len(self.points), nodal) if nodal.ndim == 0 else nodal
        if nodal.shape != (len(self.points),) or not np.isfinite(nodal).all():
            raise InputError(
                f"{name} has shape {nodal.shape}; expected one finite value for each of the "
                f"{len(self.points)} points, a number or a function"
            )
        return nodal

    def nodal_gradient(self, u: Array) -> torch.Tensor:
        """Tangential gradient at the points, [T, N] -> [T, N, 3]."""
        return self.slopes.nodal(torch.from_numpy(np.ascontiguousarray(u.T))).movedim(1, 0)

    @property
    def _slope(self) -> csr_matrix:
        matrix = self.slopes.matrix.to_sparse_coo().coalesce()
        places = matrix.indices().numpy()
        return csr_matrix((matrix.values().numpy(), (places[0], places[1])), shape=matrix.shape)


def surface_elements(mesh: PointField) -> SurfaceElements:
    """Set up linear elements on a closed surface.

    Args:
        mesh: field with ``cells["triangle"]`` in three dimensions, in any orientation.

    Raises:
        MeshError: if the mesh is another, is not closed, a triangle is degenerate or a point
            belongs to none.
    """
    cells = mesh.get("cells", {})
    if mesh.dim != 3 or set(cells) != {"triangle"}:
        found = ", ".join(sorted(cells)) or "no cells"
        raise MeshError(
            f"the mesh has {found} in {mesh.dim} dimensions; expected triangles in 3, "
            "so split quadrilaterals, or take the boundary of a solid (boundary_points)"
        )
    pos, triangles = mesh.pos.detach().cpu().double(), cells["triangle"].cpu()
    corners = triangles.numpy()
    unused = np.setdiff1d(np.arange(len(pos)), corners)
    if len(unused):
        raise MeshError(
            f"{len(unused)} points belong to no triangle, the first is point {unused[0]}; "
            "remove them"
        )
    edges = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]))
    edge, count = np.unique(edges, axis=0, return_counts=True)
    if (count != 2).any():
        first = edge[np.argmax(count != 2)]
        raise MeshError(
            f"{int((count != 2).sum())} edges do not belong to two triangles, the first is "
            f"{first[0]}-{first[1]}; give a closed surface, with points merged where parts meet"
        )
    field = PointField(pos, cells={"triangle": triangles})
    area = cell_weights(pos, field.cells)["triangle"].numpy()
    return SurfaceElements(pos.numpy(), corners, area, gradient_operator(field))


@dataclass(frozen=True)
class Sphere:
    """A sphere about the origin.

    Args:
        radius: the radius.
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise InputError(f"radius is {self.radius}; expected a positive length")

    @property
    def measures(self) -> dict[str, float]:
        """What a sample records: the area."""
        return {"area": 4 * np.pi * self.radius**2}

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """Mesh it with edges of about ``h``: a divided icosahedron, turned and made irregular.

        Returns:
            Field without channels: ``cells["triangle"]`` with the normal outwards, weights are the
            lumped areas.

        Raises:
            InputError: if ``h`` is not positive or above the radius.
        """
        if not 0 < h <= self.radius:
            raise InputError(f"h is {h}; expected between 0 and the radius, {self.radius}")
        pieces = max(round(1.15 * self.radius / h), 1)
        directions, triangles = icosphere_directions(pieces)
        moved = directions @ random_rotation(rng).T
        moved = moved + rng.uniform(-_MOVE, _MOVE, moved.shape) / pieces
        moved *= self.radius / np.linalg.norm(moved, axis=1, keepdims=True)
        return _field(moved, triangles)


@dataclass(frozen=True, eq=False)
class ClosedSurface:
    """A closed surface that is known as triangles, such as one read from a file.

    Args:
        points: coordinates, [N, 3].
        triangles: vertex numbers, [n, 3].

    Raises:
        MeshError: if it is not a closed surface.
    """

    points: Array
    triangles: Index

    def __post_init__(self) -> None:
        surface_elements(_bare(self.points, self.triangles))

    @classmethod
    def of(cls, mesh: PointField) -> "ClosedSurface":
        """The surface of a mesh, see :func:`~cst_operator.mesh_files.read_mesh`.

        Raises:
            MeshError: if the mesh is not a closed surface of triangles.
        """
        found = surface_elements(mesh)
        return cls(found.points, found.triangles)

    @property
    def measures(self) -> dict[str, float]:
        """What a sample records: the area."""
        return {"area": float(_field(self.points, self.triangles).weights.sum())}

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """The triangles, each divided into four until the mean edge is nearest to ``h``.

        They stay the same surface, flat within the given triangles; ``rng`` is not used.

        Raises:
            InputError: if ``h`` is not positive.
        """
        if not h > 0:
            raise InputError(f"h is {h}; expected a positive length")
        points, triangles = self.points, self.triangles
        sides = points[triangles] - points[np.roll(triangles, 1, axis=1)]
        mean = float(np.linalg.norm(sides, axis=2).mean())
        for _ in range(max(round(np.log2(mean / h)), 0)):
            points, triangles = _halved(points, triangles)
        return _field(points, triangles)


def _halved(points: Array, triangles: Index) -> tuple[Array, Index]:
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2)
    pairs, number = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    middle = len(points) + number.reshape(-1, 3)
    a, b, c = triangles.T
    ab, bc, ca = middle.T
    rows = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    found = np.concatenate([np.stack(row, axis=1) for row in rows])
    return np.concatenate([points, points[pairs].mean(axis=1)]), found


def _bare(points: Array, triangles: Index) -> PointField:
    cells = {"triangle": torch.from_numpy(np.ascontiguousarray(triangles))}
    return PointField(torch.from_numpy(np.ascontiguousarray(points)), cells=cells)


def _field(points: Array, triangles: Index) -> PointField:
    bare = _bare(points, triangles)
    return PointField(bare.pos, weights=node_weights(bare.pos, bare.cells), cells=bare.cells)
