"""Every item of the third-party data is read with the shapes that its README documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cst_operator import datasets
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh


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
    assert folders == {*ITEMS, "meshes"}  # meshes: tests/test_faults_data.py reads every file
