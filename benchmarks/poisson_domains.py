"""Poisson's equation on random domains with holes: CST against FNO through a grid.

-div(grad u) = f, u = 0 on the boundary; the source is (f, distance to the boundary) at about 280
nodes, the answer u. Both models train on the same 1,000 solutions for the same CPU seconds on one
thread each, side by side, and are scored on unseen domains and, without further training, on meshes
of those domains with four times the nodes. Steps are set by the measured time of a step, so that
both end with their whole learning-rate schedule. What an earlier run of the same commit
with the same options finished is kept; delete benchmarks/out/poisson_domains to start over.

    OMP_NUM_THREADS=1 python -m benchmarks.poisson_domains [--seconds 1800] [--jobs 2] [--quick]
"""

import argparse
import dataclasses
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import cst_operator as cst
from benchmarks.kept import Rows, kept_rows
from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.datasets import TrajectoryDataset, generate
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.solvers import Poisson

HERE = Path(__file__).parent
DATA, OUT = HERE / "data" / "poisson_domains", HERE / "out" / "poisson_domains"
TITLE = "Poisson on random domains: mean of the samples' errors"
INPUTS, OUTPUTS = ("f", "distance"), ("u",)
ASK = cst.Steady(inputs=INPUTS, outputs=OUTPUTS)
# Settings of both were chosen in trials of one to four minutes on domains not scored here.
ASK_CST = dataclasses.replace(ASK, boundary=True)
LEARN_CST = dataclasses.replace(ASK_CST, resample=True, num_queries=64)
FIT_CST = cst.FitConfig(batch_size=8, lr=3e-3, muon_lr=0.015)
FIT_FNO = cst.FitConfig(batch_size=16, lr=5e-3)


def generate_data(folder: Path, quick: bool) -> None:
    """Generate what is not there yet; another seed for what is scored."""
    for name, (n, seed, refine) in sizes(quick).items():
        generate(Poisson(), n, seed=seed, refine=refine, out=folder / f"{name}-{n}", workers=2)


def sizes(quick: bool) -> dict[str, tuple[int, int, int]]:
    """Number of solutions, seed and refinement of every set."""
    num_train, num_test = (32, 8) if quick else (1000, 100)
    return {"train": (num_train, 0, 0), "test": (num_test, 1, 0), "test_fine": (num_test, 1, 1)}


def data(folder: Path, quick: bool) -> dict[str, list[cst.Trajectory]]:
    """All sets in memory, in single precision."""
    return {
        name: [solution.to(torch.float32) for solution in TrajectoryDataset(folder / f"{name}-{n}")]
        for name, (n, _, _) in sizes(quick).items()
    }


def train(
    model: nn.Module,
    examples: cst.TaskDataset,
    loss: cst.SobolevLoss,
    config: cst.FitConfig,
    seconds: float,
    progress: bool,
) -> tuple[nn.Module, float, int]:
    """Train for about so many seconds; returns the model, the seconds and the steps."""
    trial = dataclasses.replace(config, steps=8, eval_every=10**6, save_every=10**6)
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    spent = 0.0
    while spent < seconds / 50:  # enough steps that a busy moment does not decide
        trial = dataclasses.replace(trial, steps=2 * trial.steps)
        begin = time.process_time()
        cst.fit(model, examples, loss=loss, config=trial, progress=False)
        spent = time.process_time() - begin
    per_step = spent / trial.steps
    model.load_state_dict(kept)
    steps = max(20, round(seconds / per_step))
    begin = time.process_time()
    cst.fit(
        model,
        examples,
        loss=loss,
        config=dataclasses.replace(trial, steps=steps),
        progress=progress,
    )
    return model, time.process_time() - begin, steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How one model is trained and asked."""

    kind: type
    config_kind: type
    ask: cst.Steady
    study: cst.Steady
    fit: cst.FitConfig
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> Any:
        """Configuration of the model."""
        return _config(self.config_kind, self.ask, **self.sizes)


PLANS = {
    "cst": Plan(
        kind=cst.CSTOperator,
        config_kind=cst.CSTConfig,
        ask=ASK_CST,
        study=LEARN_CST,
        fit=FIT_CST,
    ),
    "fno": Plan(
        kind=cst.GridFNO,
        config_kind=cst.GridFNOConfig,
        ask=ASK,
        study=ASK,
        fit=FIT_FNO,
        sizes={"width": 32},
    ),
}


def run(name: str, seconds: float, quick: bool, seed: int) -> Rows:
    """Train one model, keep it in a folder, score it; or read what was found before."""
    options = {"seconds": seconds, "quick": quick, "seed": seed}
    return kept_rows(OUT / f"{name}.json", options, partial(_run, name, **options))


def _run(name: str, seconds: float, quick: bool, seed: int) -> Rows:
    out = OUT / name
    shutil.rmtree(out, ignore_errors=True)
    torch.set_num_threads(1)
    plan = PLANS[name]
    solutions = data(DATA, quick)
    learn = solutions.pop("train")
    torch.manual_seed(seed)
    model = plan.kind(plan.config)
    model.fit_normalization(cst.TaskDataset(learn, plan.ask))
    examples = cst.TaskDataset(learn, plan.study, seed=seed)
    config = dataclasses.replace(plan.fit, seed=seed)
    model, spent, steps = train(
        model, examples, cst.SobolevLoss(), config, seconds, name == next(iter(PLANS))
    )
    cst.save(model, out)
    splits = {key: cst.TaskDataset(value, plan.ask) for key, value in solutions.items()}
    rows = list(cst.compare({name: model}, splits, seed=seed).rows)
    for metric, value, unit in (("cpu_time", spent, "s"), ("steps", steps, "")):
        rows.append(benchmark_row(name, "train", metric, value, unit, seed))
    return rows


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800, help="training time of each model")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at the same time")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 20 if options.quick else options.seconds
    console = Console()
    generate_data(DATA, options.quick)
    OUT.mkdir(parents=True, exist_ok=True)
    console.print(f"training {', '.join(PLANS)} for {seconds:.0f} CPU seconds each")
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(run, name, seconds, options.quick, options.seed) for name in PLANS]
        rows = [row for done in pending for row in done.result()]
    scored = tuple(row for row in rows if row["split"] != "train")
    console.print(cst.Comparison(rows=scored, scores={}).table(TITLE))
    record = benchmark_record(
        "poisson_domains",
        rows,
        data="cst_operator.solvers.Poisson(), seed 0 (train), seed 1 (test; test_fine refine=1)",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=1,
        models={name: dataclasses.asdict(plan.config) for name, plan in PLANS.items()},
        tasks={name: dataclasses.asdict(plan.study) for name, plan in PLANS.items()},
        training={name: dataclasses.asdict(plan.fit) for name, plan in PLANS.items()},
    )
    console.print(f"record: {record}")
    pictures(data(DATA, options.quick))
    console.print(f"pictures and models: {OUT}")


def _config(kind: type, task: cst.Steady, **sizes: Any) -> Any:
    names = (*task.inputs, "boundary") if task.boundary else task.inputs
    return kind(
        dim=2,
        in_channels=len(names),
        out_channels=len(task.outputs),
        in_names=names,
        out_names=task.outputs,
        **sizes,
    )


def pictures(solutions: dict[str, list[cst.Trajectory]]) -> None:
    """Truth, answers and errors on the first unseen domain, coarse and fine."""
    models = {name: cst.load(OUT / name) for name in PLANS}
    for split in ("test", "test_fine"):
        answers = {
            name: model.predict(*cst.TaskDataset(solutions[split], PLANS[name].ask)[0])
            for name, model in models.items()
        }
        source, truth = cst.TaskDataset(solutions[split], ASK)[0]
        save_figure(plot_comparison(source, truth, answers), OUT / f"{split}.png")


if __name__ == "__main__":
    main()
