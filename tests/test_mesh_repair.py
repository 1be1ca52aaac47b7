"""Repair of planted defects: the mesh before they were planted comes back."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from cst_operator.boundary import boundary_facets
from cst_operator.errors import FieldError, MeshError
from cst_operator.fields import PointField
from cst_operator.mesh_files import read_mesh
from cst_operator.mesh_repair import MeshRepair, repair_mesh
from cst_operator.mesh_report import mesh_report
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box

KINDS = ["line", "triangle", "quad", "mixed2", "tetra", "hexahedron", "wedge", "pyramid", "mixed3"]
MIRRORS = {
    "triangle": [0, 2, 1],
    "quad": [3, 2, 1, 0],
    "tetra": [1, 0, 2, 3],
    "hexahedron": [1, 0, 3, 2, 5, 4, 7, 6],
    "wedge": [1, 0, 2, 4, 3, 5],
    "pyramid": [1, 0, 3, 2, 4],
}
NOTHING = dict.fromkeys(
    ("duplicates", "degenerate", "duplicate_cells", "inverted", "facets", "unused", "volume"), 0
)


def mesh(kind: str, n: int = 4) -> PointField:
    """A clean mesh with everything that a field may have."""
    pos, cells = box(kind, n, bend=0.0 if kind == "line" else 0.05)
    facets = {} if kind == "line" else boundary_facets(cells)
    u = torch.stack([pos.sum(dim=1), pos.square().sum(dim=1) + 1], dim=1)
    return PointField(
        pos,
        u,
        node_weights(pos, cells),
        time=torch.full((len(pos),), 0.5, dtype=torch.float64),
        channels=("p", "T"),
        units=("Pa", "K"),
        gradient=u[:, :, None] * torch.ones(pos.shape[1], dtype=torch.float64),
        time_derivative=2 * u,
        cells=cells,
        facets=facets,
        facet_markers={k: torch.arange(len(i)) % 4 for k, i in facets.items()},
    )


def assert_same(a: PointField, b: PointField) -> None:
    assert (a.channels, a.units) == (b.channels, b.units)
    for name in ("pos", "time", "u", "gradient", "time_derivative"):
        assert torch.equal(a[name], b[name]), name
    # The same sum of the same shares, in another order where cells were turned.
    torch.testing.assert_close(a.weights, b.weights, rtol=1e-12, atol=1e-15)
    for name in ("cells", "facets", "facet_markers"):
        one, other = a.get(name) or {}, b.get(name) or {}
        assert list(one) == list(other)
        for kind, index in one.items():
            both = [index, other[kind]]
            if name == "cells":
                both = [i.sort(dim=1).values for i in both]
            assert torch.equal(*both), (name, kind)


def with_copies(field: PointField, points: torch.Tensor, rng: np.random.Generator) -> PointField:
    """Some points twice, each copy used by some cells and facets instead of the point."""
    n = field.num_points
    parts = {
        name: torch.cat([field[name], field[name][points]])
        for name in ("pos", "time", "u", "gradient", "time_derivative")
    }
    copy = torch.arange(n)
    copy[points] = n + torch.arange(len(points))

    def some(index: torch.Tensor) -> torch.Tensor:
        return copy[index].where(torch.from_numpy(rng.random(index.shape) < 0.5), index)

    return field._with(
        **parts,
        weights=None,
        cells={kind: some(index) for kind, index in field.cells.items()},
        facets={kind: some(index) for kind, index in (field.get("facets") or {}).items()},
    )


def appended(field: PointField, kind: str, more: torch.Tensor) -> PointField:
    cells = {k: torch.cat([i, more]) if k == kind else i for k, i in field.cells.items()}
    return field._with(cells=cells, weights=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_mesh_comes_back_as_it_is(kind: str) -> None:
    for field in (mesh(kind), PointField(mesh(kind).pos.float(), cells=mesh(kind).cells)):
        repaired, done = repair_mesh(field, drop_unused=True)
        assert not done.changed and asdict(done) == NOTHING
        if "weights" in field:
            assert repaired is field
        else:
            assert torch.equal(repaired.weights, node_weights(field.pos, field.cells))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_points_are_merged(kind: str, rng: np.random.Generator) -> None:
    clean = mesh(kind)
    points = torch.from_numpy(rng.choice(clean.num_points, 3, replace=False))
    repaired, done = repair_mesh(with_copies(clean, points, rng))
    assert asdict(done) == {**NOTHING, "duplicates": 3}
    assert_same(repaired, clean)


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_repeated_cells_are_dropped(kind: str) -> None:
    clean = mesh(kind)
    for name, index in clean.cells.items():
        flat = index[:2, :1].expand(-1, index.shape[1])
        repaired, done = repair_mesh(appended(clean, name, flat))
        assert asdict(done) == {**NOTHING, "degenerate": 2}
        assert_same(repaired, clean)
        repaired, done = repair_mesh(appended(clean, name, index[[1, 2, 1]]))
        assert asdict(done) == {**NOTHING, "duplicate_cells": 3}
        assert_same(repaired, clean)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_inverted_cells_are_turned_as_the_others_are(kind: str) -> None:
    clean = mesh(kind)
    for name, index in clean.cells.items():
        turned = index.clone()
        turned[[1, 4]] = turned[[1, 4]][:, MIRRORS[name]]
        bad = clean._with(cells={**clean.cells, name: turned})
        assert mesh_report(bad).inverted == 2
        repaired, done = repair_mesh(bad)
        assert asdict(done) == {**NOTHING, "inverted": 2}
        assert_same(repaired, clean)
        report = mesh_report(repaired)
        assert report.ok and report.notes == ()


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS[1:]),
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(*[st.integers(0, 3)] * 5),
)
def test_all_defects_together_are_repaired_once(
    kind: str, seed: int, counts: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    copies, flat, again, turned, lonely = counts
    clean = mesh(kind)
    name, index = next(iter(clean.cells.items()))

    def chosen(number: int) -> torch.Tensor:
        return torch.from_numpy(rng.choice(len(index), number, replace=False))

    places = chosen(turned)
    wrong = index.clone()
    wrong[places] = wrong[places][:, MIRRORS[name]]
    flats = index[chosen(flat)].clone()
    flats[:] = flats[:, :1]
    bad = clean._with(cells={**clean.cells, name: torch.cat([wrong, index[chosen(again)], flats])})
    bad = with_copies(bad, torch.from_numpy(rng.choice(bad.num_points, copies, False)), rng)
    parts = {
        part: torch.cat([bad[part], bad[part][:1].expand(lonely, *bad[part].shape[1:])])
        for part in ("time", "u", "gradient", "time_derivative")
    }
    outside = 5 + torch.from_numpy(rng.random((lonely, bad.dim)))
    bad = bad._with(pos=torch.cat([bad.pos, outside]), **parts)

    repaired, done = repair_mesh(bad, drop_unused=True)
    assert asdict(done) == {
        "duplicates": copies,
        "degenerate": flat,
        "duplicate_cells": again,
        "inverted": turned,
        "facets": 0,
        "unused": lonely,
        "volume": 0,
    }
    assert_same(repaired, clean)
    report = mesh_report(repaired)
    assert report.ok and report.notes == ()
    once_more, nothing = repair_mesh(repaired, drop_unused=True)
    assert once_more is repaired and not nothing.changed


def test_points_of_no_cell_stay_unless_told_otherwise() -> None:
    clean = mesh("triangle")
    cells = {"triangle": clean.cells["triangle"][1:]}
    lonely = PointField(torch.cat([clean.pos, 1 + clean.pos[-1:]]), cells=cells)
    kept, done = repair_mesh(lonely)
    assert kept.num_points == lonely.num_points and not done.changed
    kept, done = repair_mesh(lonely, drop_unused=True)
    assert kept.num_points == clean.num_points and done.unused == 1


def test_facets_go_with_their_points_and_if_they_repeat_one_with_the_same_marker() -> None:
    pos = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [1, 0], [5, 5]])
    field = PointField(
        pos,
        cells={"triangle": torch.tensor([[0, 1, 2], [0, 2, 3]])},
        facets={"line": torch.tensor([[0, 1], [4, 0], [1, 0], [1, 4], [2, 5], [2, 3]])},
        facet_markers={"line": torch.tensor([7, 7, 8, 9, 9, 9])},
    )
    repaired, done = repair_mesh(field, drop_unused=True)
    assert repaired.facets["line"].tolist() == [[0, 1], [1, 0], [2, 3]]
    assert repaired.facet_markers["line"].tolist() == [7, 8, 9]
    assert (done.facets, done.duplicates, done.unused) == (3, 1, 1)


def test_a_twisted_cell_is_dropped_with_the_volume_of_the_hole() -> None:
    clean = mesh("quad")
    twisted = clean.cells["quad"].clone()
    twisted[5] = twisted[5][[0, 1, 3, 2]]
    repaired, done = repair_mesh(clean._with(cells={"quad": twisted}))
    assert done.degenerate == 1 and done.volume > 0
    assert float(repaired.weights.sum()) == pytest.approx(float(clean.weights.sum()) - 1 / 16, 0.02)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("u", r"channel 'T' \(.*\), the first of 1 such"),
        ("gradient", "gradient of channel 'T'"),
        ("time_derivative", "time_derivative of channel 'T'"),
        ("time", r"time \(0.5 and 0.501\)"),
    ],
)
def test_points_with_other_values_are_not_merged(
    name: str, words: str, rng: np.random.Generator
) -> None:
    bad = with_copies(mesh("triangle"), torch.tensor([3]), rng)
    value = bad[name].clone()
    value[-1].view(-1)[-1] += 1e-3
    bad = bad._with(**{name: value})
    with pytest.raises(MeshError, match=f"points 3 and 25 coincide but differ in {words}.*--no-m"):
        repair_mesh(bad)
    kept, done = repair_mesh(bad, merge=False)
    assert kept.num_points == bad.num_points and not done.changed


def test_what_no_repair_can_mend_is_refused() -> None:
    clean = mesh("triangle")
    broken = clean.clone()
    broken.cells["triangle"] = broken.cells["triangle"].clone()
    broken.cells["triangle"][2, 1] = 1000
    with pytest.raises(FieldError, match="name point 1000 but there are 25 points"):
        repair_mesh(broken)
    with pytest.raises(MeshError, match="all cells are degenerate"):
        repair_mesh(PointField(torch.zeros(3, 2), cells={"triangle": torch.arange(3)[None]}))
    with pytest.raises(MeshError, match="no cells"):
        repair_mesh(PointField(torch.rand(3, 2)))
    with pytest.raises(MeshError, match="to_data_list"):
        repair_mesh(Batch.from_data_list([clean, clean]))


def test_a_repair_that_did_anything_says_so() -> None:
    for name in NOTHING:
        assert MeshRepair(**{**NOTHING, name: 1}).changed


def test_files_that_are_read_are_usable_and_inverted_cells_change_nothing(
    shared_data: Path,
) -> None:
    turned = {"00_raw_binary.vtu": 81, "02_raw_compressed.vtu": 81, "cylinder_stokes.msh": 128}
    for path in sorted((shared_data / "meshes" / "good").iterdir()):
        if path.name.startswith("LICENSE"):
            continue
        field = read_mesh(path, dtype=torch.float64)
        report = mesh_report(field)
        assert report.ok, path
        assert report.inverted == turned.get(path.name, 0), path
        repaired, done = repair_mesh(field)
        assert (done.inverted, done.degenerate) == (report.inverted, 0)
        torch.testing.assert_close(repaired.weights, field.weights, rtol=1e-12, atol=0)
