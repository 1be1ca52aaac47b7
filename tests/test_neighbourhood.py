"""Averages over a neighbourhood: smooth, of compact support, defined everywhere."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from cst_operator.fields import PointField
from cst_operator.nn import LocalAverage, bump
from tests.mesh_samples import box
from tests.model_samples import known_field, queries_in, tiny_model

KEYS = ("pos", "u", "weights", "time")


def _average(radius: float, width: int = 3) -> LocalAverage:
    """A layer that adds the average as it is."""
    layer = LocalAverage(width, radius).double()
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(width))
    return layer


def _points(generator: torch.Generator, n: int, dim: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, places in the box from -1 to 1 and logarithms of shares."""
    h = torch.randn(1, n, 3, generator=generator, dtype=torch.float64)
    s = 2 * torch.rand(1, n, dim, generator=generator, dtype=torch.float64) - 1
    w = 0.2 + torch.rand(1, n, generator=generator, dtype=torch.float64)
    return h, s, (w / w.sum()).log()


@torch.no_grad()
def _read(layer: LocalAverage, at: Tensor, *points: Tensor) -> Tensor:
    """The average alone, [B, M, width]."""
    return layer(at.new_zeros(*at.shape[:2], 3), at, *points)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_average_is_the_formula_of_its_docstring(dim, generator):
    h, s, log_weights = _points(generator, 30, dim)
    at, radius = s[:, :4] + 0.01, 0.7
    got = _read(_average(radius), at, h, s, log_weights)[0]
    for q, found in zip(at[0], got, strict=True):
        above, below = torch.zeros_like(found), 0.04 * (radius / 2) ** dim
        for place, token, weight in zip(s[0], h[0], log_weights[0].exp(), strict=True):
            r = float((q - place).norm()) / radius
            if r < 1:
                above += weight * 2 ** (-1 / (1 - r**2)) * token
                below += float(weight) * 2 ** (-1 / (1 - r**2))
        torch.testing.assert_close(found, above / below)


def test_points_beyond_the_radius_have_no_part_in_it(generator):
    h, s, log_weights = _points(generator, 200)
    at = torch.zeros(1, 1, 2, dtype=torch.float64)
    far = (s.norm(dim=-1, keepdim=True) > 0.5).double()
    assert 0 < far.mean() < 1
    layer = _average(0.5)
    assert torch.equal(
        _read(layer, at, h, s, log_weights), _read(layer, at, h + 9 * far, s, log_weights)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_place_without_neighbours_gets_nothing_and_has_derivatives(dtype, generator):
    h, s, log_weights = (x.to(dtype) for x in _points(generator, 20))
    layer = _average(0.1).to(dtype)
    at = torch.tensor([[[5.0, 5.0]]], dtype=dtype)

    def read(at: Tensor) -> Tensor:
        return layer(torch.ones_like(h[:, :1]), at, h, s, log_weights)

    assert read(at).eq(1).all()
    assert jacfwd(read)(at).eq(0).all()
    assert jacfwd(jacfwd(read))(at).eq(0).all()
    found = layer(torch.ones_like(h[:, :1]), at, h, s, log_weights)
    (slope,) = torch.autograd.grad(found.sum(), layer.out.weight)
    assert slope.eq(0).all()


def test_in_a_full_neighbourhood_a_constant_is_nearly_kept():
    pos, _ = box("triangle", 40)
    s = 2 * pos[None] - 1
    even = torch.full(s.shape[:2], -math.log(len(pos)), dtype=torch.float64)
    got = _read(
        _average(0.3), torch.zeros_like(s[:, :1]), torch.ones_like(s[..., [0, 0, 0]]), s, even
    )
    # The mean of the bump over the disk is .238, its area pi R^2 / 4 of the box: of the constant is
    # left 1 / (1 + .04 / (.238 pi)).
    torch.testing.assert_close(got, torch.full_like(got, 0.949), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bump_has_every_derivative_also_at_its_rim(dtype):
    def along(r: Tensor) -> Tensor:
        return bump(r.square())

    r = torch.tensor([0.0, 0.5, 1 - 1e-3, 1 - 1e-4, 1.0, 1 + 1e-6, 1.5], dtype=dtype)
    function = along
    for order in range(5):
        values = torch.stack([function(x) for x in r])
        assert values.isfinite().all()
        assert values[3:].eq(0).all()  # 2 to the power of -5,000 and less
        if order % 2:
            assert values[0] == 0  # even about the middle
        function = jacfwd(function)
    assert bump(r[:1]) == 0.5


def test_derivatives_of_the_bump_agree_with_finite_differences():
    r = torch.linspace(-1.2, 1.2, 201, dtype=torch.float64)
    step = 1e-4
    slope = torch.func.vmap(jacfwd(lambda x: bump(x.square())))
    stencil = (bump((r + step) ** 2) - bump((r - step) ** 2)) / (2 * step)
    # A stencil of second order, with third derivatives of some hundred.
    torch.testing.assert_close(slope(r), stencil, rtol=0, atol=1e-5)


def test_splitting_a_point_changes_no_average(generator):
    h, s, log_weights = _points(generator, 20)
    at = s[:, :5] + 0.05
    half = log_weights.clone()
    half[:, 0] -= math.log(2)
    twice = [torch.cat([x, x[:, :1]], dim=1) for x in (h, s, half)]
    layer = _average(0.8)
    torch.testing.assert_close(_read(layer, at, *twice), _read(layer, at, h, s, log_weights))


def test_the_average_converges_when_the_points_are_refined():
    def read(n: int) -> Tensor:
        pos, _ = box("triangle", n)
        s = 2 * pos[None] ** 1.5 - 1  # graded
        weight = pos.prod(dim=1).sqrt()[None]  # of the volume, up to a constant
        inner = ((pos > 0) & (pos < 1)).double().sum(1)[None]  # the trapezoidal rule
        weight = weight * 2.0 ** (inner - 2) + 1e-300
        h = torch.stack([s[..., 0].sin(), s.prod(-1), s[..., 1] ** 2], dim=-1)
        at = torch.tensor([[[0.1, -0.2], [-0.9, 0.8], [1.0, 1.0]]], dtype=torch.float64)
        return _read(_average(0.5), at, h, s, (weight / weight.sum()).log())

    coarse, middle, fine = (read(n) for n in (20, 40, 80))
    assert (fine - middle).norm() < 0.4 * (middle - coarse).norm()  # 0.25 at second order
    assert (fine - middle).norm() < 1e-2


def test_thinned_samples_have_the_shares_of_those_that_are_all_kept(seed, generator):
    # Every point twice: as many anchors as places are one of each.
    model = tiny_model(
        seed, anchors=5, aggregate_at_queries=True, aggregation_radius=0.4, interpolant_points=14
    )
    once = known_field(generator, 14)
    once.weights = torch.ones_like(once.weights)
    twice = PointField(**{key: once[key].repeat(2, *(1,) * (once[key].dim() - 1)) for key in KEYS})
    at = queries_in(generator, 9)
    torch.testing.assert_close(model(twice, at), model(once, at), rtol=0, atol=1e-12)  # sums


def test_neither_value_nor_gradient_jumps_where_a_neighbour_enters(seed, generator):
    radius, gap = 0.5, 1e-9
    model = tiny_model(seed, anchors=12, aggregate_at_queries=True, aggregation_radius=radius)
    source = known_field(generator, 20)
    angle = 6 * torch.rand(20, 1, generator=generator, dtype=torch.float64)
    way = torch.cat([angle.cos(), angle.sin()], dim=1)
    reach = radius * model.normalization.pos_scale
    here, there = (
        model.derivatives(source, PointField(pos=source.pos + (reach + side * gap) * way), order=3)
        for side in (-1, 1)
    )
    for k in range(3):
        jump = (there.order(k) - here.order(k)).abs().max()
        slope = here.order(k + 1).flatten(2).norm(dim=-1).max()
        # A smooth function changes by at most slope times distance; rounding adds 1e-13 or so.
        assert jump <= 1.01 * 2 * gap * slope + 1e-11 * here.order(k).abs().max()
    # It does matter: with a larger radius other points are near.
    other = tiny_model(seed, anchors=12, aggregate_at_queries=True, aggregation_radius=2 * radius)
    at = PointField(pos=source.pos)
    assert (other(source, at) - model(source, at)).abs().max() > 1e-3
