"""The results in README.md and in docs, made from benchmarks/results/*.json alone.

python -m benchmarks.pages
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from cst_operator._atomic import write_atomically

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
COSTS, END_COSTS = ".. begin of the costs", ".. end of the costs"

# Benchmark, what it shows, and the numbers that a reader wants first: (model, split, metric).
HEADLINES: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    (
        "cylinder_wake",
        "Vortex shedding behind a cylinder (OpenFOAM, 3,944 nodes). *Hidden frames*: every second "
        "of 50 frames is known, the others are asked for. *Hidden points*: 10 % of the points of "
        "a frame are known. Relative L2 error of the fluctuation; harmonics and gappy POD are fits "
        "made for flows that repeat.",
        [
            *(
                (model, "hidden_frames", "fluctuation_l2")
                for model in ("cst", "harmonics_6", "harmonics_4", "cubic_spline", "linear")
            ),
            *(
                (model, "hidden_points", "fluctuation_l2")
                for model in ("cst", "gappy_pod_12", "thin_plate_spline_fluctuation")
            ),
        ],
    ),
    (
        "poisson_domains",
        "Poisson's equation on random domains with holes, 1,000 training solutions of about 280 "
        "nodes, about the same CPU time for both. *test*: unseen domains. *test_fine*: the same "
        "with four times the nodes, without further training.",
        [
            (model, split, metric)
            for model in ("cst", "fno")
            for split, metric in (
                ("test", "relative_l2"),
                ("test_fine", "relative_l2"),
                ("test", "relative_h1"),
                ("test_fine", "relative_h1"),
                ("train", "cpu_time"),
            )
        ],
    ),
    (
        "scaling",
        "Forward and backward pass of a sample of 65,536 points, asked at as many others; CST with "
        "a million parameters, 256 anchors and queries through the last layer, FNO on a grid of as "
        "many points. CPU seconds and MB; *slope*: of the logarithms of time and points over all "
        "sizes.",
        [
            (model, split, metric)
            for model in ("cst", "fno")
            for split, metric in (
                ("65536", "forward_backward"),
                ("65536", "memory"),
                ("all", "slope"),
            )
        ],
    ),
    (
        "scaling",
        "The named sizes (`ARCHITECTURES`): CPU seconds of a sample of 4,096 points asked at as "
        "many others, MB of its forward and backward pass, parameters.",
        [
            (model, "4096", metric)
            for model in ("tiny", "small", "base", "large")
            for metric in ("forward", "forward_backward", "memory", "parameters")
        ],
    ),
    (
        "attention_kinds",
        "The kinds of attention on the same data, 480 CPU seconds each: error on unseen domains, "
        "on their meshes with four times the nodes, and on meshes ten times as dense in a corner. "
        "*full_unweighted*: full attention without quadrature weights.",
        [
            (model, split, "relative_l2")
            for model in (
                "full",
                "anchor",
                "full_latent",
                "nystrom",
                "latent",
                "kernel",
                "slice",
                "full_unweighted",
            )
            for split in ("test", "test_fine", "test_graded")
        ],
    ),
    (
        "sobolev",
        "The same CST trained for the same CPU time with the error alone (*k0*), with the error of "
        "the gradient (*k1_target*), with the gradient of the answer at dummy points "
        "(*k1_smoothing*), with both kinds up to the second order (*k2*): 256 training samples, "
        "*few*: 64; *noise*: 10 % on the sources.",
        [
            (model, split, metric)
            for split in ("poisson", "poisson_few", "poisson_noise", "heat", "navier_stokes")
            for model in ("k0", "k1_target", "k1_smoothing", "k2")
            for metric in ("relative_l2", "relative_h1")
        ],
    ),
    (
        "training",
        "A step of `cst.fit` beside one of a plain PyTorch loop with the same model, loss and "
        "data: CPU milliseconds and what `fit` takes more of them, steps a second, MiB of the "
        "process; in two processes each has half of every batch. *values*: without derivatives in "
        "the loss, plain and compiled.",
        [
            *((model, "training", "overhead") for model in ("fit", "fit_2_processes")),
            *(
                (model, "training", metric)
                for metric in ("cpu_ms_per_step", "steps_per_second", "peak_memory")
                for model in (
                    *("plain", "fit", "plain_2_processes", "fit_2_processes"),
                    *("fit_values", "fit_values_compiled"),
                )
            ),
        ],
    ),
    (
        "datasets",
        "Solutions of Poisson's equation a second with one worker and with two; windows of 8 "
        "frames of 65,536 points a second that the training loop gets from a set on the disk, "
        "beside copies of plain arrays; MB of resident memory while training from a set of so "
        "many GB.",
        [
            ("1", "generation", "samples_per_second"),
            ("2", "generation", "samples_per_second"),
            ("raw_arrays", "reading", "samples_per_second"),
            ("no_workers", "reading", "samples_per_second"),
            ("workers", "reading", "samples_per_second"),
            ("fit", "training", "peak_memory"),
            ("fit", "training", "set_size"),
        ],
    ),
    (
        "queries",
        "A million queries against 4,096 source points on one thread: CPU seconds, and MB above "
        "the idle model, under a limit of 1 GB. *all_points*: the smallest named size, queries "
        "attend to all source points in the last layer; *many_points*: a million parameters, "
        "queries attend to 256 anchors.",
        [
            (model, "limit_1024_MB", metric)
            for model in ("all_points", "many_points")
            for metric in ("time", "memory")
        ],
    ),
    (
        "solvers",
        "Poisson's equation on random domains with holes: seconds of the clock for a whole set, "
        "meshing included, and nodes of a mesh.",
        [
            ("poisson_1000_nodes", "1000 samples, 2 workers", metric)
            for metric in ("time", "points")
        ],
    ),
    (
        "neuraloperator_darcy",
        "neuraloperator's FNO on its own small Darcy flow, with the settings of its example, "
        "trained in this library's loop (*fno*) and by neuraloperator's Trainer (*fno_trainer*); "
        "means of three seeds. 16 points a side in training and in *test_16*.",
        [
            (model, split, "relative_l2")
            for split in ("test_16", "test_32")
            for model in ("fno", "fno_trainer")
        ],
    ),
]


def records() -> dict[str, dict[str, Any]]:
    """Every benchmark that has been recorded."""
    folder = ROOT / "benchmarks" / "results"
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


def readme_section() -> str:
    """The headline numbers as Markdown."""
    found = records()
    parts = []
    for name, text, wanted in HEADLINES:
        if name not in found:
            continue
        seeds = defaultdict(list)
        for r in found[name]["rows"]:
            seeds[r["model"], r["split"], r["metric"]].append(r["value"])
        values = {key: fmean(entries) for key, entries in seeds.items()}
        columns = list(dict.fromkeys((split, metric) for _, split, metric in wanted))
        lines = [
            f"| model | {' | '.join(f'{split}, {metric}' for split, metric in columns)} |",
            "| --- |" + " ---: |" * len(columns),
        ]
        for model in dict.fromkeys(model for model, _, _ in wanted):
            cells = (
                _number(values[model, split, metric]) if (model, split, metric) in wanted else ""
                for split, metric in columns
            )
            lines.append(f"| {model} | {' | '.join(cells)} |")
        parts.append(f"{text} `python -m benchmarks.{name}`\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def results_page() -> str:
    """Every recorded number as reStructuredText."""
    title = "Results"
    parts = [
        f"{title}\n{'=' * len(title)}\n\nEvery number that the benchmarks recorded. "
        "``python -m benchmarks.pages`` makes this page from ``benchmarks/results``."
    ]
    for name, record in records().items():
        rows = [
            f'"{r["model"]}", "{r["split"]}", "{r["metric"]}", '
            f'"{r["value"]:.4g}", "{r["unit"]}", "{r["seed"]}"'
            for r in record["rows"]
        ]
        parts.append(
            f"{name}\n{'-' * len(name)}\n\n"
            f":Command: ``{record['command']}``\n:Data: {record['data']}\n"
            f":Machine: {record['machine']}\n:Date: {record['date']}\n\n"
            + _table('"model", "split", "metric", "value", "unit", "seed"', rows)
        )
    return "\n\n".join(parts) + "\n"


def costs_section() -> str:
    """What samples of every system and steps of the spectral ones cost as reStructuredText."""
    record = records().get("solvers")
    if record is None:
        return "Not recorded yet; ``python -m benchmarks.solvers`` measures it."
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for r in record["rows"]:
        found[r["model"], r["split"]][r["metric"]] = r["value"]
    samples = [
        f'"``{name}``", "{c["cpu_time_median"]:.2g}", "{c["cpu_time_max"]:.2g}", '
        f'"{c["points"]:.0f}", "{c["frames"]:.0f}"'
        for (name, split), c in found.items()
        if split == "sample" and "points" in c  # at least one was solved
    ]
    sets = [
        f'"{split}", "{c["points"]:.0f}", "{c["time"]:.3g}"'
        for (name, split), c in found.items()
        if name == "poisson_1000_nodes"
    ]
    steps = [
        f'"``{name}``", "{split}", "{c["time_per_step"]:.2g}", "{c["time_per_trajectory"]:.2g}"'
        for (name, split), c in found.items()
        if "time_per_step" in c
    ]
    return "\n\n".join(
        (
            f"``{record['command']}`` on {record['machine']}:",
            _table('"system", "median [s]", "largest [s]", "points", "frames"', samples),
            "Seconds of the clock for a whole set of Poisson solutions:",
            _table('"set", "points", "time [s]"', sets),
            "The spectral solvers on batches with fixed steps: a step of the whole batch, and one "
            "trajectory of it.",
            _table('"system", "batch", "step [s]", "trajectory [s]"', steps),
        )
    )


def _table(header: str, rows: list[str]) -> str:
    return "\n   ".join((".. csv-table::", f":header: {header}\n", *rows))


def _replace(path: Path, begin: str, end: str, text: str) -> None:
    before, rest = path.read_text().split(begin)
    write_atomically(path, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Write all of them."""
    _replace(ROOT / "README.md", BEGIN, END, readme_section())
    _replace(ROOT / "docs" / "solvers.rst", COSTS, END_COSTS, f"\n{costs_section()}\n")
    write_atomically(ROOT / "docs" / "results.rst", results_page())


if __name__ == "__main__":
    main()
