"""What Sobolev terms are worth: CST with and without them at the same cost.

Three sets: Poisson's equation on random domains, the heat equation there (the first of six frames
in, the others out), steady channel flow past obstacles (Navier-Stokes). On each, the same model
trains for the same CPU seconds with each loss:

* ``k0``: the error;
* ``k1_target``: and the error of the gradient, in time as well where there is time;
* ``k1_smoothing``: the error and the gradient of the answer, at dummy points;
* ``k2``: as ``k1_target``, and the second derivatives of the answer at dummy points.

once on all samples and once on few (splits ``..._few``). Scored on unseen samples, as they are and
with noise of 10 % of their root mean square on the physical fields of the source (``..._noise``).
Steps are set by the measured time of a step, so that every training ends with its whole
learning-rate schedule. ``step_ratio`` is the processor time of a step with terms of order 1 over
that of a plain step, with 64 queries (``step``) or all points as queries (``step_all``) and
derivatives in 64 points either way, the fastest of several in turns.

What an earlier run of the same commit with the same options finished is kept; delete
benchmarks/out/sobolev to start over. In full about an hour on two cores.

    OMP_NUM_THREADS=1 python -m benchmarks.sobolev [--seconds 220] [--jobs 2] [--quick]
"""

import argparse
import dataclasses
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch_geometric.loader import DataLoader

import cst_operator as cst
from benchmarks.kept import Rows, kept_rows
from benchmarks.poisson_domains import train
from cst_operator._seeds import mix
from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.datasets import TrajectoryDataset, generate
from cst_operator.evaluation import Examples
from cst_operator.metrics import relative_h1, relative_l2
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.solvers import Heat, NavierStokes, Poisson, System

HERE = Path(__file__).parent
DATA, OUT = HERE / "data" / "sobolev", HERE / "out" / "sobolev"
NOISE = 0.1
NUM_QUERIES = 64
FIT = cst.FitConfig(batch_size=8, lr=3e-3, muon_lr=0.015)
LOSSES = ("k0", "k1_target", "k1_smoothing", "k2")
METRICS = (relative_l2, relative_h1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One set: what makes it, what is read and asked, and which fields of the source are noisy."""

    system: System
    quick: System
    task: cst.Steady | cst.Forecast
    noisy: tuple[str, ...]

    @property
    def transient(self) -> bool:
        """Whether time is a coordinate."""
        return isinstance(self.task, cst.Forecast)

    @property
    def config(self) -> cst.CSTConfig:
        """Configuration of the model."""
        read = (*self.task.inputs, *self.task.outputs) if self.transient else self.task.inputs
        return cst.Architecture().build(
            dim=2, in_names=read, out_names=self.task.outputs, transient=self.transient
        )


PROBLEMS = {
    "poisson": Problem(
        system=Poisson(),
        quick=Poisson(h=0.08),
        task=cst.Steady(inputs=("f", "distance"), outputs=("u",)),
        noisy=("f",),
    ),
    "heat": Problem(
        system=Heat(num_frames=6),
        quick=Heat(h=0.08, num_frames=3),
        task=cst.Forecast(inputs=("f", "distance"), outputs=("u",)),
        noisy=("f", "u"),
    ),
    "navier_stokes": Problem(
        system=NavierStokes(h=0.12, near=0.08),
        quick=NavierStokes(h=0.2, near=0.08),
        task=cst.Steady(
            inputs=("inflow", "viscosity", "distance_wall", "distance_inflow", "distance_outflow"),
            outputs=("u_x", "u_y", "p"),
        ),
        noisy=("inflow", "viscosity"),
    ),
}


def loss_of(name: str, transient: bool) -> cst.SobolevLoss:
    """The loss of a name.

    Derivatives in time are terms of their own, as their units are. Smoothing is of space alone, and
    small: details of the size of a tenth of the domain add about a hundredth of their norm.
    """
    in_time: dict[str, Any] = {"time_weights": (1.0,)} if transient else {}
    still: dict[str, Any] = {"time_smoothing": (0.0,)} if transient else {}
    still_twice: dict[str, Any] = {"time_smoothing": (0.0, 0.0)} if transient else {}
    return {
        "k0": cst.SobolevLoss(),
        "k1_target": cst.SobolevLoss(order=1, **in_time),
        "k1_smoothing": cst.SobolevLoss(smoothing=(1e-3,), **still),
        "k2": cst.SobolevLoss(
            order=1, smoothing=(0.0, 1e-5), num_dummies=16, **in_time, **still_twice
        ),
    }[name]


def sizes(quick: bool) -> dict[str, int]:
    """Number of samples: to train on, of these where there are few, and to score."""
    return {"all": 16, "few": 8, "test": 4} if quick else {"all": 256, "few": 64, "test": 32}


def generate_data(quick: bool) -> None:
    """Generate what is not there yet; another seed for what is scored."""
    for name, problem in PROBLEMS.items():
        system = problem.quick if quick else problem.system
        for seed, part in enumerate(("all", "test")):
            out = folder_of(name, part, quick)
            generate(system, sizes(quick)[part], seed=seed, out=out, workers=2)


def folder_of(name: str, part: str, quick: bool) -> Path:
    """Where the samples of a set are."""
    return DATA / ("quick" if quick else "full") / f"{name}-{part}"


def data(name: str, part: str, quick: bool) -> list[cst.Trajectory]:
    """Samples in memory, in single precision."""
    return [s.to(torch.float32) for s in TrajectoryDataset(folder_of(name, part, quick))]


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Examples with noise on some channels of their sources, the same whenever they are asked for.

    Args:
        examples: without noise.
        channels: which are noisy.
        level: standard deviation, relative to a channel's root mean square.
    """

    examples: Examples
    channels: tuple[str, ...]
    level: float = NOISE

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> cst.Example:
        source, target = self.examples[index]
        generator = torch.Generator().manual_seed(mix(2, index))
        share = source.weights / source.weights.sum()
        size = (share @ source.u.square()).sqrt()
        noisy = torch.tensor([name in self.channels for name in source.channels])
        noise = torch.randn(source.u.shape, generator=generator)
        u = source.u + self.level * size * noisy * noise
        return cst.Example(source.with_values(u, source.channels, source.units), target)


def run(name: str, loss: str, amount: str, seconds: float, quick: bool, seed: int) -> Rows:
    """Train one model, keep it in a folder, score it; or read what was found before."""
    options = {"seconds": seconds, "quick": quick, "seed": seed}
    kept = OUT / f"{name}-{loss}-{amount}.json"
    return kept_rows(kept, options, partial(_run, name, loss, amount, **options))


def _run(name: str, loss: str, amount: str, seconds: float, quick: bool, seed: int) -> Rows:
    out = OUT / f"{name}-{loss}-{amount}"
    shutil.rmtree(out, ignore_errors=True)
    torch.set_num_threads(1)
    problem = PROBLEMS[name]
    learn = data(name, "all", quick)[: sizes(quick)[amount]]
    torch.manual_seed(seed)
    model = cst.CSTOperator(problem.config)
    model.fit_normalization(cst.TaskDataset(learn, problem.task))
    study = dataclasses.replace(problem.task, num_queries=NUM_QUERIES)
    trained, spent, steps = train(
        model,
        cst.TaskDataset(learn, study, seed=seed),
        loss_of(loss, problem.transient),
        dataclasses.replace(FIT, seed=seed),
        seconds,
        progress=False,
    )
    cst.save(trained, out)
    test = cst.TaskDataset(data(name, "test", quick), problem.task)
    few = "_few" if amount == "few" else ""
    splits = {f"{name}{few}": test, f"{name}{few}_noise": Noisy(test, problem.noisy)}
    rows = list(cst.compare({loss: trained}, splits, seed=seed, metrics=METRICS).rows)
    for metric, value, unit in (("cpu_time", spent, "s"), ("steps", steps, "")):
        rows.append(benchmark_row(loss, f"{name}{few}_training", metric, value, unit, seed))
    return rows


def step_costs(
    model: cst.CSTOperator,
    batches: Sequence[cst.Example],
    split: str,
    repetitions: int,
    seed: int,
) -> Rows:
    """Processor time of steps with terms of order 1, beside a plain one."""
    losses = {
        "k0": cst.SobolevLoss(),
        "k1_target": cst.SobolevLoss(order=1),
        "k1_smoothing": cst.SobolevLoss(smoothing=(1e-3,), num_dummies=NUM_QUERIES),
    }
    best = dict.fromkeys(losses, float("inf"))
    for i in range(repetitions):
        for name, loss in losses.items():
            begin = time.process_time()
            loss(model, batches[i % len(batches)]).total.backward()
            best[name] = min(best[name], time.process_time() - begin)
            model.zero_grad(set_to_none=True)
    return [
        row
        for name, cost in best.items()
        for row in (
            benchmark_row(name, split, "cpu_ms", 1000 * cost, "ms", seed),
            benchmark_row(name, split, "step_ratio", cost / best["k0"], "", seed),
        )
    ]


def measure_steps(quick: bool, seed: int) -> Rows:
    """The same on the Poisson set, with the model and batches of the trainings."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    problem = PROBLEMS["poisson"]
    solutions = data("poisson", "all", quick)[: 2 * FIT.batch_size]
    model = cst.CSTOperator(problem.config)
    model.fit_normalization(cst.TaskDataset(solutions, problem.task))
    rows = []
    for split, queries in (("step", NUM_QUERIES), ("step_all", 0)):
        study = dataclasses.replace(problem.task, num_queries=queries)
        batches = list(DataLoader(cst.TaskDataset(solutions, study), batch_size=FIT.batch_size))
        rows += step_costs(model, batches, split, 3 if quick else 20, seed)
    return rows


def effects(rows: Sequence[dict[str, Any]]) -> Table:
    """Errors of every loss by split, and relative to those of ``k0``."""
    names = [metric.__name__ for metric in METRICS]
    found = {(r["split"], r["metric"], r["model"]): r["value"] for r in rows}
    table = Table(title="Mean of the samples' errors; in brackets relative to k0")
    for column in ("split", "metric", *LOSSES):
        table.add_column(column)
    for split, metric in dict.fromkeys(key[:2] for key in found):
        if metric in names:  # the mean over the channels
            values = [found[split, metric, loss] for loss in LOSSES]
            cells = [f"{value:.3f} ({value / values[0]:.2f})" for value in values]
            table.add_row(split, metric, *cells)
    return table


def pictures(quick: bool) -> None:
    """Truth, answers and errors on the first unseen sample of every set, in its last frame."""
    for name, problem in PROBLEMS.items():
        solution = data(name, "test", quick)[0]
        source = cst.TaskDataset([solution], problem.task)[0].source
        truth = solution.frame(solution.num_frames - 1).select(*problem.task.outputs)
        for amount in ("all", "few"):
            answers = {
                loss: cst.load(OUT / f"{name}-{loss}-{amount}").predict(source, truth)
                for loss in LOSSES
            }
            save_figure(plot_comparison(source, truth, answers), OUT / f"{name}-{amount}.png")


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=220, help="time of each training")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at the same time")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 1 if options.quick else options.seconds
    console = Console()
    generate_data(options.quick)
    OUT.mkdir(parents=True, exist_ok=True)
    rows = measure_steps(options.quick, options.seed)
    todo = list(product(PROBLEMS, LOSSES, ("all", "few")))
    console.print(f"{len(todo)} trainings of {seconds:.0f} CPU seconds each")
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(run, *which, seconds, options.quick, options.seed) for which in todo]
        for which, done in zip(todo, pending, strict=True):
            rows += done.result()
            console.print(" ".join(which), "done")
    console.print(effects(rows))
    counts = sizes(options.quick)
    record = benchmark_record(
        "sobolev",
        rows,
        data=f"cst_operator.solvers Poisson, Heat, NavierStokes: {counts['all']} samples (few: "
        f"{counts['few']}) of seed 0 to train, {counts['test']} of seed 1 to score",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=1,
        noise=NOISE,
        systems={
            name: dataclasses.asdict(problem.quick if options.quick else problem.system)
            for name, problem in PROBLEMS.items()
        },
        models={name: dataclasses.asdict(problem.config) for name, problem in PROBLEMS.items()},
        losses={
            f"{name} {loss}": dataclasses.asdict(loss_of(loss, problem.transient))
            for name, problem in PROBLEMS.items()
            for loss in LOSSES
        },
        training=dataclasses.asdict(FIT),
    )
    console.print(f"record: {record}")
    pictures(options.quick)
    console.print(f"pictures and models: {OUT}")


if __name__ == "__main__":
    main()
