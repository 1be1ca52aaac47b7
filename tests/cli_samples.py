"""What tests of the command line share: a tiny training, commands that must do or refuse."""

import json
from pathlib import Path

import pytest

from cst_operator.cli import main

__all__ = ["TINY", "ok", "refused", "scores"]

TINY = [
    *("--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.hidden", "16"),
    *("--model.fourier-features", "4"),
    *("--fit.steps", "4", "--fit.batch-size", "2", "--fit.log-every", "2", "--fit.save-every", "2"),
    *("--fit.eval-every", "4", "--fit.ema", "0", "--fit.device", "cpu"),
]


def ok(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that bad input answers."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    assert error[0].startswith("error: ")
    return error[0]


def scores(out: Path) -> dict[str, float]:
    return {r["metric"]: r["value"] for r in json.loads(out.read_text())["rows"]}
