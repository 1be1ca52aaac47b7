"""Several processes train the model that one trains, and only the first writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cst_operator import checkpoint
from cst_operator.errors import ConfigError
from cst_operator.processes import Processes, choose_device, connect
from tests.training_samples import CONFIG, Balanced, Doubles, Exact, MeanSquare, plain_net, train

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("two")
    command = (*TORCHRUN, str(ROOT / "tests" / "train_in_processes.py"), str(folder))
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(2)]


def alike(found: list[list[float]], wanted: list[list[float]]) -> None:
    # Gradients are added up in another order: rounding of doubles, 1e-16, which AdamW divides by
    # gradients of about 1e-3, over 12 steps.
    for a, b in zip(found, wanted, strict=True):
        assert a == pytest.approx(b, rel=0, abs=1e-11)


def alike_logged(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert a["step"] == b["step"]
        for key in ("loss", "gradient_norm", "validation"):
            assert (key in a) == (key in b)
            if key in a:
                assert a[key] == pytest.approx(b[key], rel=1e-9)  # the same rounding


def alone(loss: Any, noise: float, out: Path | None = None, **changes: Any) -> Any:
    run = train(
        out,
        model=plain_net(noise),
        train=Doubles(),
        validation=Doubles(5),
        loss=loss,
        config=replace(CONFIG, batch_size=6, **changes),
    )
    return run, [p.flatten().tolist() for p in run.model.parameters()]


def test_there_were_two(reports: list[dict[str, Any]]) -> None:
    assert [report["processes"] for report in reports] == [[0, 2], [1, 2]]


def test_two_processes_equal_one_with_the_same_total_batch(reports: list[dict[str, Any]]) -> None:
    run, wanted = alone(Exact(), 0.0)
    for report in reports:
        alike(report["exact"], wanted)
        alike_logged(report["exact history"], run.history)


def test_what_is_drawn_is_that_of_one_process_with_as_many_parts(
    reports: list[dict[str, Any]],
) -> None:
    _, wanted = alone(MeanSquare(), 0.1, accumulate=2)
    for report in reports:
        alike(report["drawing"], wanted)


def test_the_balance_of_two_processes_is_that_of_one(
    folder: Path, reports: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, wanted = alone(Balanced(), 0.0, tmp_path / "run", balance=0.5)
    for report in reports:
        alike(report["balanced"], wanted)
    both = (checkpoint.read(run).training for run in (folder / "balanced", tmp_path / "run"))
    found, alike_alone = (
        {k: float(v) for k, v in training.tensors.items() if k.startswith("means.")}
        for training in both
        if training is not None
    )
    assert found.keys() == {"means.mean", "means.large"}
    assert found == pytest.approx(alike_alone, rel=1e-9)  # the same rounding as the weights


def test_a_stop_in_one_process_stops_both_and_resume_is_exact(
    reports: list[dict[str, Any]],
) -> None:
    for report in reports:
        assert report["stopped"] == [True, 3]
        assert report["resumed"] == report["drawing"]
        alike_logged(report["resumed history"], report["drawing history"])


def test_an_error_of_the_first_is_an_error_of_all(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert "there is no run to resume at" in report["typo"]


def test_only_the_first_writes(folder: Path, reports: list[dict[str, Any]]) -> None:
    lines = (folder / "exact" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == reports[0]["exact history"]
    saved = checkpoint.read(folder / "exact").weights
    assert saved["layers.0.weight"].flatten().tolist() == reports[0]["exact"][0]


def test_one_process_is_no_group() -> None:
    processes = connect()
    assert processes == Processes(0, 1) and processes.is_first
    assert processes.any(True) and not processes.any(False)
    assert processes.gather(3) == [3]
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_are_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def set_device(number: int) -> None:
        assert number < 1, "CUDA error: invalid device ordinal"  # as torch says it

    for name, value in (("RANK", 1), ("LOCAL_RANK", 1), ("WORLD_SIZE", 2), ("MASTER_ADDR", "a")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr("atexit.register", lambda function: None)
    for name, value in (("init_process_group", None), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
    assert connect() == Processes(1, 2)
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="process 1 of this machine has no GPU.*there are 1;"):
        choose_device("auto")


@pytest.mark.slow
def test_cst_train_runs_under_torchrun_and_stops_by_sigterm(tmp_path: Path) -> None:
    cst = (sys.executable, "-m", "cst_operator")
    generate = (*cst, "generate", "poisson", "--n", "8", "--out", str(tmp_path / "data"))
    subprocess.run(generate, cwd=ROOT, env=environment(), check=True, capture_output=True)
    sizes = {"width": 16, "depth": 1, "heads": 2, "hidden": 16}
    fit = {"steps": 4000, "batch-size": 4, "save-every": 5, "log-every": 5}
    flags = {f"--model.{k}": v for k, v in sizes.items()} | {
        f"--fit.{k}": v for k, v in fit.items()
    }
    flags |= {"--data": tmp_path / "data", "--out": tmp_path / "run"}
    arguments = ["train", *(str(word) for pair in flags.items() for word in pair)]
    command = (*TORCHRUN, "-m", "cst_operator", *arguments)
    job = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    _, error = job.communicate(timeout=60)
    assert job.returncode != 0
    step = checkpoint.steps(tmp_path / "run")[-1][0]
    assert 5 <= step < 4000, error.decode()[-3000:]
    found = checkpoint.read(tmp_path / "run")
    assert found.training is not None and found.training.values["step"] == step


@pytest.mark.slow
def test_two_machines_train_what_two_processes_of_one_do(
    tmp_path: Path, reports: list[dict[str, Any]]
) -> None:
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}")
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *(*meeting, str(ROOT / "tests" / "train_in_processes.py"), str(tmp_path)),
    )
    machines = [subprocess.Popen(command, cwd=ROOT, env=environment()) for _ in range(2)]
    assert [machine.wait(timeout=240) for machine in machines] == [0, 0]
    for rank, report in enumerate(reports):
        found = json.loads((tmp_path / f"report-{rank}.json").read_text())
        assert found["processes"] == [rank, 2]
        for name in ("exact", "drawing", "balanced", "resumed"):
            assert found[name] == report[name]


@pytest.mark.slow
def test_the_others_leave_when_a_process_dies(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from dataclasses import replace\n"
        "from training_samples import *\n"
        "stop = lambda: os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else 0\n"
        "train(model=plain_net(), train=Doubles(), validation=None, loss=Exact(), stop=stop,\n"
        "      config=replace(CONFIG, steps=10**6))\n"
    )
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    jobs = [
        subprocess.Popen(
            (sys.executable, "-c", script),
            cwd=ROOT,
            env={**environment(), **where, "RANK": str(rank)},
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    codes = [job.wait(timeout=300) for job in jobs]
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
