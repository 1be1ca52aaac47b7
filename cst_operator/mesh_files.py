"""Mesh files in and out, through meshio: one mesh (``.vtu``, ``.msh``, ...) or a time series.

Foreign files are read in a child process with limits on time and memory, and what comes back is
checked, because readers exit, hang, or return nonsense on damaged files.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from cst_operator._file_lists import joined, pieces, read_pvd
from cst_operator._foreign_mesh import (
    REMEDY,
    cell_fields,
    read_foreign,
    same_mesh,
    spatial_vectors,
    to_field,
)
from cst_operator._labels import label
from cst_operator.errors import InputError, MeshError
from cst_operator.fields import PointField, Trajectory

__all__ = ["is_series", "read_mesh", "read_series", "write_mesh", "write_series"]

# meshio's writers of other formats leave out what they cannot hold.
_WRITABLE = (".vtu", ".vtk", ".msh", ".xdmf", ".xmf")


def read_mesh(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    dtype: torch.dtype | None = None,
    weights: bool = True,
    timeout: float = 60.0,
    memory: int = 4 * 2**30,
) -> PointField:
    """Read a mesh file with its fields.

    Point data become channels: a scalar keeps its name, a vector ``U`` becomes ``U_x``, ``U_y``
    (``U_z``), other arrays ``name_0``, ``name_1``, ... Cell data are read only if named in
    ``fields``, as the mean of the cells around every vertex, weighted by their volume.

    - Cells of the highest dimension are the cells; those of one dimension less are the facets, with
      markers from gmsh's, MED's, Medit's or SU2's tags. The others, and vertices of no cell (gmsh
      writes the centres of its arcs), are left out.
    - Second-order lines, triangles, quad9 and tetra10 are split into linear cells.
    - Coordinates at the end that are constant are dropped (a plane mesh with z = 0 has d = 2), as
      far as the cells allow, and with them the zero third component of vectors. Surfaces in space
      keep three coordinates.
    - Weights are :func:`~cst_operator.quadrature.node_weights`. A file without cells gives points
      without weights, see :func:`~cst_operator.quadrature.with_weights`.
    - Mesh files hold no units, so a name that ends in brackets has one: ``T [K]`` is the channel
      ``T`` in ``K``. :func:`write_mesh` writes such names.

    Args:
        path: the file; its suffix tells the format. Of a ``.pvtu`` file, the pieces are joined.
        fields: names of arrays or channels to read, in this order; all point data if omitted.
        dtype: of coordinates and channels; torch's default if omitted.
        weights: False leaves the weights out, so that a mesh with degenerate or duplicate cells
            can be read, inspected and repaired.
        timeout: seconds after which the reader is stopped.
        memory: bytes that the reader may use, where the platform can limit it.

    Raises:
        MeshError: if the file is missing, of an unknown or unsupported kind, damaged, takes too
            long or too much memory, or has degenerate or duplicate cells or no such field.
        FieldError: if a value is not finite.
    """
    path = _existing(path)
    with _naming(path):
        raw = _read_frames([pieces(path)], timeout, memory)[0]
        return to_field(raw, fields, dtype or torch.get_default_dtype(), weights)


def read_to_inspect(path: str | Path) -> tuple[PointField, tuple[str, ...]]:
    """A mesh as :func:`read_mesh` judges it, without weights, and the names of its cell data.

    Raises:
        MeshError: as :func:`read_mesh`, but not for degenerate or duplicate cells.
        FieldError: if a value is not finite.
    """
    path = _existing(path)
    with _naming(path):
        raw = _read_frames([pieces(path)], 60.0, 4 * 2**30)[0]
        return to_field(raw, None, torch.float64, weights=False), cell_fields(raw)


def write_mesh(path: str | Path, field: PointField) -> None:
    """Write a field to a ``.vtu``, ``.vtk``, ``.msh`` or ``.xdmf`` file, all or nothing.

    Channels ``U_x``, ``U_y`` (``U_z``) next to one another are written as one vector ``U``, which
    ParaView draws as arrows and :func:`read_mesh` reads as the same channels. Facets and their
    markers go with the cells; points without cells are written as vertices. ``.msh`` is gmsh's
    format 2.2, ``.xdmf`` one file of text. Units, time, weights and derivatives are not stored.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        field: what to write.

    Raises:
        MeshError: if the suffix is another, or its format cannot hold the field.
    """
    import meshio

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _WRITABLE:
        raise MeshError(
            f"{path}: {suffix or 'no suffix'} cannot be written, only {' '.join(_WRITABLE)}; "
            "write .vtu and convert it"
        )
    if not path.parent.is_dir():
        raise MeshError(f"{path}: there is no folder {path.parent}; make it first")
    if suffix == ".vtk" and any(" " in name for name in (*field.channels, *field.units)):
        raise MeshError(f"{path}: .vtk files cannot hold names or units with spaces; write .vtu")
    mesh = _to_meshio(field, suffix)
    options: dict[str, Any] = {}
    if suffix == ".msh":
        options = {"file_format": "gmsh22"}  # binary: meshio's text is not valid with numpy 2
    elif suffix in (".xdmf", ".xmf"):
        options = {"data_format": "XML"}
    with _replacing(path) as temporary:
        try:
            mesh.write(temporary, **options)
        except (SystemExit, meshio.WriteError, KeyError) as error:
            raise MeshError(f"{path}: {suffix} files cannot hold this mesh; write .vtu") from error


def is_series(path: Path) -> bool:
    """Whether a file holds meshes at several times."""
    suffix = path.suffix.lower()
    if suffix not in (".xdmf", ".xmf"):
        return suffix == ".pvd"
    return b'CollectionType="Temporal"' in path.read_bytes()


def read_series(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    dtype: torch.dtype | None = None,
    timeout: float = 600.0,
    memory: int = 8 * 2**30,
) -> Trajectory:
    """Read a time series, ``.pvd`` or temporal ``.xdmf``, on one mesh.

    Args:
        path: the file; the files that a ``.pvd`` names must lie in its folder or below. A frame
            may be a ``.pvtu`` file or have several parts, as programs write that run in parallel.
        fields: as in :func:`read_mesh`.
        dtype: as in :func:`read_mesh`.
        timeout: seconds for all frames together.
        memory: bytes that the reader may use.

    Returns:
        All frames, sorted by time; the mesh has no channels of its own.

    Raises:
        MeshError: as :func:`read_mesh`, and if the mesh changes in time.
        FieldError: if a value is not finite, or a time occurs twice.
    """
    path = _existing(path)
    dtype = dtype or torch.get_default_dtype()
    with _naming(path):
        if path.suffix.lower() == ".pvd":
            times, listed = read_pvd(path)
            raws = _read_frames(listed, timeout, memory)
        elif path.suffix.lower() in (".xdmf", ".xmf"):
            raws = read_foreign([path], "xdmf", timeout, memory)
            times = [raw["time"] for raw in raws]
        else:
            raise MeshError("a time series is a .pvd or .xdmf file; use read_mesh for one frame")
        if not raws:
            raise MeshError(f"it has no frames; {REMEDY}")
        order = np.argsort(times, kind="stable")
        spatial = spatial_vectors(raws)
        frames = []
        for step in order:
            if not same_mesh(raws[step], raws[0]):
                raise MeshError(
                    f"the mesh of frame {step} differs from that of frame 0; "
                    "read such frames one by one with read_mesh"
                )
            frames.append(to_field(raws[step], fields, dtype, step == order[0], spatial))
            if frames[-1].channels != frames[0].channels:
                raise MeshError(
                    f"frame {step} has channels {', '.join(frames[-1].channels)}, others "
                    f"{', '.join(frames[0].channels)}; name those that all have in fields"
                )
        return Trajectory(
            mesh=frames[0].select(),
            times=torch.tensor([times[step] for step in order], dtype=dtype),
            u=torch.stack([frame.u for frame in frames]),
            channels=frames[0].channels,
            units=frames[0].units,
        )


def write_series(path: str | Path, trajectory: Trajectory) -> None:
    """Write a time series that ParaView opens.

    ``wake.pvd`` lists the frames ``wake/wake_0000.vtu``, ...; it is removed first and written last,
    so that it never lists frames of two series. ``wake.xdmf`` is one file of text (larger, without
    facets). Only what changes in time is written; for the static channels write
    ``trajectory.mesh``.

    Args:
        path: the ``.pvd`` or ``.xdmf`` file.
        trajectory: what to write.

    Raises:
        MeshError: if the suffix is another, or the format cannot hold the mesh.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".pvd", ".xdmf"):
        raise MeshError(f"{path}: a time series is a .pvd or .xdmf file, not {suffix!r}")
    if not path.parent.is_dir():
        raise MeshError(f"{path}: there is no folder {path.parent}; make it first")
    if suffix == ".pvd":
        _write_pvd(path, trajectory)
        return
    import meshio

    mesh = _to_meshio(trajectory.frame(0)._with(facets=None, facet_markers=None), suffix)
    with (
        _replacing(path) as temporary,
        meshio.xdmf.TimeSeriesWriter(temporary, data_format="XML") as writer,
    ):
        writer.write_points_cells(mesh.points, mesh.cells)
        for step, time in enumerate(trajectory.times.tolist()):
            frame = trajectory.frame(step)
            data = {name: a.astype(np.float64) for name, a in _point_data(frame).items()}
            writer.write_data(time, point_data=data)


# Reading


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise MeshError(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise MeshError(f"{path}: not a file; name the mesh file itself")
    return path


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before the message of what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error.__cause__


def _read_frames(frames: list[list[Path]], timeout: float, memory: int) -> list[dict[str, Any]]:
    """One mesh for every frame, of as many files as it has."""
    found = iter(
        read_foreign([file for files in frames for file in files], "mesh", timeout, memory)
    )
    return [joined([next(found) for _ in files]) for files in frames]


# Writing


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place if all goes well."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_meshio(field: PointField, suffix: str) -> Any:
    import meshio

    pos = field.pos.detach().cpu().numpy()
    points = np.zeros((len(pos), 3), dtype=pos.dtype)
    points[:, : field.dim] = pos
    cells = {k: i.cpu().numpy() for k, i in (field.get("cells") or {}).items()}
    facets = {k: i.cpu().numpy() for k, i in (field.get("facets") or {}).items()}
    if not cells:
        cells = {"vertex": np.arange(len(pos))[:, None]}
    blocks = [*cells.items(), *facets.items()]
    marks = field.get("facet_markers") or {}
    cell_data = {}
    if marks or suffix == ".msh":
        tags = [np.zeros(len(index), dtype=np.int32) for index in cells.values()]
        for kind, index in facets.items():
            zeros = torch.zeros(len(index), dtype=torch.int64)
            tags.append(marks.get(kind, zeros).cpu().numpy().astype(np.int32))
        cell_data["gmsh:physical" if suffix == ".msh" else "cell_tags"] = tags
        if suffix == ".msh":
            cell_data["gmsh:geometrical"] = [np.ones_like(tag) for tag in tags]
    data = _point_data(field, space=suffix != ".vtk")
    if suffix in (".xdmf", ".xmf"):  # as text, float64 is exact and meshio's float32 is not
        points = points.astype(np.float64)
        data = {name: array.astype(np.float64) for name, array in data.items()}
    return meshio.Mesh(points, blocks, point_data=data, cell_data=cell_data)


def _point_data(field: PointField, *, space: bool = True) -> dict[str, np.ndarray]:
    """Channels as arrays, neighbours ``U_x``, ``U_y`` (``U_z``) as one vector of three."""
    names = list(field.channels)
    u = field.u.detach().cpu().numpy()
    data: dict[str, np.ndarray] = {}
    i = 0
    while i < len(names):
        stem = names[i].removesuffix("_x")
        size = 1
        if stem != names[i] and stem not in names:
            for want in (3, 2):
                alike = len(set(field.units[i : i + want])) == 1
                if alike and names[i : i + want] == [f"{stem}_{axis}" for axis in "xyz"[:want]]:
                    size = want
                    break
        # Of what is read back: a plane mesh has no third component if it is zero.
        if (size == 2 and field.dim == 3) or (
            size == 3 and field.dim < 3 and not u[:, i + 2].any()
        ):
            size = 1
        if size == 1:
            name = label(names[i], field.units[i], space=space)
            data[name] = np.ascontiguousarray(u[:, i])
        else:
            vector = data[label(stem, field.units[i], space=space)] = np.zeros((len(u), 3), u.dtype)
            vector[:, :size] = u[:, i : i + size]
        i += size
    return data


def _write_pvd(path: Path, trajectory: Trajectory) -> None:
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    root = ElementTree.Element("VTKFile", type="Collection", version="0.1")
    collection = ElementTree.SubElement(root, "Collection")
    for step, time in enumerate(trajectory.times.tolist()):
        file = folder / f"{path.stem}_{step:04d}.vtu"
        write_mesh(file, trajectory.frame(step))
        ElementTree.SubElement(
            collection,
            "DataSet",
            timestep=repr(time),
            part="0",
            file=f"{folder.name}/{file.name}",
        )
    ElementTree.indent(root)
    with _replacing(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, xml_declaration=True, encoding="utf-8")
