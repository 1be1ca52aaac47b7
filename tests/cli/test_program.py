"""Help, the state of the installation, bad arguments, and how a command may end."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cst_operator.cli as cli
from cst_operator.cli import main
from cst_operator.errors import SolverError
from tests.cli_samples import ok, refused

ROOT = Path(__file__).resolve().parents[2]


def let_fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command end in an error."""

    def fail(name: str, arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)


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


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (SolverError("it diverged"), 1, "error: it diverged"),
        (KeyboardInterrupt(), 130, "interr"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.h5"),
            2,
            "error: a.h5: No space left on device; free some space, or write elsewhere",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.h5"),
            2,
            "error: a.h5: Permission denied; check the path and its permissions",
        ),
    ],
)
def test_failures_and_interruptions_have_their_own_status(
    error: BaseException,
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    let_fail(monkeypatch, error)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize(
    ("error", "amount"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 "),
            "3.00 GiB",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 40000000000 bytes. Error code 12"
            ),
            "40000000000 bytes",
        ),
        (MemoryError(), ""),
    ],
)
def test_a_lack_of_memory_is_one_line_with_a_remedy(
    error: Exception,
    amount: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    let_fail(monkeypatch, error)
    assert main(["train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no memory left") and amount in line
    assert "--fit.batch-size" in line


def test_an_error_of_ours_is_not_taken_for_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_fail(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        main(["train"])


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    let_fail(monkeypatch, SolverError("it diverged"))
    monkeypatch.setenv("CST_DEBUG", "1")
    with pytest.raises(SolverError):
        main(["doctor"])
