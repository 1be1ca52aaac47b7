"""Residuals of differential equations are those of the answer, at points of the domain."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cst_operator._nearby import values_nearby
from cst_operator.derivatives import Derivatives, differentiate
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.physics import PhysicsLoss
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import FitConfig, fit
from tests.mesh_samples import box
from tests.model_samples import joined, tiny_model

# Sums of some hundred terms of order one, and a few nested derivatives of them.
ROUNDING = {"rtol": 0.0, "atol": 1e-11}


class Formula(torch.nn.Module):
    """A known function of the coordinates, time last where it has one."""

    def __init__(self, function, *, transient: bool = False) -> None:
        super().__init__()
        self.function = function
        self.transient = transient

    def encode(self, source: PointField, target: PointField) -> PointField:
        return source

    def _at(self, target: PointField) -> Tensor:
        return torch.cat([target.pos, target.time[:, None]], 1) if self.transient else target.pos

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return self.function(self._at(target))

    def derivatives(self, source: PointField, target: PointField, order: int = 1) -> Derivatives:
        return Derivatives(differentiate(self.function, self._at(target), order), dim=2)


class Nodal(torch.nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return self.function(target.pos)


def poisson(state) -> Tensor:
    return state.laplacian("u") + state.field("f")


def bump(x: Tensor) -> Tensor:
    return torch.sin(math.pi * x[..., :1]) * torch.sin(math.pi * x[..., 1:2])


def _example(u, f, n: int = 6, dtype=torch.float64) -> Example:
    """A manufactured solution and its forcing at the nodes of a square."""
    pos, cells = box("triangle", n, bend=0.02)
    pos = pos.to(dtype)
    weights = torch.full((len(pos),), 1 / len(pos), dtype=dtype)
    flag = torch.ones_like(pos[:, :1])
    source = PointField(pos, torch.cat([flag, f(pos)], 1), weights, channels=["flag", "f"])
    return Example(source, PointField(pos, u(pos), weights, channels=["u"], cells=cells))


def _bump(n: int = 6) -> Example:
    return _example(bump, lambda x: 2 * math.pi**2 * bump(x), n)


def test_the_residual_of_a_manufactured_solution_is_zero_at_the_nodes(generator):
    loss = PhysicsLoss(residual=poisson, at="target", num_points=0)
    got = loss(Formula(bump), _bump(), generator)
    assert got.total < 1e-11  # rounding of 2 pi^2
    few = replace(loss, num_points=7)(Formula(bump), _bump(), generator)
    assert few.terms["residual"] < 1e-11


def test_the_residual_is_zero_between_the_nodes_where_the_forcing_is_linear(generator):
    def cubic(x: Tensor) -> Tensor:
        return x[..., :1] ** 3 - x[..., 1:2] ** 3

    example = _example(cubic, lambda x: 6 * (x[:, 1:] - x[:, :1]))
    got = PhysicsLoss(residual=poisson)(Formula(cubic), example, generator)
    assert got.terms["residual"] < 1e-11
    wrong = PhysicsLoss(residual=poisson)(Formula(lambda x: 2 * cubic(x)), example, generator)
    assert wrong.terms["residual"] > 1


def test_interpolated_forcing_converges_at_second_order(generator):
    loss = PhysicsLoss(residual=poisson, num_points=2000)
    errors = [loss(Formula(bump), _bump(n), generator).terms["residual"] for n in (8, 32)]
    order = math.log(float(errors[0] / errors[1]), 4)
    assert 1.7 < order < 2.6  # nodes of the boundary fit from one side; points are random


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_the_term_is_the_mean_of_its_formula(p, generator):
    example = _bump()
    source, target = example
    target.weights = 1 + torch.rand(len(target.pos), generator=generator, dtype=torch.float64)
    loss = PhysicsLoss(
        residual=lambda s: s.u("u") - s.pos[:, 0],
        order=0,
        weight=0.3,
        at="target",
        num_points=0,
        p=p,
    )
    got = loss(Formula(bump), example)
    wrong = (bump(target.pos)[:, 0] - target.pos[:, 0]).abs().pow(p)
    wanted = ((target.weights * wrong).sum() / target.weights.sum()) ** (1 / p)
    torch.testing.assert_close(got.terms["residual"], wanted, **ROUNDING)
    data = SobolevLoss()(Formula(bump), example)
    torch.testing.assert_close(got.total, data.total + 0.3 * wanted, **ROUNDING)
    assert got.weights == {"order0": 1.0, "residual": 0.3}


def test_dummy_points_estimate_the_integral_with_the_stated_variance(generator):
    pos, _ = box("triangle", 40)
    weights = torch.full((len(pos),), 1 / len(pos), dtype=torch.float64)
    square = PointField(pos, pos[:, :1], weights, channels=["u"])
    # p = 1: no root, so no bias; the mean of x over the square is 1/2, its variance 1/12.
    loss = PhysicsLoss(residual=lambda s: s.pos[:, 0], order=0, p=1.0, num_points=16)
    model, example = Formula(lambda x: x[..., :1]), Example(square, square)
    draws = torch.stack([loss(model, example, generator).terms["residual"] for _ in range(400)])
    sigma = (1 / 12 / 16) ** 0.5
    assert abs(draws.mean() - 0.5) < 4 * sigma / 20
    assert draws.std() == pytest.approx(sigma, rel=0.15)  # four deviations of 400 draws


def test_time_derivatives_of_any_order_are_read_by_name(generator):
    def wave(x: Tensor) -> Tensor:
        turn = torch.cos(math.sqrt(2) * math.pi * x[..., 2:])
        return torch.cat([x[..., :1] * x[..., 2:] ** 2, bump(x) * turn], -1)

    pos, _ = box("triangle", 5)
    target = PointField(
        pos, torch.ones(len(pos), 2).to(pos), torch.ones(len(pos)).to(pos), channels=["v", "u"]
    )
    target.time = torch.rand(len(pos), generator=generator, dtype=torch.float64)

    def equations(s) -> Tensor:
        return torch.stack(
            [
                s.time_derivative("u", 2) - s.laplacian("u"),
                s.time_derivative("v") - 2 * s.pos[:, 0] * s.time,
                s.gradient("v")[:, 0] - s.time**2,
                s.hessian("u").diagonal(dim1=1, dim2=2).sum(1) - s.laplacian("u"),
                s.divergence("v", "u") - s.gradient("v")[:, 0] - s.gradient("u")[:, 1],
            ],
            dim=1,
        )

    got = PhysicsLoss(residual=equations)(
        Formula(wave, transient=True), Example(target, target), generator
    )
    assert got.terms["residual"] < 1e-11


def test_a_ragged_batch_gives_the_mean_over_its_samples(seed, generator):
    examples = [_bump(n) for n in (3, 5, 4)]
    model = tiny_model(seed, out_channels=1)
    loss = PhysicsLoss(residual=poisson, at="target", num_points=0)
    single = torch.stack([loss(model, example).total for example in examples]).mean()
    size = float(single.detach())
    torch.testing.assert_close(
        loss(model, joined(*examples)).total, single, rtol=0, atol=1e-12 * size
    )
    dummies = PhysicsLoss(residual=poisson, num_points=5)
    draws = [
        dummies(model, joined(*examples), torch.Generator().manual_seed(seed)).terms["residual"]
        for _ in range(2)
    ]
    assert draws[0] == draws[1] > 0


def test_models_with_values_alone_are_differentiated_through_the_mesh():
    def linear(x: Tensor) -> Tensor:
        return 3 * x[..., :1] - 2 * x[..., 1:2]

    example = _example(linear, linear)
    loss = PhysicsLoss(
        residual=lambda s: s.gradient("u").sum(1) - 1 + s.laplacian("u"), at="target", num_points=0
    )
    assert loss(Nodal(linear), example).terms["residual"] < 1e-10  # nested mesh gradients
    with torch.no_grad():
        assert loss(Nodal(lambda x: 2 * linear(x)), example).terms["residual"] > 0.5
    with pytest.raises(FieldError, match='at="target" and num_points=0'):
        PhysicsLoss(residual=poisson)(Nodal(linear), example)


def test_each_sample_of_a_batch_may_have_a_time_of_its_own(generator):
    def linear(x: Tensor) -> Tensor:
        return 3 * x[..., :1] - 2 * x[..., 1:2]

    examples = [_example(linear, linear, n) for n in (3, 4)]
    for time, example in zip((0.1, 0.3), examples, strict=True):
        example.target.time = torch.full_like(example.target.time, time)
    loss = PhysicsLoss(
        residual=lambda s: s.gradient("u").sum(1) - 1, order=1, at="target", num_points=0
    )
    assert loss(Nodal(linear), joined(*examples)).terms["residual"] < 1e-10  # mesh gradients
    several = examples[1].target
    several.time = torch.rand(several.time.shape, generator=generator, dtype=torch.float64)
    with pytest.raises(FieldError, match="in one frame"):
        loss(Nodal(linear), joined(*examples))


def test_an_equation_alone_is_learnt_where_the_data_are_zero():
    example = _example(lambda x: 0 * x[:, :1], lambda x: 2 * math.pi**2 * bump(x))
    loss = PhysicsLoss(
        residual=poisson, at="target", num_points=0, data=SobolevLoss(weights=(0.0,))
    )
    loss.check(example)
    got = loss(Formula(lambda x: 2 * bump(x)), example)
    assert set(got.terms) == {"residual"}
    assert 1 < got.total < 20


def test_a_model_with_derivatives_needs_no_method_that_encodes():
    model = Formula(bump)
    wanted = PhysicsLoss(residual=poisson, at="target", num_points=0)(model, _bump()).total
    model.encode = None
    got = PhysicsLoss(residual=poisson, at="target", num_points=0)(model, _bump()).total
    assert torch.equal(got, wanted)


def test_a_place_that_is_known_in_many_frames_is_known_once():
    slope = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    pos, _ = box("triangle", 4, bend=0.02)
    every = pos.repeat(12, 1)
    frames = PointField(every, every @ slope, time=torch.arange(12.0).repeat_interleave(len(pos)))
    once = PointField(pos, pos @ slope)
    asked = PointField(pos[:-1] * 0.7 + 0.3 * pos[1:])
    torch.testing.assert_close(values_nearby(frames, asked), values_nearby(once, asked), **ROUNDING)
    both = joined(Example(frames, asked), Example(once, asked))
    torch.testing.assert_close(values_nearby(*both), (asked.pos @ slope).repeat(2, 1), **ROUNDING)


def test_training_lowers_the_residual(seed):
    examples = [_example(bump, lambda x: 2 * math.pi**2 * bump(x), 4, torch.float32)] * 2
    loss = PhysicsLoss(
        residual=poisson, at="target", num_points=12, data=SobolevLoss(weights=(0.0,))
    )
    model = tiny_model(seed, out_channels=1, depth=1).float()
    config = FitConfig(steps=25, batch_size=2, lr=3e-3, muon_lr=0, ema=0.0, log_every=5)
    run = fit(model, examples, loss=loss, config=config, progress=False)
    first, *_, last = (record["terms"]["residual"] for record in run.history)
    assert last < 0.5 * first


def test_samples_between_points_are_exact_at_the_points_and_for_linear_fields(generator):
    slope = torch.tensor([[2.0, 0.0], [-1.0, 3.0]], dtype=torch.float64)
    pos, _ = box("triangle", 6, bend=0.02)
    field = PointField(pos, pos @ slope)
    asked = PointField(torch.rand(40, 2, generator=generator, dtype=torch.float64))
    got = values_nearby(field, asked)
    torch.testing.assert_close(got, asked.pos @ slope, **ROUNDING)
    rough = PointField(pos, torch.randn(field.u.shape, generator=generator).double())
    torch.testing.assert_close(values_nearby(rough, field), rough.u, rtol=0, atol=0)
    # Fewer points than neighbours, and points on a line.
    few = PointField(torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double(), torch.eye(2).double())
    middle = PointField(torch.tensor([[0.25, 0.0]]).double())
    torch.testing.assert_close(
        values_nearby(few, middle), torch.tensor([[0.75, 0.25]]).double(), **ROUNDING
    )
    both = joined(Example(few, middle), Example(field, asked)).source
    several = joined(Example(middle, middle), Example(asked, asked)).source
    torch.testing.assert_close(values_nearby(both, several)[1:], got, **ROUNDING)


def test_what_a_residual_asks_for_and_is_not_known_is_named():
    example, model = _bump(), Formula(bump)

    def run(residual, **settings) -> None:
        PhysicsLoss(residual=residual, at="target", num_points=0, **settings)(model, example)

    with pytest.raises(FieldError, match="no channel 'g', only flag, f; add it to the inputs"):
        run(lambda s: s.field("g"))
    with pytest.raises(FieldError, match="the answer has no channel 'w', only u"):
        run(lambda s: s.u("w"))
    with pytest.raises(ValueError, match="order 2 were not computed; ask for .*order=2"):
        run(poisson, order=1)
    with pytest.raises(ValueError, match="no time coordinate"):
        run(lambda s: s.time_derivative("u", 2))
    with pytest.raises(FieldError, match="2 dimensions needs 2 channels, got u"):
        run(lambda s: s.divergence("u"))
    with pytest.raises(FieldError, match="expected one row for each of the 49 points"):
        run(lambda s: s.u("u").mean())


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"order": -1}, "order is -1; expected zero or more"),
        ({"p": 0.5}, "p is 0.5; a norm needs at least 1"),
        ({"weight": -1.0}, "must not be negative"),
        ({"at": "nodes"}, "expected 'dummies' or 'target'"),
        ({"num_points": 0}, "at least one dummy point"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        PhysicsLoss(residual=poisson, **settings)


def test_a_loss_is_described_without_addresses():
    loss = PhysicsLoss(residual=poisson, weight=0.5)
    assert repr(loss).startswith(f"PhysicsLoss(residual={__name__}.poisson, order=2, weight=0.5")
    assert " at 0x" not in repr(PhysicsLoss(residual=lambda s: s.u("u")))
