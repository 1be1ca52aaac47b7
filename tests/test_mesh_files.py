"""Mesh files of other programs: what is read of them, and what is refused."""

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
from cst_operator.mesh_files import read_mesh, write_mesh
from cst_operator.quadrature import node_weights
from tests.mesh_file_samples import SQUARE, TWO, sample, write

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


# What is read


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


def test_a_link_tells_the_format_and_what_it_names_need_not(tmp_path: Path) -> None:
    # As DVC, git-annex and download caches store files.
    write(tmp_path / "a.vtu", SQUARE, TWO).rename(tmp_path / "3f0a")
    (tmp_path / "a b.vtu").symlink_to(tmp_path / "3f0a")
    assert read_mesh(tmp_path / "a b.vtu").num_points == 4


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


def test_cells_that_repeat_others_are_refused_unless_only_inspected(tmp_path: Path) -> None:
    # As gmsh writes cells that belong to two physical groups.
    cells = [*TWO, ("triangle", np.array([[2, 0, 1]]))]
    path = write(tmp_path / "a.vtu", SQUARE, cells)
    words = r"a\.vtu: 1 cells of type triangle have the points of an earlier one.*number 2 with "
    with pytest.raises(MeshError, match=words + r"points \[2, 0, 1\]; cst inspect --repair"):
        read_mesh(path)
    assert len(read_mesh(path, weights=False).cells["triangle"]) == 3


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
