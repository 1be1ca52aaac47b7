"""What others computed becomes a data set: nothing changed, nothing lost, nothing mixed up."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import pytest
import torch

from cst_operator.boundary import distance_to_boundary
from cst_operator.datasets import (
    TrajectoryDataset,
    TrajectoryFiles,
    conversion,
    convert,
    read_pdebench,
)
from cst_operator.datasets.readers import read_file
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, write_mesh, write_series
from cst_operator.quadrature import node_weights, with_weights
from tests.cli_samples import TINY, ok, refused, scores
from tests.mesh_file_samples import trajectory
from tests.mesh_samples import box
from tests.reader_samples import pdebench


def solution(number: int, *, channel: str = "T") -> PointField:
    pos, cells = box("triangle", 4 + number, bend=0.05)
    load = (1 + number) * pos[:, :1]
    u = torch.cat([load, load * pos[:, 1:]], dim=1)
    weights = node_weights(pos, cells)
    return PointField(pos, u, weights, channels=["load", channel], units=["N", "K"], cells=cells)


@pytest.fixture
def cases(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"run{number}" / "out.vtu" for number in range(5)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_mesh(path, solution(number))
    return paths


def test_mesh_files_become_steady_solutions_with_static_channels(
    cases: list[Path], tmp_path: Path
) -> None:
    files = TrajectoryFiles(cases, dtype=torch.float64)
    data = convert(files, out=tmp_path / "set", static=("load",), distance=True, progress=False)
    sources = data.manifest["config"]["samples"]
    assert sorted(sources) == sorted(map(str, cases)) and sources != sorted(sources)
    for source, found in zip(sources, data, strict=True):
        wanted = read_mesh(source, dtype=torch.float64)
        assert found.channels == ("T",) and found.units == ("K",) and found.num_frames == 1
        assert found.mesh.channels == ("load", "distance") and found.mesh.units[0] == "N"
        assert torch.equal(found.mesh.pos, wanted.pos)
        assert torch.equal(found.mesh.weights, wanted.weights)
        assert torch.equal(found.mesh.cells["triangle"], wanted.cells["triangle"])
        assert torch.equal(found.mesh.u[:, 0], wanted.u[:, 0])
        assert torch.equal(found.mesh.u[:, 1], distance_to_boundary(wanted))
        assert torch.equal(found.u[0], wanted.u[:, 1:])


def test_files_keep_their_order_on_request(cases: list[Path], tmp_path: Path) -> None:
    data = convert(TrajectoryFiles(cases), out=tmp_path / "set", shuffle=False, progress=False)
    assert data.manifest["config"]["samples"] == [str(path) for path in cases]
    assert [t.mesh.num_points for t in data] == [(5 + number) ** 2 for number in range(5)]


def test_series_and_files_of_many_solutions_are_converted_whole(tmp_path: Path) -> None:
    write_series(tmp_path / "flow.pvd", trajectory())
    flow = convert(TrajectoryFiles([tmp_path / "flow.pvd"]), out=tmp_path / "a", progress=False)
    torch.testing.assert_close(flow[0].times, trajectory().times.float())
    torch.testing.assert_close(flow[0].u, trajectory().u, rtol=1e-6, atol=1e-6)  # float32
    path = pdebench(tmp_path / "many.hdf5")
    wanted = read_pdebench(path)
    files = TrajectoryFiles([path])
    many = convert(files, out=tmp_path / "b", shuffle=False, progress=False)
    assert len(many) == len(files) == len(wanted) > 1
    assert many.manifest["config"]["samples"][1] == f"{path}[1]"
    for a, b in zip(many, wanted, strict=True):
        assert torch.equal(a.u, b.u) and torch.equal(a.mesh.weights, b.mesh.weights)


def test_files_of_many_solutions_are_not_opened_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def read(path: Path, *args: object, **options: object) -> Sequence[Trajectory]:
        opened.append(path.name)
        return read_file(path, *args, **options)

    monkeypatch.setattr(conversion, "read_file", read)
    paths = [tmp_path / f"{name}.hdf5" for name in "abc"]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["tensor"] = torch.rand(8, 2, 4)
            file["x-coordinate"], file["t-coordinate"] = torch.arange(4.0), torch.arange(2.0)
    data = convert(TrajectoryFiles(paths), out=tmp_path / "set", progress=False)
    sources = [source.partition("[")[0] for source in data.manifest["config"]["samples"]]
    changes = sum(a != b for a, b in pairwise(sources))
    assert changes > 9  # in the set they are mixed
    # To count, to see what they have in common, and to read.
    assert all(opened.count(path.name) <= 3 for path in paths)


def test_what_cannot_be_read_or_is_of_another_kind_is_left_out_with_its_reason(
    cases: list[Path], tmp_path: Path
) -> None:
    cases[1].write_bytes(cases[1].read_bytes()[:300])
    write_mesh(cases[2], solution(2).select("load"))
    write_mesh(cases[3], solution(3, channel="U"))
    files = TrajectoryFiles(cases)
    data = convert(files, out=tmp_path / "set", static=["load"], shuffle=False, progress=False)
    assert data.indices == (0, 4)
    reasons = [failure["reason"] for failure in data.manifest["failures"]]
    assert reasons[0].startswith(f"{cases[1]}: ")
    assert reasons[1].startswith(f"{cases[2]}: it has no channel that a model is to answer")
    assert reasons[2].startswith(f"{cases[3]}: it has 2 dimensions") and "U [K]" in reasons[2]
    assert "expected 2 dimensions, static channels load [N], others T [K]" in reasons[2]


def test_a_conversion_continues_and_refuses_files_that_changed(
    cases: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "set"
    convert(TrajectoryFiles(cases), out=out, progress=False)
    before = (out / "000000.h5").stat().st_mtime_ns
    content = (out / "000001.h5").read_bytes()
    (out / "000001.h5").unlink()
    convert(TrajectoryFiles(cases), out=out, progress=False)
    assert (out / "000000.h5").stat().st_mtime_ns == before
    assert (out / "000001.h5").read_bytes() == content
    with pytest.raises(InputError, match=r"another config\.form"):
        convert(TrajectoryFiles(cases), out=out, static=("load",), progress=False)
    write_mesh(cases[0], solution(7))
    with pytest.raises(InputError, match="holds a set with another version"):
        convert(TrajectoryFiles(cases), out=out, progress=False)


def test_processes_write_the_same_set(cases: list[Path], tmp_path: Path) -> None:
    sets = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        convert(TrajectoryFiles(cases), out=out, workers=workers, progress=False)
        sets.append([shard["sha256"] for shard in json.loads(_manifest(out))["shards"]])
    assert sets[0] == sets[1] and len(sets[0]) == 5


def _manifest(out: Path) -> str:
    return (out / "manifest.json").read_text()


def test_trajectories_at_hand_are_converted_once(tmp_path: Path) -> None:
    cloud = PointField(torch.rand(60, 2), torch.rand(60, 1), channels=["p"])
    given = [Trajectory.of(cloud, time) for time in (0.0, 1.0)]
    data = convert(given, out=tmp_path / "set", shuffle=False, progress=False)
    assert torch.equal(data[1].u, given[1].u) and data[1].times.tolist() == [1.0]
    assert torch.equal(data[0].mesh.weights, with_weights(cloud).weights)
    with pytest.raises(InputError, match="holds a data set; give another folder"):
        convert(given, out=tmp_path / "set", progress=False)


def test_static_channels_take_their_derivatives_out_of_the_solution(tmp_path: Path) -> None:
    u = torch.rand(2, 9, 3)
    u[1, :, 1] = u[0, :, 1]
    mesh = PointField(torch.rand(9, 2), weights=torch.full((9,), 1 / 9))
    slopes = torch.rand(2, 9, 3, 2)
    given = Trajectory(
        mesh=mesh, times=torch.tensor([0.0, 1.0]), u=u, channels=("a", "b", "c"), gradient=slopes
    )
    found = convert([given], out=tmp_path / "set", static=["b"], progress=False)[0]
    assert found.channels == ("a", "c") and torch.equal(found.gradient, slopes[:, :, [0, 2]])
    assert torch.equal(found.u, u[:, :, [0, 2]])


@pytest.mark.parametrize(
    "static, words",
    [
        (("T", "p"), "'p' changes in time, so it cannot be static"),
        (("T", "p", "q"), "'p' changes in time"),
        (("T",), "no channel that a model is to answer"),
        (("S",), "no channel 'S'"),
    ],
)
def test_what_cannot_be_static_is_refused(
    static: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    mesh = PointField(torch.rand(9, 2))
    u = torch.ones(2, 9, 3)
    u[1, :, 1] = 2
    whole = Trajectory(mesh=mesh, times=torch.arange(2.0), u=u, channels=("T", "p", "q"))
    alone = replace(whole, u=u[:, :, :1], channels=("T",), units=())
    given = alone if len(static) == 1 else whole
    with pytest.raises(InputError, match=f"none of 1 .*first: trajectory 0: .*{words}"):
        convert([given], out=tmp_path / "set", static=static, progress=False)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "paths, fields, words",
    [
        ((), None, "no file is named"),
        (("absent.vtu",), None, "there is no such file"),
        (("one.vtu", "./one.vtu"), None, "named 2 times"),
        (("many.hdf5",), ["u"], "fields are chosen in mesh files only"),
    ],
)
def test_files_that_cannot_be_told_are_refused(
    paths: tuple[str, ...],
    fields: list[str] | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mesh("one.vtu", solution(1))
    pdebench(Path("many.hdf5"))
    with pytest.raises(InputError, match=words):
        TrajectoryFiles(paths, fields)


def test_from_a_folder_of_meshes_to_an_answer_on_a_new_one(
    cases: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases[4].write_text("no mesh")
    ok("convert", *cases, "--static", "load", "--out", tmp_path / "set")
    told = capsys.readouterr()
    assert "4 trajectories" in told.out and "1 left out" in told.out
    assert "static: load" in told.out and "solved for: T" in told.out
    assert f"warning: {cases[4]}: " in told.err
    ok("inspect", tmp_path / "set")
    told = capsys.readouterr()
    assert "converted" in told.out and "seed" not in told.out
    ok("train", "--data", tmp_path / "set", "--out", tmp_path / "run", *TINY)
    write_mesh(tmp_path / "new.vtu", solution(9).select("load"))
    files = ("--mesh", tmp_path / "new.vtu", "--out", tmp_path / "answer.vtu")
    ok("predict", tmp_path / "run", *files)
    assert read_mesh(tmp_path / "answer.vtu").channels == ("T",)
    ok("evaluate", tmp_path / "run", "--data", tmp_path / "set", "--out", tmp_path / "scores.json")
    assert scores(tmp_path / "scores.json")["relative_l2"] > 0
    ok("convert", *cases[:4], "--fields", "T", "--out", tmp_path / "shapes")
    assert "static: none; --static names" in capsys.readouterr().out
    ok("train", "--data", tmp_path / "shapes", "--out", tmp_path / "run2", *TINY)  # shapes alone
    assert "steady: boundary -> T" in capsys.readouterr().out
    assert "cst convert" in refused(capsys, "train", "--data", cases[0].parent, "--out", "x")
    assert len(TrajectoryDataset(tmp_path / "set")) == 4
