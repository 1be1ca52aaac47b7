"""Solids of tetrahedra: star-shaped bodies and boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, Delaunay

from cst_operator.boundary import boundary_facets
from cst_operator.errors import InputError, SolverError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights

__all__ = [
    "X_MAX",
    "X_MIN",
    "Y_MAX",
    "Y_MIN",
    "Z_MAX",
    "Z_MIN",
    "Box",
    "StarBody",
    "icosphere_directions",
    "random_rotation",
    "tetrahedron_quality",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

X_MIN, X_MAX, Y_MIN, Y_MAX, Z_MIN, Z_MAX = range(1, 7)
"""Markers of the sides of a :class:`Box`."""

_MIN_QUALITY = 0.15
_MOVE = 0.12  # of nodes of a body, of an edge
_BOX_MOVE, _FIRST_MOVE = 0.18, 0.07


def tetrahedron_quality(points: Array, tetrahedra: Index) -> Array:
    r"""Quality :math:`12 (3V)^{2/3} / \sum \ell^2`, [n]: 1 for regular, 0 for flat tetrahedra.

    The mean ratio of Liu and Joe (1994); negative where the orientation is.
    """
    corners = points[tetrahedra]
    squares = sum(
        ((corners[:, i] - corners[:, j]) ** 2).sum(axis=1) for i in range(4) for j in range(i)
    )
    size = 3 * _volumes(points, tetrahedra)
    result: Array = 12 * np.sign(size) * np.abs(size) ** (2 / 3) / squares
    return result


def _volumes(points: Array, tetrahedra: Index) -> Array:
    a, b, c, d = (points[tetrahedra[:, i]] for i in range(4))
    result: Array = np.einsum("ni,ni->n", np.cross(b - a, c - a), d - a) / 6
    return result


@dataclass(frozen=True, eq=False)
class StarBody:
    """A solid whose boundary is seen whole from its centre.

    Args:
        radius: distance of the boundary from the centre in directions (unit vectors),
            [n, 3] -> [n], positive and smooth.
        centre: the centre, 3 coordinates.
    """

    radius: Callable[[Array], Array]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def parts(self) -> tuple[int, ...]:
        """The boundary is one part with marker 1."""
        return (1,)

    @property
    def measures(self) -> dict[str, float]:
        """What a sample records: the volume."""
        directions, weights = _SPHERE
        return {"volume": float((weights * self.radius(directions) ** 3).sum() / 3)}

    def project(self, x: Array) -> Array:
        """Points of the boundary in the direction of others, [n, 3]."""
        centre = np.array(self.centre)
        ray = (x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True)
        result: Array = centre + self.radius(ray)[:, None] * ray
        return result

    @cached_property
    def _mean_radius(self) -> float:
        directions, weights = _SPHERE
        return float((weights * self.radius(directions)).sum() / (4 * np.pi))

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """Mesh it with edges of about ``h``.

        An icosahedron about the centre is turned at random, its 20 tetrahedra are divided evenly
        (edgewise; Edelsbrunner and Grayson 2000), inner nodes are moved at random, and layers are
        mapped from spheres near the centre to the shape of the boundary.

        Returns:
            Field without channels: ``cells["tetra"]`` of positive orientation,
            ``facets["triangle"]`` are the boundary with the normal outwards, with their
            ``facet_markers``. Weights are the lumped volumes.

        Raises:
            InputError: if ``h`` is not positive or too large.
            SolverError: if a tetrahedron is too flat, because the boundary is too rough.
        """
        mean = self._mean_radius
        if not 0 < h < mean:
            raise InputError(f"h is {h}; expected between 0 and the mean radius, {mean:g}")
        layers = max(round(1.1 * mean / h), 2)
        parts, tetrahedra = _divided_icosahedron(layers)  # shares of centre and corners, of layers
        depth = 1 - parts[:, :1] / layers
        rays = parts[:, 1:] @ (_corners() @ random_rotation(rng).T)
        unit = depth * rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-300)
        inner = depth[:, 0] < 1
        unit[inner] += rng.uniform(-_MOVE, _MOVE, (int(inner.sum()), 3)) / layers
        size = np.linalg.norm(unit, axis=1)
        direction = unit / np.maximum(size, 1e-300)[:, None]
        points = unit * (mean * (1 - size) + self.radius(direction) * size)[:, None]
        return _checked(points + np.array(self.centre), tetrahedra, _one)


@dataclass(frozen=True)
class Box:
    """A box with one corner at the origin; the sides have the markers :data:`X_MIN`, ...

    Args:
        lengths: of the sides.
    """

    lengths: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.lengths) != 3 or not min(self.lengths) > 0:
            raise InputError(f"lengths is {self.lengths}; expected three positive numbers")

    @property
    def parts(self) -> tuple[int, ...]:
        """Markers of the sides."""
        return (X_MIN, X_MAX, Y_MIN, Y_MAX, Z_MIN, Z_MAX)

    @property
    def measures(self) -> dict[str, float]:
        """What a sample records: lengths of the sides and volume."""
        sides = {f"length_{axis}": s for axis, s in zip("xyz", self.lengths, strict=True)}
        return {**sides, "volume": float(np.prod(self.lengths))}

    def project(self, x: Array) -> Array:
        """The points: those between points of a side are on it."""
        return x

    def mesh(self, h: float, rng: np.random.Generator) -> PointField:
        """Mesh it with edges of about ``h``.

        The Delaunay tetrahedra of a body-centred lattice whose points are moved at random, those
        on the boundary within their side or edge. That lattice is the one whose tetrahedra stay
        well shaped under such moves.

        Returns:
            Field as of :meth:`StarBody.mesh`.

        Raises:
            InputError: if ``h`` is not positive or longer than the shortest side.
            SolverError: if a tetrahedron is too flat.
        """
        if not 0 < h <= min(self.lengths):
            raise InputError(f"h is {h}; expected between 0 and {min(self.lengths)}")
        sides = np.array(self.lengths)
        counts = np.maximum(np.round(sides / (1.1 * h)).astype(int), 1)
        corners, centres = (
            np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), axis=-1).reshape(-1, 3)
            for n in (counts + 1, counts)
        )
        places = np.concatenate([corners, centres + 0.5])
        move = rng.uniform(-1, 1, places.shape)
        move[(places == 0) | (places == counts)] = 0
        # Small moves leave Delaunay's tetrahedra well shaped, and keep them so when they grow;
        # larger ones at once would change them into flat ones.
        nearby = places + _FIRST_MOVE * move
        tetrahedra = Delaunay(nearby).simplices.astype(np.int64)
        flat = np.abs(_volumes(nearby, tetrahedra)) < 1e-9  # four points of one side
        return _checked(
            (places + _BOX_MOVE * move) / counts * sides, tetrahedra[~flat], self._markers
        )

    def _markers(self, middle: Array) -> Index:
        away = np.stack([middle, np.array(self.lengths) - middle], axis=2)  # [n, axis, end]
        return 1 + away.reshape(-1, 6).argmin(axis=1)


def _one(middle: Array) -> Index:
    return np.ones(len(middle), dtype=np.int64)


def _checked(points: Array, tetrahedra: Index, markers: Callable[[Array], Index]) -> PointField:
    volume = _volumes(points, tetrahedra)
    tetrahedra = np.where(volume[:, None] < 0, tetrahedra[:, [0, 2, 1, 3]], tetrahedra)
    worst = float(tetrahedron_quality(points, tetrahedra).min())
    if worst < _MIN_QUALITY:
        raise SolverError(f"the flattest tetrahedron has quality {worst:.2f}, below {_MIN_QUALITY}")
    pos, cells = torch.from_numpy(points), {"tetra": torch.from_numpy(tetrahedra)}
    facets = boundary_facets(cells)
    middle = points[facets["triangle"].numpy()].mean(axis=1)
    return PointField(
        pos=pos,
        weights=node_weights(pos, cells),
        cells=cells,
        facets=facets,
        facet_markers={"triangle": torch.from_numpy(markers(middle))},
    )


def random_rotation(rng: np.random.Generator) -> Array:
    """A rotation of space, uniformly distributed, [3, 3]."""
    w, x, y, z = (v := rng.normal(size=4)) / np.sqrt((v * v).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def icosphere_directions(pieces: int) -> tuple[Array, Index]:
    """Points on the unit sphere and triangles between them, the normal outwards.

    Args:
        pieces: parts into which every edge of an icosahedron is divided.
    """
    parts, tetrahedra = _divided_icosahedron(pieces)
    facets = boundary_facets({"tetra": torch.from_numpy(tetrahedra)})["triangle"].numpy()
    outer = np.flatnonzero(parts[:, 0] == 0)
    number = np.full(len(parts), -1)
    number[outer] = np.arange(len(outer))
    rays = parts[outer, 1:] @ _corners()
    directions = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    triangles = number[facets]
    a, b, c = (directions[triangles[:, i]] for i in range(3))
    inward = np.einsum("ni,ni->n", np.cross(b - a, c - a), a) < 0
    return directions, np.where(inward[:, None], triangles[:, [0, 2, 1]], triangles)


def _corners() -> Array:
    """Corners of an icosahedron on the unit sphere, [12, 3]."""
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array(
        [np.roll([0.0, a, b * golden], k) for k in range(3) for a in (1, -1) for b in (1, -1)]
    )
    return corners / np.sqrt(1 + golden**2)


@cache
def _divided_icosahedron(pieces: int) -> tuple[Array, Index]:
    """An icosahedron of 20 pieces^3 tetrahedra.

    Returns:
        The share of centre and corners in every node, of ``pieces``, [N, 13], and tetrahedra.
    """
    faces = np.sort(ConvexHull(_corners()).simplices, axis=1) + 1
    cells = np.concatenate([np.zeros((20, 1), dtype=np.int64), faces], axis=1)
    steps, small = _kuhn(pieces)
    shares = -np.diff(steps, axis=1, prepend=pieces, append=0)  # of the four corners
    rows = np.zeros((20, len(steps), 13), dtype=np.int64)
    for face, cell in zip(rows, cells, strict=True):
        face[:, cell] = shares
    nodes, number = np.unique(rows.reshape(-1, 13), axis=0, return_inverse=True)
    each = number.reshape(20, -1)
    return nodes.astype(np.float64), each[:, small].reshape(-1, 4)


def _kuhn(n: int) -> tuple[Index, Index]:
    """Lattice points n >= i >= j >= k >= 0 and the n^3 tetrahedra of Kuhn between them."""
    grid = np.stack(np.meshgrid(*[np.arange(n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = (np.diff(grid, axis=1) <= 0).all(axis=1)
    number = np.full(len(grid), -1)
    number[inside] = np.arange(int(inside.sum()))
    stride = np.array([(n + 1) ** 2, n + 1, 1])
    low = grid[(grid < n).all(axis=1)]
    found = []
    for order in permutations(range(3)):
        path = [low @ stride]
        for axis in order:
            path.append(path[-1] + stride[axis])
        found.append(number[np.stack(path, axis=1)])
    tetrahedra = np.concatenate(found)
    return grid[inside], tetrahedra[(tetrahedra >= 0).all(axis=1)]


def _sphere(count: int) -> tuple[Array, Array]:
    """Directions and weights that integrate smooth functions over the unit sphere."""
    z, weights = np.polynomial.legendre.leggauss(count)
    angle = np.arange(2 * count) * np.pi / count
    s = np.sqrt(1 - z**2)[:, None]
    height = np.broadcast_to(z[:, None], (count, 2 * count))
    directions = np.stack([s * np.cos(angle), s * np.sin(angle), height], axis=2)
    return directions.reshape(-1, 3), np.repeat(weights * np.pi / count, 2 * count)


_SPHERE = _sphere(32)
