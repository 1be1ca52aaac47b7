"""``cst compare``: several models on the same data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tyro
from rich.markup import escape

from cst_operator.cli._shared import (
    Placement,
    PlacementFlags,
    SinglePrecision,
    console,
    examples_of,
    open_model,
    open_set,
    picture_fields,
    reading,
    resolve_task,
)
from cst_operator.comparison import Comparison, compare, join
from cst_operator.errors import InputError
from cst_operator.evaluation import Model, answer
from cst_operator.fields import Trajectory
from cst_operator.peers import LinearInterpolation, Nearest, ThinPlateSpline
from cst_operator.plots import plot_comparison
from cst_operator.report import Picture, ReportTable, Section, write_report
from cst_operator.task_config import TaskConfig
from cst_operator.tasks import Task

__all__ = ["METRICS_EXPLAINED", "Asked", "Compare", "compare_each", "comparison_table", "pictures"]

_PEERS: dict[str, type] = {
    "linear": LinearInterpolation,
    "thin-plate": ThinPlateSpline,
    "nearest": Nearest,
}

METRICS_EXPLAINED = (
    "relative_l2 is the L2 norm of the error over that of the truth, relative_h1 the same for "
    "gradients, max_error the largest error over the largest value of the truth; each is the mean "
    "over the samples. forward_time is that of one sample on this machine."
)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Options of ``cst compare``."""

    help: ClassVar[str] = (
        "Score several trained models, and interpolation where the task allows it, on one data\n"
        "set: a table, comparison.json and .csv, and report.html with a picture of each model.\n\n"
        "Example:\n"
        "  cst compare runs/cst runs/fno --data data/poisson_test --out comparison"
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run or checkpoint folders, at least one."""
    data: Path
    """Data set folder."""
    out: Path
    """Folder for the report and the table's files."""
    peers: str = ""
    """Interpolations to compare with, separated by commas: linear, thin-plate, nearest. They need
    a task whose source has the channels that are asked (all but steady ones)."""
    batch_size: int = 8
    """Examples at a time; changes memory, not scores."""
    placement: PlacementFlags = Placement()

    def run(self) -> int:
        """Score, print, write."""
        if not self.runs:
            raise InputError("nothing to compare; name at least one run folder")
        trained = [open_model(path, self.placement) for path in self.runs]
        names = [model.name for model in trained]
        if len(set(names)) < len(names):
            names = [str(path) for path in self.runs]
        data = open_set(self.data)
        tasks = [resolve_task(one.task, data) for one in trained]
        task = _on_any_mesh(tasks[0])
        for name, other in zip(names, map(_on_any_mesh, tasks), strict=True):
            if _question(other) != _question(task):
                raise InputError(
                    f"{name} reads {', '.join(other.source_channels)} and answers "
                    f"{', '.join(other.outputs)} ({other.kind}), unlike {names[0]}, or hides other "
                    "points or frames; compare models of one task"
                )
        asked = {
            name: Asked(one.model, own)
            for name, one, own in zip(names, trained, tasks, strict=True)
        }
        asked |= _interpolations(self.peers, task)
        split = self.data.resolve().name
        found = compare_each(asked, {split: data}, batch_size=self.batch_size)
        out = console()
        out.print(found.table(f"{len(data)} samples of {split}"))
        found.write(self.out)
        report = write_report(
            self.out / "report.html",
            f"Comparison on {split}",
            [
                Section(
                    title="Errors",
                    text=f"{len(data)} samples. {METRICS_EXPLAINED}",
                    tables=(comparison_table(found),),
                ),
                Section(
                    title="Pictures",
                    text="The first sample.",
                    pictures=pictures(asked, data[0], task),
                ),
                Section(
                    title="Files",
                    files={
                        "All numbers": self.out.resolve() / "comparison.json",
                        "The same for a spreadsheet": self.out.resolve() / "comparison.csv",
                    },
                ),
            ],
            subtitle=f"{', '.join(asked)}; {', '.join(task.source_channels)} to "
            f"{', '.join(task.outputs)}",
        )
        out.print(f"report: {escape(str(report))}", soft_wrap=True)
        return 0


class Asked(NamedTuple):
    """A model and what it reads and is asked; models of a comparison may differ in ``boundary``."""

    model: Model
    task: TaskConfig


def compare_each(
    asked: Mapping[str, Asked],
    splits: Mapping[str, Sequence[Trajectory]],
    *,
    batch_size: int = 8,
) -> Comparison:
    """Score models, each with its own task, on the same trajectories."""
    kept = {split: SinglePrecision(data) for split, data in splits.items()}
    return join(
        *(
            compare(
                {name: model},
                {split: examples_of(data, task) for split, data in kept.items()},
                batch_size=batch_size,
            )
            for name, (model, task) in asked.items()
        )
    )


def comparison_table(found: Comparison, caption: str = "") -> ReportTable:
    """The wide table of a comparison, for a report."""
    rows: list[dict[str, Any]] = found.wide()
    errors = tuple(
        key for row in rows[:1] for key in row if key not in ("split", "model", "parameters")
    )
    return ReportTable(rows=rows, caption=caption, best=errors, within="split")


def pictures(
    asked: Mapping[str, Asked], trajectory: Trajectory, task: TaskConfig, words: str = ""
) -> tuple[Picture, ...]:
    """One picture a model of its answer to one trajectory; none unless it is two-dimensional."""
    source, truth = picture_fields(trajectory, task)
    if truth.dim != 2:
        return ()
    return tuple(
        Picture(
            image=plot_comparison(
                source, truth, {name: answer(model, reading(source, own), truth)}
            ),
            caption=f"{name}{words}: input, truth, answer; below the answer its error.",
        )
        for name, (model, own) in asked.items()
    )


def _on_any_mesh(task: TaskConfig) -> TaskConfig:
    """The task without the points of the boundary, in which compared models may differ."""
    return replace(task, boundary=False).at_all_points()


def _question(task: TaskConfig) -> tuple[Task, int, int]:
    """What makes two tasks the same."""
    return task.build(), task.window, task.stride


def _interpolations(names: str, task: TaskConfig) -> dict[str, Asked]:
    found: dict[str, Asked] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in _PEERS:
            raise InputError(f"there is no peer {name!r}; choose from {', '.join(_PEERS)}")
        missing = [c for c in task.outputs if c not in task.source_channels]
        if missing:
            raise InputError(
                f"{name} interpolation cannot answer {', '.join(missing)}, which the source of "
                "this task does not have; leave it out of --peers"
            )
        found[name] = Asked(_PEERS[name](), task)
    return found
