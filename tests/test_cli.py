"""Every command once, end to end on tiny data, and what bad input answers."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

import cst_operator.cli as cli
from cst_operator import checkpoint
from cst_operator.autoregression import rollout
from cst_operator.cli import demo, main
from cst_operator.cli._shared import open_model
from cst_operator.config import EXPERIMENT_FILE, load_config
from cst_operator.datasets import TrajectoryDataset
from cst_operator.errors import SolverError
from cst_operator.fields import Trajectory
from cst_operator.mesh_files import read_mesh, read_series, write_mesh, write_series

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    *("--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.hidden", "16"),
    *("--model.fourier-features", "4"),
    *("--fit.steps", "4", "--fit.batch-size", "2", "--fit.log-every", "2", "--fit.save-every", "2"),
    *("--fit.eval-every", "4", "--fit.ema", "0", "--fit.device", "cpu"),
]


def ok(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a trained run, and mesh files of one solution."""
    folder = tmp_path_factory.mktemp("cli")
    ok("generate", "poisson", "--n", 4, "--out", folder / "data")
    gradients = ("--loss.order", 1, "--loss.num-points", 4)
    ok("train", "--data", folder / "data", "--out", folder / "run", *gradients, *TINY)
    first = TrajectoryDataset(folder / "data")[0]
    write_mesh(folder / "case.vtu", first.mesh)
    write_mesh(folder / "bare.vtu", first.mesh.select())
    return folder


@pytest.fixture(scope="session")
def heat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that forecasts, and its data."""
    folder = tmp_path_factory.mktemp("heat")
    ok("generate", "heat", "--n", 2, "--out", folder / "data")
    queries = ("--task.num-queries", 16)
    ok("train", "--data", folder / "data", "--out", folder / "run", *queries, *TINY)
    first = TrajectoryDataset(folder / "data")[0]
    write_mesh(folder / "start.vtu", first.mesh.with_channels(first.u[0], first.channels))
    return folder


@pytest.fixture(scope="session")
def steps(heat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answers a lead time later, from two frames, and a series of three frames."""
    folder = tmp_path_factory.mktemp("steps")
    task = ("--task.kind", "lead_time", "--task.history", 2, "--task.leads", 1, 2)
    points = ("--task.num-queries", 16, "--task.num-sources", 40)
    ok("train", "--data", heat / "data", "--out", folder / "run", *TINY, *task, *points)
    first = TrajectoryDataset(heat / "data")[0]
    write_series(folder / "start.pvd", everything(first, range(3)))
    return folder


@pytest.fixture(scope="session")
def masked(heat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads random frames of windows, and a series of two frames."""
    folder = tmp_path_factory.mktemp("masked")
    task = ("--task.kind", "masking", "--task.window", 4, "--task.stride", 3, "--task.hidden", 1)
    points = ("--task.num-queries", 16, "--task.num-sources", 40)
    ok("train", "--data", heat / "data", "--out", folder / "run", *TINY, *task, *points)
    first = TrajectoryDataset(heat / "data")[0]
    write_series(folder / "known.pvd", everything(first, range(0, 8, 4)))
    return folder


def everything(trajectory: Trajectory, frames: range) -> Trajectory:
    """Some frames with the static channels beside the solution, as one series holds them."""
    cut = trajectory.window(frames)
    static = cut.mesh.u.expand(cut.num_frames, -1, -1)
    return replace(
        cut,
        mesh=cut.mesh.select(),
        u=torch.cat([cut.u, static], dim=2),
        channels=(*cut.channels, *cut.mesh.channels),
        units=(),
        gradient=None,
        time_derivative=None,
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that bad input answers."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    assert error[0].startswith("error: ")
    return error[0]


# Help


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cst_operator", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ok(name, "--help")
    text = capsys.readouterr().out
    assert f"usage: cst {name}" in text
    assert "Example" in text
    assert f"  cst {name}" in text


def test_no_command_is_a_usage_error_that_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_a_mistyped_command_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'train'" in refused(capsys, "trian")


def test_a_mistyped_flag_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "d", "--out", "o", "--fit.stepz", "3"]) == 2
    captured = capsys.readouterr()
    assert "--fit.steps" in captured.out + captured.err


# Commands


def test_doctor_finds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    ok("doctor")
    text = capsys.readouterr().out
    assert "neuraloperator" in text
    assert "everything required is there" in text


def test_doctor_fails_if_a_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "neuralop", None)  # import now fails
    assert main(["doctor"]) == 1
    assert "neuraloperator cannot be imported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "words"),
    [("case.vtu", "quality"), ("data", "static channels"), ("run", "parameters")],
)
def test_inspect_tells_files_sets_and_runs_apart(
    what: str, words: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("inspect", work / what)
    assert words in capsys.readouterr().out


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
    def at_once() -> Any:
        yield lambda: True

    file = work / "run" / EXPERIMENT_FILE
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_on_signal", at_once)
        status = main(["train", "--config", str(file), "--out", str(tmp_path / "run")])
        assert status == 143  # 128 + SIGTERM
    ok("train", "--out", tmp_path / "run", "--resume")
    assert [step for step, _ in checkpoint.steps(tmp_path / "run")][-1] == 4


def test_evaluate_writes_scores(work: Path, tmp_path: Path) -> None:
    ok("evaluate", work / "run", "--data", work / "data", "--out", tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert {row["metric"] for row in content["rows"]} == {"relative_l2", "relative_h1", "max_error"}
    assert len(content["per_sample"]["relative_l2"]) == 4


def test_predict_answers_on_the_mesh_of_the_file(work: Path, tmp_path: Path) -> None:
    ok("predict", work / "run", "--mesh", work / "case.vtu", "--out", tmp_path / "u.vtu")
    answer, case = read_mesh(tmp_path / "u.vtu"), read_mesh(work / "case.vtu")
    assert answer.channels == ("u",)
    assert bool((answer.pos == case.pos).all())


def test_a_missing_distance_is_computed(work: Path, tmp_path: Path) -> None:
    write_mesh(tmp_path / "f.vtu", read_mesh(work / "case.vtu").select("f"))
    for name, mesh in (("with", work / "case.vtu"), ("without", tmp_path / "f.vtu")):
        ok("predict", work / "run", "--mesh", mesh, "--out", tmp_path / f"{name}.vtu")
    given, computed = (read_mesh(tmp_path / f"{n}.vtu").u for n in ("with", "without"))
    # Distances agree to single precision, 1e-7 of the unit box; the answer is that smooth.
    assert float((given - computed).abs().max()) < 1e-4 * float(given.abs().max())


def test_points_far_outside_are_warned_of(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = read_mesh(work / "case.vtu")
    far.pos = far.pos * 10
    write_mesh(tmp_path / "far.vtu", far)
    ok("predict", work / "run", "--mesh", tmp_path / "far.vtu", "--out", tmp_path / "u.vtu")
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning: ")
    assert "extrapolated" in line


def test_upsample_answers_at_the_fine_points(work: Path, tmp_path: Path) -> None:
    fine = ("--to", work / "bare.vtu", "--out", tmp_path / "up.vtu")
    ok("upsample", work / "run", "--from", work / "case.vtu", *fine)
    assert read_mesh(tmp_path / "up.vtu").channels == ("u",)


def scores(out: Path) -> dict[str, float]:
    return {r["metric"]: r["value"] for r in json.loads(out.read_text())["rows"]}


def test_lower_precision_changes_answers_a_little(work: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("float32", "bfloat16"):
        how = ("--device", "cpu", "--precision", name)
        ok("evaluate", work / "run", "--data", work / "data", "--out", tmp_path / name, *how)
        mesh = ("--mesh", work / "case.vtu", "--out", tmp_path / f"{name}.vtu")
        ok("predict", work / "run", *mesh, *how)
        found[name] = (scores(tmp_path / name), read_mesh(tmp_path / f"{name}.vtu").u)
    (errors, u), (other_errors, other_u) = found.values()
    # Sums of products with 8 bits of mantissa, 4e-3 each, through two layers of attention.
    assert 0 < float((u - other_u).norm()) < 0.1 * float(u.norm())
    assert errors != other_errors
    assert other_errors == pytest.approx(errors, rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_the_cpu(work: Path, steps: Path, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        out, on = tmp_path / device, ("--device", device)
        out.mkdir()
        ok("evaluate", work / "run", "--data", work / "data", "--out", out / "steady.json", *on)
        case = ("--mesh", work / "case.vtu", "--out", out / "steady.vtu")
        ok("predict", work / "run", *case, *on)
        fine = ("--from", work / "case.vtu", "--to", work / "bare.vtu", "--out", out / "up.vtu")
        ok("upsample", work / "run", *fine, *on)
        ok("compare", work / "run", "--data", work / "data", "--out", out / "comparison", *on)
        start = ("--mesh", steps / "start.pvd", "--out", out / "rollout.pvd")
        ok("predict", steps / "run", *start, *on)
    cpu, cuda = (scores(tmp_path / name / "steady.json") for name in ("cpu", "cuda"))
    assert cuda == pytest.approx(cpu, rel=1e-3)  # single precision, sums in another order
    for name in ("steady.vtu", "up.vtu"):
        u, other = (read_mesh(tmp_path / device / name).u for device in ("cpu", "cuda"))
        assert float((u - other).norm()) < 1e-3 * float(u.norm())


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


def test_boundary_points_need_cells(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = TrajectoryDataset(work / "data")[0].mesh
    write_mesh(tmp_path / "points.vtu", field.subset(np.arange(field.num_points)))
    out = ("--out", tmp_path / "out.vtu")
    error = refused(capsys, "predict", work / "run", "--mesh", tmp_path / "points.vtu", *out)
    assert "cells" in error


def test_upsampling_is_compared_with_interpolation(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ("--task.kind", "upsampling", "--task.fraction", 0.5)
    ok("train", "--data", work / "data", "--out", tmp_path / "run", *TINY, *task)
    peers = ("--peers", "linear,thin-plate", "--out", tmp_path / "comparison")
    ok("compare", tmp_path / "run", "--data", work / "data", *peers)
    rows = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"run", "linear", "thin-plate"}


def test_a_forecast_is_written_as_a_series(heat: Path, tmp_path: Path) -> None:
    times = ("--times", "0.005:0.02:4", "--out", tmp_path / "u.pvd")
    ok("predict", heat / "run", "--mesh", heat / "start.vtu", *times)
    series = read_series(tmp_path / "u.pvd")
    assert series.channels == ("u",)
    np.testing.assert_allclose(series.times, [0.005, 0.01, 0.015, 0.02], rtol=1e-6)  # float32


def test_a_forecast_is_evaluated(heat: Path, tmp_path: Path) -> None:
    ok("evaluate", heat / "run", "--data", heat / "data", "--out", tmp_path / "scores.json")


def test_a_lead_time_run_is_scored_with_its_rollouts(
    heat: Path, steps: Path, tmp_path: Path
) -> None:
    ok("evaluate", steps / "run", "--data", heat / "data", "--out", tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert len(content["per_sample"]["relative_l2"]) == 2
    # Frames 2 to 10 of 11, two being read.
    assert len(content["rollout"]["times"]) == len(content["rollout"]["relative_l2"]["u"]) == 9


def test_a_task_is_read_back_from_its_run(steps: Path, masked: Path) -> None:
    for folder in (steps, masked):
        trained = load_config(folder / "run" / EXPERIMENT_FILE).task
        assert open_model(folder / "run").task == trained.at_all_points()
    assert open_model(steps / "run").task.leads == (1, 2)
    assert open_model(masked / "run").task.window == 4


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


def test_a_rollout_from_files_is_that_of_the_library(
    heat: Path, steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = ("--times", "0.004:0.01:4", "--out", tmp_path / "u.pvd")
    ok("predict", steps / "run", "--mesh", steps / "start.pvd", *times)
    assert capsys.readouterr().err == ""
    found = read_series(tmp_path / "u.pvd")
    trained = open_model(steps / "run")
    truth = TrajectoryDataset(heat / "data")[0].to(torch.float32)
    wanted = rollout(trained.model, trained.task.lead_time(), truth, [0.004, 0.006, 0.008, 0.01])
    assert found.channels == ("u",)
    torch.testing.assert_close(found.times, wanted.times)
    torch.testing.assert_close(found.u, wanted.u, rtol=1e-4, atol=1e-5)  # of float32, four steps


def test_a_rollout_goes_on_in_steps_of_the_training(steps: Path, tmp_path: Path) -> None:
    ok("predict", steps / "run", "--mesh", steps / "start.pvd", "--out", tmp_path / "u.xdmf")
    series = read_series(tmp_path / "u.xdmf")
    assert series.num_frames == 10
    # Leads of one and two frames, a frame each 0.002, in float32.
    assert 0.0019 < float(series.times[0]) - 0.002 < 0.0041


def test_steps_unlike_those_of_the_training_are_warned_of(
    steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = ("--times", "1", "--out", tmp_path / "u.vtu")
    ok("predict", steps / "run", "--mesh", steps / "start.pvd", *times)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning: ")
    assert "lead" in line


def test_masked_frames_are_answered_from_a_series(masked: Path, tmp_path: Path) -> None:
    times = ("--times", "0.004", "--out", tmp_path / "u.vtu")
    ok("predict", masked / "run", "--mesh", masked / "known.pvd", *times)
    assert read_mesh(tmp_path / "u.vtu").channels == ("u",)


def test_one_frame_is_too_few_for_a_history_of_two(
    heat: Path, steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "u.pvd")
    line = refused(capsys, "predict", steps / "run", "--mesh", heat / "start.vtu", *out)
    assert "reads 2 frames" in line
    assert ".pvd" in line


def test_a_rollout_is_no_upsampling(
    heat: Path, steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--from", steps / "start.pvd", "--to", heat / "start.vtu", "--out", tmp_path / "u.pvd")
    assert "cst predict" in refused(capsys, "upsample", steps / "run", *files)


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


def test_the_quick_demo_leaves_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = replace(
        demo.QUICK,
        num_train=4,
        fit=replace(demo.QUICK.fit, steps=4, eval_every=2, save_every=2, log_every=2),
        fno_fit=replace(demo.QUICK.fno_fit, steps=4, eval_every=2, save_every=2, log_every=2),
    )
    monkeypatch.setattr(demo, "QUICK", smaller)
    monkeypatch.chdir(tmp_path)
    out = Path("demo")  # relative, as it is by default
    ok("demo", "--quick", "--workers", 1, "--out", out)
    names = ["report.html", "coarse.vtu", "fine.vtu", "upsampled.vtu", "comparison.csv"]
    assert all((out / name).is_file() for name in names)
    assert "u_true" in read_mesh(out / "upsampled.vtu").channels
    text = capsys.readouterr().out
    assert "report.html" in text
    before = (out / "cst" / "log.jsonl").read_text()
    ok("demo", "--quick", "--workers", 1, "--out", out)  # keeps what is done
    assert (out / "cst" / "log.jsonl").read_text() == before
    ok("predict", out / "fno", "--mesh", out / "coarse.vtu", "--out", out / "answer.vtu")


# Bad input: one line, status 2


def write_raw(path: Path, points: Any, cells: Any, **data: Any) -> Path:
    meshio.Mesh(np.asarray(points, dtype=float), cells, point_data=data).write(path)
    return path


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
HALVES = [("triangle", np.array([[0, 1, 2], [0, 2, 3]]))]


def test_points_without_cells_have_no_distance(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = read_mesh(work / "case.vtu").select("f")
    write_mesh(tmp_path / "points.vtu", points.subset(points.pos[:, 0] > 0))
    line = refused(
        capsys,
        *("predict", work / "run", "--mesh", tmp_path / "points.vtu"),
        *("--out", tmp_path / "u.vtu"),
    )
    assert "lacks the channel distance" in line
    assert "point data are: f;" in line


def test_values_that_are_not_finite_are_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_raw(tmp_path / "nan.vtu", SQUARE, HALVES, f=np.array([1, np.nan, 0, 0]))
    out = ("--out", tmp_path / "u.vtu")
    assert "not finite" in refused(capsys, "predict", work / "run", "--mesh", path, *out)
    assert "not finite" in refused(capsys, "inspect", path)


def test_cells_without_area_are_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [("triangle", np.array([[0, 1, 2], [0, 2, 3], [0, 0, 1]]))]
    path = write_raw(tmp_path / "flat.vtu", SQUARE, cells, f=np.ones(4))
    refused(capsys, "predict", work / "run", "--mesh", path, "--out", tmp_path / "u.vtu")
    assert main(["inspect", str(path)]) == 2
    assert "problem:" in capsys.readouterr().out


def test_channels_that_do_not_fit_are_listed(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_raw(tmp_path / "g.vtu", SQUARE, HALVES, g=np.ones(4))
    line = refused(capsys, "predict", work / "run", "--mesh", path, "--out", tmp_path / "u.vtu")
    assert "lacks the channel f" in line
    assert "g, distance" in line


def test_an_unknown_key_names_the_nearest(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.toml").write_text("[fit]\nlearning_rat = 1.0\nstepz = 3\n")
    (tmp_path / "train.toml").write_text("[fit]\nstepz = 3\n")
    line = refused(capsys, "train", "--config", tmp_path / "train.toml", "--out", tmp_path / "r")
    assert "'fit.steps'" in line


def test_a_truncated_checkpoint_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint.steps(work / "run")[-1][1]
    shutil.copytree(newest, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    line = refused(capsys, "evaluate", tmp_path / "broken", "--data", work / "data")
    assert "model.safetensors" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "absent.vtu"),
        ("predict", "RUN", "--mesh", "absent.vtu", "--out", "u.vtu"),
        ("predict", "RUN", "--mesh", "CASE", "--out", "absent/u.vtu"),
        ("predict", "RUN", "--mesh", "CASE", "--out", "u.vtu", "--times", "0:1:3"),
        ("evaluate", "absent", "--data", "DATA"),
        ("evaluate", "RUN", "--data", "absent"),
        ("train", "--out", "run"),
        ("train", "--data", "absent", "--out", "run"),
        ("train", "--data", "DATA", "--out", "RUN"),
        ("train", "--data", "DATA", "--out", "run", "--validation", "4"),
        ("train", "--data", "DATA", "--out", "run", "--task.inputs", "distanse"),
        ("train", "--data", "DATA", "--out", "run", "--model.heads", "5"),
        ("train", "--data", "DATA", "--out", "run", "--fit.steps", "0"),
        ("train", "--config", "absent.toml", "--out", "run"),
        ("generate", "poison", "--n", "1", "--out", "data"),
        ("generate", "poisson", "--n", "0", "--out", "data"),
        ("compare", "RUN", "--data", "DATA", "--out", "c", "--peers", "linear"),
        ("compare", "RUN", "--data", "DATA", "--out", "c", "--peers", "magic"),
    ],
    ids=" ".join,
)
def test_bad_arguments_answer_one_line_with_a_remedy(
    arguments: tuple[str, ...],
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"RUN": work / "run", "DATA": work / "data", "CASE": work / "case.vtu"}
    line = refused(capsys, *(places.get(a, a) for a in arguments))
    assert ";" in line or "expected" in line


@pytest.mark.parametrize("command", ["evaluate", "predict", "upsample", "compare"])
def test_a_gpu_that_is_not_there_is_refused(
    command: str,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case, data = work / "case.vtu", work / "data"
    arguments = {
        "evaluate": ("--data", data),
        "predict": ("--mesh", case),
        "upsample": ("--from", case, "--to", case),
        "compare": ("--data", data),
    }[command]
    out = ("--out", tmp_path / "out.vtu", "--device", "cuda")
    line = refused(capsys, command, work / "run", *arguments, *out)
    assert "torch sees no GPU" in line and '"cpu"' in line
    assert not (tmp_path / "out.vtu").exists()


@pytest.mark.parametrize("times", ["1:0:5", "0:1", "soon", "0:1:1"])
def test_times_that_make_no_sense_are_refused(
    times: str, heat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "u.pvd", "--times", times)
    assert "FIRST:LAST:NUMBER" in refused(
        capsys, "predict", heat / "run", "--mesh", heat / "start.vtu", *out
    )


def test_several_times_need_a_series_file(
    heat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "u.vtu")
    line = refused(capsys, "predict", heat / "run", "--mesh", heat / "start.vtu", *out)
    assert ".pvd" in line


# Other endings


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(SolverError("it diverged"), 1, "error: it diverged"), (KeyboardInterrupt(), 130, "interr")],
)
def test_failures_and_interruptions_have_their_own_status(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(name: str, arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err.startswith(words)


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, arguments: list[str]) -> int:
        raise SolverError("it diverged")

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.setenv("CST_DEBUG", "1")
    with pytest.raises(SolverError):
        main(["doctor"])
