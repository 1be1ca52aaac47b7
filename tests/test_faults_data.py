"""Faults that data must survive; the numbers are the rows of the list of faults.

2 kill while generating, 3 full disk, 4 damaged files, 5 pickles that run code, 6 bombs, 7 values
that are not finite, 9 bad cells, 12 mixed sets, 13 times out of order, 14 diverged solvers, 19 dead
workers, 25 number of workers, 26 two writers.
"""

import ast
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cst_operator import TaskDataset
from cst_operator.cli import main
from cst_operator.datasets import (
    TrajectoryDataset,
    generate,
    pack,
    read_manifest,
    read_trajectory,
    readers,
    write_trajectory,
)
from cst_operator.errors import FieldError, InputError, MeshError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh
from cst_operator.mesh_report import mesh_report
from cst_operator.solvers import Heat, Poisson
from cst_operator.tasks import Forecast
from tests.reader_samples import FORMATS, trajectories

ROOT = Path(__file__).resolve().parents[1]
# Hundreds of interpreters are started, which takes long on a busy machine.
SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Line:
    """A system on a line that can be slow, diverge, or kill the process that solves it."""

    pause: float = 0.0
    cfl: float = 0.4
    kill: str = ""
    name: str = "line"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        time.sleep(self.pause)
        mark = Path(self.kill) / str(index) if self.kill else None
        if mark is not None and index == 2 and not mark.exists():
            mark.touch(exist_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if mark is not None and index == 3 and (mark.parent / "always").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        x = np.linspace(0, 1, 33)
        # index 1 and every fourth after it is rough enough to show an unstable step
        u = np.random.default_rng([seed, index]).normal(size=33)
        frames = [u]
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(300):
                u = u.copy()
                u[1:-1] += self.cfl * (u[2:] - 2 * u[1:-1] + u[:-2])
                frames.append(u)
        return Trajectory(
            mesh=PointField(torch.tensor(x)[:, None]),
            times=torch.arange(301, dtype=torch.float64),
            u=torch.tensor(np.stack(frames))[:, :, None],
            channels=("u",),
        )


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a set."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.h5")
    }


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another interpreter that sees the library and this module."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


# 2


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=SLOW)])
def test_killed_generations_continue_to_the_same_bytes(
    kills: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = generate(Line(pause=0.02), 30, out=tmp_path / "whole", progress=False)
    code = """
import sys
from cst_operator.datasets import generate
from tests.test_faults_data import Line
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
from tests.test_faults_data import Line
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


# 4


def _damage(path: Path, count: int, rng: np.random.Generator) -> Any:
    """Cuts and flipped bits of a file, one after the other in its place."""
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, count).astype(int):
        path.write_bytes(whole[:size])
        yield f"cut at {size}"
    for place in rng.integers(0, len(whole), count):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        yield f"flip at {place}"
    path.write_bytes(whole)


def _same(one: Trajectory, two: Trajectory) -> bool:
    return (
        torch.equal(one.u, two.u)
        and torch.equal(one.times, two.times)
        and torch.equal(one.mesh.pos, two.mesh.pos)
        and one.channels == two.channels
        and one.units == two.units
        and one.parameters == two.parameters
    )


COUNTS = (12, pytest.param(100, marks=SLOW))


@pytest.mark.parametrize("count", COUNTS)
def test_every_damage_to_our_own_files_is_detected(
    count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    data = generate(Line(), 2, out=tmp_path / "set", progress=False)
    manifest, first = data.manifest, data[0]
    pack(tmp_path / "set", tmp_path / "packed.h5")
    shard = tmp_path / "set" / "000000.h5"
    for what in _damage(shard, count, rng):
        try:
            found = read_trajectory(shard)
        except InputError as error:
            assert "000000.h5" in str(error)
        else:  # a bit of the unused space between blocks
            assert what.startswith("flip") and _same(found, first), what
        with pytest.raises(InputError, match="000000.h5 was changed"):
            data.verify()
    for what in _damage(tmp_path / "packed.h5", count, rng):
        try:
            found = TrajectoryDataset(tmp_path / "packed.h5")[0]
        except InputError as error:
            assert "packed.h5" in str(error)
        else:
            assert what.startswith("flip") and _same(found, first), what
    for what in _damage(tmp_path / "set" / "manifest.json", count, rng):
        try:
            assert read_manifest(tmp_path / "set") == manifest, what  # a bit of white space
        except InputError as error:
            assert "manifest.json" in str(error)


# h5netcdf 1.8 finalizes a file whose opening failed, and fails again; there is nothing to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_of_others_are_valid_or_refused(
    name: str, count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    suffix, write, read = FORMATS[name]
    path = write(tmp_path / f"a{suffix}")
    refused = 0
    for what in _damage(path, count, rng):
        try:
            for trajectory in trajectories(read(path)):
                assert bool(torch.isfinite(trajectory.u).all()), what
        except InputError as error:
            assert str(error).startswith(str(path)), what
            refused += 1
    assert refused >= count // 2  # of the cuts at least


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["00_raw_binary.vtu", "insulated-4.1.msh", "cylinder.med"])
def test_damaged_meshes_are_valid_or_refused_in_time(
    name: str, shared_data: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / name
    path.write_bytes((shared_data / "meshes" / "good" / name).read_bytes())
    for what in _damage(path, 30, rng):
        try:
            field = read_mesh(path, timeout=10.0, memory=2**30)
            assert field.num_points > 0, what
        except InputError as error:
            assert name in str(error), what


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_sound_meshes_are_read_and_bad_ones_refused(kind: str, shared_data: Path) -> None:
    paths = [p for p in (shared_data / "meshes" / kind).iterdir() if "LICENSE" not in p.name]
    assert len(paths) >= 5
    for path in sorted(paths):
        if kind == "good":
            assert read_mesh(path, timeout=60, memory=2**30, weights=False).num_points > 0
        else:
            with pytest.raises(MeshError) as caught:  # at ten seconds the reader is stopped
                read_mesh(path, timeout=10, memory=2**30)
            assert "\n" not in str(caught.value) and path.name in str(caught.value)


# 5


class _Canary:
    """Sings if it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def _poisoned(path: Path, canary: _Canary) -> list[bytes]:
    """Contents that a careless reader of the suffix would unpickle."""
    raw = pickle.dumps(canary)
    boxed, archive, tensors, packed = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    objects = np.array([canary], dtype=object)
    np.save(boxed, objects, allow_pickle=True)
    names = dict.fromkeys(("u", "pos", "cells", "times"), objects)
    np.savez(archive, allow_pickle=True, **names)
    torch.save({"x": canary, "y": canary}, tensors)
    torch.save({"x": canary, "y": canary}, packed, _use_new_zipfile_serialization=False)
    return [raw, boxed.getvalue(), archive.getvalue(), tensors.getvalue(), packed.getvalue()]


def test_the_canary_sings_where_pickles_are_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Canary(tmp_path / "sang")))
    assert (tmp_path / "sang").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_no_reader_runs_a_pickle(name: str, tmp_path: Path) -> None:
    suffix, _, read = FORMATS[name]
    path = tmp_path / f"a{suffix}"
    for content in _poisoned(path, _Canary(tmp_path / "sang")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"a{suffix}"):
            trajectories(read(path))
        assert not (tmp_path / "sang").exists()


def test_our_own_files_run_no_pickle(tmp_path: Path) -> None:
    for content in _poisoned(tmp_path / "a", _Canary(tmp_path / "sang")):
        (tmp_path / "a.h5").write_bytes(content)
        (tmp_path / "manifest.json").write_bytes(content)
        for read in (read_trajectory, TrajectoryDataset):
            with pytest.raises(InputError):
                read(tmp_path / "a.h5")
        with pytest.raises(InputError):
            TrajectoryDataset(tmp_path)
    assert not (tmp_path / "sang").exists()


def test_no_source_unpickles() -> None:
    banned = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for folder in ("cst_operator", "datasets", "solvers", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name.split(".")[0] for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [(node.module or "").split(".")[0]]
                assert not banned & set(names), path
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert called not in ("yaml.load", "eval", "exec"), path
                    assert flags.get("weights_only", "True") == "True", path
                    assert flags.get("allow_pickle", "False") == "False", path
                    if called == "torch.load":
                        assert "weights_only" in flags, path


# 6

BOMBS = """
import os, resource, sys, warnings, zipfile
from pathlib import Path
import h5py, numpy as np
from scipy.io import savemat
from cst_operator.datasets import readers
from cst_operator.datasets.readers import numpy_files
from cst_operator.errors import InputError
from cst_operator.mesh_files import read_mesh, read_series
from tests import reader_samples as samples

folder, huge = Path(sys.argv[1]), 10**11
def refused(what, act):
    try:
        act()
    except InputError as error:
        assert len(str(error).splitlines()) == 1, error
    else:
        print("accepted", what)

samples.pdebench(folder / "a.hdf5")
with h5py.File(folder / "a.hdf5", "r+") as file:
    for name in ("density", "Vx", "Vy"):
        del file[name]
        file.create_dataset(name, (2, 3, huge, 5), chunks=(1, 1, 4, 5), compression="gzip")
refused("pdebench", lambda: list(readers.read_pdebench(folder / "a.hdf5")))
samples.meshgraphnets(folder / "a.h5")
with h5py.File(folder / "a.h5", "r+") as file:
    del file["trajectory_0/mesh_pos"]
    file["trajectory_0"].create_dataset("mesh_pos", (huge, 2), chunks=(4, 2))
refused("meshgraphnets", lambda: readers.read_meshgraphnets(folder / "a.h5")[0])
samples.netcdf(folder / "a.nc")
with h5py.File(folder / "a.nc", "r+") as file:
    del file["sst"]
    sst = file.create_dataset("sst", (2, huge, 4), chunks=(1, 4, 4))
refused("netcdf", lambda: readers.read_netcdf(folder / "a.nc"))

def header(shape):
    text = str({"descr": "<f8", "fortran_order": False, "shape": shape}).ljust(117) + chr(10)
    return b"\\x93NUMPY\\x01\\x00" + len(text).to_bytes(2, "little") + text.encode()
(folder / "a.npy").write_bytes(header((2, huge, 4)) + bytes(100))
refused("npy", lambda: list(readers.read_numpy(folder / "a.npy", "nxy")))
refused("movie", lambda: readers.read_movie(folder / "a.npy"))
with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("u.npy", header((huge, 2, 3, 4)) + bytes(100))
refused("npz", lambda: readers.read_numpy(folder / "a.npz", "ntpc", pos=np.zeros((3, 2))))
numpy_files._MEMORY = 2**20  # the limit, so that a small bomb is beyond it
with zipfile.ZipFile(folder / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("u.npy", header((2**18, 1)) + bytes(2**21))
refused("zip bomb", lambda: readers.read_numpy(folder / "b.npz", "nt", u="u"))

savemat(folder / "a.mat", {"a": np.zeros((2, 4)), "u": np.zeros((2, 4))})
raw = bytearray((folder / "a.mat").read_bytes())
place = raw.find((2).to_bytes(4, "little") + (4).to_bytes(4, "little"))
raw[place + 4 : place + 8] = (2**31 - 1).to_bytes(4, "little")
(folder / "a.mat").write_bytes(raw)
refused("mat", lambda: list(readers.read_mat(folder / "a.mat")))
lines = ["% Dimension: 2", f"% Nodes: {huge}", "% x  y  u (K)", "0 0 1", "1 0 1"]
(folder / "a.txt").write_text("\\n".join(lines))
refused("comsol", lambda: readers.read_comsol(folder / "a.txt"))

laughs = "".join(f'<!ENTITY l{i + 1} "{"&l%d;" % i * 10}">' for i in range(9))
bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{laughs}]><VTKFile>&l9;</VTKFile>'
for name, read in (("a.vtu", read_mesh), ("a.xdmf", read_mesh), ("a.pvd", read_series)):
    (folder / name).write_text(bomb)
    refused(name, lambda: read(folder / name, timeout=10, memory=2**30))
away = '<DataSet timestep="0" file="../../secret.vtu"/>'
(folder / "b.pvd").write_text(f"<VTKFile><Collection>{away}</Collection></VTKFile>")
refused("path", lambda: read_series(folder / "b.pvd"))
# Not ru_maxrss of this process, which begins with the size of the one that started it.
status = Path("/proc/self/status").read_text()
own = int(status.split("VmHWM:")[1].split()[0])
for used in (own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss):
    used = used / 2**20
    print("used", f"{used:.2f}", "GiB" if used < 1 else "GiB, too much")
"""


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    process = child(BOMBS, tmp_path)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert "accepted" not in output and "too much" not in output, output
    assert output.count("used") == 2


def test_a_manifest_names_no_files_elsewhere(tmp_path: Path) -> None:
    from cst_operator.datasets.trajectories import manifest_digest

    generate(Line(), 1, out=tmp_path / "set", progress=False)
    write_trajectory(tmp_path / "secret.h5", Line().sample(0, 5))
    path = tmp_path / "set" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["file"] = "../secret.h5"
    manifest["digest"] = manifest_digest(manifest)  # a careful liar
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="names the file '../secret.h5'"):
        TrajectoryDataset(tmp_path / "set")


# 7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_at_their_place(bad: float) -> None:
    good = Heat(h=0.25, num_frames=3, dt=0.05).sample(0, 0)
    for name in ("u", "gradient", "time_derivative"):
        value = getattr(good, name).clone()
        value[2, 4, 0] = bad
        with pytest.raises(FieldError, match=rf"{name} has .*frame 2 at point 4 in channel 'u'"):
            replace(good, **{name: value})
    times = good.times.clone()
    times[-1] = bad
    with pytest.raises(FieldError, match="times has 1 .*frame 2"):
        replace(good, times=times)
    for name in ("pos", "weights", "time", "u"):
        value = good.mesh[name].clone()
        value[3] = bad
        with pytest.raises(FieldError, match=rf"{name} has \d+ values .*first at point 3"):
            good.mesh._with(**{name: value})


def test_a_reader_names_the_sample_and_dropping_is_a_request(tmp_path: Path) -> None:
    u = np.zeros((4, 3, 5, 2))
    u[2, 1, 3, 1] = np.nan
    np.save(tmp_path / "a.npy", u)
    pos = np.random.default_rng(0).random((5, 2))
    found = readers.read_numpy(
        tmp_path / "a.npy", "ntpc", pos=pos, weights=np.ones(5), channels=("p", "q")
    )
    with pytest.raises(FieldError, match=r"a.npy: sample 2: .*frame 1 at point 3 in channel 'q'"):
        list(found)


# 9


@pytest.mark.parametrize("index", range(6))
def test_planted_defects_of_generated_meshes_are_all_found(
    index: int, rng: np.random.Generator
) -> None:
    mesh = Poisson(h=0.12).sample(3, index).mesh
    assert mesh_report(mesh).ok  # no false alarm
    triangles = mesh.cells["triangle"]
    number = int(rng.integers(1, 6))
    chosen = torch.from_numpy(rng.choice(len(triangles), number, replace=False))
    flat = triangles.clone()
    flat[chosen, 2] = flat[chosen, 1]
    assert mesh_report(mesh._with(cells={"triangle": flat})).degenerate == number
    turned = triangles.clone()
    turned[chosen] = turned[chosen].flip(1)
    assert mesh_report(mesh._with(cells={"triangle": turned})).inverted == number
    points = torch.from_numpy(rng.choice(mesh.num_points, number, replace=False))
    copied = PointField(torch.cat([mesh.pos, mesh.pos[points]]), cells={"triangle": triangles})
    report = mesh_report(copied)
    assert report.duplicates == number and report.unused == number
    outside = triangles.clone()
    outside[chosen[0], 1] = mesh.num_points
    with pytest.raises(FieldError, match=f"name point {mesh.num_points}"):
        mesh._with(cells={"triangle": outside})


# 12


def _example_set(other: Trajectory) -> TaskDataset:
    return TaskDataset([_plain(), other], Forecast(inputs=(), outputs=("u",)))


def _plain(**changes: Any) -> Trajectory:
    dim = changes.pop("dim", 2)
    dtype = changes.pop("dtype", torch.float64)
    mesh = PointField(torch.rand(6, dim, dtype=dtype), weights=torch.ones(6, dtype=dtype))
    options: dict[str, Any] = {"channels": ("u",), "units": ("K",), **changes}
    u = torch.rand(3, 6, 1, dtype=dtype)
    return Trajectory(mesh=mesh, times=torch.arange(3, dtype=dtype), u=u, **options)


def test_one_kind_of_trajectories_is_accepted() -> None:
    data = _example_set(_plain())
    assert data[0].source.units == data[1].source.units


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dim": 3}, "dimensions of the source 3, those before 2"),
        ({"units": ("degC",)}, r"units of the source \('degC',\), those before \('K',\)"),
        ({"dtype": torch.float32}, "precision of the source torch.float32"),
    ],
)
def test_mixed_sets_are_refused(changes: dict[str, Any], words: str) -> None:
    data = _example_set(_plain(**changes))
    assert data[0].source.num_points == 6
    with pytest.raises(FieldError, match=f"trajectory 1 has {words}"):
        data[1]


def test_readers_give_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    for name, (suffix, write, _) in FORMATS.items():
        if name not in ("pdebench", "mat5", "comsol", "netcdf"):
            continue
        path = write(tmp_path / f"{name}{suffix}")
        read = getattr(readers, f"read_{name.removesuffix('5')}")
        for dtype in (torch.float32, torch.float64):
            for one in trajectories(read(path, dtype=dtype)):
                kinds = {one.u.dtype, one.mesh.pos.dtype, one.mesh.weights.dtype, one.times.dtype}
                assert kinds == {dtype}, name


# 13


def test_frames_out_of_order_are_the_same_trajectory(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, pos, times = rng.random((5, 6, 1)), rng.random((6, 2)), np.arange(5.0)
    order = rng.permutation(5)
    options: dict[str, Any] = {"pos": pos, "weights": np.ones(6), "dtype": torch.float64}
    found = []
    for name, kept in (("a", np.arange(5)), ("b", order)):
        np.save(tmp_path / f"{name}.npy", u[kept])
        path = tmp_path / f"{name}.npy"
        found.append(readers.read_numpy(path, "tpc", times=times[kept], **options)[0])
    assert _same(*found)
    np.save(tmp_path / "c.npy", u)
    with pytest.raises(FieldError, match="remove repeated ones"):
        readers.read_numpy(tmp_path / "c.npy", "tpc", times=np.array([0.0, 1, 1, 2, 3]), **options)[
            0
        ]


def test_the_order_of_points_in_time_changes_neither_answer_nor_gradient(seed: int) -> None:
    from cst_operator import CSTConfig, CSTOperator

    torch.manual_seed(seed)
    config = CSTConfig(dim=2, in_channels=1, out_channels=1, width=16, depth=1, heads=2)
    model = CSTOperator(config).double().eval()
    source = _plain().space_time([0, 1, 2])
    query = _plain().frame(0)
    answers = []
    for order in (torch.arange(18), torch.randperm(18)):
        moved = PointField(
            source.pos[order], source.u[order], source.weights[order], time=source.time[order]
        )
        model.zero_grad()
        answer = model(moved, query)
        answer.square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        answers.append((answer.detach(), gradient))
    # sums in another order: a few roundings of float64
    for one, two in zip(*answers, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)


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
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    import psutil

    code = """
import sys
from cst_operator.datasets import generate
from tests.test_faults_data import Line
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


# 25


@pytest.mark.slow  # for two workers, tests/datasets/test_generation.py is quick
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
def test_two_real_writers_leave_one_sound_set(tmp_path: Path) -> None:
    code = """
import sys
from cst_operator.datasets import generate
from cst_operator.errors import InputError
from tests.test_faults_data import Line
try:
    generate(Line(pause=0.1), 15, out=sys.argv[1], progress=False)
except InputError as error:
    print(error)
    sys.exit(2)
"""
    both = [child(code, tmp_path / "set") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 0]), outputs  # both only if the first was done before
    TrajectoryDataset(tmp_path / "set").verify()
