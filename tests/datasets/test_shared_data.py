"""Every item of the third-party data is read, with the shapes that its README documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cst_operator import datasets
from cst_operator.datasets import readers
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh

F64 = torch.float64


def _frame(folder: Path) -> list[tuple[int, ...]]:
    field = read_mesh(folder / "data_5000.vtk", weights=False)
    return [(field.num_points, field.dim), tuple(field.cells["hexahedron"].shape)]


def _shapes(*found: Any) -> list[tuple[int, ...]]:
    """Samples, frames, points, channels of sets; without samples of trajectories."""
    return [
        tuple(f.u.shape) if isinstance(f, (Trajectory, PointField)) else (len(f), *f[0].u.shape)
        for f in found
    ]


def _neuraloperator(folder: Path) -> list[tuple[int, ...]]:
    return _shapes(*(datasets.read_neuraloperator(p) for p in sorted(folder.glob("*.pt"))))


ITEMS: dict[str, tuple[Callable[[Path], list[tuple[int, ...]]], list[tuple[int, ...]]]] = {
    "cylinder_wake": (
        lambda folder: _shapes(datasets.cylinder_wake(folder.parent)) + _frame(folder),
        [(71, 3944, 3), (22320, 3), (10800, 8)],
    ),
    "north_sea_surge": (
        lambda folder: _shapes(
            datasets.north_sea_surge(folder.parent),
            datasets.read_dfsu(folder / "NorthSea_HD_and_windspeed.dfsu"),
        ),
        [(67, 958, 2), (67, 958, 2)],
    ),
    "neuraloperator_small": (
        _neuraloperator,
        [
            (400, 17, 16, 1),  # burgers_test_16
            (800, 17, 16, 1),  # burgers_train_16
            (50, 1, 256, 1),  # darcy_test_16
            (50, 1, 1024, 1),  # darcy_test_32
            (1000, 1, 256, 1),  # darcy_train_16
            (3, 1, 3586, 1),  # mini_car
        ],
    ),
    "heat_darcy": (
        lambda folder: _shapes(datasets.read_comsol(folder / "heat_darcy.dat")),
        [(51, 983, 1)],
    ),
    "ide_spirals": (
        lambda folder: _shapes(datasets.ide_spirals(folder.parent)),
        [(500, 100, 1, 2)],
    ),
    "elastic_block": (
        lambda folder: _shapes(datasets.elastic_block(folder.parent)),
        [(500, 1, 1346, 2)],  # 2692 numbers a snapshot: two at every node
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_has_its_documented_shapes(name: str, shared_data: Path) -> None:
    read, shapes = ITEMS[name]
    assert read(shared_data / name) == shapes


def test_no_item_is_left_out(shared_data: Path) -> None:
    folders = {path.name for path in shared_data.iterdir() if path.is_dir()}
    assert folders == {*ITEMS, "meshes"}  # meshes: tests/test_faults_files.py reads every file


def test_neuraloperators_own_files(shared_data: Path) -> None:
    folder = shared_data / "neuraloperator_small"
    for name, count, points in (
        ("darcy_train_16", 1000, 256),
        ("darcy_test_16", 50, 256),
        ("darcy_test_32", 50, 1024),
    ):
        found = readers.read_neuraloperator(folder / f"{name}.pt")
        assert len(found) == count and found[-1].u.shape == (1, points, 1)
        assert set(found[0].mesh.u.unique().tolist()) == {0.0, 1.0}
    for name, count in (("burgers_train_16", 800), ("burgers_test_16", 400)):
        found = readers.read_neuraloperator(folder / f"{name}.pt", dtype=F64)
        assert len(found) == count and found[3].u.shape == (17, 16, 1)
        assert found[3].parameters == {"viscosity": 0.01}
        assert torch.equal(found[3].mesh.u, found[3].u[0])  # the input is the initial state
    cars = readers.read_neuraloperator(folder / "mini_car.pt")
    assert len(cars) == 3 and cars[0].u.shape == (1, 3586, 1)
    raw = torch.load(folder / "mini_car.pt", weights_only=True)
    area = float(raw[0]["triangle_areas"].sum())
    assert float(cars[0].mesh.weights.sum()) == pytest.approx(area, rel=1e-5)  # float32 sum


def test_the_comsol_export(shared_data: Path) -> None:
    heat = readers.read_comsol(shared_data / "heat_darcy" / "heat_darcy.dat", dtype=F64)
    assert heat.u.shape == (51, 983, 1) and heat.channels == ("u",)
    assert np.allclose(heat.times, np.arange(51) / 10)
    assert float(heat.mesh.weights.sum()) == pytest.approx(1.0, rel=1e-12)  # the unit square


def test_the_surge_is_the_same_from_both_files(shared_data: Path) -> None:
    folder = shared_data / "north_sea_surge"
    first = datasets.north_sea_surge(shared_data)
    second = readers.read_dfsu(folder / "NorthSea_HD_and_windspeed.dfsu", dtype=F64)
    assert first.u.shape == (67, 958, 2) and first.channels == second.channels
    assert first.units == second.units == ("m", "m/s")
    assert torch.equal(first.u, second.u)
    assert torch.allclose(first.times * 3600, second.times)
    assert torch.allclose(first.mesh.weights, second.mesh.weights, rtol=1e-10)
    assert torch.allclose(first.mesh.u, second.mesh.u, atol=1e-4)  # depths are float32 there
    ball = datasets.north_sea_surge(shared_data, sphere=True)
    area = float(ball.mesh.weights.sum()) * 6371**2
    flat = first.mesh.weights * torch.cos(torch.deg2rad(first.mesh.pos[:, 1]))
    # square degrees times the cosine of the latitude, up to the curvature inside of a cell
    assert area == pytest.approx(float(flat.sum()) * (6371 * np.pi / 180) ** 2, rel=1e-3)


def test_the_spirals_are_functions_of_time(shared_data: Path) -> None:
    spirals = datasets.ide_spirals(shared_data)
    assert len(spirals) == 500 and spirals[0].u.shape == (100, 1, 2)
    raw = np.load(shared_data / "ide_spirals" / "spirals_500x100x2.npz")["data"]
    assert np.array_equal(spirals[7].u[:, 0], raw[7])


def test_the_elastic_block_is_held_on_its_left_side(shared_data: Path) -> None:
    block = datasets.elastic_block(shared_data)
    assert len(block) == 500 and block[0].u.shape == (1, 1346, 2)
    assert len(block[0].parameters) == 11 and len(block[0].mesh.cells["triangle"]) == 2560
    left = block[0].mesh.pos[:, 0] < 1e-12
    # only with the right order of components do both vanish where the block is clamped
    assert float(block[9].u[0, left].abs().max()) < 1e-12 < float(block[9].u.abs().max())
    assert float(block[0].mesh.weights.sum()) == pytest.approx(1.0, rel=1e-12)


def test_the_raw_frame_of_the_wake_is_read_as_a_mesh(shared_data: Path) -> None:
    frame = read_mesh(shared_data / "cylinder_wake" / "data_5000.vtk", weights=False)
    assert frame.num_points == 22320 and len(frame.cells["hexahedron"]) == 10800


def test_absent_third_party_data_are_named_with_a_remedy(tmp_path: Path) -> None:
    for read in (datasets.ide_spirals, datasets.elastic_block, datasets.north_sea_surge):
        with pytest.raises(InputError, match="set CST_DATA"):
            read(tmp_path)
