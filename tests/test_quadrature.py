import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay
from torch import Tensor

from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import (
    cell_weights,
    integrate,
    node_weights,
    point_weights,
    with_weights,
)
from tests.mesh_samples import box

KINDS = [
    "line",
    "triangle",
    "quad",
    "mixed2",
    "tetra",
    "hexahedron",
    "wedge",
    "pyramid",
    "mixed3",
]


def smooth(pos: Tensor) -> Tensor:
    """exp of the sum of coordinates; its integral over the unit box is (e - 1)^d."""
    return pos.sum(dim=1, keepdim=True).exp()


@pytest.mark.parametrize("bend", [0.0, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_the_volume(kind: str, bend: float) -> None:
    pos, cells = box(kind, 4, bend=0.0 if kind == "line" else bend)
    # Gauss rules are exact for these integrands: rounding of some hundred terms is left.
    # Between bent cells sides of hexahedra and wedges are curved alike, and the hull stays.
    assert node_weights(pos, cells).sum().item() == pytest.approx(1.0, abs=1e-12)
    by_cell = cell_weights(pos, cells)
    assert sum(v.sum().item() for v in by_cell.values()) == pytest.approx(1.0, abs=1e-12)
    assert {k: len(v) for k, v in by_cell.items()} == {k: len(v) for k, v in cells.items()}


@pytest.mark.parametrize("dim", [2, 3])
def test_linear_functions_are_integrated_exactly_on_random_simplices(
    dim: int, generator: torch.Generator
) -> None:
    pos = torch.rand(60, dim, generator=generator, dtype=torch.float64)
    kind = {2: "triangle", 3: "tetra"}[dim]
    index = torch.from_numpy(Delaunay(pos.numpy()).simplices).long()
    weights = node_weights(pos, {kind: index})
    centres = pos[index].mean(dim=1)
    volume = cell_weights(pos, {kind: index})[kind]
    assert weights.sum().item() == pytest.approx(ConvexHull(pos.numpy()).volume, rel=1e-12)
    torch.testing.assert_close(integrate(pos, weights), volume @ centres)


@pytest.mark.parametrize("kind", KINDS)
def test_integral_converges_at_second_order(kind: str) -> None:
    # The basis interpolates linearly, so the error is a second-order Taylor remainder.
    bend = 0.0 if kind == "line" else 0.05
    errors = []
    for n in (4, 8, 16) if kind != "line" else (8, 16, 32):
        pos, cells = box(kind, n, bend=bend)
        exact = (math.e - 1) ** pos.shape[1]
        errors.append(abs(integrate(smooth(pos), node_weights(pos, cells)).item() - exact))
    order = math.log2(errors[1] / errors[2])
    assert abs(order - 2) < 0.1  # the next term of the error is two orders smaller


def test_orientation_of_cells_does_not_matter() -> None:
    pos, cells = box("triangle", 4)
    flipped = {"triangle": cells["triangle"][:, [1, 0, 2]]}
    torch.testing.assert_close(node_weights(pos, flipped), node_weights(pos, cells))


@pytest.mark.parametrize(("kind", "size"), [("triangle", 3), ("quad", 4)])
def test_a_surface_in_space_has_its_area(kind: str, size: int) -> None:
    pos, cells = box(kind, 4)
    sheet = torch.stack([pos[:, 0], 3 * pos[:, 1], 4 * pos[:, 1]], dim=1)  # 1 by 5
    assert node_weights(sheet, cells).sum().item() == pytest.approx(5, rel=1e-12)
    assert cells[kind].shape[1] == size


def test_a_curve_in_space_has_its_length() -> None:
    pos = torch.tensor([[0.0, 0, 0], [3, 4, 0], [3, 4, 2]], dtype=torch.float64)
    weights = node_weights(pos, {"line": torch.tensor([[0, 1], [1, 2]])})
    assert weights.tolist() == pytest.approx([2.5, 3.5, 1.0])


def test_a_flat_hexahedron_of_extreme_aspect_ratio_is_not_degenerate() -> None:
    pos, cells = box("hexahedron", 1)
    thin = (pos * torch.tensor([1.0, 1e-3, 1e-6])).float()
    # float32 rounds to 1e-7; nothing cancels
    assert node_weights(thin, cells).sum().item() == pytest.approx(1e-9, rel=1e-6)


def test_precision_of_the_points_is_kept() -> None:
    pos, cells = box("mixed2", 2)
    assert node_weights(pos.float(), cells).dtype == torch.float32
    assert point_weights(torch.rand(20, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "corners"),
    [
        ("triangle", [[0.0, 0], [1, 1], [2, 2]]),
        ("triangle", [[0.1, 0.3], [0.2, 0.6], [0.7, 2.1]]),  # collinear but for rounding
        ("quad", [[0.0, 0], [1, 1], [1, 0], [0, 1]]),  # twisted
        ("tetra", [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]),
        ("line", [[1.0, 2], [1, 2]]),
    ],
)
def test_a_degenerate_cell_is_named(kind: str, corners: list[list[float]]) -> None:
    pos = torch.tensor(corners, dtype=torch.float64)
    with pytest.raises(MeshError, match=rf"{kind} are degenerate .* number 0 .* repair_mesh"):
        node_weights(pos, {kind: torch.arange(len(pos))[None]})
    with pytest.raises(MeshError, match="degenerate"):
        cell_weights(pos, {kind: torch.arange(len(pos))[None]})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({}, "no cells"),
        ({"triangle": torch.empty(0, 3, dtype=torch.long)}, "no cells"),
        ({"triangle": torch.tensor([[0, 1, 9]])}, "there are 4 points"),
        ({"triangle": torch.tensor([[0, 1, -1]])}, "there are 4 points"),
        ({"triangle6": torch.tensor([[0, 1, 2, 3, 0, 1]])}, "not supported"),
        ({"triangle": torch.tensor([[0, 1, 2, 3]])}, "expected"),
        ({"tetra": torch.tensor([[0, 1, 2, 3]])}, "points have 2 coordinates"),
        ({"line": torch.tensor([[0, 1]]), "triangle": torch.tensor([[0, 1, 2]])}, "different dim"),
    ],
)
def test_wrong_cells_are_refused(cells: dict[str, Tensor], message: str) -> None:
    pos = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    with pytest.raises(MeshError, match=message):
        node_weights(pos, cells)


def test_knn_weights_follow_the_density(rng: np.random.Generator) -> None:
    # Twice the density left of the middle: half the weight.
    left, right = rng.random((4000, 2)) * [0.5, 1], rng.random((2000, 2)) * [0.5, 1] + [0.5, 0]
    pos = torch.from_numpy(np.concatenate([left, right]))
    weights = point_weights(pos, k=16)
    inside = ((pos - 0.5).abs() < 0.4).all(dim=1) & ((pos[:, 0] - 0.5).abs() > 0.1)
    low = weights[inside & (pos[:, 0] < 0.5)].mean().item() * 4000 / 0.5
    high = weights[inside & (pos[:, 0] > 0.5)].mean().item() * 2000 / 0.5
    # About 2000 and 1000 points with scatter 1/4 each, correlated over 16 neighbours: 3 % is
    # about 1.5 standard deviations.
    assert low == pytest.approx(1, abs=0.05)
    assert high == pytest.approx(1, abs=0.05)


def test_knn_weights_integrate_like_monte_carlo_if_the_volume_is_known(
    rng: np.random.Generator,
) -> None:
    exact = (math.e - 1) ** 2
    for n in (500, 8000):
        errors = []
        for _ in range(20):
            pos = torch.from_numpy(rng.random((n, 2)))
            weights = point_weights(pos, volume=1.0)
            errors.append(integrate(smooth(pos), weights).item() - exact)
        rms = float(np.sqrt(np.mean(np.square(errors))))
        monte_carlo = 0.85 * n**-0.5 * exact / 2.95  # standard deviation of the integrand: 0.85
        assert rms < 2 * monte_carlo


def test_scaling_to_a_volume_is_exact(generator: torch.Generator) -> None:
    pos = torch.rand(50, 3, generator=generator, dtype=torch.float64)
    for method in ("knn", "voronoi"):
        assert point_weights(pos, method=method, volume=7.0).sum().item() == pytest.approx(7)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_voronoi_weights_sum_to_the_hull(dim: int, generator: torch.Generator) -> None:
    pos = torch.rand(80, dim, generator=generator, dtype=torch.float64) * 3 + 1e3
    hull = ConvexHull(pos.numpy()).volume if dim > 1 else (pos.max() - pos.min()).item()
    # Cells tile the hull; corners of clipped cells carry Qhull's rounding of about 1e-12.
    assert point_weights(pos, method="voronoi").sum().item() == pytest.approx(hull, rel=1e-8)


def test_voronoi_weights_of_a_grid_are_its_trapezoidal_weights() -> None:
    for kind in ("quad", "hexahedron"):
        pos, cells = box(kind, 3)
        torch.testing.assert_close(
            point_weights(pos, method="voronoi"), node_weights(pos, cells), rtol=1e-9, atol=0
        )


def test_voronoi_weights_converge_faster_than_monte_carlo(rng: np.random.Generator) -> None:
    # Every cell has the error of a one-point rule off its centroid, h^(d+1), with a random sign;
    # N of them add up to N^(1/2) h^3 = N^-1 in the plane, and the hull misses a strip of about
    # log N / N. Monte Carlo has order 1/2.
    exact = (math.e - 1) ** 2
    rms = []
    for n in (200, 3200):
        errors = []
        for _ in range(8):
            pos = torch.from_numpy(rng.random((n, 2)))
            weights = point_weights(pos, method="voronoi", volume=1.0)
            errors.append(integrate(smooth(pos), weights).item() - exact)
        rms.append(float(np.sqrt(np.mean(np.square(errors)))))
    order = math.log(rms[0] / rms[1]) / math.log(16)
    assert order > 0.7


@pytest.mark.parametrize("method", ["knn", "voronoi"])
def test_splitting_a_point_keeps_the_total_of_voronoi_and_the_order_of_knn(
    method: str, generator: torch.Generator
) -> None:
    pos = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    split = torch.cat([pos, pos[:1]])
    before, after = point_weights(pos, method=method), point_weights(split, method=method)
    assert after[0] == after[-1]
    if method == "voronoi":
        torch.testing.assert_close(after[0], before[0] / 2)
    else:
        assert after[0] <= before[0]


def test_points_that_determine_no_weights_are_refused() -> None:
    with pytest.raises(MeshError, match="too few"):
        point_weights(torch.rand(5, 2))
    with pytest.raises(MeshError, match="coincides"):
        point_weights(torch.zeros(20, 2))
    with pytest.raises(MeshError, match="Voronoi"):
        point_weights(torch.zeros(20, 2), method="voronoi")
    line = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None].expand(-1, 2)
    with pytest.raises(MeshError, match="one line or plane"):
        point_weights(line, method="voronoi")
    with pytest.raises(ValueError, match="'knn' or 'voronoi'"):
        point_weights(torch.rand(20, 2), method="other")


def test_with_weights_uses_cells_where_there_are_any() -> None:
    pos, cells = box("quad", 4)
    torch.testing.assert_close(
        with_weights(PointField(pos, cells=cells)).weights, node_weights(pos, cells)
    )
    torch.testing.assert_close(with_weights(PointField(pos)).weights, point_weights(pos))
