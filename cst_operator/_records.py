"""What a training says of itself: means of the loss, scores, and what follows from them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cst_operator._seeds import seeded
from cst_operator._training_state import State
from cst_operator.errors import FieldError
from cst_operator.evaluation import Examples, Scores, evaluate
from cst_operator.fields import Example
from cst_operator.fit_config import FitConfig, learning_rate
from cst_operator.metrics import relative_l2
from cst_operator.processes import Processes

__all__ = [
    "best_of",
    "by_channel",
    "check_validation",
    "gather_sums",
    "is_stuck",
    "keep_best",
    "record_of",
    "validate",
]


def record_of(state: State, config: FitConfig, processes: Processes, rate: float) -> dict[str, Any]:
    """Means since the last record, and a new beginning.

    Args:
        state: holds the sums, of which some may be from before the training was resumed.
        config: how it is trained.
        processes: who share a step.
        rate: steps a second.
    """
    sums = {key: float(value) for key, value in processes.add(state.sums).items()}
    points, places = sums.pop("num_points"), sums.pop("num_places")
    means = {key: value / state.num_summed for key, value in sums.items()}
    record = {
        "step": state.step,
        "loss": means.pop(""),
        "gradient_norm": means.pop("gradient_norm"),
        "terms": {key.removeprefix("terms."): value for key, value in means.items()},
        "lr": learning_rate(state.step - 1, config),
        "padding": round(1 - points / max(places, 1), 4),
        "steps_per_second": round(rate, 4),
    }
    state.sums, state.num_summed = {}, 0
    return record


def gather_sums(state: State, processes: Processes) -> None:
    """Move the sums since the last record to the first process, which saves them."""
    sums = processes.add(state.sums)
    state.sums = {k: v if processes.is_first else torch.zeros_like(v) for k, v in sums.items()}


def check_validation(validation: Examples, config: FitConfig) -> None:
    """Refuse an example that cannot be scored before the first step, not at the first evaluation.

    Raises:
        FieldError: naming it.
    """
    with seeded(config.seed, 0, 3):  # as they are drawn for :func:`validate`
        for i in range(len(validation)):
            target = validation[i].target
            try:
                relative_l2(target.u, target)
            except FieldError as error:
                raise FieldError(f"validation example {i}: {error}") from error


def validate(
    model: nn.Module, validation: Examples, config: FitConfig, processes: Processes
) -> Scores:
    """Scores on all examples; every process scores some of them."""
    shares = min(processes.size, len(validation))
    own = _Every(validation, processes.rank % shares, shares)
    with seeded(config.seed, 0, 3):  # the same examples every time, should they draw
        scores = evaluate(model, own, batch_size=config.batch_size, metrics=(relative_l2,))
    if processes.size == 1:
        return scores
    found = processes.gather(scores.per_sample)[:shares]
    per_sample = {}
    for metric in scores.per_sample:
        first = found[0][metric]
        errors = first.new_empty(len(validation), *first.shape[1:])
        for i, share in enumerate(found):
            errors[i::shares] = share[metric]
        per_sample[metric] = errors
    return dataclasses.replace(scores, per_sample=per_sample)


@dataclass(frozen=True)
class _Every:
    """Every ``step``-th example from the first on."""

    examples: Examples
    first: int
    step: int

    def __len__(self) -> int:
        return len(range(self.first, len(self.examples), self.step))

    def __getitem__(self, index: int) -> Example:
        return self.examples[self.first + index * self.step]


def is_stuck(records: list[dict[str, Any]], config: FitConfig) -> bool:
    """Whether the last evaluations were no better than the best."""
    steps = [record["step"] for record in records if "validation" in record]
    best = best_of(records)
    if not config.patience or best is None:
        return False
    return len(steps) - 1 - steps.index(int(best["step"])) >= config.patience


def keep_best(state: State, records: list[dict[str, Any]], config: FitConfig) -> None:
    """Put the averaged parameters by if they are the best so far and may be gone back to."""
    best = best_of(records)
    if config.patience and best is not None and best["step"] == state.step:
        state.best = {key: value.clone() for key, value in state.averaging.average.items()}


def by_channel(scores: Scores) -> dict[str, float]:
    """Mean errors, as a record has them."""
    rows = scores.rows(model="", split="")
    return {row["metric"]: row["value"] for row in rows}


def best_of(records: list[dict[str, Any]]) -> dict[str, float] | None:
    """Step and error of the best evaluation."""
    found = [
        {"step": record["step"], "relative_l2": record["validation"]["relative_l2"]}
        for record in records
        if "validation" in record
    ]
    return min(found, key=lambda entry: entry["relative_l2"], default=None)
