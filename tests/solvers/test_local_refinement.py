import numpy as np
import pytest
import torch

from cst_operator.errors import InputError
from cst_operator.solvers import (
    disk,
    mesh_geometry,
    rectangle,
    refine_near_holes,
    refine_triangles,
    triangle_quality,
)

_HOLE = disk(0.2, (0.5, 0.5)).loops[0]


def test_refinement_near_a_hole_keeps_area_markers_and_shape():
    geometry = rectangle(holes=(_HOLE,), sides=True)
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    fine = refine_near_holes(mesh, geometry, 0.1)
    # the edges of the hole were chords of .1 and are half as long: their defect is a quarter
    defects = [abs(float(m.weights.sum()) - geometry.area) for m in (mesh, fine)]
    assert 3.8 < defects[0] / defects[1] < 4.2
    on_hole = fine.facets["line"][fine.facet_markers["line"] == 5]
    assert len(on_hole) == 2 * int((mesh.facet_markers["line"] == 5).sum())
    radius = (fine.pos[on_hole] - 0.5).norm(dim=2)
    assert torch.allclose(radius, torch.full_like(radius, 0.2), rtol=0, atol=1e-6)  # 2,000-gon
    for marker, (axis, place) in {1: (1, 0.0), 2: (0, 1.0), 3: (1, 1.0), 4: (0, 0.0)}.items():
        side = fine.pos[fine.facets["line"][fine.facet_markers["line"] == marker], axis]
        assert len(side) and float((side - place).abs().max()) < 1e-12
    quality = triangle_quality(fine.pos.numpy(), fine.cells["triangle"].numpy())
    assert quality.min() > 0.4  # positive: they turn counter-clockwise


def test_only_chosen_triangles_and_their_neighbours_are_split():
    geometry = rectangle()
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    left = mesh.pos[mesh.cells["triangle"]].mean(dim=1)[:, 0] < 0.3
    fine = refine_triangles(mesh, geometry, left)
    kept = {tuple(p) for p in mesh.pos.tolist()} & {tuple(p) for p in fine.pos.tolist()}
    assert len(kept) == mesh.num_points
    added = torch.tensor([p for p in fine.pos.tolist() if tuple(p) not in kept])
    assert len(added) > 0 and float(added[:, 0].max()) < 0.5  # .3 and two edges
    none = refine_triangles(mesh, geometry, torch.zeros_like(left))
    assert none.num_points == mesh.num_points


def test_without_holes_nothing_changes_and_a_distance_is_positive():
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    assert refine_near_holes(mesh, rectangle(), 0.1) is mesh
    with pytest.raises(InputError, match="positive length"):
        refine_near_holes(mesh, rectangle(), 0.0)
