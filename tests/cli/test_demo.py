"""``cst demo`` end to end, made smaller."""

from dataclasses import replace
from pathlib import Path

import pytest

from cst_operator.cli import demo
from cst_operator.mesh_files import read_mesh
from tests.cli_samples import ok


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
