"""What a run folder lets a training go on with, and when it takes a new one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cst_operator import checkpoint
from cst_operator.errors import CheckpointError
from tests.training_samples import CONFIG, same, stop_after, train, weights


@pytest.mark.parametrize(
    "changes",
    [{"save_every": 3}, {"log_every": 1}, {"eval_every": 7}, {"keep": 3}],
    ids=str,
)
def test_what_changes_no_weight_may_change_on_resume(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    train(tmp_path / "run", stop=stop_after(2))
    resumed = train(tmp_path / "run", resume=True, config=replace(CONFIG, **changes))
    assert same(weights(resumed), weights(train()))


def test_with_early_stopping_the_evaluations_must_stay_where_they_are(tmp_path: Path) -> None:
    patient = replace(CONFIG, patience=5)
    train(tmp_path / "run", config=patient, stop=stop_after(2))
    with pytest.raises(CheckpointError, match="eval_every is 4 there and 7 here"):
        train(tmp_path / "run", config=replace(patient, eval_every=7), resume=True)


def test_a_run_that_stopped_before_its_first_checkpoint_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 7.0}\n')
    with pytest.raises(CheckpointError, match="before its first checkpoint.*start it anew"):
        train(tmp_path, resume=True)
    run = train(tmp_path)
    assert same(weights(run), weights(train()))
    assert checkpoint.steps(tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.history
