"""Meshes and series in pieces, as programs write them that run in parallel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator.boundary import boundary_facets
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.mesh_files import read_mesh, read_series
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box

meshio = pytest.importorskip("meshio")


def _pieces(folder: Path, stem: str, shift: float = 0.0) -> PointField:
    """Two halves of a square with a layer of ghost cells each, as one ``.pvtu``; the whole."""
    pos, cells = box("mixed2", 4)
    field = PointField(pos, pos[:, :1] + shift, channels=["T"], cells=cells)
    ids = torch.arange(len(pos))
    for number in (0, 1):
        blocks, ghosts, used = [], [], torch.zeros(len(pos), dtype=torch.bool)
        for kind, index in cells.items():
            x = pos[index].mean(dim=1)[:, 0]
            near = (x < 0.8) if number == 0 else (x > 0.2)
            other = (x > 0.5) if number == 0 else (x <= 0.5)
            blocks.append((kind, index[near]))
            ghosts.append(other[near].long().numpy())
            used[index[near].flatten()] = True
        local = used.cumsum(0) - 1
        meshio.Mesh(
            np.pad(pos[used].numpy(), ((0, 0), (0, 1))),
            [(kind, local[index].numpy()) for kind, index in blocks],
            point_data={"T": field.u[used, 0].numpy(), "vtkOriginalPointIds": ids[used].numpy()},
            cell_data={"vtkGhostType": ghosts, "half": [np.full(len(g), number) for g in ghosts]},
        ).write(folder / f"{stem}_p{number}.vtu")
    sources = "".join(f'<Piece Source="{stem}_p{number}.vtu"/>' for number in (0, 1))
    grid = f"<PUnstructuredGrid>{sources}</PUnstructuredGrid>"
    text = f'<VTKFile type="PUnstructuredGrid">{grid}</VTKFile>'
    (folder / f"{stem}.pvtu").write_text(text)
    return field


def _series(folder: Path, entries: list[str]) -> Path:
    path = folder / "series.pvd"
    path.write_text(f"<VTKFile><Collection>{''.join(entries)}</Collection></VTKFile>")
    return path


def _order(field: PointField) -> list[int]:
    return sorted(range(field.num_points), key=lambda i: field.pos[i].tolist())


def _is_whole(found: PointField, whole: PointField) -> None:
    mine, theirs = _order(found), _order(whole)
    assert found.channels == ("T",)
    assert torch.equal(found.pos[mine], whole.pos[theirs])
    assert torch.equal(found.u[mine], whole.u[theirs])
    weights = node_weights(whole.pos, whole.cells)
    # Shares of the cells around a point are added in another order.
    torch.testing.assert_close(found.weights[mine], weights[theirs], rtol=1e-14, atol=0)
    for kind, index in boundary_facets(whole.cells).items():
        assert len(boundary_facets(found.cells)[kind]) == len(index)


def test_the_pieces_of_a_mesh_are_joined_without_ghosts(tmp_path: Path) -> None:
    whole = _pieces(tmp_path, "a")
    _is_whole(read_mesh(tmp_path / "a.pvtu", dtype=torch.float64), whole)
    halves = read_mesh(tmp_path / "a.pvtu", ["half"], dtype=torch.float64)
    assert set(halves.u.flatten().tolist()) >= {0.0, 1.0}


def test_one_piece_is_read_as_it_is(tmp_path: Path) -> None:
    _pieces(tmp_path, "a")
    text = (tmp_path / "a.pvtu").read_text()
    (tmp_path / "b.pvtu").write_text(text.replace('<Piece Source="a_p1.vtu"/>', ""))
    one = read_mesh(tmp_path / "b.pvtu")
    assert one.channels == ("T",)
    assert one.num_points == read_mesh(tmp_path / "a_p0.vtu").num_points


def test_a_series_may_have_frames_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    wholes = [_pieces(tmp_path / "a b", f"f{i}", shift=float(i)) for i in range(2)]
    listed = [f'<DataSet timestep="{i}" part="0" file="a b/f{i}.pvtu"/>' for i in range(2)]
    parts = [
        f'<DataSet timestep="{i}" part="{part}" file="a b/f{i}_p{part}.vtu"/>'
        for i in range(2)
        for part in range(2)
    ]
    for entries in (listed, parts):
        series = read_series(_series(tmp_path, entries), dtype=torch.float64)
        assert series.times.tolist() == [0.0, 1.0]
        for step, whole in enumerate(wholes):
            frame = series.frame(step)
            frame.weights = series.mesh.weights
            _is_whole(frame, whole)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a_p1.vtu", "../a_p1.vtu", r"piece '\.\./a_p1\.vtu' lies outside of its folder; move"),
        ("a_p1.vtu", "none.vtu", "piece 'none.vtu' is missing; restore"),
        ("Source", "Sauce", "is not a .pvtu file that names pieces"),
        ("</VTKFile>", "", "is not a .pvtu file .*; copy it again"),
        ("<VTKFile", '<!DOCTYPE a [<!ENTITY b "c">]><VTKFile', "entities"),
    ],
)
def test_broken_lists_of_pieces_are_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    _pieces(tmp_path, "a")
    text = (tmp_path / "a.pvtu").read_text()
    (tmp_path / "b.pvtu").write_text(text.replace(old, new))
    with pytest.raises(MeshError, match=rf"b\.pvtu: .*{message}"):
        read_mesh(tmp_path / "b.pvtu")


def test_pieces_that_name_points_of_others_are_refused(tmp_path: Path) -> None:
    _pieces(tmp_path, "a")
    piece = meshio.read(tmp_path / "a_p1.vtu")
    piece.cells[0].data[0, 0] = len(piece.points)
    piece.write(tmp_path / "a_p1.vtu")
    with pytest.raises(MeshError, match="name points that their piece does not have"):
        read_mesh(tmp_path / "a.pvtu")


def test_frames_that_are_links_are_read(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "run").mkdir()
    whole = _pieces(tmp_path / "store", "a")
    for file in (tmp_path / "store").iterdir():
        (tmp_path / "run" / file.name).symlink_to(file)
    entries = ['<DataSet timestep="0" part="0" file="a.pvtu"/>']
    series = read_series(_series(tmp_path / "run", entries), dtype=torch.float64)
    assert series.mesh.num_points == whole.num_points
