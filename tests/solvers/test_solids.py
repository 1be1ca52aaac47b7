"""Solids and what is solved on tetrahedra; a test of the plane covers what both share."""

import numpy as np
import pytest
import torch

from cst_operator.boundary import boundary_facets
from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    Box,
    FixedDomain,
    Poisson,
    RandomBox,
    RandomSolid,
    StarBody,
    tetrahedron_quality,
)


def _bodies(number):
    rng = np.random.default_rng(number)
    return RandomSolid().sample(rng), RandomBox().sample(rng)


def _ball(direction):
    return np.ones(len(direction))


@pytest.mark.parametrize("number", range(4))
def test_meshes_of_solids_are_well_shaped_and_bounded_by_outward_facets(number):
    for body in _bodies(number):
        mesh = body.mesh(0.1, np.random.default_rng(number))
        points, cells = mesh.pos.numpy(), mesh.cells["tetra"].numpy()
        assert tetrahedron_quality(points, cells).min() > 0.25  # measured .42 and .49
        edges = np.concatenate([cells[:, [i, j]] for i in range(4) for j in range(i)])
        length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
        assert 0.08 < length.mean() < 0.13
        assert len(np.unique(cells)) == len(points)
        facets = mesh.facets["triangle"]
        assert torch.equal(facets, boundary_facets(mesh.cells)["triangle"])
        # the theorem of Gauss: outward facets enclose the volume
        a, b, c = (mesh.pos[facets[:, i]] for i in range(3))
        enclosed = float((a * torch.linalg.cross(b, c)).sum()) / 6
        assert enclosed == pytest.approx(float(mesh.weights.sum()), rel=1e-12)  # rounding
        assert set(mesh.facet_markers["triangle"].tolist()) == set(body.parts)


def test_flat_sides_keep_their_volume_and_curved_ones_gain_it_at_order_two():
    box = Box((0.5, 0.7, 1.1))
    mesh = box.mesh(0.2, np.random.default_rng(0))
    assert float(mesh.weights.sum()) == pytest.approx(box.measures["volume"], rel=1e-12)
    ball = StarBody(_ball)
    assert ball.measures["volume"] == pytest.approx(4 * np.pi / 3, rel=1e-12)
    missing = [
        4 * np.pi / 3 - float(ball.mesh(1.1 / n, np.random.default_rng(0)).weights.sum())
        for n in (4, 8)
    ]
    assert np.log2(missing[0] / missing[1]) == pytest.approx(2, abs=0.1)  # measured 1.95


def test_sides_of_a_box_have_their_markers():
    box = Box((0.5, 0.7, 1.1))
    mesh = box.mesh(0.2, np.random.default_rng(0))
    corners = mesh.pos[mesh.facets["triangle"]]
    for marker in box.parts:
        axis, end = divmod(marker - 1, 2)
        side = corners[mesh.facet_markers["triangle"] == marker][..., axis]
        assert len(side)
        assert float((side - end * box.lengths[axis]).abs().max()) < 1e-12  # rounding


def test_meshes_are_irregular_and_repeatable():
    for body in _bodies(0):
        one, two, other = (body.mesh(0.15, np.random.default_rng(n)) for n in (0, 0, 1))
        assert torch.equal(one.pos, two.pos) and torch.equal(one.cells["tetra"], two.cells["tetra"])
        assert not torch.allclose(one.pos, other.pos, atol=1e-3)


def test_a_random_body_has_the_stated_size_and_passes_through_its_boundary_nodes():
    for number in range(3):
        body = RandomSolid().sample(np.random.default_rng(number))
        mesh = body.mesh(0.1, np.random.default_rng(number))
        rim = mesh.pos[mesh.facets["triangle"].unique()].numpy()
        assert np.allclose(body.project(rim), rim, rtol=0, atol=1e-12)  # rounding
        radius = np.linalg.norm(rim - 0.5, axis=1)
        assert 0.4 < radius.max() < 0.505 and radius.max() / radius.min() > 1.05


def test_a_body_that_is_too_rough_is_an_error_that_names_seed_and_index():
    system = Poisson(domain=RandomSolid(roughness=0.6, length_scale=0.3), h=0.06)
    with pytest.raises(SolverError, match="sample 4 of seed 9 .* 3 attempts: the flattest tetra"):
        system.sample(9, 4)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Box((1.0, 0.0, 1.0)), "three positive"),
        (lambda: RandomBox(length=(1.0, 0.5)), "smallest, largest"),
        (lambda: RandomSolid(roughness=-1.0), "roughness"),
        (lambda: Box().mesh(2.0, np.random.default_rng(0)), "h is 2"),
        (lambda: StarBody(_ball).mesh(0.0, np.random.default_rng(0)), "h is 0"),
        (lambda: Poisson(domain=FixedDomain(Box()), h=-1.0).sample(0, 0), "h is -1"),
    ],
)
def test_impossible_solids_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
