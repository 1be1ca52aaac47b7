import math

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from cst_operator.boundary import boundary_facets, boundary_points, distance_to_boundary
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from tests.mesh_samples import box, ring


def signed_volume(pos: Tensor, facets: dict[str, Tensor]) -> float:
    """Volume by the divergence theorem, from an origin outside of every facet's plane."""
    pos = pos + 1
    if "line" in facets:
        a, b = pos[facets["line"]].unbind(1)
        return float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2)
    triangles = [facets[k][:, c] for k in facets for c in _SPLIT[k]]
    a, b, c = pos[torch.cat(triangles)].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


_SPLIT = {"triangle": [[0, 1, 2]], "quad": [[0, 1, 2], [0, 2, 3]]}
KINDS = ["triangle", "quad", "mixed2", "tetra", "hexahedron", "wedge", "pyramid", "mixed3"]


@pytest.mark.parametrize("kind", KINDS)
def test_facets_point_outwards(kind: str) -> None:
    pos, cells = box(kind, 4)
    # Sums of some hundred terms of order one.
    assert signed_volume(pos, boundary_facets(cells)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_surface_weights_sum_to_perimeter_and_area(kind: str) -> None:
    pos, cells = box(kind, 4)
    boundary = boundary_points(PointField(pos, cells=cells))
    total = 4 if pos.shape[1] == 2 else 6
    assert boundary.weights.sum().item() == pytest.approx(total, rel=1e-12)
    on_boundary = ((pos == 0) | (pos == 1)).any(dim=1)
    torch.testing.assert_close(boundary.pos, pos[on_boundary])


def test_rims_of_holes_are_boundary() -> None:
    pos, cells = ring(60)
    boundary = boundary_points(PointField(pos, cells=cells))
    assert boundary.num_points == 120
    # Perimeter of the two regular polygons.
    exact = 60 * 2 * math.sin(math.pi / 60) * (1 + 0.5)
    assert boundary.weights.sum().item() == pytest.approx(exact, rel=1e-12)


def test_boundary_keeps_values_and_is_a_mesh_of_its_own() -> None:
    pos, cells = box("mixed2", 4)
    field = PointField(pos, u=pos[:, :1] * 2, channels=["a"], units=["K"], cells=cells)
    boundary = boundary_points(field)
    torch.testing.assert_close(boundary.u, boundary.pos[:, :1] * 2)
    assert (boundary.channels, boundary.units) == (("a",), ("K",))
    length = boundary.pos[boundary.cells["line"]].diff(dim=1).norm(dim=-1).sum()
    assert length.item() == pytest.approx(4)


def test_an_interval_is_bounded_by_its_ends() -> None:
    pos, cells = box("line", 5)
    field = PointField(pos, cells=cells)
    assert boundary_points(field).pos.flatten().tolist() == [0, 1]
    assert boundary_points(field).weights.tolist() == [1, 1]
    torch.testing.assert_close(distance_to_boundary(field), torch.minimum(pos, 1 - pos)[:, 0])


@pytest.mark.parametrize("kind", ["triangle", "mixed2", "tetra", "hexahedron", "mixed3"])
def test_distance_in_a_box_is_that_to_the_nearest_side(
    kind: str, generator: torch.Generator
) -> None:
    pos, cells = box(kind, 4)
    field = PointField(pos, cells=cells)
    where = torch.rand(300, pos.shape[1], generator=generator, dtype=torch.float64)
    exact = torch.minimum(where, 1 - where).amin(dim=1)
    torch.testing.assert_close(distance_to_boundary(field, where), exact)
    outside = torch.cat([where[:, :1] + 2, where[:, 1:]], dim=1)
    torch.testing.assert_close(distance_to_boundary(field, outside), where[:, 0] + 1)


def test_distance_in_a_ring_is_that_to_two_circles(generator: torch.Generator) -> None:
    pos, cells = ring(200)
    where = torch.rand(300, 2, generator=generator, dtype=torch.float64) * 2 - 1
    radius = where.norm(dim=1)
    exact = torch.minimum((1 - radius).abs(), (radius - 0.5).abs())
    distance = distance_to_boundary(PointField(pos, cells=cells), where)
    # A chord is at most 1 - cos(pi/200) = 1.2e-4 from its circle.
    torch.testing.assert_close(distance, exact, rtol=0, atol=1.3e-4)


@pytest.mark.parametrize(("kind", "n"), [("triangle", 64), ("tetra", 8)])
def test_large_facets_with_far_centres_are_not_missed(
    kind: str, n: int, generator: torch.Generator
) -> None:
    pos, cells = box(kind, n)
    field = PointField(pos**6, cells=cells)  # facets of sizes 1e-11 (1e-6) to 0.1 (0.55)
    where = torch.rand(2000, pos.shape[1], generator=generator, dtype=torch.float64)
    exact = torch.minimum(where, 1 - where).amin(dim=1)
    torch.testing.assert_close(distance_to_boundary(field, where), exact)


@pytest.mark.parametrize("kind", ["triangle", "tetra"])
def test_distance_agrees_with_dense_sampling_of_graded_facets(
    kind: str, generator: torch.Generator
) -> None:
    pos, cells = box(kind, 6)
    pos = pos**3
    field = PointField(pos, cells=cells)
    facets = next(iter(boundary_facets(cells).values()))
    where = torch.rand(40, pos.shape[1], generator=generator, dtype=torch.float64) * 1.4 - 0.2
    bary = torch.rand(3000, facets.shape[1], generator=generator, dtype=torch.float64)
    bary = bary / bary.sum(dim=1, keepdim=True)
    samples = (bary @ pos[facets]).flatten(0, 1)
    brute = torch.cdist(where, samples).amin(dim=1)
    distance = distance_to_boundary(field, where)
    # Samples lie on the facets, so they are never nearer; the largest facet has side 0.42 and
    # 3000 samples, which leaves gaps of a few hundredths.
    assert bool((distance <= brute + 1e-12).all())
    torch.testing.assert_close(distance, brute, rtol=0, atol=0.03)


def test_precision_follows_the_points() -> None:
    pos, cells = box("quad", 3)
    field = PointField(pos.float(), cells=cells)
    assert distance_to_boundary(field).dtype == torch.float32
    assert distance_to_boundary(field, pos).dtype == torch.float64


def test_a_field_without_cells_has_no_boundary() -> None:
    with pytest.raises(MeshError, match="no cells"):
        boundary_points(PointField(torch.rand(5, 2)))
    with pytest.raises(MeshError, match="no cells"):
        distance_to_boundary(PointField(torch.rand(5, 2)))


def test_a_closed_surface_has_no_boundary() -> None:
    pos, cells = box("tetra", 2)
    surface = boundary_points(PointField(pos, cells=cells))
    assert boundary_facets(surface.cells) == {}
    with pytest.raises(MeshError, match="closed surface"):
        boundary_points(surface)


def test_a_batch_of_samples_is_refused() -> None:
    pos, cells = box("triangle", 2)
    batch = Batch.from_data_list([PointField(pos, cells=cells)] * 2)
    with pytest.raises(MeshError, match="to_data_list"):
        distance_to_boundary(batch)
