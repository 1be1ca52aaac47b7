"""The kinds of attention on Poisson's equation on random domains, and what the weights are worth.

The data, the task and the settings of :mod:`benchmarks.poisson_domains`, every kind for the same
CPU seconds on one thread. Scored on unseen domains, zero-shot on their meshes with four times the
nodes, and on meshes of them that are graded towards a corner: there ten times as many nodes for an
area as at the far side. ``full_unweighted`` is full attention whose points all count the same, in
training and when it is asked. What an earlier run of the same commit with the
same options finished is kept; delete benchmarks/out/attention_kinds to start over.

    OMP_NUM_THREADS=1 python -m benchmarks.attention_kinds [--seconds 240] [--jobs 2] [--quick]
"""

import argparse
import dataclasses
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import cst_operator as cst
from benchmarks.kept import Rows, kept_rows
from benchmarks.memory import peak_memory
from benchmarks.poisson_domains import (
    ASK_CST,
    DATA,
    FIT_CST,
    LEARN_CST,
    PLANS,
    data,
    generate_data,
    train,
)
from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.datasets import TrajectoryDataset, generate
from cst_operator.solvers import Poisson, poisson_inputs, solve_poisson
from cst_operator.solvers.local_refinement import refine_triangles
from cst_operator.solvers.poisson import draw_diffusion
from cst_operator.solvers.system import mesh_domain, naming, sample_parameters

HERE = Path(__file__).parent
OUT = HERE / "out" / "attention_kinds"
TITLE = "Kinds of attention, Poisson on random domains: mean of the samples' errors"
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "anchor": {"anchors": 96},
    "latent": {"attention": ("latent",)},
    "kernel": {"attention": ("kernel",)},
    "nystrom": {"attention": ("nystrom",)},
    "slice": {"attention": ("slice",)},
    "full_latent": {"attention": ("full", "latent")},
    "full_unweighted": {},
}
"""What differs from the default architecture."""
UNWEIGHTED = "full_unweighted"


@dataclass(frozen=True, kw_only=True)
class GradedPoisson:
    """The problems of Poisson() on meshes that are graded towards the corner (0, 0).

    Triangles of a coarse mesh are refined while they are more than about 1.4 times as large as
    wanted; the wanted area falls by the factor ``grading`` from the far side to the corner. As it
    is, about 420 nodes, and ten times as many for an area at the corner as at the far side, see
    :func:`density_ratio`.

    Args:
        grading: largest over smallest wanted area of a triangle.
        h: edge length at the far side.
        name: name of the system.
    """

    grading: float = 19.0
    h: float = 0.11
    name: str = "graded_poisson"

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> cst.Trajectory:
        """Draw and solve one problem; ``refine`` is that of the mesh before it is graded."""
        system = Poisson()
        drawn = mesh_domain(system.domain, self.h, seed=seed, index=index, refine=refine)
        problem = draw_diffusion(system, seed, index, drawn.attempt, ())
        mesh = drawn.mesh
        for _ in range(4):
            area = cst.cell_weights(mesh.pos, mesh.cells)["triangle"]
            distance = mesh.pos[mesh.cells["triangle"]].mean(1).norm(dim=1)
            near, far = distance.min(), distance.max()
            place = (distance - near) / (far - near)
            coarse = 0.43 * (self.h / 2**refine) ** 2  # of an equilateral triangle
            wanted = coarse * self.grading ** (place - 1)
            chosen = area > 2**0.5 * wanted
            if not chosen.any():
                break
            mesh = refine_triangles(mesh, drawn.geometry, chosen)
        with naming(seed, index):
            solution = solve_poisson(mesh, f=problem.f, degree=3, geometry=drawn.geometry)
        return cst.Trajectory(
            mesh=poisson_inputs(mesh, f=problem.f),
            times=torch.zeros(1, dtype=torch.float64),
            u=solution.u[None],
            channels=("u",),
            gradient=solution.gradient[None],
            parameters=sample_parameters(drawn, seed, index, refine, ()),
        )


@dataclass(frozen=True)
class Unweighted:
    """A task whose source points all count the same.

    Args:
        task: what makes the examples.
    """

    task: cst.Steady

    def __call__(self, trajectory: cst.Trajectory, generator: torch.Generator) -> cst.Example:
        """Make the example of one solution."""
        source, target = self.task(trajectory, generator)
        source.weights = torch.full_like(source.weights, 1 / source.num_points)
        return cst.Example(source, target)


def run(name: str, seconds: float, quick: bool, seed: int) -> Rows:
    """Train one kind and score it; or read what was found before."""
    options = {"seconds": seconds, "quick": quick, "seed": seed}
    return kept_rows(OUT / f"{name}.json", options, partial(_run, name, **options))


def _run(name: str, seconds: float, quick: bool, seed: int) -> Rows:
    torch.set_num_threads(1)
    sets = {**data(DATA, quick), "test_graded": graded(quick)}
    learn = sets.pop("train")
    wrap: Any = Unweighted if name == UNWEIGHTED else lambda task: task
    torch.manual_seed(seed)
    model = cst.CSTOperator(dataclasses.replace(PLANS["cst"].config, **KINDS[name]))
    model.fit_normalization(cst.TaskDataset(learn, ASK_CST))
    examples = cst.TaskDataset(learn, wrap(LEARN_CST), seed=seed)
    config = dataclasses.replace(FIT_CST, seed=seed)
    before = peak_memory()
    model, spent, steps = train(
        model, examples, cst.SobolevLoss(), config, seconds, name == next(iter(KINDS))
    )
    memory = peak_memory() - before
    splits = {key: cst.TaskDataset(value, wrap(ASK_CST)) for key, value in sets.items()}
    rows = list(cst.compare({name: model}, splits, seed=seed).rows)
    for metric, value, unit in (
        ("cpu_time", spent, "s"),
        ("steps", steps, ""),
        ("cpu_time_per_step", spent / steps, "s"),
        ("memory", memory, "MB"),
    ):
        rows.append(benchmark_row(name, "train", metric, value, unit, seed))
    return rows


def graded(quick: bool) -> list[cst.Trajectory]:
    """The graded set in memory, in single precision."""
    folder = DATA / f"test_graded-{_num_graded(quick)}"
    return [solution.to(torch.float32) for solution in TrajectoryDataset(folder)]


def _num_graded(quick: bool) -> int:
    return 8 if quick else 100


def density_ratio(solution: cst.Trajectory) -> float:
    """Nodes for an area in the fiftieth nearest to the corner, over that in the farthest."""
    order = solution.mesh.pos.norm(dim=1).argsort()
    area = np.cumsum(np.asarray(solution.mesh.weights[order], dtype=np.float64))
    near = np.interp(0.02 * area[-1], area, np.arange(1.0, len(area) + 1))
    far = len(area) - np.interp(0.98 * area[-1], area, np.arange(1.0, len(area) + 1))
    return float(near / far)


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="training time of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="kinds trained at the same time")
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = 5 if options.quick else options.seconds
    console = Console()
    generate_data(DATA, options.quick)
    number = _num_graded(options.quick)
    generate(GradedPoisson(), number, seed=1, out=DATA / f"test_graded-{number}", workers=2)
    OUT.mkdir(parents=True, exist_ok=True)
    console.print(f"training {', '.join(KINDS)} for {seconds:.0f} CPU seconds each")
    with ProcessPoolExecutor(
        options.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        pending = [pool.submit(run, name, seconds, options.quick, options.seed) for name in KINDS]
        rows = [row for done in pending for row in done.result()]
    solutions = graded(options.quick)
    for metric, of in (("density_ratio", density_ratio), ("points", lambda s: s.mesh.num_points)):
        value = float(np.mean([of(solution) for solution in solutions]))
        rows.append(benchmark_row("", "test_graded", metric, value, seed=1))
    scored = tuple(row for row in rows if row["split"] != "train" and row["model"])
    console.print(cst.Comparison(rows=scored, scores={}).table(TITLE))
    record = benchmark_record(
        "attention_kinds",
        rows,
        data="cst_operator.solvers.Poisson(), seed 0 (train), seed 1 (test; test_fine refine=1; "
        "test_graded on graded meshes)",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=1,
        models=KINDS,
        training=dataclasses.asdict(FIT_CST),
    )
    console.print(f"record: {record}")


if __name__ == "__main__":
    main()
