from pathlib import Path

import pytest
import torch

from cst_operator.cli import main
from cst_operator.datasets import (
    TrajectoryDataset,
    generate,
    pack,
    read_trajectory,
    write_trajectory,
)
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers import Heat


@pytest.fixture(scope="module")
def heat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "heat"
    generate(Heat(h=0.2, num_frames=3, dt=0.05), 3, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def packed(heat: Path) -> Path:
    pack(heat, heat.parent / "heat.h5")
    return heat.parent / "heat.h5"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_packed_set_equals_the_set(heat: Path, packed: Path) -> None:
    one, two = TrajectoryDataset(heat), TrajectoryDataset(packed)
    assert one.manifest == two.manifest and len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.u, b.u) and torch.equal(a.times, b.times)
        assert torch.equal(a.mesh.weights, b.mesh.weights) and a.parameters == b.parameters
        assert torch.equal(a.gradient, b.gradient) and a.units == b.units
    assert two[1:].indices == (1, 2) and two.split(1, 2)[1].indices == (1, 2)


def test_numbers_of_points_are_those_of_the_files(heat: Path, packed: Path) -> None:
    for place in (heat, packed):
        found = TrajectoryDataset(place)
        wanted = [t.num_frames * t.mesh.num_points for t in found]
        assert found.numbers_of_points() == wanted
        assert found[1:].numbers_of_points() == wanted[1:]


def test_packing_is_refused_twice_and_for_damaged_sets(
    heat: Path, packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="packed already"):
        pack(packed, tmp_path / "again.h5")
    with pytest.raises(InputError, match="folder .* does not exist"):
        pack(heat, tmp_path / "absent" / "heat.h5")
    with pytest.raises(InputError, match="format cst_operator.trajectories"):
        read_trajectory(packed)


def test_verify_counts_what_is_whole(
    heat: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trajectory(tmp_path / "one.h5", TrajectoryDataset(heat)[0])
    for path, words in (
        (heat, "3 trajectories are whole"),
        (packed, "3 trajectories are whole"),
        (tmp_path / "one.h5", "one trajectory, whole"),
    ):
        assert run("verify", path) == 0
        assert words in " ".join(capsys.readouterr().out.split())


def test_verify_names_what_changed(
    heat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(Heat(h=0.2, num_frames=3, dt=0.05), 3, out=tmp_path / "set", progress=False)
    pack(tmp_path / "set", tmp_path / "set.h5")
    for number in (1, 2):
        shard = tmp_path / "set" / f"{number:06d}.h5"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 4
        shard.write_bytes(content)
    assert run("verify", tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert "000001.h5 was changed (and 1 more of 3)" in error
    with pytest.raises(InputError, match="000001.h5 was changed"):
        pack(tmp_path / "set", tmp_path / "again.h5")
    assert not (tmp_path / "again.h5").exists()
    content = bytearray((tmp_path / "set.h5").read_bytes())
    content[len(content) * 3 // 4] ^= 4
    (tmp_path / "set.h5").write_bytes(content)
    assert run("verify", tmp_path / "set.h5") == 2
    assert "damaged" in capsys.readouterr().err


def test_inspect_reports_a_set_and_draws_it(
    heat: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (heat, packed):
        picture = tmp_path / f"{path.name}.png"
        assert run("inspect", path, "--thumbnail", picture) == 0
        text = capsys.readouterr().out
        assert "readable" in text and "3 of 3" in text and "usable" in text
        assert picture.read_bytes()[:4] == b"\x89PNG"


def test_inspect_refuses_a_set_with_a_damaged_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(Heat(h=0.2, num_frames=3, dt=0.05), 2, out=tmp_path / "set", progress=False)
    shard = tmp_path / "set" / "000001.h5"
    shard.write_bytes(shard.read_bytes()[:-200])
    assert run("inspect", tmp_path / "set") == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "sample 1:" in text and "000001.h5 is damaged" in text and "1 of 2" in text


def test_inspect_prints_names_with_brackets_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = PointField(torch.rand(3, 2), torch.rand(3, 2), channels=["k [w]", "v [/m]"])
    one = Trajectory(mesh=mesh, times=torch.zeros(1), u=torch.rand(1, 3, 1), channels=("T [k]",))
    write_trajectory(tmp_path / "a.h5", one)
    assert run("inspect", tmp_path / "a.h5") == 0
    text = capsys.readouterr().out
    assert "k [w], v [/m]" in text and "T [k]" in text


def test_pack_writes_the_file_it_is_told(heat: Path, tmp_path: Path) -> None:
    assert run("pack", heat, "--out", tmp_path / "a.h5") == 0
    assert len(TrajectoryDataset(tmp_path / "a.h5")) == 3
    assert run("pack", heat, "--out", tmp_path) == 2


def test_equal_sets_pack_to_equal_bytes(heat: Path, packed: Path, tmp_path: Path) -> None:
    pack(heat, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == packed.read_bytes()


def test_generate_reports_the_rate_of_rejection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "poisson", "--n", 1, "--out", tmp_path / "set") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("1 solutions of poisson in") and "0.0% of the draws rejected" in text
