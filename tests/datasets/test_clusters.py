"""The same set from SLURM's jobs and Dask's workers as from this machine."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch

from cst_operator.cli import main
from cst_operator.datasets import Dask, Slurm, TrajectoryDataset, generate, generation
from cst_operator.errors import ConfigError, InputError, SolverError
from cst_operator.fields import PointField, Trajectory


@dataclass(frozen=True)
class Unlucky:
    """Sample 1 diverges, sample 2 kills the process that makes it: once, or always if told."""

    marks: str
    mistaken: bool = False
    name: str = "unlucky"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        marks = Path(self.marks)
        if self.mistaken:
            raise KeyError("a mistake of the program")
        if index == 1:
            raise SolverError(f"sample {index} of seed {seed} diverged")
        if index == 2 and ((marks / "always").exists() or not (marks / "2").exists()):
            (marks / "2").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.linspace(0, 1, 999)[:, None]
        # sums of many numbers, whose bits could depend on the threads
        u = torch.tensor(np.random.default_rng([seed, index]).normal(size=(999, 999))) @ x.double()
        return Trajectory(mesh=PointField(x), times=torch.zeros(1), u=u[None], channels=("u",))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a cluster of one process, which is started again when it is killed."""
    import distributed

    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Jobs that are processes of this machine."""
    import submitit

    # Results of a job that died are waited for, should the file system be slow. It is not.
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    return Slurm(executor="local", samples_per_job=2, logs=str(tmp_path / "logs"))


def _files(data: TrajectoryDataset) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in data.path.glob("*.h5")}


def _check(on: Slurm | Dask, folder: Path) -> None:
    """A cluster with a dying worker writes the bytes that this process writes."""
    marks = folder / "marks"
    marks.mkdir()
    system = Unlucky(str(marks))
    there = generate(system, 3, seed=3, out=folder / "there", on=on, progress=False)
    assert (marks / "2").exists()  # a worker was killed
    here = generate(system, 3, seed=3, out=folder / "here", progress=False)
    assert there.manifest == here.manifest
    assert _files(there) == _files(here)
    assert set(_files(there)) == {"000000.h5", "000002.h5"}
    assert there.manifest["failures"] == [
        {"index": 1, "seed": 3, "reason": "sample 1 of seed 3 diverged"}
    ]


def test_jobs_of_which_one_is_killed_write_the_same_bytes(slurm: Slurm, tmp_path: Path) -> None:
    _check(slurm, tmp_path)


def test_dasks_workers_of_which_one_is_killed_write_the_same_bytes(
    scheduler: str, tmp_path: Path
) -> None:
    _check(Dask(scheduler=scheduler), tmp_path)


def test_a_mistake_of_the_program_is_shown(scheduler: str, slurm: Slurm, tmp_path: Path) -> None:
    system = Unlucky(str(tmp_path), mistaken=True)
    with pytest.raises(KeyError, match="a mistake of the program"):
        generate(system, 1, out=tmp_path / "set", on=Dask(scheduler=scheduler), progress=False)


def test_a_folder_that_workers_do_not_share_is_named(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "shard_name", lambda index: f"elsewhere-{index}.h5")
    with pytest.raises(InputError, match="not here; give a folder that all machines share"):
        generate(Unlucky(""), 1, out=tmp_path / "set", on=Dask(scheduler=scheduler), progress=False)


@pytest.mark.slow
def test_jobs_that_cannot_succeed_end_in_an_error(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "always").touch()
    system = Unlucky(str(tmp_path))
    with pytest.raises(SolverError, match="died twice .* the 1 missing samples .*first is 2"):
        generate(system, 3, out=tmp_path / "set", on=slurm, progress=False)
    mistaken = replace(system, mistaken=True)
    with pytest.raises(SolverError, match=r"\(KeyError: 'a mistake.*; this was .* 0\); see .*err"):
        generate(mistaken, 1, out=tmp_path / "other", on=slurm, progress=False)


@pytest.mark.parametrize(
    "flags, on",
    [
        ([], None),
        (["--on", "slurm", "--slurm.jobs", "3"], Slurm(jobs=3)),
        (
            ["--on", "dask", "--dask.scheduler", "tcp://node:8786"],
            Dask(scheduler="tcp://node:8786"),
        ),
    ],
)
def test_the_command_names_the_cluster(
    flags: list[str], on: Slurm | Dask | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*args: object, **options: object) -> None:
        assert options["on"] == on
        raise InputError("seen")

    monkeypatch.setattr("cst_operator.cli.generation.generate", generate)
    assert main(["generate", "poisson", "--n", "2", "--out", "set", *flags]) == 2


def test_what_is_missing_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Callable[..., object] = lambda on, **options: generate(  # noqa: E731
        Unlucky(""), 2, out=tmp_path / "set", on=on, progress=False, **options
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no SLURM here .* on a node that has sbatch"):
        made(Slurm())
    with pytest.raises(InputError, match="no Dask scheduler is named; give its address"):
        made(Dask())
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.1s"}),
        pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:9"),
    ):
        made(Dask(scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(InputError, match="workers is 2 but Dask.* leave workers out"):
        made(Dask(), workers=2)
    with pytest.raises(ConfigError, match="jobs is 0; expected a positive number"):
        Slurm(jobs=0)
    for library, on in (("submitit", Slurm()), ("distributed", Dask())):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(InputError, match=f"{library}.* not installed; pip install 'cst"):
                made(on)
