import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator import _mesh_reader
from cst_operator.boundary import boundary_facets, boundary_points
from cst_operator.errors import FieldError, InputError, MeshError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, read_series, write_mesh, write_series
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box

meshio = pytest.importorskip("meshio")

GOOD = {  # dimension and volume
    "00_raw_binary.vtu": (3, 1.0),
    "02_raw_compressed.vtu": (3, 1.0),
    "06_unstructured.vtk": (3, 0.2 * 0.12 * 0.5),
    "cylinder.med": (3, 2 * math.sqrt(2)),  # an octagonal prism
    "cylinder_stokes.msh": (2, 50 - math.pi / 2),
    "insulated-2.2.msh": (2, 9 * math.pi),
    "insulated-4.1.msh": (2, 9 * math.pi),
    "mixedtriquad.msh": (2, 0.386),
    "square.su2": (2, 1.0),
}


def sample(kind: str, *, facets: bool = False) -> PointField:
    pos, cells = box(kind, 4, bend=0.05)
    names = ["p", *(f"U_{axis}" for axis in "xyz"[: pos.shape[1]]), "a b"]
    u = torch.stack([(k * pos).sum(1).sin() for k in range(1, len(names) + 1)], dim=1)
    sides = boundary_facets(cells) if facets else {}
    marks = {k: torch.arange(len(i)) % 3 + 1 for k, i in sides.items()}
    return PointField(
        pos, u, node_weights(pos, cells), channels=names, cells=cells,
        units=["Pa", *["m/s"] * (len(names) - 2), ""],
        facets=sides, facet_markers=marks,
    )  # fmt: skip


def trajectory() -> Trajectory:
    mesh = sample("mixed2").select()
    times = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)
    u = torch.stack([torch.stack([mesh.pos[:, 0] + t, 0 * mesh.pos[:, 1], t - mesh.pos[:, 1]], 1)
                     for t in times])  # fmt: skip
    return Trajectory(mesh=mesh, times=times, u=u, channels=("U_x", "U_y", "p"),
                      units=("m/s", "m/s", "Pa"))  # fmt: skip


def assert_same(a: PointField, b: PointField) -> None:
    assert a.channels == b.channels
    assert a.units == b.units
    for key in ("pos", "u", "weights"):
        torch.testing.assert_close(a[key], b[key], rtol=1e-15, atol=1e-15)
    for key in ("cells", "facets", "facet_markers"):
        assert a.get(key, {}).keys() == b.get(key, {}).keys()
        for kind, index in a.get(key, {}).items():
            assert torch.equal(index, b[key][kind])


# Files of other programs


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_read(name: str, shared_data: Path) -> None:
    dim, volume = GOOD[name]
    field = read_mesh(shared_data / "meshes" / "good" / name, dtype=torch.float64)
    assert field.dim == dim
    # Circles are polygons in three of the files, up to 3 % smaller.
    assert field.weights.sum().item() == pytest.approx(volume, rel=0.03)
    assert bool((field.weights > 0).all())


def test_every_bad_file_is_refused_in_one_line(shared_data: Path) -> None:
    files = [f for f in (shared_data / "meshes" / "bad").iterdir() if "LICENSE" not in f.name]
    assert len(files) == 5
    for file in files:
        with pytest.raises(MeshError) as caught:
            read_mesh(file, timeout=20)
        message = str(caught.value)
        assert "\n" not in message
        assert file.name in message
        assert "check the file" in message


def test_a_raw_openfoam_frame_is_read(shared_data: Path) -> None:
    field = read_mesh(shared_data / "cylinder_wake" / "data_5000.vtk", fields=["U", "p"])
    assert field.channels == ("U_x", "U_y", "U_z", "p")
    assert field.num_points == 22320
    assert len(field.cells["hexahedron"]) == 10800
    assert field.pos.dtype == torch.get_default_dtype()


def test_names_of_a_vtu_are_kept(shared_data: Path) -> None:
    field = read_mesh(shared_data / "meshes" / "good" / "00_raw_binary.vtu")
    assert field.channels == ("m_x", "m_y", "m_z")


def test_lines_of_a_gmsh_file_are_marked_facets(shared_data: Path) -> None:
    field = read_mesh(shared_data / "meshes" / "good" / "insulated-4.1.msh")
    assert field.facets["line"].shape == (21, 2)
    assert field.facet_markers["line"].unique().tolist() == [3]
    field = read_mesh(shared_data / "meshes" / "good" / "square.su2")
    assert field.facet_markers["line"].unique().tolist() == [1, 2, 3, 4]


def test_mixed_facets_of_a_med_file_are_marked(shared_data: Path) -> None:
    field = read_mesh(shared_data / "meshes" / "good" / "cylinder.med")
    assert {k: len(i) for k, i in field.facets.items()} == {"quad": 18, "triangle": 4}
    assert {k: len(i) for k, i in field.facet_markers.items()} == {"quad": 18, "triangle": 4}
    # The file marks just the boundary, which tetrahedra and pyramids have between them.
    for kind, index in boundary_facets(field.cells).items():
        marked = field.facets[kind].sort(dim=1).values.unique(dim=0)
        assert torch.equal(index.sort(dim=1).values.unique(dim=0), marked)


# Round trips


@pytest.mark.parametrize("suffix", [".vtu", ".msh", ".xdmf", ".vtk"])
@pytest.mark.parametrize("kind", ["triangle", "mixed2", "tetra", "hexahedron", "mixed3", "pyramid"])
def test_round_trip_is_exact(kind: str, suffix: str, tmp_path: Path) -> None:
    field = sample(kind)
    if suffix == ".vtk":  # holds no names with spaces
        field = field.select(*field.channels[:-1])
    write_mesh(tmp_path / f"a{suffix}", field)
    assert_same(read_mesh(tmp_path / f"a{suffix}", dtype=torch.float64), field)
    assert [f.name for f in tmp_path.iterdir()] == [f"a{suffix}"]  # nothing temporary is left


@pytest.mark.parametrize("suffix", [".vtu", ".msh", ".xdmf", ".vtk"])
def test_round_trip_keeps_facets_and_markers(suffix: str, tmp_path: Path) -> None:
    field = sample("mixed2", facets=True).select("p")
    write_mesh(tmp_path / f"a{suffix}", field)
    assert_same(read_mesh(tmp_path / f"a{suffix}", dtype=torch.float64), field)


@pytest.mark.parametrize("suffix", [".vtu", ".xdmf"])
def test_single_precision_survives(suffix: str, tmp_path: Path) -> None:
    double = sample("triangle")
    field = PointField(
        double.pos.float(), double.u.float(), channels=double.channels, cells=double.cells
    )
    write_mesh(tmp_path / f"a{suffix}", field)
    back = read_mesh(tmp_path / f"a{suffix}", dtype=torch.float32)
    assert torch.equal(back.u, field.u)
    assert torch.equal(back.pos, field.pos)


@pytest.mark.parametrize(
    "names",
    [
        ["U_x", "U_y", "U_z"],
        ["U_x", "p", "U_y"],
        ["U", "U_x", "U_y"],
        ["v_x", "v_y", "w_x", "w_y"],
        ["U_x"],
        ["U_y", "U_x"],
    ],
)
@pytest.mark.parametrize("kind", ["triangle", "tetra"])
@pytest.mark.parametrize("zero", [False, True])
def test_channel_names_survive(kind: str, names: list[str], zero: bool, tmp_path: Path) -> None:
    pos, cells = box(kind, 2)
    u = torch.ones(len(pos), len(names), dtype=torch.float64).cumsum(1) * (not zero)
    field = PointField(pos, u, channels=names, cells=cells)
    write_mesh(tmp_path / "a.vtu", field)
    back = read_mesh(tmp_path / "a.vtu", dtype=torch.float64)
    assert back.channels == tuple(names)
    torch.testing.assert_close(back.u, u)


def test_vectors_are_written_with_three_components(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.vtu", sample("triangle"))
    mesh = meshio.read(tmp_path / "a.vtu")
    assert list(mesh.point_data) == ["p [Pa]", "U [m/s]", "a b"]
    assert mesh.point_data["U [m/s]"].shape[1] == 3
    assert mesh.points.shape[1] == 3


@pytest.mark.parametrize(
    "names, channels, units",
    [
        (["T [K]", "p[Pa]", "q"], ("T", "p", "q"), ("K", "Pa", "")),
        (["heat flux [W m^-2]", "share [-]"], ("heat flux", "share"), ("W m^-2", "-")),
        (["s[0]", "s[1]", "[K]"], ("s[0]", "s[1]", "[K]"), ("", "", "")),  # no units
        (["T", "T [K]"], ("T", "T [K]"), ("", "")),  # one name for two fields
        (["T [K]", "T [degC]"], ("T [K]", "T [degC]"), ("", "")),
    ],
)
def test_brackets_after_a_name_are_its_unit(
    names: list[str], channels: tuple[str, ...], units: tuple[str, ...], tmp_path: Path
) -> None:
    values = {name: np.full(4, float(i)) for i, name in enumerate(names)}
    path = write(tmp_path / "a.vtu", SQUARE, TWO, point_data=values)
    field = read_mesh(path)
    assert (field.channels, field.units) == (channels, units)
    assert torch.equal(field.u[0], torch.arange(len(names), dtype=field.u.dtype))
    assert read_mesh(path, fields=[names[0]]).channels == channels[:1]


def test_components_of_different_units_are_no_vector(tmp_path: Path) -> None:
    pos, cells = box("triangle", 2)
    u = torch.arange(2.0 * len(pos)).reshape(-1, 2).to(pos)
    field = PointField(pos, u, channels=["U_x", "U_y"], units=["m", "K"], cells=cells)
    write_mesh(tmp_path / "a.vtu", field)
    back = read_mesh(tmp_path / "a.vtu", dtype=torch.float64)
    assert (back.channels, back.units) == (field.channels, field.units)
    assert torch.equal(back.u, u)


def test_a_surface_in_space_keeps_three_coordinates(tmp_path: Path) -> None:
    pos, cells = box("tetra", 2)
    surface = boundary_points(PointField(pos, cells=cells))
    write_mesh(tmp_path / "a.vtu", surface)
    back = read_mesh(tmp_path / "a.vtu", dtype=torch.float64)
    assert back.dim == 3
    assert back.weights.sum().item() == pytest.approx(6)


def test_points_without_cells_come_back_without_cells(tmp_path: Path) -> None:
    field = PointField(torch.rand(7, 2), torch.rand(7, 1), channels=["p"])
    write_mesh(tmp_path / "a.vtu", field)
    back = read_mesh(tmp_path / "a.vtu", dtype=torch.float32)
    assert torch.equal(back.u, field.u)
    assert "cells" not in back
    assert "weights" not in back
    with pytest.raises(MeshError, match="no cells"):
        boundary_points(back)


# What is read


def write(path: Path, points: object, cells: list[tuple[str, object]], **options: object) -> Path:
    meshio.Mesh(np.array(points, dtype=float), cells, **options).write(path)
    return path


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
TWO = [("triangle", np.array([[0, 1, 2], [0, 2, 3]]))]


def test_fields_select_in_order(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.vtu", sample("triangle"))
    assert read_mesh(tmp_path / "a.vtu", fields=["a b", "U"]).channels == ("a b", "U_x", "U_y")
    assert read_mesh(tmp_path / "a.vtu", fields=["U_y"]).channels == ("U_y",)
    assert read_mesh(tmp_path / "a.vtu", fields=[]).channels == ()


def test_an_unknown_field_is_answered_with_those_there_are(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.vtu", SQUARE, TWO,
        point_data={"p": np.zeros(4)}, cell_data={"k": [np.zeros(2)]},
    )  # fmt: skip
    with pytest.raises(MeshError, match=r"a\.vtu: .*'T'.*point fields p.*cell fields k"):
        read_mesh(path, fields=["T"])


def test_cell_data_are_averaged_by_volume(tmp_path: Path) -> None:
    # Areas 1/2 and 3/2: the shared diagonal 0-2 has (1 * 1/2 + 5 * 3/2) / 2 = 4.
    points = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [-2, 1, 0]]
    path = write(tmp_path / "a.vtu", points, TWO, cell_data={"k": [np.array([1.0, 5.0])]})
    assert read_mesh(path).channels == ()
    assert read_mesh(path, fields=["k"]).u.flatten().tolist() == pytest.approx([4, 1, 4, 5])


def test_unused_vertices_are_dropped_with_their_values(tmp_path: Path) -> None:
    points = [[9, 9, 0], *SQUARE]
    cells = [("triangle", np.array([[1, 2, 3], [1, 3, 4]])), ("vertex", np.array([[0]]))]
    path = write(tmp_path / "a.vtu", points, cells, point_data={"p": np.arange(5.0)})
    field = read_mesh(path)
    assert field.u.flatten().tolist() == [1, 2, 3, 4]
    assert field.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("axis", [0, 2])
def test_only_trailing_constant_coordinates_are_dropped(axis: int, tmp_path: Path) -> None:
    points = np.roll(np.array(SQUARE, dtype=float) + [0, 0, 5], axis - 2, axis=1)
    assert read_mesh(write(tmp_path / "a.vtu", points, TWO)).dim == (2 if axis == 2 else 3)


SECOND_ORDER = {
    "line3": ("line", [[0.0], [1]], [(0, 1)]),
    "triangle6": ("triangle", [[0.0, 0], [1, 0], [0, 1]], [(0, 1), (1, 2), (2, 0)]),
    "quad9": ("quad", SQUARE, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 1, 2, 3)]),
    "tetra10": (
        "tetra", [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_second_order_cells_become_linear_ones_of_the_same_volume(
    kind: str, tmp_path: Path
) -> None:
    linear, corners, middles = SECOND_ORDER[kind]
    corner = np.array(corners, dtype=float)
    points = np.concatenate([corner, [corner[list(m)].mean(axis=0) for m in middles]])
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    path = write(tmp_path / "a.vtu", points, [(kind, np.arange(len(points))[None])])
    field = read_mesh(path, dtype=torch.float64)
    assert list(field.cells) == [linear]
    volume = {"line": 1, "triangle": 1 / 2, "quad": 1, "tetra": 1 / 6}[linear]
    assert field.weights.sum().item() == pytest.approx(volume, rel=1e-12)
    # No gap or overlap inside: the surface is that of the one linear cell.
    whole = boundary_facets({linear: torch.arange(len(corner))[None]})
    surface = node_weights(torch.from_numpy(corner), whole).sum()
    assert boundary_points(field).weights.sum().item() == pytest.approx(surface.item())


# What is refused


def test_wrong_paths_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="no such file"):
        read_mesh(tmp_path / "a.vtu")
    with pytest.raises(MeshError, match="not a file"):
        read_mesh(tmp_path)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(MeshError, match=r"suffix '\.txt' is unknown.*\.vtu"):
        read_mesh(tmp_path / "a.txt")
    field = sample("triangle")
    for suffix in (".txt", ".su2", ""):
        with pytest.raises(MeshError, match="cannot be written, only .vtu"):
            write_mesh(tmp_path / f"b{suffix}", field)
    with pytest.raises(MeshError, match="no folder"):
        write_mesh(tmp_path / "none" / "b.vtu", field)
    with pytest.raises(MeshError, match="names or units with spaces"):
        write_mesh(tmp_path / "b.vtk", field)
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_unsupported_cells_are_refused_with_a_remedy(tmp_path: Path) -> None:
    points = np.array([*SQUARE, [0.5, 0, 0], [1, 0.5, 0], [0.5, 1, 0], [0, 0.5, 0]])
    path = write(tmp_path / "a.vtu", points, [("quad8", np.arange(8)[None])])
    with pytest.raises(MeshError, match=r"a\.vtu: cells of type 'quad8'.*ElementOrder"):
        read_mesh(path)


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.vtu", SQUARE, TWO, point_data={"p": np.array([0, 1, np.nan, 3])})
    with pytest.raises(FieldError, match=r"a\.vtu: .*first at point 2 in channel 'p'"):
        read_mesh(path)
    points = np.array(SQUARE, dtype=float)
    points[3, 1] = np.inf
    with pytest.raises(MeshError, match="coordinates of point 3 are not finite"):
        read_mesh(write(tmp_path / "b.vtu", points, TWO))


def test_degenerate_cells_are_refused_unless_only_inspected(tmp_path: Path) -> None:
    cells = [("triangle", np.array([[0, 1, 2], [0, 2, 2], [0, 2, 3]]))]
    path = write(tmp_path / "a.vtu", SQUARE, cells)
    with pytest.raises(MeshError, match=r"a\.vtu: 1 cells of type triangle are degenerate"):
        read_mesh(path)
    assert "weights" not in read_mesh(path, weights=False)


@pytest.mark.parametrize("suffix", [".vtu", ".vtk", ".msh", ".xdmf"])
def test_truncated_files_are_read_as_valid_fields_or_refused(suffix: str, tmp_path: Path) -> None:
    field = sample("mixed2").select("p")
    write_mesh(tmp_path / f"a{suffix}", field)
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for part in (0.0, 0.3, 0.6, 0.95):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[: int(part * len(whole))])
        try:
            back = read_mesh(path, timeout=20)
        except InputError as error:
            assert path.name in str(error)
            assert "\n" not in str(error)
        else:
            assert bool((back.weights > 0).all())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("while True: pass", "longer than 1 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the reader crashed"),
    ],
)
def test_a_reader_that_hangs_or_crashes_is_an_error(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(code)
    monkeypatch.setattr(_mesh_reader, "__file__", str(reader))
    path = write(tmp_path / "a.vtu", SQUARE, TWO)
    with pytest.raises(MeshError, match=message):
        read_mesh(path, timeout=1)


def test_the_memory_of_the_reader_is_limited(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("only Linux enforces the limit")
    (tmp_path / "a.off").write_text("OFF\n\n100000000 1 0\n\n0 0 0\n")  # 2.4 GB of points
    with pytest.raises(MeshError, match="more memory than 1 GiB"):
        read_mesh(tmp_path / "a.off", memory=2**30)


def test_the_reader_does_not_import_the_library(tmp_path: Path) -> None:
    # Its start would take seconds instead of tenths.
    code = f"import runpy, sys; runpy.run_path({_mesh_reader.__file__!r}); "
    code += "print('torch' in sys.modules, 'cst_operator' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", "False"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field = sample("triangle")
    write_mesh(tmp_path / "a.vtu", field)
    before = (tmp_path / "a.vtu").read_bytes()

    def broken(self: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(meshio.Mesh, "write", broken)
    with pytest.raises(OSError, match="no space"):
        write_mesh(tmp_path / "a.vtu", field)
    assert (tmp_path / "a.vtu").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.vtu"]


# Time series


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_series_come_back(suffix: str, tmp_path: Path) -> None:
    series = trajectory()
    write_series(tmp_path / f"wake{suffix}", series)
    back = read_series(tmp_path / f"wake{suffix}", dtype=torch.float64)
    assert back.channels == series.channels
    assert back.units == series.units
    assert torch.equal(back.times, series.times)
    torch.testing.assert_close(back.u, series.u, rtol=0, atol=0)
    assert_same(back.mesh, series.mesh)
    pressure = read_series(tmp_path / f"wake{suffix}", fields=["p"])
    assert pressure.channels == ("p",)
    assert pressure.u.dtype == torch.get_default_dtype()


def test_a_shorter_series_replaces_a_longer(tmp_path: Path) -> None:
    series = trajectory()
    write_series(tmp_path / "wake.pvd", series)
    short = Trajectory(
        mesh=series.mesh, times=series.times[:2], u=series.u[:2], channels=series.channels
    )
    write_series(tmp_path / "wake.pvd", short)
    assert read_series(tmp_path / "wake.pvd").num_frames == 2


def test_frames_are_sorted_by_time(tmp_path: Path) -> None:
    write_series(tmp_path / "wake.pvd", trajectory())
    text = (tmp_path / "wake.pvd").read_text()
    lines = text.splitlines()
    entries = [i for i, line in enumerate(lines) if "DataSet" in line]
    lines[entries[0]], lines[entries[2]] = lines[entries[2]], lines[entries[0]]
    (tmp_path / "wake.pvd").write_text("\n".join(lines))
    back = read_series(tmp_path / "wake.pvd", dtype=torch.float64)
    torch.testing.assert_close(back.u, trajectory().u)


def test_broken_series_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "wake.pvd", trajectory())
    text = (tmp_path / "wake.pvd").read_text()

    def refused(new: str, message: str) -> None:
        (tmp_path / "other.pvd").write_text(new)
        with pytest.raises(InputError, match=rf"other\.pvd: .*{message}"):
            read_series(tmp_path / "other.pvd")

    refused(text[:90], "not a .pvd file")
    refused(text.replace("wake/wake_0001", "../wake_0001"), "outside of its folder")
    refused(text.replace("wake/wake_0001", "wake/none"), "is missing")
    refused(text.replace('"0.1"', '"0.0"', 2), "increase strictly")
    refused(text.replace("<VTKFile", '<!DOCTYPE a [<!ENTITY b "c">]><VTKFile', 1), "entities")
    refused("<VTKFile/>", "no frames")
    pos, cells = box("triangle", 2)
    write_mesh(tmp_path / "wake" / "wake_0002.vtu", PointField(pos, cells=cells))
    refused(text, "mesh of frame 2 differs")
    with pytest.raises(MeshError, match="use read_mesh for one frame"):
        read_series(tmp_path / "wake" / "wake_0000.vtu")
    with pytest.raises(MeshError, match="pvd or .xdmf"):
        write_series(tmp_path / "wake.vtu", trajectory())


def test_a_temporal_xdmf_is_not_one_mesh(tmp_path: Path) -> None:
    write_series(tmp_path / "wake.xdmf", trajectory())
    with pytest.raises(MeshError, match="cannot be read"):
        read_mesh(tmp_path / "wake.xdmf")
