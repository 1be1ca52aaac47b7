"""A run folder has a valid newest checkpoint, whatever happens while one is written."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cst_operator import checkpoint
from cst_operator.checkpoint import load, read, step_folder
from cst_operator.errors import CheckpointError
from tests.checkpoint_samples import save_step


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints whose bias tells the step."""
    for step in (1, 2, 3):
        save_step(tmp_path / "run", step)
    return tmp_path / "run"


def step_of(run: Path) -> int:
    """The step that all parts of the newest valid checkpoint agree on."""
    found = read(run)
    assert found.training is not None
    step = int(found.training.values["step"])
    assert step == int(found.training.tensors["step"]) == int(found.weights["linear.bias"][0])
    return step


def test_a_run_loads_its_newest_checkpoint(run: Path) -> None:
    assert step_of(run) == 3
    assert load(run).linear.bias[0].item() == 3


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(run: Path) -> None:
    file = step_folder(run, 3) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="model.safetensors is damaged.*going on with step-0.*2"):
        assert step_of(run) == 2
    with pytest.raises(CheckpointError):  # asked for by name, there is no substitute
        load(step_folder(run, 3))


def test_a_run_without_a_valid_checkpoint_is_an_error(run: Path) -> None:
    for _, folder in checkpoint.steps(run):
        (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no valid checkpoint: .*manifest.json is missing"):
        load(run)


def test_pruning_keeps_the_newest_and_clears_leftovers(run: Path) -> None:
    (run / ".step-00000009.tmp-1-abc").mkdir()
    checkpoint.prune(run, keep=2)
    assert sorted(p.name for p in run.iterdir()) == ["step-00000002", "step-00000003"]


# --- faults while writing -----------------------------------------------------------------------


class _Fault:
    """Raises at the n-th call of any of the functions that it stands in for."""

    def __init__(self, at: int) -> None:
        self.left = at

    def wrap(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if self.left == 0:
                raise OSError(28, "No space left on device")
            self.left -= 1
            return function(*args, **kwargs)

        return call


def test_a_fault_at_any_write_leaves_the_previous_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    failed = 0
    for at in range(100):
        fault = _Fault(at)
        with monkeypatch.context() as patched:
            for module, name in (
                (builtins, "open"),
                (os, "fsync"),
                (os, "mkdir"),
                (os, "rename"),
            ):
                patched.setattr(module, name, fault.wrap(getattr(module, name)))
            try:
                save_step(run, 4)
            except CheckpointError as error:
                failed += 1
                assert "No space left on device" in str(error)
            else:
                break
        complete = step_folder(run, 4).exists()
        assert step_of(run) == (4 if complete else 3)  # the flush of the parent may fail
        assert not list(run.glob(".*"))  # nothing half-made is left
        shutil.rmtree(step_folder(run, 4), ignore_errors=True)
    # mkdir of the parent and of the folder, 5 x (open, fsync), 2 folders flushed, 1 rename.
    assert failed == 15
    assert step_of(run) == 4


def test_a_full_disk_leaves_the_previous_checkpoint(run: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [p.stat().st_size for p in step_folder(run, 3).iterdir()]
    for limit in (max(sizes) * i // 10 for i in range(10)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(CheckpointError, match="File too large; older checkpoints"):
                save_step(run, 4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert step_of(run) == 3
        assert not list(run.glob(".*"))


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Start a process that saves without end, and wait for its first checkpoint."""
    code = (
        "from pathlib import Path\n"
        "from cst_operator import checkpoint\n"
        "from tests.checkpoint_samples import save_step\n"
        f"run = Path({str(run)!r})\n"
        "step = max((s for s, _ in checkpoint.steps(run)), default=0)\n"
        "while True:\n"
        "    step += 1; save_step(run, step); checkpoint.prune(run, keep=2)\n"
    )
    root = Path(__file__).resolve().parents[1]
    before = [s for s, _ in checkpoint.steps(run)]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    try:
        while [s for s, _ in checkpoint.steps(run)] == before:
            assert process.poll() is None, "the writer stopped by itself"
            time.sleep(0.001)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kills", (2, pytest.param(50, marks=pytest.mark.slow)))
def test_a_kill_at_any_moment_leaves_a_valid_newest_checkpoint(
    tmp_path: Path, kills: int, seed: int
) -> None:
    draw = random.Random(seed)
    reached = 0
    for _ in range(kills):
        with writing(tmp_path):
            time.sleep(draw.random() * 0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the newest by name is valid, no fallback is needed
            step = step_of(tmp_path)
        assert step > reached
        reached = step
