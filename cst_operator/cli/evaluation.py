"""``cst evaluate``: errors of a trained model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tyro
from rich.markup import escape

from cst_operator._atomic import write_atomically
from cst_operator.cli._rollouts import rollout_errors
from cst_operator.cli._shared import (
    Placement,
    PlacementFlags,
    SinglePrecision,
    console,
    examples_of,
    open_model,
    open_set,
    resolve_task,
)
from cst_operator.evaluation import evaluate

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Options of ``cst evaluate``."""

    help: ClassVar[str] = (
        "Score a trained model on a data set: relative L2, relative H1 semi-norm, maximum; of a\n"
        "lead-time model also its rollouts, by time.\n\n"
        "Example:\n  cst evaluate runs/first --data data/poisson_test"
    )

    run_folder: tyro.conf.Positional[Path]
    """Run or checkpoint folder."""
    data: Path
    """Data set folder."""
    out: Path | None = None
    """JSON file for the scores; evaluation_DATA.json in the run folder if omitted."""
    batch_size: int = 8
    """Examples at a time; changes memory, not scores."""
    placement: PlacementFlags = Placement()

    def run(self) -> int:
        """Print a table and write the scores."""
        trained = open_model(self.run_folder, self.placement)
        data = open_set(self.data)
        task = resolve_task(trained.task, data)
        scores = evaluate(trained.model, examples_of(data, task), batch_size=self.batch_size)
        name = self.data.resolve().name
        out = console()
        out.print(scores.table(f"{trained.name} on {name}"))
        rollouts = None
        if task.kind == "lead_time":
            rollouts = rollout_errors(trained.model, task, SinglePrecision(data))
            out.print(rollouts.table(f"rollouts of {trained.name}, mean relative L2 error"))
        path = self.out or self.run_folder / f"evaluation_{name}.json"
        content: dict[str, Any] = {
            "run": str(self.run_folder),
            "data": str(self.data),
            "rows": scores.rows(model=trained.name, split=name),
            "per_sample": {metric: e.tolist() for metric, e in scores.per_sample.items()},
        }
        if rollouts is not None:
            content["rollout"] = {
                "times": rollouts.times.tolist(),
                "relative_l2": dict(zip(task.outputs, rollouts.errors.T.tolist(), strict=True)),
            }
        write_atomically(path, json.dumps(content, indent=1) + "\n")
        out.print(f"scores in {escape(str(path))}", soft_wrap=True)
        return 0
