"""Trained runs, their data and files of it, once a session."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cst_operator.datasets import TrajectoryDataset
from cst_operator.fields import Trajectory
from cst_operator.mesh_files import write_mesh, write_series
from tests.cli_samples import TINY, ok


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a trained run, and mesh files of one solution."""
    folder = tmp_path_factory.mktemp("cli")
    ok("generate", "poisson", "--n", 4, "--out", folder / "data")
    gradients = ("--loss.order", 1, "--loss.num-points", 4)
    ok("train", "--data", folder / "data", "--out", folder / "run", *gradients, *TINY)
    first = TrajectoryDataset(folder / "data")[0]
    write_mesh(folder / "case.vtu", first.mesh)
    write_mesh(folder / "bare.vtu", first.mesh.select())
    return folder


@pytest.fixture(scope="session")
def heat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that forecasts, and its data."""
    folder = tmp_path_factory.mktemp("heat")
    ok("generate", "heat", "--n", 2, "--out", folder / "data")
    queries = ("--task.num-queries", 16)
    ok("train", "--data", folder / "data", "--out", folder / "run", *queries, *TINY)
    first = TrajectoryDataset(folder / "data")[0]
    write_mesh(folder / "start.vtu", first.mesh.with_channels(first.u[0], first.channels))
    return folder


@pytest.fixture(scope="session")
def steps(heat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answers a lead time later, from two frames, and a series of three frames."""
    folder = tmp_path_factory.mktemp("steps")
    task = ("--task.kind", "lead_time", "--task.history", 2, "--task.leads", 1, 2)
    points = ("--task.num-queries", 16, "--task.num-sources", 40)
    ok("train", "--data", heat / "data", "--out", folder / "run", *TINY, *task, *points)
    first = TrajectoryDataset(heat / "data")[0]
    write_series(folder / "start.pvd", everything(first, range(3)))
    return folder


@pytest.fixture(scope="session")
def masked(heat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads random frames of windows, and a series of two frames."""
    folder = tmp_path_factory.mktemp("masked")
    task = ("--task.kind", "masking", "--task.window", 4, "--task.stride", 3, "--task.hidden", 1)
    points = ("--task.num-queries", 16, "--task.num-sources", 40)
    ok("train", "--data", heat / "data", "--out", folder / "run", *TINY, *task, *points)
    first = TrajectoryDataset(heat / "data")[0]
    write_series(folder / "known.pvd", everything(first, range(0, 8, 4)))
    return folder


def everything(trajectory: Trajectory, frames: range) -> Trajectory:
    """Some frames with the static channels beside the solution, as one series holds them."""
    cut = trajectory.window(frames)
    static = cut.mesh.u.expand(cut.num_frames, -1, -1)
    return replace(
        cut,
        mesh=cut.mesh.select(),
        u=torch.cat([cut.u, static], dim=2),
        channels=(*cut.channels, *cut.mesh.channels),
        units=(),
        gradient=None,
        time_derivative=None,
    )
