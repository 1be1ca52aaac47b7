import math

import pytest
import torch

from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.mesh_report import MeshReport, mesh_report
from tests.mesh_samples import box, ring

KINDS = ["line", "triangle", "quad", "mixed2", "tetra", "hexahedron", "wedge", "pyramid", "mixed3"]


@pytest.mark.parametrize("kind", KINDS)
def test_clean_meshes_have_no_problems(kind: str) -> None:
    pos, cells = box(kind, 4, bend=0.0 if kind == "line" else 0.05)
    for dtype in (torch.float32, torch.float64):
        report = mesh_report(PointField(pos.to(dtype), cells=cells))
        assert report.problems == report.notes == ()
        assert report.ok
        assert report.volume == pytest.approx(1, rel=1e-6)  # float32
        assert 0 < report.quality_min <= report.quality_mean <= 1
        assert report.num_cells == {k: len(i) for k, i in cells.items()}


@pytest.mark.parametrize(
    ("kind", "quality"),
    [
        ("line", 1),
        ("quad", 1),
        ("hexahedron", 1),
        ("triangle", math.sqrt(2 / 3)),  # a half square: sin 45 over sin 60 degrees
        ("wedge", math.sqrt(2 / 3)),
        (
            "pyramid",
            math.sqrt(2 / 3),
        ),  # square base with height 1/2: (1/2) / (sqrt 3 / 2) / sqrt .5
    ],
)
def test_quality_of_known_shapes(kind: str, quality: float) -> None:
    pos, cells = box(kind, 2)
    report = mesh_report(PointField(pos, cells=cells))
    assert report.quality_min == pytest.approx(quality)
    assert report.quality_mean == pytest.approx(quality)


def test_equilateral_cells_have_quality_one() -> None:
    pos = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    for kind, n in (("tetra", 4), ("triangle", 3)):
        report = mesh_report(PointField(pos[:n], cells={kind: torch.arange(n)[None]}))
        assert report.quality_min == pytest.approx(1)


def planted(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    pos, cells = box(kind, 4)
    return pos, cells[kind].clone()


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_every_planted_defect_is_counted(kind: str) -> None:
    pos, index = planted(kind)

    def report(pos: torch.Tensor, index: torch.Tensor) -> MeshReport:
        return mesh_report(PointField(pos, cells={kind: index}))

    flat = index.clone()
    flat[3, :] = flat[3, 0]
    found = report(pos, flat)
    assert (found.degenerate, found.duplicate_cells, found.inverted) == (1, 0, 0)
    assert found.quality_min == 0
    assert any("1 degenerate" in line for line in found.problems)

    found = report(pos, torch.cat([index, index[2:4], flat[3:4]]))
    assert (found.degenerate, found.duplicate_cells, found.inverted) == (1, 2, 0)
    assert any("2 duplicate cells" in line for line in found.problems)

    mirror = {
        "triangle": [0, 2, 1],
        "quad": [0, 3, 2, 1],
        "tetra": [0, 2, 1, 3],
        "hexahedron": [4, 5, 6, 7, 0, 1, 2, 3],
    }[kind]
    turned = index.clone()
    turned[[5, 7]] = turned[[5, 7]][:, mirror]
    found = report(pos, turned)
    assert (found.degenerate, found.inverted, found.concave) == (0, 2, 0)
    # Nothing depends on orientation.
    assert found.ok and len(found.notes) == 1 and "2 inverted" in found.notes[0]
    # All cells turned is another convention, not a defect.
    assert report(pos, index[:, mirror]).notes == ()

    found = report(torch.cat([pos, pos[:2]]), index)
    assert (found.duplicates, found.unused) == (2, 2)
    assert found.ok and len(found.notes) == 2


def test_concave_quadrilaterals_are_counted() -> None:
    pos = torch.tensor([[0.0, 0], [2, 0], [0.9, 0.9], [0, 2]])
    found = mesh_report(PointField(pos, cells={"quad": torch.arange(4)[None]}))
    assert (found.degenerate, found.concave) == (0, 1)


def test_report_counts_boundary_and_ranges() -> None:
    pos, cells = ring(60)
    u = torch.stack([pos[:, 0], torch.full((len(pos),), 3.0)], dim=1)
    field = PointField(pos, u, channels=["a", "b"], units=["m", ""], cells=cells)
    report = mesh_report(field)
    assert report.num_boundary_facets == 120
    assert report.lower == pytest.approx((-1, -1))
    assert report.upper == pytest.approx((1, 1))
    assert [(c.name, c.unit) for c in report.channels] == [("a", "m"), ("b", "")]
    assert report.channels[0].minimum == pytest.approx(-1)
    assert report.channels[1].mean == 3


def test_points_without_cells_are_reported() -> None:
    report = mesh_report(PointField(torch.rand(5, 2)))
    assert report.ok
    assert report.num_cells == {}
    assert math.isnan(report.quality_min)


def test_unsupported_cells_are_refused() -> None:
    with pytest.raises(MeshError, match="not supported"):
        mesh_report(PointField(torch.rand(6, 2), cells={"triangle6": torch.arange(6)[None]}))
