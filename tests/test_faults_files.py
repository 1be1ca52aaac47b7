"""Files that would harm their reader; the numbers are the rows of the list of faults.

4 damaged files, 5 pickles that run code, 6 bombs and paths to elsewhere.
"""

import ast
import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cst_operator.datasets import (
    TrajectoryDataset,
    generate,
    pack,
    read_manifest,
    read_trajectory,
    write_trajectory,
)
from cst_operator.errors import InputError, MeshError
from cst_operator.mesh_files import read_mesh
from tests.fault_samples import ROOT, SLOW, Line, child, same
from tests.reader_samples import FORMATS, trajectories

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
            assert what.startswith("flip") and same(found, first), what
        with pytest.raises(InputError, match="000000.h5 was changed"):
            data.verify()
    for what in _damage(tmp_path / "packed.h5", count, rng):
        try:
            found = TrajectoryDataset(tmp_path / "packed.h5")[0]
        except InputError as error:
            assert "packed.h5" in str(error)
        else:
            assert what.startswith("flip") and same(found, first), what
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
