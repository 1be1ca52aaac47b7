"""``cst compare``: models of one task and interpolation in one table."""

import json
from pathlib import Path

import pytest

from cst_operator import checkpoint
from cst_operator.config import EXPERIMENT_FILE, load_config
from tests.cli_samples import TINY, ok, refused


def test_compare_writes_a_table_and_a_report(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("comparison")  # relative, as it is usually given
    ok("compare", work / "run", "--data", work / "data", "--out", out)
    assert "<img" in (out / "report.html").read_text()
    assert (out / "comparison.json").is_file()
    assert (out / "comparison.csv").is_file()


def test_models_with_and_without_boundary_points_are_compared(work: Path, tmp_path: Path) -> None:
    ok("train", "--data", work / "data", "--out", tmp_path / "bare", "--task.no-boundary", *TINY)
    assert load_config(work / "run" / EXPERIMENT_FILE).task.boundary
    both = (work / "run", tmp_path / "bare")
    names = [checkpoint.load(path).config.in_names for path in both]
    assert names == [("f", "distance", "boundary"), ("f", "distance")]
    ok("compare", *both, "--data", work / "data", "--out", tmp_path / "report")
    rows = json.loads((tmp_path / "report" / "comparison.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"run", "bare"}


def test_upsampling_is_compared_with_interpolation(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ("--task.kind", "upsampling", "--task.fraction", 0.5)
    ok("train", "--data", work / "data", "--out", tmp_path / "run", *TINY, *task)
    peers = ("--peers", "linear,thin-plate", "--out", tmp_path / "comparison")
    ok("compare", tmp_path / "run", "--data", work / "data", *peers)
    rows = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"run", "linear", "thin-plate"}


@pytest.mark.parametrize("run", ["steps", "masked"])
def test_tasks_of_several_frames_are_compared_with_interpolation(
    run: str, heat: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = ("--out", tmp_path / "report")
    run_folder = request.getfixturevalue(run) / "run"
    ok("compare", run_folder, "--data", heat / "data", "--peers", "nearest", *out)
    rows = json.loads((tmp_path / "report" / "comparison.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"run", "nearest"}


def test_models_of_other_tasks_are_not_compared(
    heat: Path, steps: Path, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, data = (steps / "run", masked / "run"), ("--data", heat / "data")
    assert "one task" in refused(capsys, "compare", *runs, *data, "--out", tmp_path / "report")
