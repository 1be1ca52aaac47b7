import numpy as np
import pytest
import torch

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import RandomDomain, disk, mesh_geometry, rectangle, triangle_quality


@pytest.mark.parametrize("outline", ["smooth", "polygon"])
def test_meshes_of_many_random_domains_are_sound(outline):
    domain = RandomDomain(outline=outline)
    made = 0
    for number in range(30):
        rng = np.random.default_rng(number)
        try:
            geometry = domain.sample(rng)
        except SolverError:  # no place for a hole; another test
            continue
        mesh = mesh_geometry(geometry, 0.043, rng)
        made += 1
        points, triangles = mesh.pos.numpy(), mesh.cells["triangle"].numpy()
        # measured over 300 smooth domains: .65 at the least; also positive orientation
        assert triangle_quality(points, triangles).min() > 0.4
        boundary = np.unique(mesh.facets["line"].numpy())
        assert np.abs(geometry.distance(points[boundary])).max() < 1e-12
        inner = np.setdiff1d(np.arange(len(points)), boundary)
        assert geometry.distance(points[inner]).max() < 0
        edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        edges, count = np.unique(edges, axis=0, return_counts=True)
        assert count.max() == 2 and (count == 1).sum() == len(boundary)
        # Euler: a plane domain with k holes, conforming, without hanging nodes
        assert len(points) - len(edges) + len(triangles) == 1 - (len(geometry.loops) - 1)
        # chords cut off h^2 / (8 r) times the length of the boundary: some 1e-3
        assert abs(float(mesh.weights.sum()) / geometry.area - 1) < 0.01
    assert made >= 25


def test_halving_the_edge_length_gives_four_times_the_nodes(rng):
    geometry = RandomDomain().sample(rng)
    coarse = mesh_geometry(geometry, 0.043, rng).num_points
    fine = mesh_geometry(geometry, 0.0215, rng).num_points
    assert 3.5 < fine / coarse < 4.2  # inner nodes four times, boundary nodes twice


def test_the_same_random_numbers_give_the_same_mesh(seed):
    one, two = (mesh_geometry(disk(), 0.2, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one.pos, two.pos)
    assert torch.equal(one.cells["triangle"], two.cells["triangle"])


def test_facets_run_with_the_domain_to_the_left_and_carry_the_loop(rng):
    ring = disk(1.0, holes=(disk(0.4).loops[0],))
    mesh = mesh_geometry(ring, 0.15, rng)
    a, b = (mesh.pos[mesh.facets["line"][:, i]].numpy() for i in range(2))
    left = np.stack([a[:, 1] - b[:, 1], b[:, 0] - a[:, 0]], axis=1)
    inside = (a + b) / 2 + 0.1 * left
    assert ring.distance(inside).max() < 0
    markers = mesh.facet_markers["line"].numpy()
    assert np.array_equal(markers == 2, np.linalg.norm((a + b) / 2, axis=1) < 0.7)


def test_a_mesh_that_cannot_follow_the_boundary_is_a_solver_error(rng):
    thin = np.array([[0.2, 0.495], [0.8, 0.495], [0.8, 0.505], [0.2, 0.505]])
    with pytest.raises(SolverError):
        mesh_geometry(rectangle(holes=(thin,)), 0.2, rng)


@pytest.mark.parametrize("h", [0.0, -1.0, 0.8, float("nan")])
def test_an_impossible_edge_length_is_refused(h, rng):
    with pytest.raises(InputError, match="half the width"):
        mesh_geometry(rectangle(), h, rng)
