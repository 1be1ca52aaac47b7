"""Data sets: generating, storing and reading trajectories, and readers of measured ones."""

from cst_operator.datasets.cylinder_wake import cylinder_wake
from cst_operator.datasets.generation import generate
from cst_operator.datasets.store import read_trajectory, write_trajectory
from cst_operator.datasets.trajectories import TrajectoryDataset, read_manifest

__all__ = [
    "TrajectoryDataset",
    "cylinder_wake",
    "generate",
    "read_manifest",
    "read_trajectory",
    "write_trajectory",
]
