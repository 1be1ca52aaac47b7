"""Readers of the formats of others, on small files."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
import xarray

from cst_operator.datasets import readers
from cst_operator.errors import FieldError, InputError, MeshError
from cst_operator.fields import Trajectory
from tests import reader_samples as samples
from tests.reader_samples import FORMATS, trajectories, wave

F64 = torch.float64


def at_points(trajectory: Trajectory, *, axes: int | None = None) -> np.ndarray:
    """The samples' wave at the trajectory's own points and times, [T, N]."""
    pos = trajectory.mesh.pos.numpy()[:, :axes]
    return np.add.outer(np.sin(2 * trajectory.times.numpy()), np.sin(2 * pos).sum(axis=1))


# What every reader keeps


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_sound_trajectories(name: str, tmp_path: Path) -> None:
    suffix, write, read = FORMATS[name]
    found = trajectories(read(write(tmp_path / f"a{suffix}")))
    for trajectory in found:
        assert isinstance(trajectory, Trajectory)
        assert trajectory.u.dtype == trajectory.mesh.pos.dtype == torch.get_default_dtype()
        assert bool((trajectory.mesh.weights > 0).all())
        assert trajectory.frame(0).channels == trajectory.channels
    assert len(found) >= 1


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_file_and_a_folder_are_named(name: str, tmp_path: Path) -> None:
    suffix, _, read = FORMATS[name]
    with pytest.raises(InputError, match=rf"a{suffix}: there is no such file"):
        read(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").mkdir()
    with pytest.raises(InputError, match="not a file"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", [n for n, (s, _, _) in FORMATS.items() if s != ".txt"])
def test_sets_are_sequences_that_slice_and_travel_to_workers(name: str, tmp_path: Path) -> None:
    suffix, write, read = FORMATS[name]
    found = read(write(tmp_path / f"a{suffix}"))
    if isinstance(found, Trajectory):
        return
    last = pickle.loads(pickle.dumps(found))[-1]
    assert torch.equal(last.u, found[len(found) - 1].u)
    assert torch.equal(found[1:][0].u, found[1].u) if len(found) > 1 else True
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_set_reads_only_the_sample_that_is_asked_for(tmp_path: Path) -> None:
    path = samples.pdebench(tmp_path / "a.hdf5")
    found = readers.read_pdebench(path)
    with h5py.File(path, "r+") as file:
        file["density"][1, 0, 2, 3] = np.nan
    assert found[0].num_frames == 3
    with pytest.raises(FieldError, match=r"sample 1: u has 1 .*frame 0 at point 13 .*'density'"):
        found[1]


# One format after the other


def test_pdebench_arrays_are_read_at_the_centres_of_cells(tmp_path: Path) -> None:
    found = readers.read_pdebench(samples.pdebench(tmp_path / "a.hdf5"), dtype=F64)
    assert found[1].channels == ("density", "Vx", "Vy") and found[1].parameters == {"eta": 0.01}
    for channel in range(3):
        expected = at_points(found[1]) + 1 + 10 * channel
        assert np.allclose(found[1].u[..., channel], expected, rtol=1e-14)
    assert torch.allclose(found[0].mesh.weights, torch.full((20,), 0.05).double(), rtol=1e-12)


def test_pdebench_groups_are_samples(tmp_path: Path) -> None:
    found = readers.read_pdebench(
        samples.pdebench_groups(tmp_path / "a.h5"), channels=("a", "b"), dtype=F64
    )
    assert found[1].channels == ("a", "b") and len(found) == 2
    # stored as float32
    assert np.allclose(found[1].u[..., 0], at_points(found[1]) + 1, rtol=1e-6)
    assert float(found[0].mesh.weights.sum()) == pytest.approx(4.0, rel=1e-12)


def test_pdebench_darcy_has_its_coefficient(tmp_path: Path) -> None:
    nu = np.arange(2 * 3 * 3.0).reshape(2, 3, 3)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["nu"], file["tensor"] = nu, 2 * nu[:, None]
        file["x-coordinate"] = file["y-coordinate"] = (np.arange(3) + 0.5) / 3
    last = readers.read_pdebench(tmp_path / "a.hdf5")[1]
    assert last.mesh.channels == ("nu",) and last.channels == ("u",) and last.num_frames == 1
    assert torch.equal(last.u[0], 2 * last.mesh.u)


def test_pdebench_incompressible_flow_has_times_of_its_own(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"] = np.ones((2, 3, 4, 4, 2))
        file["particles"] = np.ones((2, 3, 4, 4, 1))
        file["force"] = np.ones((2, 4, 4, 2))
        file["t"] = np.array([[0.0, 1, 2], [0, 2, 4]])
    last = readers.read_pdebench(tmp_path / "a.h5")[1]
    assert last.channels == ("velocity_x", "velocity_y", "particles")
    assert last.mesh.channels == ("force_x", "force_y")
    assert last.times.tolist() == [0, 2, 4]
    assert float(last.mesh.weights.sum()) == pytest.approx(1.0, rel=1e-6)


def test_the_well_knows_scalars_vectors_tensors_and_what_stands_still(tmp_path: Path) -> None:
    path = samples.the_well(tmp_path / "a.hdf5")
    one = readers.read_the_well(path, dtype=F64)[1]
    assert one.channels[:3] == ("density", "velocity_x", "velocity_y")
    assert one.channels[3:] == ("D_xx", "D_xy", "D_yx", "D_yy")
    assert one.parameters == {"Re": 100.0, "heating": 2.0}
    # coordinates are stored as float32, samples at the unrounded places as float64
    expected = at_points(one) + 1
    for channel, factor in enumerate((1, 1, 2, 1, 2, 3, 4)):
        assert np.allclose(one.u[..., channel], factor * expected, atol=4e-6)
    assert np.allclose(one.mesh.u[:, 0], one.mesh.pos[:, 0].sin(), atol=1e-6)
    # x ends at walls, y goes around
    assert float(one.mesh.weights.sum()) == pytest.approx(2.9 * 2 * np.pi, rel=1e-6)
    chosen = readers.read_the_well(path, ["velocity"])[0]
    assert chosen.channels == ("velocity_x", "velocity_y")


def test_the_well_on_a_sphere_has_areas(tmp_path: Path) -> None:
    path = samples.the_well(tmp_path / "a.hdf5", grid_type="spherical", dims=("theta", "phi"))
    flat, ball = (readers.read_the_well(path, sphere=s, dtype=F64)[0].mesh for s in (False, True))
    assert torch.equal(flat.weights, ball.weights)
    assert torch.allclose(ball.pos.norm(dim=1), torch.ones(30).double(), rtol=1e-12)
    assert torch.allclose(ball.pos[:, 2], flat.pos[:, 0].cos(), atol=1e-12)
    # five unequal-height rings by the trapezoidal rule: second order in a step of 0.7
    area = 2 * np.pi * (np.cos(0.1) - np.cos(3.0))
    assert float(ball.weights.sum()) == pytest.approx(area, rel=0.05)
    other = samples.the_well(tmp_path / "b.hdf5", grid_type="log_spherical")
    with pytest.raises(InputError, match="expected a cartesian one"):
        readers.read_the_well(other)


def test_neuraloperators_dictionaries_are_steady_or_transient(tmp_path: Path) -> None:
    steady = readers.read_neuraloperator(samples.darcy(tmp_path / "a.pt"), dtype=F64)
    values = wave(np.arange(3), np.arange(4), np.arange(5))
    assert np.array_equal(steady[2].u[0, :, 0], values[2].ravel())
    assert np.array_equal(steady[2].mesh.u[:, 0], (values[2] > 0).ravel())
    transient = readers.read_neuraloperator(samples.burgers(tmp_path / "b.pt"), dtype=F64)
    assert torch.equal(transient[1].mesh.u, transient[1].u[0])
    assert transient[1].parameters == {"viscosity": 0.01}


@pytest.mark.parametrize("version", ["mat5", "mat73"])
def test_both_versions_of_mat_files_give_the_same(version: str, tmp_path: Path) -> None:
    suffix, write, read = FORMATS[version]
    found = readers.read_mat(write(tmp_path / f"a{suffix}"), dtype=F64)
    arrays = samples.mat_arrays()
    assert len(found) == 2 and found[1].times.tolist() == [1.0, 2.0, 4.0]
    assert np.array_equal(found[1].u[..., 0], arrays["u"][1].reshape(20, 3).T)
    assert np.array_equal(found[1].mesh.u[:, 0], arrays["a"][1].ravel())
    named = readers.read_mat(tmp_path / f"a{suffix}", input="a", output="a")
    assert named[0].num_frames == 1
    with pytest.raises(InputError, match=r"it has a.*name its input and output"):
        readers.read_mat(tmp_path / f"a{suffix}", output="pressure")


def test_trajectories_of_meshgraphnets_go_by_their_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(12):
            group = file.create_group(f"trajectory_{number}")
            group["mesh_pos"] = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
            group["cells"] = np.array([[0, 1, 2]])
            group["pressure"] = np.full((2, 3, 1), float(number))
    found = readers.read_meshgraphnets(tmp_path / "a.h5")
    assert [float(one.u[0, 0, 0]) for one in found] == list(range(12))


def test_meshgraphnets_trajectories_have_their_cells(tmp_path: Path) -> None:
    path = samples.meshgraphnets(tmp_path / "a.h5")
    found = readers.read_meshgraphnets(path, ["velocity"], interval=0.01, dtype=F64)
    pos, cells = samples.triangles()
    assert np.array_equal(found[1].u[2], pos + 3) and len(found) == 2
    assert found[1].channels == ("velocity_x", "velocity_y")
    assert np.allclose(found[1].times, [0, 0.01, 0.02], rtol=1e-14)
    assert np.array_equal(found[0].mesh.cells["triangle"], cells)
    assert found[0].mesh.channels == ("node_type",)
    with h5py.File(path, "r+") as file:
        file["trajectory_1/mesh_pos"][2, 0, 0] = 0.1
    with pytest.raises(InputError, match="sample 1: mesh_pos changes in time"):
        found[1]


def test_gaot_samples_have_estimated_weights(tmp_path: Path) -> None:
    found = readers.read_gaot(samples.gaot(tmp_path / "a.nc"), dtype=F64)
    assert len(found) == 3 and found[2].times.tolist() == [0.0, 1.0]
    assert np.allclose(found[2].u[1, :, 0], samples.POINTS[:, 0] * 3, rtol=1e-14)
    assert np.allclose(found[2].mesh.u[:, 0], samples.POINTS[:, 0] * 2 + 7, rtol=1e-14)


def test_geo_fno_grids_have_the_cells_and_areas_of_their_own_shape(tmp_path: Path) -> None:
    found = samples.read_deformed(samples.geo_fno(tmp_path / "Q.npy"), dtype=F64)
    assert len(found) == 2 and found[0].channels == ("u0", "u1", "u2")
    for trajectory, area in zip(found, (2.0, 8.0), strict=True):  # sheared, so of unit width
        pos, u = trajectory.mesh.pos.numpy(), trajectory.u[0].numpy()
        assert np.array_equal(u, np.stack([pos[:, 0], pos[:, 1], pos.prod(axis=1)], axis=1))
        assert np.isclose(float(trajectory.mesh.weights.sum()), area, rtol=1e-14)
        assert trajectory.mesh.cells["quad"].shape == (12, 4)


def test_geo_fno_points_are_those_of_each_sample(tmp_path: Path) -> None:
    points = np.stack([samples.POINTS.T, samples.POINTS.T + 1], axis=2).transpose(1, 0, 2)
    np.save(tmp_path / "XY.npy", points)
    np.save(tmp_path / "sigma.npy", points.sum(axis=1))
    found = readers.read_geo_fno(tmp_path / "sigma.npy", tmp_path / "XY.npy", channels=["stress"])
    assert len(found) == 2 and found[1].channels == ("stress",)
    assert np.allclose(found[1].mesh.pos, samples.POINTS + 1, rtol=1e-6)  # float32
    assert np.allclose(found[1].u[0, :, 0], samples.POINTS.sum(axis=1) + 2, rtol=1e-6)
    for wrong in (["sigma.npy"], ["XY.npy", "XY.npy"], []):
        with pytest.raises(InputError, match=r"shape \(30, 2\).*expected \[N, n\] with"):
            readers.read_geo_fno(tmp_path / "sigma.npy", *(tmp_path / name for name in wrong))
    with pytest.raises(InputError, match="2 names for 1 channels"):
        readers.read_geo_fno(tmp_path / "sigma.npy", tmp_path / "XY.npy", channels="ab")


@pytest.mark.parametrize("classic", [False, True])
def test_a_rectilinear_grid_continues_across_the_date_line(classic: bool, tmp_path: Path) -> None:
    path = samples.netcdf(tmp_path / "a.nc", classic=classic)
    flat = readers.read_netcdf(path, dtype=F64)
    assert flat.mesh.pos[:, 0].unique().tolist() == [170.0, 175.0, 180.0, 185.0]
    assert flat.channels == ("sst",) and flat.units == ("degC",)
    assert flat.mesh.channels == ("depth",) and flat.mesh.units == ("m",)
    assert flat.times.tolist() == [0.0, 86400.0]
    at = (flat.mesh.pos == torch.tensor([185.0, 20.0])).all(dim=1)
    expected = wave(np.arange(2), np.array([20.0]), np.array([-175.0])).ravel()
    assert np.allclose(flat.u[:, at, 0].ravel(), expected, rtol=1e-14)
    ball = readers.read_netcdf(path, sphere=True, dtype=F64)
    assert ball.mesh.dim == 3
    degree = np.pi / 180
    assert torch.allclose(ball.mesh.weights, flat.mesh.weights * degree**2, rtol=1e-12)


def test_a_global_grid_covers_the_sphere(tmp_path: Path) -> None:
    lon, lat = np.arange(0, 360, 5.0), np.arange(-90, 90.1, 5.0)
    coords = {
        "lon": ("lon", lon, {"units": "degrees_east"}),
        "lat": ("lat", lat, {"units": "degrees_north"}),
    }
    data = xarray.Dataset({"t": (("lat", "lon"), wave(lat, lon))}, coords=coords)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    ball = readers.read_netcdf(tmp_path / "a.nc", sphere=True, dtype=F64)
    # the trapezoidal rule in latitude with a step of 5 degrees: error h^2/12
    assert float(ball.mesh.weights.sum()) == pytest.approx(4 * np.pi, rel=1e-3)


def test_missing_values_are_refused_by_name_or_dropped_by_request(tmp_path: Path) -> None:
    path = samples.curvilinear(tmp_path / "a.nc")
    with pytest.raises(FieldError, match=r"a.nc: u has 2 .*frame 0 at point 0 in channel 'eta'"):
        readers.read_netcdf(path)
    kept = readers.read_netcdf(path, missing="drop", dtype=F64)
    assert kept.mesh.num_points == 11 and len(kept.mesh.cells["quad"]) == 5
    x, y = (kept.mesh.pos[:, 0] - 0.1 * kept.mesh.pos[:, 1]), kept.mesh.pos[:, 1]
    assert torch.allclose(kept.u[1, :, 0], x + y + 1, rtol=1e-12)
    # of the whole sheared sheet of area 6, without the dropped corner's quarter cell
    assert float(kept.mesh.weights.sum()) == pytest.approx(5.75, rel=1e-12)


def test_ugrid_values_lie_at_nodes_or_faces(tmp_path: Path) -> None:
    nodes = readers.read_netcdf(samples.ugrid(tmp_path / "a.nc"), dtype=F64)
    assert nodes.mesh.cells["quad"].tolist() == [[0, 1, 2, 3]]
    assert nodes.mesh.cells["triangle"].tolist() == [[1, 4, 2]]
    assert nodes.units == ("m",) and nodes.num_frames == 3
    assert float(nodes.mesh.weights.sum()) == pytest.approx(1.5, rel=1e-14)
    faces = readers.read_netcdf(samples.ugrid(tmp_path / "b.nc", place="face"), dtype=F64)
    assert faces.mesh.weights.tolist() == pytest.approx([1.0, 0.5], rel=1e-14)
    assert faces.mesh.pos[0].tolist() == [0.5, 0.5]
    ball = readers.read_netcdf(tmp_path / "b.nc", sphere=True, dtype=F64)
    # near the equator a square degree is (pi/180)^2, up to the curvature
    assert ball.mesh.weights.tolist() == pytest.approx(
        [(np.pi / 180) ** 2, (np.pi / 180) ** 2 / 2], rel=1e-3
    )


def test_meshes_across_the_date_line_need_the_sphere(tmp_path: Path) -> None:
    path = samples.ugrid(tmp_path / "a.nc")
    with h5py.File(path, "r+") as file:
        file["node_x"][4] = -179.0
        file["node_x"][1:3] = 179.0
        file["node_x"][0] = file["node_x"][3] = 178.0
    with pytest.raises(MeshError, match="date line; read it with sphere=True"):
        readers.read_netcdf(path)
    ball = readers.read_netcdf(path, sphere=True, dtype=F64)
    # two degrees between 179 east and 179 west, where one was before
    assert float(ball.mesh.weights.sum()) == pytest.approx(2.0 * (np.pi / 180) ** 2, rel=1e-3)


def test_other_dimensions_are_selected(tmp_path: Path) -> None:
    values = wave(np.arange(2), np.arange(3), np.arange(4))
    data = xarray.Dataset(
        {"u": (("member", "y", "x"), values)}, coords={"x": np.arange(4.0), "y": np.arange(3.0)}
    )
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="also depends on member; choose one entry"):
        readers.read_netcdf(tmp_path / "a.nc")
    one = readers.read_netcdf(tmp_path / "a.nc", select={"member": 1}, dtype=F64)
    assert np.allclose(np.sort(one.u.ravel()), np.sort(values[1].ravel()), rtol=1e-14)


def test_arrays_take_points_cells_and_times_by_name(tmp_path: Path) -> None:
    found = samples.read_points(samples.npz(tmp_path / "a.npz"))
    pos, cells = samples.triangles()
    assert found[1].times.tolist() == [0.0, 1.0, 2.0]
    for frame, original in enumerate((1, 2, 0)):  # stored in another order of time
        assert np.allclose(found[1].u[frame], pos * (original + 1) + 1, rtol=1e-6)
    with pytest.raises(InputError, match="there is no array 'velocity'; it has u, pos"):
        readers.read_numpy(tmp_path / "a.npz", "ntpc", u="velocity")
    with pytest.raises(InputError, match=r"pos has shape None; expected \[5, dimensions\]"):
        readers.read_numpy(tmp_path / "a.npz", "ntpc")
    with pytest.raises(InputError, match="times have shape"):
        readers.read_numpy(tmp_path / "a.npz", "ntpc", pos="pos", cells="cells", times=np.arange(4))


def test_a_mapped_array_is_read_by_sample(tmp_path: Path) -> None:
    found = readers.read_numpy(
        samples.npy(tmp_path / "a.npy"), "nxy", box=[(0, 1), (0, 3)], dtype=F64
    )
    assert len(found) == 3 and found[0].mesh.pos.max() == 3.0
    assert np.array_equal(
        found[2].u.ravel(), wave(np.arange(3), np.arange(2), np.arange(4))[2].ravel()
    )


def test_comsol_columns_have_names_units_and_times(tmp_path: Path) -> None:
    found = readers.read_comsol(samples.comsol(tmp_path / "a.txt"), dtype=F64)
    assert found.channels == ("T", "p") and found.units == ("K", "Pa")
    assert found.times.tolist() == [0.0, 0.5]
    for frame, channel, factor in ((0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4)):
        expected = factor * samples.POINTS[:, 0]
        assert np.allclose(found.u[frame, :, channel], expected, rtol=1e-14)


def test_points_outside_of_comsols_geometry_are_dropped_by_request(tmp_path: Path) -> None:
    path = samples.comsol(tmp_path / "a.txt")
    lines = path.read_text().splitlines()
    lines[7] = " ".join([*lines[7].split()[:2], "NaN", "NaN", "NaN", "NaN"])
    path.write_text("\n".join(lines))
    with pytest.raises(FieldError, match="point 2 in channel 'T'"):
        readers.read_comsol(path)
    assert readers.read_comsol(path, missing="drop").mesh.num_points == len(samples.POINTS) - 1


@pytest.mark.parametrize("name", ["movie_npy", "movie_tif"])
def test_pixels_are_cells_with_the_first_row_on_top(name: str, tmp_path: Path) -> None:
    suffix, write, _ = FORMATS[name]
    path = write(tmp_path / f"a{suffix}")
    movie = readers.read_movie(path, interval=0.5, pixel=2.0, units=["counts"])
    assert movie.times.tolist() == [0.0, 0.5] and movie.units == ("counts",)
    assert float(movie.mesh.weights.sum()) == 3 * 4 * 4.0
    top = movie.mesh.pos[:, 1] == 5.0
    assert movie.u[0, top, 0].tolist() == [0, 1, 2, 3]
    late = readers.read_movie(path, frames=slice(1, None), interval=0.5)
    assert late.times.tolist() == [0.5] and torch.equal(late.u[0], movie.u[1])


def test_a_stack_of_one_block_is_a_movie(tmp_path: Path) -> None:
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True)
    assert readers.read_movie(tmp_path / "a.tif").u[1].max() == 23


def test_sphere_coordinates_are_known_places() -> None:
    lon, lat = torch.tensor([0.0, 90, -180, 180, 12]), torch.tensor([0.0, 0, 0, 0, 90])
    expected = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [-1, 0, 0], [0, 0, 1]]
    found = readers.sphere_coordinates(lon.double(), lat.double(), radius=2.0)
    assert torch.allclose(found, 2 * torch.tensor(expected).double(), atol=1e-14)
    with pytest.raises(InputError, match="expected -90 to 90"):
        readers.sphere_coordinates(lat, lat + 60)


@pytest.mark.parametrize("library, name", [("tifffile", "movie_tif"), ("xarray", "netcdf")])
def test_a_missing_library_is_named_with_its_extra(
    library: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, write, read = FORMATS[name]
    path = write(tmp_path / f"a{suffix}")
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(InputError, match=rf"read by {library}.*pip install 'cst-operator\["):
        read(path)
