"""The log goes where it is wanted, and a resumed run's log is that of one never stopped."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cst_operator.errors import ConfigError
from cst_operator.log_writers import CsvWriter, TensorBoardWriter, WandbWriter
from tests.training_samples import stop_after, train, untimed


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_has_one_row_a_step(tmp_path: Path) -> None:
    run = train(tmp_path / "run", writers=[CsvWriter(tmp_path / "log.csv")])
    rows = table(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == ["4", "5", "8", "10", "12"]
    last = rows[-1]
    records = [r for r in run.history if r["step"] == 12]
    assert float(last["loss"]) == records[0]["loss"]
    assert float(last["terms.plain"]) == records[0]["terms"]["plain"]
    assert float(last["validation.relative_l2"]) == records[1]["validation"]["relative_l2"]
    assert rows[1]["validation.relative_l2"] == ""


def test_a_resumed_run_forgets_rows_after_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    train(tmp_path / "run", stop=stop_after(5), writers=[CsvWriter(file)])
    with open(file, "a") as log:
        log.write("6,1.0\n")  # logged, then killed before the next checkpoint
    run = train(tmp_path / "run", resume=True, writers=[CsvWriter(file)])
    steps = sorted({r["step"] for r in run.history})
    assert [int(row["step"]) for row in table(file)] == steps


class Recorder:
    """A writer of the test's own."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def open(self, records: Any) -> None:
        self.events.append(("open", list(records)))

    def write(self, record: Any) -> None:
        self.events.append(record)

    def close(self) -> None:
        self.events.append("close")


def test_a_writer_gets_what_the_log_gets(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    train(tmp_path / "run", stop=stop_after(5), writers=[first])
    run = train(tmp_path / "run", resume=True, writers=[second])
    assert first.events[0] == ("open", []) and first.events[-1] == "close"
    (_, before), *after, end = second.events
    assert untimed(before) == untimed(first.events[1:-1])
    assert before + after == run.history and end == "close"
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == run.history


def test_a_writer_is_closed_when_training_fails(tmp_path: Path) -> None:
    writer = Recorder()

    def fail() -> bool:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        train(stop=fail, writers=[writer])
    assert writer.events[-1] == "close"


def test_tensorboard_gets_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", stop=stop_after(5), writers=[TensorBoardWriter(tmp_path / "tb")])
    run = train(tmp_path / "run", resume=True, writers=[TensorBoardWriter(tmp_path / "tb")])
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("validation/relative_l2")]
    wanted = [(r["step"], r["validation"]["relative_l2"]) for r in run.history if "loss" not in r]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    # Kept in single precision.
    assert [v for _, v in found] == pytest.approx([v for _, v in wanted], rel=1e-6)


@pytest.mark.slow
def test_wandb_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(writers=[WandbWriter(tmp_path / "wandb")])
    (folder,) = (tmp_path / "wandb" / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))


@pytest.mark.parametrize("name", ("tensorboard", "wandb"))
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # import now fails
    kind = {"tensorboard": TensorBoardWriter, "wandb": WandbWriter}[name]
    with pytest.raises(ConfigError, match=rf"not installed; .*\[{name}\]"):
        kind(tmp_path)
