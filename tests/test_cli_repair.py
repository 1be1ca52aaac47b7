"""``cst inspect --repair``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator.cli import main
from cst_operator.datasets import write_trajectory
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, write_mesh
from cst_operator.mesh_report import mesh_report
from tests.mesh_file_samples import SQUARE, TWO, write
from tests.mesh_samples import box


def damaged(path: Path) -> PointField:
    """A file with one defect of every kind; the mesh without them."""
    pos, cells = box("triangle", 4)
    pos = pos / 3 + 1e6  # where single precision keeps steps of a sixteenth
    good = PointField(pos, pos[:, :1], channels=["T"], units=["K"], cells=cells)
    index = cells["triangle"].clone()
    index[2] = index[2, [0, 2, 1]]
    index[3] = index[3].where(index[3] != index[3, 0], len(pos))
    index = torch.cat([index, index[5:6], index[7, [0, 0, 1]][None]])
    bad = PointField(
        torch.cat([pos, pos[cells["triangle"][3, :1]]]),
        torch.cat([good.u, good.u[cells["triangle"][3, :1]]]),
        channels=["T"],
        units=["K"],
        cells={"triangle": index},
    )
    write_mesh(path, bad)
    return good


def test_a_repaired_file_is_the_mesh_without_its_defects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = damaged(tmp_path / "bad.vtu")
    before = (tmp_path / "bad.vtu").read_bytes()
    assert main(["inspect", str(tmp_path / "bad.vtu")]) == 2
    said = capsys.readouterr().out
    for words in ("1 degenerate cells", "1 duplicate cells", "1 inverted cells", "1 repeated poi"):
        assert words in said
    out = tmp_path / "good.vtu"
    assert main(["inspect", str(tmp_path / "bad.vtu"), "--repair", str(out)]) == 0
    said = capsys.readouterr().out
    for words in ("merged with another", "degenerate cells", "duplicate cells", "inverted cells"):
        line = next(line for line in said.splitlines() if words in line and "problem" not in line)
        assert "1" in line
    assert f"repaired as {out}" in said.replace("\n", "") and said.rstrip().endswith("usable")
    assert (tmp_path / "bad.vtu").read_bytes() == before
    found = read_mesh(out, dtype=torch.float64)
    assert torch.equal(found.pos, good.pos) and torch.equal(found.u, good.u)
    assert (found.channels, found.units) == (("T",), ("K",))
    assert torch.equal(*(f.cells["triangle"].sort(dim=1).values for f in (found, good)))
    report = mesh_report(found)
    assert report.ok and report.notes == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.vtu", "good.vtu"]


def test_a_clean_file_has_nothing_to_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pos, cells = box("mixed3", 2)
    write_mesh(tmp_path / "a.vtu", PointField(pos, cells=cells))
    assert main(["inspect", str(tmp_path / "a.vtu"), "--repair", str(tmp_path / "b.vtu")]) == 0
    assert "there was nothing to repair" in capsys.readouterr().out
    assert torch.equal(read_mesh(tmp_path / "b.vtu", dtype=torch.float64).pos, pos)


def test_the_input_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(tmp_path / "bad.vtu")
    before = (tmp_path / "bad.vtu").read_bytes()
    (tmp_path / "link.vtu").symlink_to(tmp_path / "bad.vtu")
    for name in ("bad.vtu", "link.vtu"):
        assert main(["inspect", str(tmp_path / "bad.vtu"), "--repair", str(tmp_path / name)]) == 2
        assert "name another for --repair" in capsys.readouterr().err
        assert (tmp_path / "bad.vtu").read_bytes() == before


def test_points_whose_values_jump_are_kept_apart_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pos, cells = box("triangle", 2)
    index = cells["triangle"].clone()
    index[0] = index[0].where(index[0] != 4, len(pos))  # the centre twice
    u = torch.arange(len(pos) + 1.0, dtype=torch.float64)[:, None]
    bad = PointField(torch.cat([pos, pos[4:5]]), u, channels=["T"], cells={"triangle": index})
    write_mesh(tmp_path / "bad.vtu", bad)
    repair = ["inspect", str(tmp_path / "bad.vtu"), "--repair", str(tmp_path / "out.vtu")]
    assert main(repair) == 2
    assert "points 4 and 9 coincide but differ in channel 'T' (4 and 9)" in capsys.readouterr().err
    assert not (tmp_path / "out.vtu").exists()
    assert main([*repair, "--no-merge"]) == 0
    assert np.array_equal(read_mesh(tmp_path / "out.vtu").u, u)


def test_points_that_a_repair_leaves_without_cells_are_dropped_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pos, cells = box("triangle", 2)
    flat = torch.tensor([[0, 9, 10]])
    pos = torch.cat([pos, torch.tensor([[-1.0, -1.0], [-2.0, -2.0]])])  # on one line with point 0
    bad = PointField(pos, cells={"triangle": torch.cat([cells["triangle"], flat])})
    write_mesh(tmp_path / "bad.vtu", bad)
    repair = ["inspect", str(tmp_path / "bad.vtu"), "--repair", str(tmp_path / "out.vtu")]
    assert main(repair) == 0
    assert "note: 2 points of no cell" in capsys.readouterr().out
    assert main([*repair, "--drop-unused"]) == 0
    assert "of no cell;" not in capsys.readouterr().out


def test_cell_fields_are_named_and_missed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"k [W/m]": [np.ones(2)], "cell_tags": [np.ones(2, dtype=int)]}
    write(tmp_path / "a.vtu", SQUARE, TWO, cell_data=data)
    assert main(["inspect", str(tmp_path / "a.vtu"), "--repair", str(tmp_path / "b.vtu")]) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if "cell fields" in line]
    assert "k [W/m] (read if they are named)" in line and "cell_tags" not in line
    assert f"{tmp_path / 'b.vtu'} is without the cell fields k [W/m]; to keep them" in said.err
    assert main(["inspect", str(tmp_path / "b.vtu"), "--repair", str(tmp_path / "c.vtu")]) == 0
    said = capsys.readouterr()
    assert "cell fields" not in said.out and said.err == ""


def test_what_is_not_one_mesh_is_not_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = PointField(torch.rand(4, 2), weights=torch.ones(4))
    one = Trajectory(mesh=mesh, times=torch.zeros(1), u=torch.rand(1, 4, 1), channels=("u",))
    write_trajectory(tmp_path / "a.h5", one)
    assert main(["inspect", str(tmp_path / "a.h5"), "--repair", str(tmp_path / "b.vtu")]) == 2
    assert "only such a file is repaired" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "a.h5"), "--no-merge"]) == 2
    assert "give --repair as well" in capsys.readouterr().err
