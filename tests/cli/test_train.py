"""``cst train``: what a run keeps, how it goes on, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cst_operator import checkpoint
from cst_operator.cli import main
from cst_operator.cli._shared import open_model
from cst_operator.config import EXPERIMENT_FILE, load_config
from tests.cli_samples import ok, refused


def test_a_run_keeps_its_resolved_configuration(work: Path) -> None:
    config = load_config(work / "run" / EXPERIMENT_FILE)
    assert config.task.kind == "steady"
    assert config.task.inputs == ("f", "distance")
    assert (config.validation, config.fit.steps, config.model.width) == (1, 4, 16)


def test_a_run_is_repeated_from_its_configuration(work: Path, tmp_path: Path) -> None:
    ok("train", "--config", work / "run" / EXPERIMENT_FILE, "--out", tmp_path / "again")
    weights = [checkpoint.read(p).weights for p in (work / "run", tmp_path / "again")]
    assert all(bool((weights[0][key] == weights[1][key]).all()) for key in weights[0])


def test_flags_win_over_the_file(work: Path, tmp_path: Path) -> None:
    file = work / "run" / EXPERIMENT_FILE
    ok("train", "--config", file, "--out", tmp_path / "short", "--fit.steps", 2)
    config = load_config(tmp_path / "short" / EXPERIMENT_FILE)
    assert (config.fit.steps, config.fit.batch_size) == (2, 2)


def test_a_finished_run_resumes_at_once(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "run", tmp_path / "run")
    ok("train", "--out", tmp_path / "run", "--resume")


def test_a_stopped_training_goes_on(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from cst_operator.cli import train

    @contextmanager
    def at_once(*signals: Any) -> Any:
        yield lambda: not signals

    file = work / "run" / EXPERIMENT_FILE
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_on_signal", at_once)
        status = main(["train", "--config", str(file), "--out", str(tmp_path / "run")])
        assert status == 143  # 128 + SIGTERM
    ok("train", "--out", tmp_path / "run", "--resume")
    assert [step for step, _ in checkpoint.steps(tmp_path / "run")][-1] == 4


def test_the_next_command_can_be_copied_from_a_narrow_terminal(
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = tmp_path / "my runs"
    ok("train", "--config", work / "run" / EXPERIMENT_FILE, "--out", out)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"the run is in {out}; next: cst evaluate '{out}' --data FOLDER"
    ok("evaluate", out, "--data", work / "data")
    assert capsys.readouterr().out.splitlines()[-1] == f"scores in {out / 'evaluation_data.json'}"


def test_a_task_is_read_back_from_its_run(steps: Path, masked: Path) -> None:
    for folder in (steps, masked):
        trained = load_config(folder / "run" / EXPERIMENT_FILE).task
        assert open_model(folder / "run").task == trained.at_all_points()
    assert open_model(steps / "run").task.leads == (1, 2)
    assert open_model(masked / "run").task.window == 4


def test_an_unknown_key_names_the_nearest(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.toml").write_text("[fit]\nstepz = 3\n")
    line = refused(capsys, "train", "--config", tmp_path / "train.toml", "--out", tmp_path / "r")
    assert "'fit.steps'" in line


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (("lead_time", "--task.history", 11), "at least 12 frames"),
        (("lead_time", "--task.leads", 0), "leads is (0,)"),
        (("masking", "--task.window", 12), "trajectories have 11 frames"),
        (("masking", "--task.window", 3, "--task.hidden", 3), "at least 4 frames"),
        (("masking", "--task.mask", "points", "--task.fraction", 1), "nothing is hidden"),
        (("steady", "--task.window", 3), "a steady task reads no frames"),
        (("masking", "--task.stride", 0), "stride is 0"),
        (("masking", "--task.num-sources", -1), "num_sources is -1"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_tasks_that_the_data_do_not_allow_are_refused(
    task: tuple[object, ...],
    words: str,
    heat: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("--data", heat / "data", "--out", tmp_path / "run", "--task.kind", *task)
    assert words in refused(capsys, "train", *arguments)
    assert not (tmp_path / "run").exists()
