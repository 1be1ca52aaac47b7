"""What the training loop costs beside a loop of a dozen lines on the same model, loss and data.

Each measurement is a process of its own with one thread: ``plain`` is a loop of plain PyTorch
(:func:`plain_loop`), ``fit`` is :func:`cst_operator.fit` with the same optimizer, batch size and
loss, ``fit_2_processes`` the same under ``torchrun``, each process with half of every batch. The
first steps are left out, and of several repetitions the fastest counts, since what else the machine
does can only slow them down.

Metrics: ``cpu_ms_per_step``, the processor time of a step, which hardly depends on what else the
machine does; ``steps_per_second`` by the clock; ``peak_memory`` of a process;
``overhead``, the processor time beyond that of the plain loop, relative to it.

Run ``python -m benchmarks.training`` (two to three minutes on two idle cores), with ``--quick`` for
a trial of half a minute that writes to ``benchmarks/results/quick``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch_geometric.loader import DataLoader

from benchmarks.memory import peak_memory
from cst_operator.comparison import benchmark_record, num_parameters
from cst_operator.cst_config import CSTConfig
from cst_operator.fields import Example, PointField
from cst_operator.model import CSTOperator
from cst_operator.processes import connect
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import FitConfig, fit

HERE = Path(__file__).parent
MODEL = CSTConfig(dim=2, in_channels=1, out_channels=1)
LOSS = SobolevLoss(order=1, num_points=32)
BATCH_SIZE, NUM_EXAMPLES, WARM_UP, SEED = 8, 64, 5, 0


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
    """The plainest loop that does the same: load, differentiate, clip, step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    done = 0
    while done < steps:
        for batch in DataLoader(data, batch_size=BATCH_SIZE, shuffle=True):
            optimizer.zero_grad(set_to_none=True)
            LOSS(model, batch).total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
            tick()
            if done == steps:
                break


def settings(steps: int) -> FitConfig:
    """As the plain loop; averaging cannot be left out, it is part of what is measured."""
    return FitConfig(
        steps=steps, batch_size=BATCH_SIZE, lr=1e-3, muon_lr=0.0, seed=SEED, device="cpu"
    )


def measure(what: str, steps: int) -> dict[str, float]:
    """Train here and say what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = CSTOperator(MODEL)
    data = examples()
    model.fit_normalization(data)
    times: list[tuple[float, float]] = []

    def tick() -> bool:
        times.append((time.process_time(), time.perf_counter()))
        return False

    if what == "plain":
        plain_loop(model, data, steps, tick)
    else:
        fit(model, data, loss=LOSS, config=settings(steps), stop=tick, progress=False)
    cpu, wall = (times[-1][i] - times[WARM_UP][i] for i in range(2))
    count = len(times) - 1 - WARM_UP
    return {
        "cpu_ms_per_step": 1000 * cpu / count,
        "steps_per_second": count / wall,
        "peak_memory": peak_memory(),
    }


def measured(what: str, steps: int) -> dict[str, float]:
    """The same in a process of its own, or in two."""
    launch = [sys.executable, "-m"]
    if what == "fit_2_processes":
        launch += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launch, "benchmarks.training", "--measure", what, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def rows_of(steps: int, repetitions: int) -> list[dict[str, Any]]:
    """Measure everything, in turns."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(repetitions):
        for what in ("plain", "fit", "fit_2_processes"):
            found = measured(what, steps)
            kept = best.setdefault(what, found)
            for metric, value in found.items():
                pick = max if metric == "steps_per_second" else min
                kept[metric] = pick(kept[metric], value)
    plain = best["plain"]["cpu_ms_per_step"]
    best["fit"]["overhead"] = best["fit"]["cpu_ms_per_step"] / plain - 1
    units = {"cpu_ms_per_step": "ms", "steps_per_second": "1/s", "peak_memory": "MiB"}
    return [
        {
            "model": what,
            "split": "training",
            "metric": metric,
            "value": value,
            "unit": units.get(metric, ""),
            "seed": SEED,
        }
        for what, values in best.items()
        for metric, value in values.items()
    ]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a trial of half a minute")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = arguments.steps or (20 if arguments.quick else 50)
    if arguments.measure:
        found = measure(arguments.measure, steps)
        if connect().is_first:
            print(json.dumps(found))
        return
    rows = rows_of(steps, 1 if arguments.quick else 3)
    path = benchmark_record(
        "training",
        rows,
        data=f"{NUM_EXAMPLES} synthetic fields of 100 to 200 points, made with seed {SEED}",
        folder=HERE / "results" / "quick" if arguments.quick else HERE / "results",
        configuration={
            "model": asdict(MODEL),
            "loss": asdict(LOSS),
            "training": asdict(settings(steps)),
            "parameters": num_parameters(CSTOperator(MODEL)),
        },
    )
    console = Console()
    for row in rows:
        console.print(f"{row['model']:16} {row['metric']:16} {row['value']:10.4g} {row['unit']}")
    console.print(f"rows: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
