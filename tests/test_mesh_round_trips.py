"""What is written to mesh files and series comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator._foreign_mesh import read_foreign
from cst_operator.boundary import boundary_points
from cst_operator.errors import InputError, MeshError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, read_series, write_mesh, write_series
from tests.mesh_file_samples import SQUARE, TWO, assert_same, sample, trajectory, write
from tests.mesh_samples import box

meshio = pytest.importorskip("meshio")


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


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_a_plate_at_rest_in_its_first_frame_has_all_components(suffix: str, tmp_path: Path) -> None:
    path, frames = tmp_path / f"a{suffix}", [np.zeros((4, 3)), np.array([[0.0, 0.0, 1.0]] * 4)]
    if suffix == ".xdmf":
        with meshio.xdmf.TimeSeriesWriter(path, data_format="XML") as writer:
            writer.write_points_cells(np.array(SQUARE, dtype=float), TWO)
            for step, d in enumerate(frames):
                writer.write_data(float(step), point_data={"d": d})
    else:
        for step, d in enumerate(frames):
            write(tmp_path / f"{step}.vtu", SQUARE, TWO, point_data={"d": d})
        sets = "".join(f'<DataSet timestep="{step}" file="{step}.vtu"/>' for step in range(2))
        path.write_text(f"<VTKFile><Collection>{sets}</Collection></VTKFile>")
    back = read_series(path, dtype=torch.float64)
    assert back.channels == ("d_x", "d_y", "d_z")
    assert np.array_equal(back.u, frames)


def test_cell_data_of_a_temporal_xdmf_are_read_if_named(tmp_path: Path) -> None:
    with meshio.xdmf.TimeSeriesWriter(tmp_path / "a.xdmf", data_format="XML") as writer:
        writer.write_points_cells(np.array(SQUARE, dtype=float), TWO)
        for time in (0.0, 1.0):
            writer.write_data(time, cell_data={"k": [np.array([time, time + 2.0])]})
    series = read_series(tmp_path / "a.xdmf", ["k"], dtype=torch.float64)
    # Both triangles meet at points 0 and 2.
    assert series.u[:, :, 0].tolist() == [[1.0, 0.0, 1.0, 2.0], [2.0, 1.0, 2.0, 3.0]]


def test_a_temporal_xdmf_whose_mesh_moves_is_refused(tmp_path: Path) -> None:
    def grid(time: float, right: float) -> str:
        return f"""<Grid Name="g" GridType="Uniform"><Time Value="{time}"/>
<Topology TopologyType="Triangle" NumberOfElements="1">
<DataItem DataType="Int" Dimensions="1 3" Format="XML" Precision="8">0 1 2</DataItem></Topology>
<Geometry GeometryType="XY"><DataItem DataType="Float" Dimensions="3 2" Format="XML" Precision="8">
0 0 {right} 0 0 1</DataItem></Geometry>
<Attribute Name="T" AttributeType="Scalar" Center="Node">
<DataItem DataType="Float" Dimensions="3" Format="XML" Precision="8">1 2 3</DataItem></Attribute>
</Grid>"""

    def write_frames(right: float) -> Path:
        frames = grid(0, 1) + grid(1, right)
        (tmp_path / "a.xdmf").write_text(
            f"""<Xdmf Version="3.0"><Domain><Grid Name="t" GridType="Collection"
CollectionType="Temporal">{frames}</Grid></Domain></Xdmf>"""
        )
        return tmp_path / "a.xdmf"

    assert read_series(write_frames(1)).num_frames == 2
    with pytest.raises(MeshError, match="mesh of frame 1 differs from that of frame 0"):
        read_series(write_frames(2))


def test_the_mesh_of_a_series_is_kept_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a.pvd", trajectory())
    files = sorted((tmp_path / "a").iterdir())
    first, *others = read_foreign(files, "mesh", 60.0, 2**32)
    assert len(others) == 2
    for raw in others:
        assert raw["points"] is first["points"] and raw["cells"][0][1] is first["cells"][0][1]
        assert raw["point_data"]["p [Pa]"] is not first["point_data"]["p [Pa]"]
