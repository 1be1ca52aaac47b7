"""``cst predict`` and ``cst upsample``: answers on meshes, as series, and files that do not fit."""

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from cst_operator.autoregression import rollout
from cst_operator.cli import main
from cst_operator.cli._shared import open_model
from cst_operator.datasets import TrajectoryDataset
from cst_operator.mesh_files import read_mesh, read_series, write_mesh
from tests.cli_samples import ok, refused


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


def test_a_forecast_is_written_as_a_series(heat: Path, tmp_path: Path) -> None:
    times = ("--times", "0.005:0.02:4", "--out", tmp_path / "u.pvd")
    ok("predict", heat / "run", "--mesh", heat / "start.vtu", *times)
    series = read_series(tmp_path / "u.pvd")
    assert series.channels == ("u",)
    np.testing.assert_allclose(series.times, [0.005, 0.01, 0.015, 0.02], rtol=1e-6)  # float32


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


def test_boundary_points_need_cells(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = TrajectoryDataset(work / "data")[0].mesh
    write_mesh(tmp_path / "points.vtu", field.subset(np.arange(field.num_points)))
    out = ("--out", tmp_path / "out.vtu")
    error = refused(capsys, "predict", work / "run", "--mesh", tmp_path / "points.vtu", *out)
    assert "cells" in error


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
