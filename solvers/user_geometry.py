"""Domains from files: the boundary of a mesh, or a model that gmsh reads."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cst_operator.boundary import boundary_facets
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.mesh_files import read_mesh
from cst_operator.solvers.geometry import Geometry

__all__ = ["geometry_of_mesh", "read_geometry"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_MODELS = (".geo", ".step", ".stp", ".brep", ".iges", ".igs")


def read_geometry(path: str | Path) -> Geometry:
    """Read a domain from a mesh file, or from a ``.geo``, STEP, IGES or BREP model.

    Only its boundary counts: solvers make their own meshes of it. Models are meshed in the plane by
    gmsh (the extra ``cst-operator[gmsh]``) with the edge lengths that they ask for; physical
    curves become markers. A ``.geo`` file is a program: open only those that you trust.

    Args:
        path: the file; its suffix tells the format, see
            :func:`~cst_operator.mesh_files.read_mesh`.

    Raises:
        MeshError: if the file cannot be read, gmsh is missing, or the mesh is not that of a plane
            domain, see :func:`geometry_of_mesh`.
    """
    path = Path(path)
    if path.suffix.lower() not in _MODELS:
        return geometry_of_mesh(read_mesh(path, fields=[]))
    if not path.is_file():
        raise MeshError(f"{path} does not exist")
    with tempfile.TemporaryDirectory() as folder:
        mesh = Path(folder) / "boundary.msh"
        _mesh_model(path, mesh)
        return geometry_of_mesh(read_mesh(mesh, fields=[]))


def _mesh_model(model: Path, mesh: Path) -> None:
    try:
        import gmsh
    except (ImportError, OSError) as error:  # OSError: a library of the system is missing
        raise MeshError(
            f"{model} is a model that only gmsh can mesh, which is not there ({error}); "
            "pip install 'cst-operator[gmsh]', or mesh it elsewhere and give the .msh file"
        ) from error
    gmsh.initialize(["", "-v", "0", "-nt", "1"], False, False, False)
    try:
        gmsh.open(str(model))
        gmsh.option.setNumber("Mesh.MshFileVersion", 4.1)
        gmsh.model.mesh.generate(2)
        gmsh.write(str(mesh))
    except Exception as error:  # gmsh raises plain exceptions
        raise MeshError(f"gmsh cannot mesh {model}: {error}") from error
    finally:
        gmsh.finalize()


def geometry_of_mesh(mesh: PointField) -> Geometry:
    """The domain that a plane mesh covers.

    Boundary edges become chords, so a curve is as smooth as the mesh was fine. Markers of the
    edges become those of the domain; without any, the outer loop has 1 and holes 2, 3, ...

    Args:
        mesh: plane field with cells and, for markers, ``facets["line"]`` with
            ``facet_markers["line"]``, as :func:`~cst_operator.mesh_files.read_mesh` gives them.

    Raises:
        MeshError: if the mesh is not plane, has several parts or loops that touch, leaves an edge
            of the boundary without a marker, or has a hole of several markers.
    """
    cells = mesh.get("cells", {})
    if mesh.dim != 2 or not set(cells) <= {"triangle", "quad"} or not cells:
        found = ", ".join(sorted(cells)) or "no cells"
        raise MeshError(
            f"the mesh has {found} in {mesh.dim} dimensions; a domain needs triangles or quads in 2"
        )
    points = np.asarray(mesh.pos, dtype=np.float64)
    edges = np.asarray(boundary_facets(cells)["line"], dtype=np.int64)
    loops = _loops(edges)
    areas = [abs(_area(points[loop])) for loop in loops]
    loops.insert(0, loops.pop(int(np.argmax(areas))))
    outer = Geometry((points[loops[0]],))
    for loop in loops[1:]:
        if (outer.distance(points[loop]) > 0).any():
            x, y = points[loop[0]]
            raise MeshError(
                f"the mesh has several parts, one of them at ({x:g}, {y:g}); give one at a time"
            )
    known = _markers(mesh)
    if not known:
        return Geometry(tuple(points[loop] for loop in loops))
    marked = [_along(loop, known, points) for loop in loops]
    for loop, numbers in zip(loops[1:], marked[1:], strict=True):
        if len(set(numbers)) > 1:
            x, y = points[loop[0]]
            raise MeshError(
                f"the hole at ({x:g}, {y:g}) has the markers "
                f"{', '.join(map(str, sorted(set(numbers))))}; give every hole one marker"
            )
    sides = marked[0] if len(set(marked[0])) > 1 else ()
    markers = tuple(numbers[0] for numbers in marked)
    return Geometry(tuple(points[loop] for loop in loops), markers, tuple(sides))


def _loops(edges: Index) -> list[Index]:
    """Points of every closed loop of edges, in order."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    touching = [point for point, others in neighbours.items() if len(others) != 2]
    if touching:
        raise MeshError(
            f"{len(neighbours[touching[0]])} boundary edges meet at point {touching[0]}; "
            "expected 2: loops of the boundary must not touch"
        )
    loops = []
    left = dict.fromkeys(neighbours)
    while left:
        loop = [next(iter(left))]
        following = neighbours[loop[0]][0]
        while following != loop[0]:
            before = loop[-1]
            loop.append(following)
            first, second = neighbours[following]
            following = second if first == before else first
        for point in loop:
            del left[point]
        loops.append(np.array(loop, dtype=np.int64))
    return loops


def _area(loop: Array) -> float:
    x, y = loop.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _markers(mesh: PointField) -> dict[tuple[int, int], int]:
    if "line" not in mesh.get("facet_markers", {}):
        return {}
    edges = np.sort(np.asarray(mesh.facets["line"]), axis=1).tolist()
    numbers = np.asarray(mesh.facet_markers["line"]).tolist()
    return {(a, b): number for (a, b), number in zip(edges, numbers, strict=True)}


def _along(loop: Index, known: dict[tuple[int, int], int], points: Array) -> list[int]:
    """Marker of the chord that follows every point of a loop."""
    pairs = np.sort(np.stack([loop, np.roll(loop, -1)], axis=1), axis=1).tolist()
    found = [known.get((a, b)) for a, b in pairs]
    for (a, _), marker in zip(pairs, found, strict=True):
        if marker is None:
            x, y = points[a]
            raise MeshError(
                f"the boundary edge at ({x:g}, {y:g}) has no marker; mark all edges or none"
            )
    return [marker for marker in found if marker is not None]
