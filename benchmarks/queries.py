"""A million queries against a few thousand source points: processor time and memory.

One thread, two dimensions, float32, random points. Every measurement is a process of its own; its
memory is what encoding the source and answering the queries adds to that of the idle model.

    OMP_NUM_THREADS=1 python -m benchmarks.queries [--quick]
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import cst_operator as cst
from benchmarks.memory import peak_memory
from benchmarks.scaling import LARGE_N
from cst_operator.comparison import benchmark_record, benchmark_row

HERE = Path(__file__).parent
NUM_SOURCE = 4096
NUM_QUERIES = 1_000_000
MODELS = {
    "all_points": dataclasses.replace(cst.ARCHITECTURES["tiny"], query_depth=1),
    "many_points": LARGE_N,
}
"""Queries attend to all source points; or to the anchors of the configuration for many points."""
LIMITS_MB = {"all_points": (1024,), "many_points": (128, 1024)}


def measure(name: str, num_queries: int, limit_mb: int) -> dict[str, float]:
    """CPU seconds of all answers, and the memory above that of the idle model."""
    torch.manual_seed(0)
    config = MODELS[name].build(dim=2, in_names=("a",), out_names=("u",), transient=False)
    model = cst.CSTOperator(config)
    source = cst.PointField(
        pos=torch.rand(NUM_SOURCE, 2),
        u=torch.randn(NUM_SOURCE, 1),
        weights=torch.ones(NUM_SOURCE) / NUM_SOURCE,
        channels=["a"],
    )
    target = cst.PointField(pos=torch.rand(num_queries, 2))
    before, begin = peak_memory(), time.process_time()
    answer = model.predict(source, target, memory_limit=limit_mb * 2**20)
    return {
        "time": time.process_time() - begin,
        "memory": peak_memory() - before,
        "answers": float(answer.num_points),
    }


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, recorded apart")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *numbers = options.measure
        print(json.dumps(measure(name, *map(int, numbers))))
        return
    console = Console()
    rows: list[dict[str, Any]] = []
    table = Table("model", "limit", "queries", "time", "memory")
    num_queries = NUM_QUERIES // 50 if options.quick else NUM_QUERIES
    for name, limits in LIMITS_MB.items():
        for limit in limits:
            command = [sys.executable, "-m", "benchmarks.queries", "--measure"]
            done = subprocess.run(
                [*command, name, str(num_queries), str(limit)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            table.add_row(
                name,
                f"{limit} MB",
                f"{num_queries:,}",
                f"{found['time']:.1f} s",
                f"{found['memory']:.0f} MB",
            )
            for metric, unit in (("time", "s"), ("memory", "MB")):
                split = f"limit_{limit}_MB"
                rows.append(benchmark_row(name, split, metric, found[metric], unit))
    console.print(table)
    record = benchmark_record(
        "queries",
        rows,
        data=f"{num_queries:,} random queries against {NUM_SOURCE:,} random points",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
    )
    console.print(f"record: {record}")


if __name__ == "__main__":
    main()
