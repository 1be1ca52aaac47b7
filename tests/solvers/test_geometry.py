import numpy as np
import pytest
import torch

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    Geometry,
    RandomDomain,
    RandomRectangle,
    disk,
    mesh_geometry,
    rectangle,
)
from cst_operator.solvers.geometry import BOTTOM, LEFT, RIGHT, TOP, ellipse


def test_distance_to_a_rectangle_is_exact(rng):
    x = rng.uniform(-0.5, 1.5, (200, 2))
    q = np.abs(x - 0.5) - 0.5
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    # float64 rounding; also at the corners, where two edges are equally near
    assert np.abs(rectangle().distance(x) - exact).max() < 1e-14


def test_the_side_of_a_sharp_corner_is_right(rng):
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.9, 0.2]])
    x = rng.uniform(-0.5, 1.5, (500, 2))
    edges = np.roll(corners, -1, axis=0) - corners
    to = x[:, None] - corners
    inside = (edges[:, 0] * to[..., 1] - edges[:, 1] * to[..., 0] > 0).all(axis=1)
    assert np.array_equal(Geometry((corners,)).distance(x) < 0, inside)


def test_distance_to_a_ring_is_that_of_two_circles(rng):
    ring = disk(1.0, holes=(disk(0.4).loops[0],))
    x = rng.uniform(-1.2, 1.2, (200, 2))
    r = np.linalg.norm(x, axis=1)
    # the sagitta of a chord of 2,000: (2 pi / 2000)^2 / 8 = 1.2e-6
    assert np.abs(ring.distance(x) - np.maximum(r - 1.0, 0.4 - r)).max() < 1.3e-6


def test_projected_points_lie_on_the_boundary(rng):
    geometry = RandomDomain().sample(rng)
    foot = geometry.project(rng.uniform(0, 1, (100, 2)))
    assert np.abs(geometry.distance(foot)).max() < 1e-14  # float64 rounding


def test_orientation_of_the_loops_does_not_matter(rng):
    geometry = RandomDomain(num_holes=(2, 2)).sample(rng)
    turned = Geometry(tuple(loop[::-1] for loop in geometry.loops))
    x = rng.uniform(0, 1, (50, 2))
    # the same chords, seen from their other end
    assert np.allclose(turned.distance(x), geometry.distance(x), rtol=0, atol=1e-14)


def test_boundary_nodes_keep_corners_and_are_even(rng):
    (nodes,) = rectangle(1.0, 0.6).boundary_nodes(0.1, rng)
    for corner in [(0, 0), (1, 0), (1, 0.6), (0, 0.6)]:
        assert np.abs(nodes - corner).sum(axis=1).min() == 0.0
    gaps = np.linalg.norm(np.roll(nodes, -1, axis=0) - nodes, axis=1)
    assert np.allclose(gaps, 0.1)


@pytest.mark.parametrize("outline", ["smooth", "polygon"])
def test_random_domains_keep_the_gap_and_the_unit_square(outline):
    domain = RandomDomain(num_holes=(1, 2), outline=outline)
    for number in range(20):
        try:
            geometry = domain.sample(np.random.default_rng(number))
        except SolverError:
            continue
        assert geometry.markers == tuple(range(1, len(geometry.loops) + 1))
        low, high = geometry.bounds
        assert low.min() >= 0.0 and high.max() <= 1.0
        for i, loop in enumerate(geometry.loops[1:], start=1):
            rest = Geometry(tuple(other for j, other in enumerate(geometry.loops) if j != i))
            assert rest.distance(loop).max() < -domain.gap + 1e-5  # chords of the other hole


def test_a_hole_without_a_place_is_a_solver_error(rng):
    with pytest.raises(SolverError, match="hole 1 found no place"):
        RandomDomain(hole_radius=(0.6, 0.7)).sample(rng)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Geometry((np.zeros((2, 2)),)), "expected"),
        (lambda: Geometry((np.array([[0, 0], [1, 1], [2, 2.0]]),)), "no area"),
        (lambda: Geometry(rectangle().loops, (1, 2)), "one per loop"),
        (lambda: RandomDomain(outline="square"), "smooth"),
        (lambda: RandomDomain(num_holes=(3, 1)), "num_holes"),
        (lambda: RandomDomain(hole_radius=(0.0, 1.0)), "hole_radius"),
    ],
)
def test_what_cannot_be_a_geometry_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("turn", [1, -1])
def test_sides_of_the_outer_loop_have_their_own_markers_whichever_way_it_turns(turn):
    corners = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    sides = (1, 2, 3, 4) if turn == 1 else (3, 2, 1, 4)  # chords of the reversed loop
    hole = ellipse((1.0, 0.5), 0.2, 0.1, 0.3, 64)
    geometry = Geometry((corners[::turn], hole), (1, 7), sides)
    assert geometry.parts[-1] == 7 and set(geometry.parts) == {1, 2, 3, 4, 7}
    mesh = mesh_geometry(geometry, 0.15, np.random.default_rng(0))
    x, y = mesh.pos[mesh.facets["line"]].mean(dim=1).T
    for marker, inside in ((1, y < 1e-9), (2, x > 2 - 1e-9), (3, y > 1 - 1e-9), (4, x < 1e-9)):
        assert torch.equal(mesh.facet_markers["line"] == marker, inside)


def test_sides_must_fit_the_loop():
    with pytest.raises(InputError, match="3 sides for 4 chords"):
        Geometry(rectangle().loops, sides=(1, 2, 3))


def test_no_hole_has_its_centre_before_the_outlet():
    domain = RandomRectangle(width=3.0, num_holes=(2, 2), outlet=1.5)
    for seed in range(20):
        holes = domain.sample(np.random.default_rng(seed)).loops[1:]
        assert all((hole.min(axis=0) + hole.max(axis=0))[0] / 2 < 1.5 for hole in holes)
    with pytest.raises(InputError, match="expected 0 to the width"):
        RandomRectangle(outlet=1.0)


def test_random_rectangles_keep_their_gaps_and_markers():
    domain = RandomRectangle(width=2.0, num_holes=(3, 3))
    geometry = domain.sample(np.random.default_rng(1))
    assert geometry.parts == (BOTTOM, RIGHT, TOP, LEFT, 5, 6, 7)
    assert np.array_equal(geometry.bounds[1], [2.0, 1.0])
    alone = rectangle(2.0, 1.0)
    for loop in geometry.loops[1:]:
        assert alone.distance(loop).max() < -domain.gap
