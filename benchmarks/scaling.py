"""Cost of a sample against the number of its points: CST with anchors, FNO and GINO; named sizes.

One thread, two dimensions, float32, about a million parameters each, as many queries as source
points; FNO runs on a grid of as many points. The named sizes of CST (``ARCHITECTURES``) at a few
thousand points. Every measurement is a process of its own, so that its
peak memory is that of the model and the sample alone.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling [--quick]
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import cst_operator as cst
from benchmarks.memory import peak_memory
from cst_operator.comparison import benchmark_record, benchmark_row

HERE = Path(__file__).parent
SIZES = (1024, 4096, 16384, 65536, 262144, 1048576)
QUICK_SIZES = (1024, 4096)
NAMED_SIZES = (1024, 4096)
LIMIT_MB = 20_000
UNITS = {"forward": "s", "forward_backward": "s", "memory": "MB", "parameters": ""}
# GINO takes minutes for the next size.
LARGEST = {"gino": 4096}
LARGE_N = cst.Architecture(
    width=96,
    depth=14,
    heads=4,
    hidden=128,
    anchors=256,
    interpolant_points=256,
    query_depth=1,
)
"""The configuration for many points."""


def cst_step(
    n: int, architecture: cst.Architecture = LARGE_N
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """CST on n random points, asked at n others."""
    model = cst.CSTOperator(
        architecture.build(dim=2, in_names=("a",), out_names=("u",), transient=False)
    )
    source = cst.PointField(
        pos=torch.rand(n, 2), u=torch.randn(n, 1), weights=torch.ones(n) / n, channels=["a"]
    )
    target = cst.PointField(pos=torch.rand(n, 2))
    return model, lambda: model(source, target)


def fno_step(n: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Neuraloperator's FNO on a grid of n points."""
    from neuralop.models import FNO

    side = math.isqrt(n)
    model = FNO(n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=45, n_layers=4)
    x = torch.randn(1, 1, side, side)
    return model, lambda: model(x)


def gino_step(n: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Neuraloperator's GINO on n random points, with a latent grid of 32 x 32."""
    from neuralop.models import GINO

    model = GINO(
        in_channels=1,
        out_channels=1,
        gno_coord_dim=2,
        in_gno_radius=_radius(n),
        out_gno_radius=_radius(n),
        fno_n_modes=(16, 16),
        fno_hidden_channels=32,
        fno_in_channels=32,
        gno_use_open3d=False,
        gno_use_torch_scatter=False,
    )
    points, queries = torch.rand(1, n, 2), torch.rand(n, 2)
    side = torch.linspace(0, 1, 32)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1)[None]
    x = torch.randn(1, n, 1)
    return model, lambda: model(input_geom=points, latent_queries=grid, output_queries=queries, x=x)


def _radius(n: int) -> float:
    """Of a disk with about twelve points, at least the spacing of the latent grid."""
    return max(math.sqrt(12 / (math.pi * n)), 1.5 / 32)


COMPARED = {"cst": cst_step, "fno": fno_step, "gino": gino_step}
STEPS = COMPARED | {
    name: partial(cst_step, architecture=architecture)
    for name, architecture in cst.ARCHITECTURES.items()
}


def measurements(quick: bool) -> Iterator[tuple[str, int]]:
    """What is measured: models and numbers of points."""
    for n in QUICK_SIZES if quick else SIZES:
        yield from ((name, n) for name in COMPARED if n <= LARGEST.get(name, n))
    for n in NAMED_SIZES[:1] if quick else NAMED_SIZES:
        yield from ((name, n) for name in cst.ARCHITECTURES)


def measure(name: str, n: int) -> dict[str, float]:
    """Median CPU seconds of a sample, and the memory above that of the idle model."""
    torch.manual_seed(0)
    model, step = STEPS[name](n)
    with torch.no_grad():
        forward = _median(step)
    before = peak_memory()
    both = _median(lambda: step().square().mean().backward())
    return {
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "forward": forward,
        "forward_backward": both,
        "memory": peak_memory() - before,
    }


def _median(step: Callable[[], Any]) -> float:
    spent: list[float] = []
    while len(spent) < 2 or (sum(spent) < 8 and len(spent) < 20):
        begin = time.process_time()
        step()
        spent.append(time.process_time() - begin)
    return float(np.median(spent[1:]))


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, n = options.measure
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_MB * 2**20,) * 2)
        print(json.dumps(measure(name, int(n))))
        return
    console = Console()
    rows: list[dict[str, Any]] = []
    table = Table("model", "points", "forward", "forward+backward", "memory", "parameters")
    for name, n in measurements(options.quick):
        command = [sys.executable, "-m", "benchmarks.scaling", "--measure", name, str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            console.print(f"{name} at {n} points: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        table.add_row(
            name,
            f"{n:,}",
            f"{found['forward']:.3f} s",
            f"{found['forward_backward']:.3f} s",
            f"{found['memory']:.0f} MB",
            f"{found['parameters']:,.0f}",
        )
        for metric, unit in UNITS.items():
            rows.append(benchmark_row(name, f"{n}", metric, found[metric], unit))
    console.print(table)
    rows += slopes(rows)
    record = benchmark_record(
        "scaling",
        rows,
        data="random points of the unit square",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
    )
    console.print(f"record: {record}")


def slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slope of log time over log points between the smallest and largest size, each model."""
    found = []
    for name in COMPARED:
        times = {
            int(row["split"]): row["value"]
            for row in rows
            if row["model"] == name and row["metric"] == "forward_backward"
        }
        if len(times) > 1:
            x, y = np.log(list(times)), np.log(list(times.values()))
            slope = float(np.polyfit(x, y, 1)[0])
            found.append(benchmark_row(name, "all", "slope", slope))
    return found


if __name__ == "__main__":
    main()
