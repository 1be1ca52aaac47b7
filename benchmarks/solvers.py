"""What training data costs: samples of every system, steps of the spectral solvers.

* Every system of ``cst_operator.solvers.SYSTEMS``: seconds of the process for one sample, meshing
  and derivatives included, median and largest, and the points and frames of a sample. Samples that
  could not be solved are counted.
* ``poisson_1000_nodes``: seconds of the clock for a set of Poisson solutions of about 1,000 nodes,
  made by ``generate`` with two workers, their start included.
* The spectral solvers on batches: seconds of the process (of the clock on a GPU) for one step of a
  whole batch and for one trajectory (the default final time at the step that the default tolerance
  led to). Runs are timed of one step, the fastest of three, and of more, as many as would take some
  seconds at the cost of the first, 4 at least. Their difference is what steps cost; what a solver
  prepares once is in the trajectory, whose last steps need not be made: steps are fixed and cost
  the same. A checked trajectory costs the sum of its halvings, at least 1.5 times as much.

What an earlier run of the same commit with the same options finished is kept; delete
benchmarks/out/solvers to start over. In full about 12 minutes on two cores.

    OMP_NUM_THREADS=1 python -m benchmarks.solvers [--device cuda] [--quick]
"""

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.kept import Rows, kept_rows
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
OUT = HERE / "out" / "solvers"
MOST_POINTS = 128 * 128 * 128  # of a batch of boxes


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


def cost_of_steps(case: Case, batch: int, device: torch.device, seconds: float, seed: int) -> Rows:
    """Time of a step and of a trajectory, from the first step and those that follow it."""
    rng = np.random.default_rng(seed)
    start = torch.stack(
        [
            torch.stack([case.initial.sample(rng, case.box.lengths).on(case.box) for _ in range(c)])
            for c in [case.channels] * batch
        ]
    ).to(device)
    steps = round(case.final_time / case.dt)
    _time_of(case, start, 1)  # warms up
    first = min(_time_of(case, start, 1) for _ in range(3))
    more = min(steps - 1, max(4, round(seconds / first)))
    step = (_time_of(case, start, 1 + more) - first) / more
    trajectory = (first + step * (steps - 1)) / batch
    split = f"{' x '.join(map(str, case.box.shape))} points, batch {batch}, {device.type}"
    return [
        benchmark_row(case.name, split, "time_per_step", step, "s", seed),
        benchmark_row(case.name, split, "time_per_trajectory", trajectory, "s", seed),
    ]


def _time_of(case: Case, start: Tensor, steps: int) -> float:
    times = torch.tensor([0.0, steps * case.dt], dtype=torch.float64)
    begin = _now(start.device)
    case.solve(start, times, FixedStep(case.dt))
    return _now(start.device) - begin


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measurements(
    quick: bool, device: torch.device, seed: int
) -> dict[str, tuple[dict[str, Any], Callable[[], Rows]]]:
    """What there is to measure: its options and what measures it, by name."""
    samples, solutions, seconds = (2, 8, 0.5) if quick else (5, 1000, 5.0)
    found: dict[str, tuple[dict[str, Any], Callable[[], Rows]]] = {
        f"samples of {system.name}": (
            {"samples": samples, "version": system.version},
            partial(cost_of_samples, system, samples, seed),
        )
        for system in SYSTEMS.values()
    }
    found["a set of Poisson solutions"] = (
        {"samples": solutions, "version": Poisson().version},
        partial(cost_of_a_set, solutions, seed),
    )
    for case, batch in product(cases(quick), (1, 16) if quick else (1, 16, 128)):
        if batch * math.prod(case.box.shape) <= MOST_POINTS:
            sizes = "x".join(map(str, case.box.shape))
            found[f"steps of {case.name}, {sizes}, batch {batch}, {device.type}"] = (
                {"seconds": seconds, "dt": case.dt, "threads": torch.get_num_threads()},
                partial(cost_of_steps, case, batch, device, seconds, seed),
            )
    return found


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
    folder = OUT / ("quick" if quick else "full")
    for name, (how, measure) in measurements(quick, device, seed).items():
        console.print(name)
        rows += kept_rows(folder / f"{name}.json", {**how, "seed": seed}, measure)
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
