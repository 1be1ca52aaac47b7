import os

import h5py
import numpy as np
import pytest
import torch

from cst_operator.datasets import read_trajectory, write_trajectory
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers import Heat


@pytest.fixture
def trajectory():
    return Heat(h=0.15, num_frames=3, dt=0.01).sample(0, 0)


def _assert_equal(one, two):
    for name in ("times", "u", "gradient", "time_derivative"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    for name in ("pos", "time", "u", "weights"):
        assert torch.equal(one.mesh[name], two.mesh[name]), name
    for name in ("cells", "facets", "facet_markers"):
        assert one.mesh[name].keys() == two.mesh[name].keys()
        assert all(torch.equal(one.mesh[name][k], two.mesh[name][k]) for k in one.mesh[name])
    assert one.channels == two.channels and one.units == two.units
    assert one.mesh.channels == two.mesh.channels and one.mesh.units == two.mesh.units
    assert one.parameters == two.parameters


def test_a_trajectory_comes_back_bit_for_bit(trajectory, tmp_path):
    write_trajectory(tmp_path / "a.h5", trajectory)
    _assert_equal(read_trajectory(tmp_path / "a.h5"), trajectory)


def test_a_bare_trajectory_with_units_and_quadrilaterals_comes_back(tmp_path):
    pos = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    mesh = PointField(pos, cells={"quad": torch.tensor([[0, 1, 2, 3]])})
    bare = Trajectory(
        mesh=mesh,
        times=torch.tensor([0.5, 1.5]),
        u=torch.randn(2, 4, 2),
        channels=("température", "p"),
        units=("°C", "Pa"),
    )
    write_trajectory(tmp_path / "a.h5", bare)
    back = read_trajectory(tmp_path / "a.h5")
    assert back.gradient is None and back.time_derivative is None
    assert back.channels == bare.channels and back.units == bare.units
    assert torch.equal(back.u, bare.u) and back.u.dtype == torch.float32
    assert back.mesh.u.shape == (4, 0)
    assert torch.equal(back.mesh.cells["quad"], mesh.cells["quad"])
    assert back.parameters == {}


def test_single_precision_halves_the_values_and_keeps_the_times(trajectory, tmp_path):
    write_trajectory(tmp_path / "a.h5", trajectory, dtype="float32")
    back = read_trajectory(tmp_path / "a.h5")
    assert back.u.dtype == back.mesh.pos.dtype == torch.float32
    assert torch.equal(back.u, trajectory.u.float())
    assert torch.equal(back.times, trajectory.times)
    assert back.mesh.cells["triangle"].dtype == torch.int64


def test_the_file_describes_itself(trajectory, tmp_path):
    write_trajectory(tmp_path / "a.h5", trajectory, attributes={"system": "heat", "seed": 0})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == b"cst_operator.trajectory"
        assert file.attrs["format_version"] == 1
        assert file.attrs["channels"] == b'["u"]'
        assert file.attrs["system"] == b"heat" and file.attrs["seed"] == 0
        assert file["parameters"].attrs["area"] == trajectory.parameters["area"]
        assert file["mesh/cells/triangle"].shape[1] == 3
        assert file["u"].fletcher32


def test_equal_trajectories_give_equal_bytes(trajectory, tmp_path):
    for name in ("a.h5", "b.h5"):
        write_trajectory(tmp_path / name, trajectory)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_bytes_do_not_depend_on_who_holds_what_is_written(trajectory, tmp_path, monkeypatch):
    write_trajectory(tmp_path / "a.h5", trajectory)
    held = []
    create = h5py.Group.create_dataset

    def hold(*args, **options):
        held.append(create(*args, **options))
        return held[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", hold)
    write_trajectory(tmp_path / "b.h5", trajectory)
    assert held
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_any_truncation_is_an_error_that_names_the_file(trajectory, tmp_path):
    path = tmp_path / "a.h5"
    write_trajectory(path, trajectory)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="a.h5 is damaged"):
            read_trajectory(path)


def test_a_flipped_bit_is_an_error_or_changes_nothing(trajectory, tmp_path, rng):
    path = tmp_path / "a.h5"
    write_trajectory(path, trajectory)
    whole = path.read_bytes()
    refused = 0
    places = [*range(0, 300, 2), *rng.integers(0, len(whole), 200)]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            _assert_equal(read_trajectory(path), trajectory)  # unused space between blocks
        except InputError as error:
            assert "a.h5" in str(error)
            refused += 1
    assert refused > 0.7 * len(places)


def test_a_file_that_claims_more_than_it_holds_is_refused_before_memory_is_taken(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "cst_operator.trajectory", 1
        file.attrs["channels"] = file.attrs["units"] = '["u"]'
        mesh = file.create_group("mesh")
        mesh.attrs["channels"] = mesh.attrs["units"] = "[]"
        mesh.create_dataset("pos", shape=(10**12, 2), chunks=(1024, 2), dtype="f8")
    with pytest.raises(InputError, match="claims 16000000000000 bytes"):
        read_trajectory(tmp_path / "a.h5")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no trajectory file"):
        read_trajectory(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="a.h5 is damaged or not a trajectory file"):
        read_trajectory(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "cst_operator.trajectory", 99
    with pytest.raises(InputError, match="version 99; expected .* version 1"):
        read_trajectory(tmp_path / "b.h5")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(trajectory, tmp_path, monkeypatch):
    write_trajectory(tmp_path / "a.h5", trajectory)
    before = (tmp_path / "a.h5").read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_trajectory(tmp_path / "a.h5", trajectory)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before


def test_impossible_requests_are_refused(trajectory, tmp_path):
    with pytest.raises(InputError, match="dtype"):
        write_trajectory(tmp_path / "a.h5", trajectory, dtype="float16")
    with pytest.raises(InputError, match="does not exist"):
        write_trajectory(tmp_path / "none" / "a.h5", trajectory)
