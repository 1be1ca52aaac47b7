"""Faults that the making of data sets must survive; the numbers are the rows of the list of faults.

2 kill while generating, 3 full disk, 14 diverged solvers, 19 dead workers, 25 number of workers,
26 two writers.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator.cli import main
from cst_operator.datasets import (
    TrajectoryDataset,
    generate,
    read_manifest,
    write_trajectory,
)
from cst_operator.errors import InputError, SolverError
from tests.fault_samples import ROOT, SLOW, Line, child, digests

# 2


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=SLOW)])
def test_killed_generations_continue_to_the_same_bytes(
    kills: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = generate(Line(pause=0.02), 30, out=tmp_path / "whole", progress=False)
    code = """
import sys
from cst_operator.datasets import generate
from tests.fault_samples import Line
generate(Line(pause=0.02), 30, out=sys.argv[1], progress=False)
"""
    part = tmp_path / "part"
    for _ in range(kills):
        process = child(code, part)
        before = len(list(part.glob("*.h5"))) if part.exists() else 0
        wanted = before + int(rng.integers(1, 6))
        while process.poll() is None and len(list(part.glob("*.h5"))) < wanted:
            time.sleep(0.01)  # looking all the time would take the processor from the child
        process.kill()
        process.communicate()
    made = {path.name: path.stat().st_mtime_ns for path in part.glob("*.h5")}
    assert 0 < len(made) < 30
    after = generate(Line(pause=0.02), 30, out=part, progress=False)
    assert digests(part) == digests(tmp_path / "whole") and after.manifest == whole.manifest
    assert all((part / name).stat().st_mtime_ns == when for name, when in made.items())
    assert not list(part.glob(".*"))


# 3


def test_a_full_disk_leaves_what_was_there_and_nothing_half(tmp_path: Path) -> None:
    generate(Line(), 2, out=tmp_path / "set", progress=False)
    write_trajectory(tmp_path / "one.h5", Line().sample(0, 0))
    before = digests(tmp_path) | digests(tmp_path / "set")
    code = """
import resource, sys
from pathlib import Path
from cst_operator.cli import main
from cst_operator.datasets import generate, pack, write_trajectory
from cst_operator.errors import InputError
from tests.fault_samples import Line
folder = Path(sys.argv[1])
one, hard = Line().sample(0, 1), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
size = (folder / "one.h5").stat().st_size
for step in range(10):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * step // 10, hard))
    for act in (
        lambda: write_trajectory(folder / "one.h5", one),
        lambda: generate(Line(), 4, out=folder / "set", progress=False),
        lambda: pack(folder / "set", folder / "packed.h5"),
    ):
        try:
            act()
        except (OSError, InputError):
            continue
        except BaseException as error:
            print("other", repr(error))
        print("no error at", step)
    status = main(["pack", str(folder / "set"), "--out", str(folder / "packed.h5")])
    assert status not in (0, None), status
print("done")
"""
    process = child(code, tmp_path)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "done" in output, output
    assert "no error" not in output and "other" not in output, output
    assert digests(tmp_path) | digests(tmp_path / "set") == before
    left = [p.name for p in tmp_path.rglob(".*")]
    assert not left
    assert len(generate(Line(), 4, out=tmp_path / "set", progress=False)) == 4


# 14


def test_diverged_samples_are_counted_and_never_kept(tmp_path: Path) -> None:
    # ten times the limit 1/2 of explicit steps
    with pytest.raises(InputError, match="holds no solution; .*not finite"):
        generate(Line(cfl=5.0), 3, out=tmp_path / "bad", progress=False)
    manifest = read_manifest(tmp_path / "bad")
    assert len(manifest["failures"]) == 3 and manifest["shards"] == []
    assert manifest["rejection_rate"] == 1.0
    assert all("u has" in failure["reason"] for failure in manifest["failures"])
    assert not list((tmp_path / "bad").glob("*.h5"))
    assert len(generate(Line(cfl=0.4), 3, out=tmp_path / "good", progress=False)) == 3


# 19


def test_a_killed_worker_is_noticed_and_its_sample_made(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    system = Line(kill=str(marks))
    data = generate(system, 6, out=tmp_path / "set", workers=2, progress=False)
    assert (marks / "2").exists()  # the worker was killed
    assert len(data) == 6 and data.manifest["failures"] == []
    data.verify()
    assert torch.equal(data[2].u, Line().sample(0, 2).u)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sample_that_always_kills_ends_in_an_error(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "2").touch()
    (marks / "always").touch()
    with pytest.raises(SolverError, match="died twice .* the 1 missing samples .*first is 3"):
        generate(Line(kill=str(marks)), 5, out=tmp_path / "set", workers=2, progress=False)
    assert multiprocessing.active_children() == []
    assert set(digests(tmp_path / "set")) == {f"{i:06d}.h5" for i in (0, 1, 2, 4)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    import psutil

    code = """
import sys
from cst_operator.datasets import generate
from tests.fault_samples import Line
if __name__ == "__main__":
    generate(Line(pause=0.5), 100, out=sys.argv[1], workers=2, progress=False)
"""
    script = tmp_path / "make.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "set"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(tmp_path.glob("set/*.h5")):
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert workers
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("early", [True, False])
def test_an_interruption_is_told_once_however_many_workers_there_are(
    early: bool, tmp_path: Path
) -> None:
    code = """
import signal, sys
from cst_operator.datasets import generate
from tests.fault_samples import Line
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored where tests run
    try:
        generate(Line(pause=0.5), 100, out=sys.argv[1], workers=2, progress=False)
    except KeyboardInterrupt:
        print("interrupted")
"""
    script = tmp_path / "make.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "set")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # the terminal's group of processes
    )
    # While workers begin, and while they work.
    wanted = "manifest.json" if early else "*.h5"
    while process.poll() is None and not list((tmp_path / "set").glob(wanted)):
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=600)[0] == "interrupted\n"


# 25


@pytest.mark.slow  # for two workers, tests/datasets/test_generation.py is quick
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [2, 4])
def test_the_set_does_not_depend_on_the_number_of_workers(workers: int, tmp_path: Path) -> None:
    one = generate(Line(), 5, seed=7, out=tmp_path / "1", progress=False)
    many = generate(Line(), 5, seed=7, out=tmp_path / "n", workers=workers, progress=False)
    assert digests(tmp_path / "1") == digests(tmp_path / "n")
    assert one.manifest == many.manifest


# 26


def test_the_second_writer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    generate(Line(), 1, out=folder, progress=False)
    code = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
    process = child(code, folder, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    try:
        with pytest.raises(InputError, match="another process is writing to"):
            generate(Line(), 3, out=folder, progress=False)
        status = main(["generate", "poisson", "--n", "1", "--out", str(folder)])
        assert status == 2 and "another process" in capsys.readouterr().err
    finally:
        process.communicate("")
    assert len(generate(Line(), 3, out=folder, progress=False)) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_real_writers_leave_one_sound_set(tmp_path: Path) -> None:
    code = """
import sys
from cst_operator.datasets import generate
from cst_operator.errors import InputError
from tests.fault_samples import Line
try:
    generate(Line(pause=0.1), 15, out=sys.argv[1], progress=False)
except InputError as error:
    print(error)
    sys.exit(2)
"""
    both = [child(code, tmp_path / "set") for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 0]), outputs  # both only if the first was done before
    TrajectoryDataset(tmp_path / "set").verify()
