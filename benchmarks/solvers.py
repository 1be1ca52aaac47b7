"""What training data costs: samples of every system, steps of the spectral solvers.

* Every system of ``cst_operator.solvers.SYSTEMS``: seconds of the process for one sample, meshing
  and derivatives included, median and largest, and the points and frames of a sample. Samples that
  could not be solved are counted.
* ``poisson_1000_nodes``: seconds of the clock for a set of Poisson solutions of about 1,000 nodes,
  made by ``generate`` with two workers, their start included.
* The spectral solvers on batches: seconds of the clock for one step of a whole batch and for one
  trajectory (the default final time at the step that the default tolerance led to). Steps are
  fixed; a checked trajectory costs the sum of its halvings, at least 1.5 times as much.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers [--device cuda] [--quick]
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.datasets import generate
from cst_operator.errors import SolverError
from cst_operator.solvers import (
    SYSTEMS,
    FixedStep,
    KortewegDeVries,
    KuramotoSivashinsky,
    PeriodicBox,
    PeriodicBurgers,
    PeriodicGaussianField,
    PeriodicGrayScott,
    PeriodicNavierStokes,
    Poisson,
    System,
    TimeStep,
    diagonal_force,
    solve_burgers,
    solve_korteweg_de_vries,
    solve_kuramoto_sivashinsky,
    solve_periodic_gray_scott,
    solve_vorticity,
)

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]


def cost_of_samples(system: System, count: int, seed: int) -> Rows:
    """Time of some samples, after one that warms up."""
    seconds, failures = [], 0
    points, frames = [], []
    for index in range(count + 1):
        begin = time.process_time()
        try:
            sample = system.sample(seed, index)
        except SolverError:
            failures += 1
            continue
        seconds.append(time.process_time() - begin)
        points.append(sample.mesh.num_points)
        frames.append(sample.num_frames)
    timed = seconds[1:] or seconds
    measured = {"failures": (float(failures), "")}
    if timed:
        measured |= {
            "cpu_time_median": (statistics.median(timed), "s"),
            "cpu_time_max": (max(timed), "s"),
            "points": (statistics.mean(points), ""),
            "frames": (statistics.mean(frames), ""),
        }
    return [
        benchmark_row(system.name, "sample", k, v, unit, seed) for k, (v, unit) in measured.items()
    ]


def cost_of_a_set(count: int, seed: int) -> Rows:
    """Time of a whole set of Poisson solutions of about 1,000 nodes."""
    system = dataclasses.replace(Poisson(), h=0.0222)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        data = generate(system, count, seed=seed, out=folder, workers=2, progress=False)
        spent = time.perf_counter() - begin
        nodes = statistics.mean(data[i].mesh.num_points for i in range(min(len(data), 20)))
    split = f"{count} samples, 2 workers"
    measured = (
        ("time", spent, "s"),
        ("time_per_sample", spent / count, "s"),
        ("points", nodes, ""),
    )
    return [benchmark_row("poisson_1000_nodes", split, *m, seed) for m in measured]


@dataclasses.dataclass(frozen=True)
class Case:
    """A spectral solver on a box, with fixed steps.

    Args:
        name: of the system.
        box: points.
        dt: time step.
        final_time: end of a trajectory.
        solve: from initial values [B, c, shape], times and step to the solution.
        initial: what draws the initial values.
        channels: number of unknowns c.
    """

    name: str
    box: PeriodicBox
    dt: float
    final_time: float
    solve: Callable[[Tensor, Tensor, TimeStep], Tensor]
    initial: PeriodicGaussianField
    channels: int = 1


def cases(quick: bool) -> list[Case]:
    """Default problems, and the flow with more points."""
    burgers, kdv, ks = PeriodicBurgers(), KortewegDeVries(), KuramotoSivashinsky()
    gray_scott = PeriodicGrayScott()
    smooth = PeriodicGaussianField(scale=0.1, tau=1.0, alpha=1.0, num_waves=8, mean=0.3)
    found = [
        Case(
            *(burgers.name, PeriodicBox((burgers.num_points,), (1.0,)), 0.01, burgers.final_time),
            lambda u, t, s: solve_burgers(u[:, 0], t, viscosity=burgers.viscosity, step=s),
            burgers.initial,
        ),
        Case(
            *(kdv.name, PeriodicBox((kdv.num_points,), (kdv.length,)), 0.005, kdv.final_time),
            lambda u, t, s: solve_korteweg_de_vries(u[:, 0], t, length=kdv.length, step=s),
            kdv.initial,
        ),
        Case(
            *(ks.name, PeriodicBox((ks.num_points,), (ks.length,)), 0.0125, ks.final_time),
            lambda u, t, s: solve_kuramoto_sivashinsky(u[:, 0], t, length=ks.length, step=s),
            ks.initial,
        ),
        Case(
            gray_scott.name,
            PeriodicBox((gray_scott.num_points,) * 2, (gray_scott.length,) * 2),
            *(0.5, gray_scott.final_time),
            lambda u, t, s: solve_periodic_gray_scott(
                u, t, feed=0.03, kill=0.06, lengths=(gray_scott.length,) * 2, step=s
            ),
            smooth,
            channels=2,
        ),
    ]
    for n, dt in ((64, 1 / 16),) if quick else ((64, 1 / 16), (128, 1 / 32), (256, 1 / 64)):
        found.append(_flow(n, dt))
    return found


def _flow(n: int, dt: float) -> Case:
    system = PeriodicNavierStokes()
    box = PeriodicBox((n, n), (1.0, 1.0))

    def solve(w: Tensor, times: Tensor, step: TimeStep) -> Tensor:
        force = diagonal_force(box).to(w)
        return solve_vorticity(w[:, 0], times, viscosity=system.viscosity, force=force, step=step)

    return Case(system.name, box, dt, system.final_time, solve, system.initial)


def cost_of_steps(case: Case, batch: int, device: torch.device, max_steps: int, seed: int) -> Rows:
    """Time of a step and of a trajectory; long ones are measured on their first steps."""
    rng = np.random.default_rng(seed)
    start = torch.stack(
        [
            torch.stack([case.initial.sample(rng, case.box.lengths).on(case.box) for _ in range(c)])
            for c in [case.channels] * batch
        ]
    ).to(device)
    steps = round(case.final_time / case.dt)
    measured = min(steps, max_steps)
    times = torch.tensor([0.0, measured * case.dt], dtype=torch.float64)
    case.solve(start, times / measured, FixedStep(case.dt))  # warms up
    _wait(device)
    begin = time.perf_counter()
    case.solve(start, times, FixedStep(case.dt))
    _wait(device)
    step = (time.perf_counter() - begin) / measured
    split = f"{' x '.join(map(str, case.box.shape))} points, batch {batch}, {device.type}"
    return [
        benchmark_row(case.name, split, "time_per_step", step, "s", seed),
        benchmark_row(case.name, split, "time_per_trajectory", step * steps / batch, "s", seed),
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="where the spectral solvers run")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = torch.device(options.device)
    quick, seed = options.quick, options.seed
    console = Console()
    rows: Rows = []
    for system in SYSTEMS.values():
        console.print(f"samples of {system.name}")
        rows += cost_of_samples(system, 2 if quick else 5, seed)
    console.print("a set of Poisson solutions")
    rows += cost_of_a_set(8 if quick else 1000, seed)
    for case in cases(quick):
        console.print(f"steps of {case.name}, {case.box.shape}")
        for batch in (1, 16) if quick else (1, 16, 128):
            rows += cost_of_steps(case, batch, device, 50 if quick else 400, seed)
    table = Table("model", "split", "metric", "value", "unit")
    for row in rows:
        table.add_row(
            *(row[k] for k in ("model", "split", "metric")), f"{row['value']:.3g}", row["unit"]
        )
    console.print(table)
    record = benchmark_record(
        "solvers",
        rows,
        data=f"samples of cst_operator.solvers.SYSTEMS, seed {seed}; spectral solvers in float64",
        folder=HERE / "results" / ("quick" if quick else ""),
        threads=torch.get_num_threads(),
    )
    console.print(f"record: {record}")


if __name__ == "__main__":
    main()
