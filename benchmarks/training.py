"""What the training loop costs beside a plain loop on the same model, loss and data.

Each measurement is a process of its own with one thread: ``plain`` is a loop of plain PyTorch
(:func:`plain_loop`), ``fit`` is :func:`cst_operator.fit` with the same optimizer, batch size and
loss, with a run folder and a record of its log in every tenth step. Both are also measured in two
processes under ``torchrun``, each with half of every batch. ``fit_values`` and
``fit_values_compiled`` minimize the error of the values alone, since derivatives in coordinates are
not compiled.

The unit of measurement is an epoch, in which every example is met once, so that all epochs are the
same work. The measurements take turns, and of all epochs after the first the fastest counts, since
what else the machine does can only slow them down.

Metrics: ``cpu_ms_per_step``, the processor time of a step (in two processes: of one of them), which
hardly depends on what else the machine does; ``steps_per_second`` by the clock; ``peak_memory`` of
a process; ``overhead``, the processor time beyond that of the plain loop in as many processes,
relative to it; ``first_step`` by the clock, which of a compiled training has the compilation;
``speedup``, the processor time of a step of ``fit_values`` over that of a compiled one.

Run ``python -m benchmarks.training`` (about six minutes on two idle cores), with ``--quick`` for a
trial of a minute that writes to ``benchmarks/results/quick`` and compiles nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn
from torch_geometric.loader import DataLoader

from benchmarks.memory import peak_memory
from cst_operator.comparison import benchmark_record, benchmark_row, num_parameters
from cst_operator.cst_config import CSTConfig
from cst_operator.fields import Example, PointField
from cst_operator.model import CSTOperator
from cst_operator.processes import connect
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import FitConfig, fit

HERE = Path(__file__).parent
MODEL = CSTConfig(dim=2, in_channels=1, out_channels=1)
LOSS = SobolevLoss(order=1, num_points=32)
VALUES = SobolevLoss()
BATCH_SIZE, NUM_EXAMPLES, SEED = 8, 64, 0
EPOCH = NUM_EXAMPLES // BATCH_SIZE
TRAININGS = ("plain", "fit", "plain_2_processes", "fit_2_processes", "fit_values")
COMPILED = "fit_values_compiled"


def examples() -> list[Example]:
    """Fields of 100 to 200 points, asked for at 64 with known gradients."""
    generator = torch.Generator().manual_seed(SEED)
    made = []
    for _ in range(NUM_EXAMPLES):
        n = int(torch.randint(100, 200, (), generator=generator))
        sides = []
        for count in (n, 64):
            pos = torch.rand(count, 2, generator=generator)
            u, slope = torch.sin(4 * pos[:, :1]), 4 * torch.cos(4 * pos[:, :1])
            gradient = torch.stack([slope, torch.zeros_like(slope)], dim=-1)
            weights = torch.full((count,), 1 / count)
            sides.append(PointField(pos, u, weights, gradient=gradient))
        made.append(Example(*sides))
    return made


def plain_loop(model: nn.Module, data: list[Example], steps: int, tick: Callable[[], Any]) -> None:
    """The plainest loop that does the same: load, differentiate, exchange, clip, step."""
    processes = connect()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(SEED)  # the same in every process
    done = 0
    while done < steps:
        own = torch.randperm(len(data), generator=order)[processes.rank :: processes.size].tolist()
        for batch in DataLoader(data, batch_size=BATCH_SIZE // processes.size, sampler=own):
            optimizer.zero_grad(set_to_none=True)
            LOSS(model, batch).total.backward()
            if processes.size > 1:
                for p in model.parameters():
                    if p.grad is not None:
                        dist.all_reduce(p.grad)
                        p.grad /= processes.size
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
            tick()
            if done == steps:
                break


def settings(steps: int) -> FitConfig:
    """As the plain loop; averaging and the log are part of what is measured."""
    return FitConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        lr=1e-3,
        muon_lr=0.0,
        log_every=10,
        seed=SEED,
        device="cpu",
    )


def now() -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    return time.process_time(), time.perf_counter()


def measure(what: str, epochs: int) -> dict[str, float]:
    """Train here, one epoch to warm up and so many to measure, and say what the best one took."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = CSTOperator(MODEL)
    data = examples()
    model.fit_normalization(data)
    steps = (1 + epochs) * EPOCH + 1  # fit does not ask after the last step
    times = [now()]

    def tick() -> bool:
        times.append(now())
        return False

    if what.startswith("plain"):
        plain_loop(model, data, steps, tick)
    else:
        loss = VALUES if "values" in what else LOSS
        config = replace(settings(steps), compile=what == COMPILED)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            fit(model, data, loss=loss, config=config, out=run, stop=tick, progress=False)
    ends = times[EPOCH::EPOCH][: epochs + 1]
    cpu, wall = (
        min(after[i] - before[i] for before, after in pairwise(ends)) / EPOCH for i in range(2)
    )
    return {
        "cpu_ms_per_step": 1000 * cpu,
        "steps_per_second": 1 / wall,
        "first_step": times[1][1] - times[0][1],
        "peak_memory": peak_memory(),
    }


def measured(what: str, epochs: int) -> dict[str, float]:
    """The same in a process of its own, or in two."""
    launch = [sys.executable, "-m"]
    if what.endswith("2_processes"):
        launch += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launch, "benchmarks.training", "--measure", what, "--epochs", str(epochs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def best_of(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The best of all rounds by training and metric, and what follows from it."""
    best: dict[str, dict[str, float]] = {}
    for found in rounds:
        for what, values in found.items():
            kept = best.setdefault(what, dict(values))
            for metric, value in values.items():
                pick = max if metric == "steps_per_second" else min
                kept[metric] = pick(kept[metric], value)
    cost = {what: values["cpu_ms_per_step"] for what, values in best.items()}
    for what in ("fit", "fit_2_processes"):
        best[what]["overhead"] = cost[what] / cost[what.replace("fit", "plain")] - 1
    if COMPILED in best:
        best[COMPILED]["speedup"] = cost["fit_values"] / cost[COMPILED]
    return best


def rows_of(best: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row for every training and metric."""
    units = {
        "cpu_ms_per_step": "ms",
        "steps_per_second": "1/s",
        "first_step": "s",
        "peak_memory": "MiB",
    }
    return [
        benchmark_row(what, "training", metric, value, units.get(metric, ""), SEED)
        for what, values in best.items()
        for metric, value in values.items()
    ]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a trial of a minute")
    parser.add_argument("--epochs", type=int, help="epochs that each training is measured for")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    epochs = arguments.epochs or (1 if arguments.quick else 4)
    if arguments.measure:
        found = measure(arguments.measure, epochs)
        if connect().is_first:
            print(json.dumps(found))
        return
    torch.set_num_threads(1)  # as in what is measured; the record says how many
    rounds = [
        {what: measured(what, epochs) for what in TRAININGS}
        for _ in range(1 if arguments.quick else 3)
    ]
    if not arguments.quick:
        rounds.append({COMPILED: measured(COMPILED, epochs)})
    rows = rows_of(best_of(rounds))
    path = benchmark_record(
        "training",
        rows,
        data=f"{NUM_EXAMPLES} synthetic fields of 100 to 200 points, made with seed {SEED}",
        folder=HERE / "results" / "quick" if arguments.quick else HERE / "results",
        configuration={
            "model": asdict(MODEL),
            "loss": asdict(LOSS),
            "training": asdict(settings((1 + epochs) * EPOCH + 1)),
            "parameters": num_parameters(CSTOperator(MODEL)),
        },
    )
    console = Console()
    for row in rows:
        console.print(f"{row['model']:20} {row['metric']:16} {row['value']:10.4g} {row['unit']}")
    console.print(f"rows: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
