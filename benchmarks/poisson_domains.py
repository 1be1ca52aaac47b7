"""Poisson's equation on random domains with holes: CST against FNO through a grid.

-div(grad u) = f, u = 0 on the boundary; the source is (f, distance to the boundary) at about 280
nodes, the answer u. Both models train on the same 1,000 solutions for the same CPU seconds on one
thread, one after the other in one process, and are scored on unseen domains and, without further
training, on meshes of those domains with four times the nodes. Steps are set by the measured time
of a step, so that both end with their whole learning-rate schedule.

    OMP_NUM_THREADS=1 python -m benchmarks.poisson_domains [--seconds 600] [--quick]
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import cst_operator as cst
from cst_operator.comparison import benchmark_record
from cst_operator.datasets import generate
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.solvers import Poisson

HERE = Path(__file__).parent
KEYS = ("model", "split", "metric", "value", "unit", "seed")
INPUTS, OUTPUTS = ("f", "distance"), ("u",)
ASK = cst.Steady(inputs=INPUTS, outputs=OUTPUTS)
# Settings of both were chosen in trials of one to four minutes on domains not scored here.
ASK_CST = dataclasses.replace(ASK, boundary=True)
LEARN_CST = dataclasses.replace(ASK_CST, resample=True, num_queries=64)
FIT_CST = cst.FitConfig(batch_size=8, lr=3e-3, muon_lr=0.015)
FIT_FNO = cst.FitConfig(batch_size=16, lr=5e-3)


def data(folder: Path, quick: bool) -> dict[str, list[cst.Trajectory]]:
    """Generated once and kept, read in single precision; another seed for what is scored."""
    num_train, num_test = (32, 8) if quick else (1000, 100)
    sets = {"train": (num_train, 0, 0), "test": (num_test, 1, 0), "test_fine": (num_test, 1, 1)}
    return {
        name: [
            trajectory.to(torch.float32)
            for trajectory in generate(
                Poisson(), n, seed=seed, refine=refine, out=folder / f"{name}-{n}", workers=2
            )
        ]
        for name, (n, seed, refine) in sets.items()
    }


def train(
    model: nn.Module,
    examples: cst.TaskDataset,
    loss: cst.SobolevLoss,
    config: cst.FitConfig,
    seconds: float,
) -> tuple[nn.Module, float, int]:
    """Train for about so many seconds; returns the model, the seconds and the steps."""
    trial = dataclasses.replace(config, steps=12, eval_every=10**6, save_every=10**6)
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    cst.fit(model, examples, loss=loss, config=dataclasses.replace(trial, steps=4), progress=False)
    begin = time.process_time()
    cst.fit(model, examples, loss=loss, config=trial, progress=False)
    per_step = (time.process_time() - begin) / trial.steps
    model.load_state_dict(kept)
    steps = max(20, round(seconds / per_step))
    begin = time.process_time()
    cst.fit(model, examples, loss=loss, config=dataclasses.replace(trial, steps=steps))
    return model, time.process_time() - begin, steps


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="training time of each model")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 20 if options.quick else options.seconds
    console = Console()
    solutions = data(HERE / "data" / "poisson_domains", options.quick)
    learn = solutions.pop("train")

    torch.manual_seed(options.seed)
    plans = {
        "cst": (cst.CSTOperator(_config(cst.CSTConfig, ASK_CST)), ASK_CST, LEARN_CST, FIT_CST),
        "fno": (cst.GridFNO(_config(cst.GridFNOConfig, ASK)), ASK, ASK, FIT_FNO),
    }
    rows: list[dict[str, Any]] = []
    scored: dict[str, tuple[nn.Module, dict[str, cst.TaskDataset]]] = {}
    for name, (model, ask, study, config) in plans.items():
        model.fit_normalization(cst.TaskDataset(learn, ask))  # type: ignore[operator]
        console.print(f"training {name} for {seconds:.0f} CPU seconds")
        examples = cst.TaskDataset(learn, study, seed=options.seed)
        config = dataclasses.replace(config, seed=options.seed)
        model, spent, steps = train(model, examples, cst.SobolevLoss(), config, seconds)
        splits = {key: cst.TaskDataset(value, ask) for key, value in solutions.items()}
        scored[name] = (model, splits)
        result = cst.compare({name: model}, splits, seed=options.seed)
        console.print(result.table("Poisson on random domains: mean of the samples' errors"))
        rows += result.rows
        for metric, value, unit in (("cpu_time", spent, "s"), ("steps", steps, "")):
            row = (name, "train", metric, value, unit, options.seed)
            rows.append(dict(zip(KEYS, row, strict=True)))
    record = benchmark_record(
        "poisson_domains",
        rows,
        data="cst_operator.solvers.Poisson(), seed 0 (train), seed 1 (test; test_fine refine=1)",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
        models={name: dataclasses.asdict(plan[0].config) for name, plan in plans.items()},  # type: ignore[call-overload]
        tasks={name: dataclasses.asdict(plan[2]) for name, plan in plans.items()},
        training={name: dataclasses.asdict(plan[3]) for name, plan in plans.items()},
    )
    console.print(f"record: {record}")
    out = HERE / "out" / "poisson_domains"
    pictures(scored, out)
    console.print(f"pictures: {out}")


def _config(kind: type, task: cst.Steady) -> Any:
    names = (*task.inputs, "boundary") if task.boundary else task.inputs
    return kind(
        dim=2,
        in_channels=len(names),
        out_channels=len(task.outputs),
        in_names=names,
        out_names=task.outputs,
    )


def pictures(scored: dict[str, tuple[nn.Module, dict[str, cst.TaskDataset]]], out: Path) -> None:
    """Truth, answers and errors on the first unseen domain, coarse and fine."""
    out.mkdir(parents=True, exist_ok=True)
    for split in ("test", "test_fine"):
        answers = {
            name: model.predict(*examples[split][0])  # type: ignore[operator]
            for name, (model, examples) in scored.items()
        }
        source, truth = scored["fno"][1][split][0]
        save_figure(plot_comparison(source, truth, answers), out / f"{split}.png")


if __name__ == "__main__":
    main()
