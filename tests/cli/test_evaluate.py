"""``cst evaluate``: scores of steady answers and of rollouts, by device and precision."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cst_operator import checkpoint
from cst_operator.mesh_files import read_mesh
from tests.cli_samples import ok, refused, scores
from tests.training_samples import Net, NetConfig


def test_evaluate_writes_scores(work: Path, tmp_path: Path) -> None:
    ok("evaluate", work / "run", "--data", work / "data", "--out", tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert {row["metric"] for row in content["rows"]} == {"relative_l2", "relative_h1", "max_error"}
    assert len(content["per_sample"]["relative_l2"]) == 4


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


def test_a_truncated_checkpoint_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint.steps(work / "run")[-1][1]
    shutil.copytree(newest, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    line = refused(capsys, "evaluate", tmp_path / "broken", "--data", work / "data")
    assert "model.safetensors" in line


def test_a_data_set_is_no_run(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "evaluate", work / "data", "--data", work / "data")
    assert "holds no checkpoint; expected config.json" in line


def test_a_model_without_names_of_channels_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(Net(NetConfig()), tmp_path / "net")
    line = refused(capsys, "evaluate", tmp_path / "net", "--data", work / "data")
    assert "the Net in " in line and "in_names and out_names" in line
