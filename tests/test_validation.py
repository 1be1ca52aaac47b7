"""What is scored during a training, and what its log says of the time."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

import cst_operator.training as module
from cst_operator.errors import FieldError, InputError
from cst_operator.fields import Example
from tests.training_samples import Samples, stop_after, train


class Vanishing(Samples):
    """One example's target is zero everywhere, so no error relative to it is defined."""

    def __getitem__(self, index: int) -> Example:
        source, target = super().__getitem__(index)
        if index == 2:
            target.u = target.u * 0
        return Example(source, target)


def test_a_validation_example_that_cannot_be_scored_is_named_before_the_first_step(
    tmp_path: Path,
) -> None:
    with pytest.raises(FieldError, match="validation example 2: .* zero everywhere"):
        train(tmp_path / "run", validation=Vanishing(4))
    # Neither a log nor a checkpoint, so the corrected training may have the folder.
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_validation_set_without_examples_is_an_error() -> None:
    with pytest.raises(InputError, match="no examples to validate on"):
        train(validation=Samples(0))


def test_the_rate_counts_the_steps_since_the_training_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    # A second passes between any two looks at it: from one record to the next.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    rates = [
        [r["steps_per_second"] for r in run.history if "loss" in r]
        for run in (
            train(),
            train(tmp_path / "run", stop=stop_after(3)),
            train(tmp_path / "run", resume=True),
        )
    ]
    assert rates == [[5, 5, 2], [], [2, 5, 2]]
