"""Poisson's equation on random domains with holes: CST against FNO through a grid.

-div(grad u) = f, u = 0 on the boundary; the source is (f, distance to the boundary) at about 280
nodes, the answer u. Both models train on the same 1,000 solutions for the same seconds on the same
threads, one after the other in one process, and are scored on unseen domains and, without further
training, on meshes of those domains with four times the nodes. Steps are set by the measured time
of a step, so that both end with their whole learning-rate schedule.

    python -m benchmarks.poisson_domains [--seconds 600] [--quick]
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import cst_operator as cst
from cst_operator.comparison import benchmark_record
from cst_operator.datasets import generate
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.solvers import Poisson

HERE = Path(__file__).parent
INPUTS, OUTPUTS = ("f", "distance"), ("u",)
ASK = cst.Steady(inputs=INPUTS, outputs=OUTPUTS)
CHANNELS = {"dim": 2, "in_channels": 2, "out_channels": 1, "in_names": INPUTS, "out_names": OUTPUTS}
# Chosen in trials of two minutes on domains that are not scored here.
CST_TASK = dataclasses.replace(ASK, resample=True, num_queries=96)
CST_FIT = cst.FitConfig(batch_size=8, lr=3e-3, muon_lr=0.015)
FNO_FIT = cst.FitConfig(batch_size=16, lr=5e-3)


def data(folder: Path, quick: bool) -> dict[str, cst.TaskDataset]:
    """Generated once and kept; other seeds for what is scored than for what is learned."""
    num_train, num_test = (32, 8) if quick else (1000, 100)
    system = Poisson()
    train = generate(system, num_train, seed=0, out=folder / f"train-{num_train}", workers=2)
    test = generate(system, num_test, seed=1, out=folder / f"test-{num_test}", workers=2)
    fine = generate(
        system, num_test, seed=1, refine=1, out=folder / f"fine-{num_test}", workers=2
    )
    return {
        "train": _kept(train),
        "test": cst.TaskDataset(_kept(test).trajectories, ASK),
        "test_fine": cst.TaskDataset(_kept(fine).trajectories, ASK),
    }


def _kept(trajectories) -> cst.TaskDataset:  # type: ignore[no-untyped-def]
    """In memory and in single precision, as it is trained."""
    return cst.TaskDataset([_single(trajectory) for trajectory in trajectories], ASK)


def _single(trajectory: cst.Trajectory) -> cst.Trajectory:
    mesh = trajectory.mesh.clone()
    for key in ("pos", "time", "u", "weights"):
        mesh[key] = mesh[key].float()
    changes = {key: getattr(trajectory, key) for key in ("times", "u", "gradient")}
    return dataclasses.replace(
        trajectory, mesh=mesh, **{k: None if v is None else v.float() for k, v in changes.items()}
    )


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
    begin = time.perf_counter()
    cst.fit(model, examples, loss=loss, config=trial, progress=False)
    per_step = (time.perf_counter() - begin) / trial.steps
    model.load_state_dict(kept)
    steps = max(20, round(seconds / per_step))
    begin = time.perf_counter()
    cst.fit(model, examples, loss=loss, config=dataclasses.replace(trial, steps=steps))
    return model, time.perf_counter() - begin, steps


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="training time of each model")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 20 if options.quick else options.seconds
    console = Console()
    splits = data(HERE / "data" / "poisson_domains", options.quick)
    learn = splits.pop("train")

    torch.manual_seed(options.seed)
    models: dict[str, nn.Module] = {
        "cst": cst.CSTOperator(cst.CSTConfig(**CHANNELS)),
        "fno": cst.GridFNO(cst.GridFNOConfig(**CHANNELS)),
    }
    plans = {"cst": (CST_TASK, CST_FIT), "fno": (ASK, FNO_FIT)}
    extra = []
    for name, (task, config) in plans.items():
        config = dataclasses.replace(config, seed=options.seed)
        models[name].fit_normalization(learn)  # type: ignore[operator]
        examples = cst.TaskDataset(learn.trajectories, task, seed=options.seed)
        console.print(f"training {name} for {seconds:.0f} s")
        _, spent, steps = train(models[name], examples, cst.SobolevLoss(), config, seconds)
        for metric, value, unit in (("train_time", spent, "s"), ("steps", steps, "")):
            extra.append((name, "train", metric, value, unit, options.seed))

    result = cst.compare(models, splits, seed=options.seed)
    console.print(result.table("Poisson on random domains: mean of the errors of the samples"))
    keys = ("model", "split", "metric", "value", "unit", "seed")
    rows = [*result.rows, *(dict(zip(keys, row, strict=True)) for row in extra)]
    record = benchmark_record(
        "poisson_domains",
        rows,
        data="cst_operator.solvers.Poisson(), seed 0 (train), seed 1 (test; test_fine refine=1)",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
        models={name: dataclasses.asdict(model.config) for name, model in models.items()},
        training={name: dataclasses.asdict(config) for name, (_, config) in plans.items()},
    )
    console.print(f"record: {record}")
    pictures(models, splits, HERE / "out" / "poisson_domains")
    console.print(f"pictures: {HERE / 'out' / 'poisson_domains'}")


def pictures(models: dict[str, nn.Module], splits: dict[str, cst.TaskDataset], out: Path) -> None:
    """Truth, answers and errors on the first unseen domain, coarse and fine."""
    out.mkdir(parents=True, exist_ok=True)
    for split, examples in splits.items():
        source, truth = examples[0]
        answers = {name: model.predict(source, truth) for name, model in models.items()}  # type: ignore[operator]
        save_figure(plot_comparison(source, truth, answers), out / f"{split}.png")


if __name__ == "__main__":
    main()
