"""What a training survives: kills, signals, full disks, second writers, wrong settings and data.

Faults while one checkpoint is written are in tests/test_checkpoint_runs.py, the death of one of
several processes in tests/test_processes.py.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cst_operator import checkpoint
from cst_operator._run_folder import locked
from cst_operator.cli import main
from cst_operator.errors import CheckpointError, InputError
from cst_operator.fields import Example
from tests.training_samples import (
    CONFIG,
    Doubles,
    Samples,
    plain_net,
    same,
    stop_after,
    train,
    weights,
)

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    *("--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.hidden", "16"),
    *("--model.fourier-features", "4", "--loss.order", "1", "--task.num-queries", "8"),
    *("--fit.batch-size", "2", "--fit.log-every", "1", "--fit.device", "cpu"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    folder = tmp_path_factory.mktemp("faults") / "data"
    assert main(["generate", "poisson", "--n", "4", "--out", str(folder)]) == 0
    return folder


def cst_train(data: Path, out: Path, *flags: str) -> list[str]:
    """Arguments of a training that can be compared with another."""
    return ["train", "--data", str(data), "--out", str(out), *TINY, *flags]


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background, gone afterwards."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the process has written something there."""
    deadline = time.monotonic() + 120
    while not (path.exists() and (path.is_dir() or path.stat().st_size)):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, f"nothing came to {path}"
        time.sleep(0.01)


# --- row 1: kill -9 -------------------------------------------------------------------------------

ENDLESS = (
    "import sys; from pathlib import Path; from dataclasses import replace\n"
    "from training_samples import *\n"
    "config = replace(CONFIG, steps={steps}, save_every=20)\n"
    "train(Path(sys.argv[1]), config=config, resume='resume' in sys.argv)\n"
)


def test_a_killed_training_resumes_as_if_it_had_not_been(tmp_path: Path) -> None:
    code = ENDLESS.format(steps=300)
    for attempt in range(2):
        step = max((s for s, _ in checkpoint.steps(tmp_path / "run")), default=0)
        words = ("resume",) if attempt else ()
        with started(sys.executable, "-c", code, str(tmp_path / "run"), *words) as process:
            wait_for(checkpoint.step_folder(tmp_path / "run", step + 40), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
    config = replace(CONFIG, steps=300, save_every=20)
    resumed = train(tmp_path / "run", config=config, resume=True)
    assert same(weights(resumed), weights(train(config=config)))


# --- row 3: disk full -----------------------------------------------------------------------------


def test_a_training_that_fills_the_disk_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    straight = train()
    train(tmp_path / "run", stop=stop_after(5))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))  # enough for the log alone
        with pytest.raises(CheckpointError, match="older checkpoints are intact"):
            train(tmp_path / "run", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.steps(tmp_path / "run")[-1][0] == 5
    assert same(weights(train(tmp_path / "run", resume=True)), weights(straight))


# --- row 8: a loss that is not finite -------------------------------------------------------------


def test_cst_train_that_diverges_fails_and_leaves_finite_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ("--fit.lr", "1e30", "--fit.warmup", "0", "--fit.muon-lr", "0", "--fit.save-every", "1")
    assert main(cst_train(data, tmp_path / "run", *wild, "--fit.steps", "50")) == 1
    assert "not finite" in capsys.readouterr().err.splitlines()[-1]
    for _, folder in checkpoint.steps(tmp_path / "run"):
        assert all(bool(torch.isfinite(p).all()) for p in checkpoint.load(folder).parameters())


# --- row 20: SIGTERM, and Ctrl-C -----------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(
    number: signal.Signals, status: int, data: Path, tmp_path: Path
) -> None:
    arguments = cst_train(data, tmp_path / "run", "--fit.steps", "40")
    with started(sys.executable, "-m", "cst_operator", *arguments) as process:
        wait_for(tmp_path / "run" / "log.jsonl", process)
        process.send_signal(number)
        assert process.wait(timeout=60) == status
    ((step, _),) = checkpoint.steps(tmp_path / "run")
    assert 1 <= step < 40
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert main(cst_train(data, tmp_path / "straight", "--fit.steps", "40")) == 0
    found = [checkpoint.read(tmp_path / name) for name in ("run", "straight")]
    assert same(dict(found[0].weights), dict(found[1].weights))
    states = [f.training.tensors for f in found if f.training is not None]
    assert same(dict(states[0]), dict(states[1]))


# --- row 23: other settings, other data -----------------------------------------------------------


def test_cst_train_refuses_to_resume_with_another_width(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(cst_train(data, tmp_path / "run", "--fit.steps", "2")) == 0
    capsys.readouterr()
    again = ["train", "--out", str(tmp_path / "run"), "--resume", "--model.width", "32"]
    assert main(again) == 2
    assert "width is 16 there and 32 here" in capsys.readouterr().err


class Changed(Doubles):
    """The same number of examples, one sample of one of them changed in its last bits."""

    def __getitem__(self, index: int) -> Example:
        source, target = super().__getitem__(index)
        if index == 7:
            target.u = target.u.clone()
            target.u[2] *= 1 + 1e-15
        return Example(source, target)


def test_resume_with_other_data_is_refused(tmp_path: Path) -> None:
    arguments = {"validation": Doubles(4)}
    train(tmp_path / "run", model=plain_net(), train=Doubles(), stop=stop_after(2), **arguments)
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    with pytest.raises(CheckpointError, match="fingerprint of the examples is '.*' there and '.*"):
        train(tmp_path / "run", model=plain_net(), train=Changed(), resume=True, **arguments)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before
    train(tmp_path / "run", model=plain_net(), train=Doubles(), resume=True, **arguments)


def test_early_stopping_minds_the_validation_data_too(tmp_path: Path) -> None:
    patient = replace(CONFIG, patience=5)
    train(tmp_path / "run", config=patient, stop=stop_after(2))
    with pytest.raises(CheckpointError, match="fingerprint of the validation examples"):
        train(tmp_path / "run", config=patient, validation=Samples(3), resume=True)


# --- row 26: two writers --------------------------------------------------------------------------

HOLDING = (
    "import sys, time; from pathlib import Path; from cst_operator._run_folder import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    (Path(sys.argv[1]) / 'held').write_text('yes'); time.sleep(600)\n"
)


def test_a_second_writer_is_refused_and_the_lock_of_a_dead_one_taken_over(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = cst_train(data, out, "--fit.steps", "2")
    with started(sys.executable, "-c", HOLDING, str(out)) as process:
        wait_for(out / "held", process)
        with pytest.raises(InputError, match="another process is training in .*run; wait for it"):
            train(out)
        assert main(arguments) == 2
        assert "another process is training" in capsys.readouterr().err
        assert sorted(p.name for p in out.iterdir()) == [".lock", "held"]  # nothing was touched
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(arguments) == 0


def test_a_lock_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    def fail() -> bool:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        train(tmp_path / "run", stop=fail)
    with started(sys.executable, "-c", HOLDING, str(tmp_path / "run")) as process:
        wait_for(tmp_path / "run" / "held", process)


def test_a_lock_may_be_nested(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        assert train(tmp_path / "run").step == CONFIG.steps


# --- row 27: wrong or missing path ----------------------------------------------------------------


def test_a_typo_in_resume_is_an_error_and_makes_no_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in ((), ("--data", str(data))):
        assert main(["train", "--out", str(tmp_path / "rnu"), "--resume", *flags]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and "there is no run to resume at" in error[0]
        assert not (tmp_path / "rnu").exists()
