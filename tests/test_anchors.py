"""Anchors stand for equal shares of a measure, whatever the points are called."""

import math

import pytest
import torch

from cst_operator.nn import HilbertCurve, choose_anchors
from tests.mesh_samples import box


def _cloud(n: int, dim: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    s = 2 * torch.rand(1, n, dim, generator=generator, dtype=torch.float64) - 1
    w = 0.2 + torch.rand(1, n, generator=generator, dtype=torch.float64)
    return s, (w / w.sum()).log()


def _chosen(
    s: torch.Tensor, log_weights: torch.Tensor, count: int, offset: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    return choose_anchors(HilbertCurve(s.shape[-1]), s, log_weights, count, offset)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_a_hilbert_curve_visits_every_cell_of_a_lattice_and_goes_from_neighbour_to_neighbour(dim):
    n = 4
    cells = torch.cartesian_prod(*[torch.arange(n)] * dim).reshape(-1, dim)
    index = HilbertCurve(dim)((cells + 0.5) / n * 8 - 4)
    assert len(index.unique()) == n**dim
    way = cells[index.argsort()].diff(dim=0).abs().sum(1)
    assert way.eq(1).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_quadrant_has_its_share_of_the_anchors(dim, generator):
    s, log_weights = _cloud(4000, dim, generator)
    s = torch.sign(s) * s.square()  # graded towards the middle
    index, shares = _chosen(s, log_weights, 64)
    assert shares.eq(0).all()  # equal ones
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * dim).reshape(-1, dim):
        inside = (s[0] * signs > 0).all(1)
        share = log_weights[0][inside].exp().sum()
        # The curve enters and leaves a quadrant once: at both ends a part of a piece.
        assert abs(inside[index[0]].sum() - 64 * share) <= 2


def test_anchors_do_not_depend_on_the_order_of_the_points(generator):
    s, log_weights = _cloud(500, 2, generator)
    order = torch.randperm(500, generator=generator)
    index, _ = _chosen(s, log_weights, 40)
    mixed, _ = _chosen(s[:, order], log_weights[:, order], 40)
    torch.testing.assert_close(order[mixed[0]], index[0])


def test_anchors_have_a_limit_under_refinement():
    def places(n: int) -> torch.Tensor:
        pos, _ = box("triangle", n)
        # No symmetry: on a symmetric mesh half a piece may end where the curve jumps.
        s = 1.9 * pos**1.5 - 0.83
        weight = pos.prod(dim=1).sqrt() + 1e-9
        index, _ = _chosen(s[None], (weight / weight.sum()).log()[None], 16)
        return s[index[0]]

    coarse, middle, fine = (places(n) for n in (24, 96, 384))
    assert (fine - middle).norm() < 0.5 * (middle - coarse).norm()
    assert (fine - middle).norm(dim=1).mean() < 0.1


@pytest.mark.parametrize("count", [40, 41])
def test_a_sample_with_no_more_points_keeps_them_all_in_any_batch(count, generator):
    s, log_weights = _cloud(40, 2, generator)
    index, shares = _chosen(s, log_weights, count)
    torch.testing.assert_close(index[0], torch.arange(40))
    torch.testing.assert_close(shares, log_weights)
    padded = torch.nn.functional.pad(s, (0, 0, 0, 30))
    more = torch.nn.functional.pad(log_weights, (0, 30), value=-1e4)
    index, shares = _chosen(padded, more, count)
    kept = shares[0] > math.log(1e-6)
    torch.testing.assert_close(index[0][kept], torch.arange(40))
    torch.testing.assert_close(shares[0][kept], log_weights[0])


def test_the_offset_moves_anchors_within_their_pieces(generator):
    s, log_weights = _cloud(4000, 1, generator)
    first, last = (s[0, _chosen(s, log_weights, 10, offset)[0][0], 0] for offset in (0.1, 0.9))
    # In one dimension the curve is the line itself, so every piece is an interval.
    assert (first < last).all()
    assert (last[:-1] < first[1:]).all()
