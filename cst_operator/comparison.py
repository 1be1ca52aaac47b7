"""Several models on the same examples: one table, and the files that keep it."""

import csv
import io
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from torch import nn

from cst_operator._atomic import write_atomically
from cst_operator.errors import InputError
from cst_operator.evaluation import Examples, Model, Scores, evaluate
from cst_operator.metrics import Metric, max_error, relative_h1, relative_l2

__all__ = [
    "Comparison",
    "benchmark_record",
    "benchmark_row",
    "compare",
    "join",
    "num_parameters",
    "source_commit",
]

_KEYS = ("model", "split", "metric", "value", "unit", "seed")
_TIMED = 5  # examples


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of several models on several splits.

    Args:
        rows: long form, one number a row, with the keys model, split, metric, value, unit, seed.
            Besides the metrics: ``parameters`` (split "") and ``forward_time`` (seconds for one
            example; compare within one table only).
        scores: the scores of every sample by (model, split).
    """

    rows: tuple[dict[str, Any], ...]
    scores: Mapping[tuple[str, str], Scores]

    def value(self, model: str, split: str, metric: str) -> float:
        """One number of the table.

        Raises:
            InputError: if there is no such row.
        """
        for row in self.rows:
            if (row["model"], row["split"], row["metric"]) == (model, split, metric):
                return float(row["value"])
        raise InputError(
            f"the comparison has no {metric!r} of {model!r} on {split!r}; "
            f"it has {', '.join(sorted({str(row['metric']) for row in self.rows}))}"
        )

    def wide(self) -> list[dict[str, Any]]:
        """One row for every split and model, one column for every metric."""
        sizes = {r["model"]: r["value"] for r in self.rows if r["metric"] == "parameters"}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows:
            if row["metric"] == "parameters":
                continue
            key = (row["split"], row["model"])
            line = found.setdefault(key, {"split": row["split"], "model": row["model"]})
            line[row["metric"] + (f" [{row['unit']}]" if row["unit"] else "")] = row["value"]
        for (_, model), line in found.items():
            line["parameters"] = sizes.get(model)
        order = list(dict.fromkeys(split for split, _ in found))
        return sorted(found.values(), key=lambda line: order.index(line["split"]))

    def table(self, title: str = "") -> Table:
        """The wide form to print with rich; the least error of every split is bold."""
        lines = self.wide()
        columns = list(dict.fromkeys(key for line in lines for key in line))
        # Narrow enough for a terminal of 80 columns.
        table = Table(title=title or None, box=SIMPLE_HEAD, padding=0, show_edge=False)
        for name in columns:
            left = name in ("split", "model")
            table.add_column(
                escape(name),
                justify="left" if left else "right",
                min_width=max(map(len, name.split())),
                overflow="fold",
            )
        for i, line in enumerate(lines):
            peers = [other for other in lines if other["split"] == line["split"]]
            cells = []
            for name in columns:
                text = _number(line.get(name), name)
                known = [p[name] for p in peers if isinstance(p.get(name), float)]
                is_best = name != "parameters" and known and line.get(name) == min(known)
                cells.append(f"[bold]{text}[/bold]" if is_best and len(known) > 1 else text)
            last = i + 1 == len(lines) or lines[i + 1]["split"] != line["split"]
            table.add_row(*cells, end_section=last)
        return table

    def write(self, folder: str | Path, *, name: str = "comparison") -> list[Path]:
        """Write ``NAME.json`` and ``NAME.csv`` with the rows; each file is old or whole.

        Returns:
            The two paths.
        """
        folder = Path(folder)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=_KEYS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return [
            write_atomically(folder / f"{name}.json", _json({"rows": list(self.rows)})),
            write_atomically(folder / f"{name}.csv", text.getvalue()),
        ]


def compare(
    models: Mapping[str, Model],
    splits: Mapping[str, Examples],
    *,
    seed: int = 0,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    metrics: Sequence[Metric] = (relative_l2, relative_h1, max_error),
) -> Comparison:
    """Score every model on every split with the same functions.

    Args:
        models: ``model(source, target) -> [M, c]`` by name; modules and plain callables alike.
        splits: unbatched examples by name.
        seed: seed of the trainings, kept in the rows.
        batch_size: examples at a time; changes memory, not scores.
        device: where modules run; where they are, if omitted.
        metrics: functions of :mod:`cst_operator.metrics` or alike.

    Raises:
        InputError: if there are no models or splits, or a model cannot answer, naming both.
    """
    if not models or not splits:
        raise InputError("a comparison needs at least one model and one split")
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], Scores] = {}
    for name, model in models.items():
        rows.append(benchmark_row(name, "", "parameters", num_parameters(model), "", seed))
        for split, examples in splits.items():
            try:
                found = evaluate(
                    model, examples, batch_size=batch_size, device=device, metrics=metrics
                )
            except InputError as error:
                raise type(error)(f"{name} on {split}: {error}") from error
            scores[name, split] = found
            rows += found.rows(model=name, split=split, seed=seed)
            seconds = _forward_time(model, examples, device)
            rows.append(benchmark_row(name, split, "forward_time", seconds, "s", seed))
    return Comparison(rows=tuple(rows), scores=scores)


def join(*comparisons: Comparison) -> Comparison:
    """Several comparisons as one, e.g. of models that read different sources of the same data."""
    return Comparison(
        rows=tuple(row for part in comparisons for row in part.rows),
        scores={key: scores for part in comparisons for key, scores in part.scores.items()},
    )


def num_parameters(model: object) -> int:
    """Trained real numbers of a model (a complex one counts twice); 0 for plain callables."""
    if not isinstance(model, nn.Module):
        return 0
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())


def benchmark_row(
    model: str, split: str, metric: str, value: float, unit: str = "", seed: int = 0
) -> dict[str, Any]:
    """One number of a table in long form."""
    return dict(zip(_KEYS, (model, split, metric, value, unit, seed), strict=True))


def benchmark_record(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    data: str,
    folder: str | Path,
    command: str | None = None,
    **more: Any,
) -> Path:
    """Write ``folder/NAME.json``: what was measured, when, where, how and on what.

    Args:
        name: name of the benchmark.
        rows: long form, with the keys model, split, metric, value, unit, seed.
        data: what data and seeds were used, in words.
        folder: usually ``benchmarks/results``.
        command: the command that repeats it; that of this process if omitted.
        more: further keys, e.g. the configuration.

    Raises:
        InputError: if a row lacks a key or its value is not a finite number.
    """
    for row in rows:
        missing = [key for key in _KEYS if key not in row]
        if missing:
            raise InputError(f"a row of benchmark {name} lacks {', '.join(missing)}: {dict(row)}")
        if not math.isfinite(row["value"]):
            raise InputError(
                f"{row['metric']} of {row['model']} on {row['split']} is {row['value']}; "
                "a benchmark records finite numbers"
            )
    record = {
        "commit": source_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "command": _command() if command is None else command,
        "data": data,
        **more,
        "rows": [{key: row[key] for key in _KEYS} for row in rows],
    }
    return write_atomically(Path(folder) / f"{name}.json", _json(record))


def _json(content: object) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _number(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value)
    return f"{value:,}" if column == "parameters" else f"{value:.3g}"


@torch.no_grad()
def _forward_time(model: Model, examples: Examples, device: str | torch.device | None) -> float:
    """Median seconds of one example, after evaluation has met its geometry; no copies counted."""
    some = [examples[i] for i in range(min(_TIMED, len(examples)))]
    training = isinstance(model, nn.Module) and model.training
    before = None
    if isinstance(model, nn.Module):
        model.eval()
        before = next((t.device for t in (*model.parameters(), *model.buffers())), None)
        place = before if device is None else torch.device(device)
        if place is not None:
            model.to(place)
            some = [example.to(place) for example in some]
    try:
        model(*some[0])
        seconds = []
        for example in some:
            _wait(example.target.pos.device)
            start = time.perf_counter()
            model(*example)
            _wait(example.target.pos.device)
            seconds.append(time.perf_counter() - start)
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
            if before is not None:
                model.to(before)
    return sorted(seconds)[len(seconds) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def source_commit() -> str:
    """The commit of the source, with "+" if files differ from it; "" outside a repository."""
    root = Path(__file__).resolve().parents[1]
    try:
        lines = [
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return lines[0] + ("+" if lines[1] else "")


def _machine() -> str:
    parts = [platform.system(), platform.machine(), f"Python {platform.python_version()}"]
    parts += [f"torch {torch.__version__}", f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name:
        return " ".join(["python -m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
    return " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
