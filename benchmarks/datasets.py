"""What data sets cost: making them, reading them for training, and the memory of both.

Three measurements, each in processes of its own with one thread:

* ``generation``: solutions a second of Poisson's equation on random domains, with one worker and
  with two; the start of the processes included.
* ``reading``: examples a second that a training loop gets from a generated set (windows of 8 frames
  of 65,536 points, of which a random part is read and asked), with no worker process and with two;
  beside it windows of plain arrays in a ``.npy`` file of the same values, copied and nothing more
  (``raw_arrays``), and examples of trajectories that are in memory (``in_memory``).
* ``training``: one epoch of :func:`cst_operator.fit` over a set larger than the memory it may take,
  with its normalization fitted first, and two worker processes; ``peak_memory`` is the resident
  memory of the training process and of the larger worker twice, ``set_size`` that of the set.

Run ``python -m benchmarks.datasets`` (needs 21 GB of disk for the time it runs), with ``--quick``
for a trial on 200 MB that writes to ``benchmarks/results/quick``.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import cst_operator as cst
from benchmarks.memory import peak_memory
from cst_operator._batches import parts
from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.datasets import TrajectoryDataset, Windows, generate
from cst_operator.processes import connect
from cst_operator.solvers import Poisson

HERE = Path(__file__).parent
SIDE, FRAMES, LENGTH = 256, 400, 8
BATCH_SIZE, SEED = 8, 0
WORKERS = 2


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    solutions: int
    """Solutions that are made."""
    examples: int
    """Examples that are read."""
    trajectories: int
    """Trajectories of the large set, of about 100 MB each."""


FULL = Sizes(solutions=200, examples=400, trajectories=200)
QUICK = Sizes(solutions=4, examples=16, trajectories=2)


@dataclass(frozen=True)
class Ripples:
    """Three travelling waves on a grid: large trajectories that cost little to make."""

    side: int = SIDE
    frames: int = FRAMES
    name: str = "ripples"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> cst.Trajectory:
        """One trajectory; ``refine`` changes nothing."""
        generator = torch.Generator().manual_seed(1000 * seed + index)
        x = torch.linspace(0, 1, self.side)
        times = torch.linspace(0, 1, self.frames)
        u = torch.zeros(self.frames, self.side, self.side)
        for _ in range(3):
            k, m, speed = (6 * torch.randn(3, generator=generator)).tolist()
            u += torch.sin(k * x - speed * times[:, None])[:, :, None] * torch.cos(m * x)
        pos = torch.cartesian_prod(x, x)
        mesh = cst.PointField(pos, weights=torch.full((len(pos),), 1 / len(pos)))
        return cst.Trajectory(
            mesh=mesh, times=times, u=u.reshape(self.frames, -1, 1), channels=("u",)
        )


TASK = cst.Masking(
    channels=("u",), frames=cst.LastFrames(hidden=2), points=256 / SIDE**2, num_queries=256
)


def examples(trajectories: Sequence[cst.Trajectory]) -> cst.TaskDataset:
    """What is trained on."""
    return cst.TaskDataset(Windows(trajectories, LENGTH, stride=LENGTH), TASK, seed=SEED)


def generation(workers: int, sizes: Sizes, folder: Path) -> dict[str, float]:
    """Solutions a second."""
    out = folder / f"poisson_{workers}"
    begin = time.perf_counter()
    data = generate(Poisson(), sizes.solutions, out=out, seed=SEED, workers=workers, progress=False)
    return {"samples_per_second": len(data) / (time.perf_counter() - begin)}


def reading(what: str, sizes: Sizes, folder: Path) -> dict[str, float]:
    """Examples a second."""
    data = generate(
        Ripples(), QUICK.trajectories, out=folder / "ripples", dtype="float32", progress=False
    )
    count = min(sizes.examples, len(data) * (FRAMES // LENGTH))
    if what == "raw_arrays":
        for i, trajectory in enumerate(data):
            np.save(folder / f"{i}.npy", trajectory.u.numpy())
        batches = raw_batches([folder / f"{i}.npy" for i in range(len(data))])
    else:
        trajectories = list(data) if what == "in_memory" else data
        config = cst.FitConfig(
            steps=count // BATCH_SIZE + 1,
            batch_size=BATCH_SIZE,
            num_workers=WORKERS if what == "workers" else 0,
        )
        batches = parts(examples(trajectories), config, 0, torch.device("cpu"), connect())
    next(batches)  # starts the workers
    begin = time.perf_counter()
    done = 0
    while done < count // BATCH_SIZE:
        next(batches)
        done += 1
    return {"samples_per_second": done * BATCH_SIZE / (time.perf_counter() - begin)}


def raw_batches(files: Sequence[Path]) -> Iterator[torch.Tensor]:
    """Copies of random windows of mapped arrays."""
    arrays = [np.load(file, mmap_mode="r") for file in files]
    rng = np.random.default_rng(SEED)
    while True:
        chosen = rng.integers(len(arrays), size=BATCH_SIZE)
        starts = LENGTH * rng.integers(FRAMES // LENGTH, size=BATCH_SIZE)
        pairs = zip(chosen, starts, strict=True)
        yield torch.from_numpy(np.stack([arrays[i][s : s + LENGTH] for i, s in pairs]))


def training(sizes: Sizes, folder: Path) -> dict[str, float]:
    """Resident memory of an epoch over a large set, which must be there."""
    train = examples(TrajectoryDataset(folder / "large"))
    torch.manual_seed(SEED)
    config = cst.CSTConfig(dim=2, in_channels=1, out_channels=1, width=32, depth=2, heads=2)
    steps = len(train) // BATCH_SIZE
    begin = time.perf_counter()
    cst.fit(
        cst.CSTOperator(config),
        train,
        config=cst.FitConfig(
            steps=steps, batch_size=BATCH_SIZE, num_workers=WORKERS, device="cpu", log_every=steps
        ),
        progress=False,
    )
    seconds = time.perf_counter() - begin
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "peak_memory": peak_memory() + WORKERS * worker,
        "set_size": sum(f.stat().st_size for f in (folder / "large").glob("*.h5")) / 1e9,
        "samples_per_second": steps * BATCH_SIZE / seconds,
    }


UNITS = {"samples_per_second": "1/s", "peak_memory": "MB", "set_size": "GB"}
CASES = (
    ("generation", "1"),
    ("generation", "2"),
    ("reading", "raw_arrays"),
    ("reading", "in_memory"),
    ("reading", "no_workers"),
    ("reading", "workers"),
    ("training", "fit"),
)


def measure(split: str, what: str, sizes: Sizes, folder: Path) -> dict[str, float]:
    """One measurement, in this process."""
    torch.set_num_threads(1)
    if split == "generation":
        return generation(int(what), sizes, folder)
    return training(sizes, folder) if split == "training" else reading(what, sizes, folder)


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--measure", nargs=2, metavar=("SPLIT", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    folder = HERE / "data" / "datasets"
    if options.measure:
        print(json.dumps(measure(*options.measure, sizes, folder)))
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        rows = list(run(sizes, options.quick, folder))
    finally:
        shutil.rmtree(folder)
    record = benchmark_record(
        "datasets",
        rows,
        data="Poisson's equation on random domains; travelling waves on a grid of "
        f"{SIDE} x {SIDE}, {FRAMES} frames, in float32",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=1,
    )
    Console().print(f"record: {record}")


def run(sizes: Sizes, quick: bool, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of all measurements, and a table of them."""
    table = Table("measurement", "case", "metric", "value", "unit")
    for split, what in CASES:
        if split == "training":
            generate(Ripples(), sizes.trajectories, out=folder / "large", dtype="float32")
        command = [sys.executable, "-m", "benchmarks.datasets", "--measure", split, what]
        done = subprocess.run(
            command + ["--quick"] * quick,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise RuntimeError(f"{split} {what} failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        for metric, value in found.items():
            yield benchmark_row(what, split, metric, value, UNITS[metric], SEED)
            table.add_row(split, what, metric, f"{value:,.4g}", UNITS[metric])
    Console().print(table)


if __name__ == "__main__":
    main()
