"""The Sobolev loss is the norm it says, for any model and any batch."""

import pytest
import torch
from torch import Tensor, nn

from cst_operator.derivatives import Derivatives, differentiate
from cst_operator.dummies import Dummies
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.sobolev import SobolevLoss
from tests.mesh_samples import box
from tests.model_samples import joined, known_field, tiny_model

# Sums of some hundred terms of order one in another order.
SUMS = {"rtol": 1e-12, "atol": 1e-12}


class Formula(nn.Module):
    """A known function of the coordinate, with the interface of an exact model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def encode(self, source: PointField, target: PointField) -> PointField:
        return source

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return self.function(target.pos)

    def derivatives(self, source: PointField, target: PointField, order: int = 1) -> Derivatives:
        tensors = differentiate(self.function, target.pos, order)
        return Derivatives(tensors, dim=target.pos.shape[1])


class Bare(Formula):
    """The same without a method that encodes."""

    encode = None


class Nodal(nn.Module):
    """The same with values alone."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return self.function(target.pos)


def _target(generator, num_points: int = 30, *, transient: bool = False) -> PointField:
    """Random values with random known derivatives."""
    field = known_field(generator, num_points, transient=transient)
    gradient = torch.randn(num_points, 2, 2, generator=generator, dtype=torch.float64)
    rate = torch.randn(num_points, 2, generator=generator, dtype=torch.float64)
    return field.with_values(
        field.u, gradient=gradient, time_derivative=rate if transient else None
    )


def _square(generator, n: int, slope: Tensor) -> PointField:
    """A linear field on a triangulated unit square, with random weights."""
    pos, cells = box("triangle", n, bend=0.02)
    w = 0.2 + torch.rand(len(pos), generator=generator, dtype=pos.dtype)
    return PointField(pos=pos, u=pos @ slope + 1, weights=w, cells=cells)


SLOPE = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=torch.float64)  # [d, c]


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("transient", [False, True])
def test_loss_is_the_formula_of_its_docstring(p, relative, transient, seed, generator):
    model = tiny_model(seed, transient=transient)
    source = known_field(generator, 20, transient=transient)
    target = _target(generator, transient=transient)
    loss = SobolevLoss(order=1, p=p, relative=relative, weights=(2.0, 0.3))
    got = loss(model, Example(source, target))
    answer = model.derivatives(source, target)
    slope, wanted_slope = answer.gradient, target.gradient
    if transient:
        slope = torch.cat([slope, answer.time_derivative[..., None]], -1)
        wanted_slope = torch.cat([wanted_slope, target.time_derivative[..., None]], -1)
    total = 0.0
    for weight, name, have, want in (
        (2.0, "order0", answer.u, target.u),
        (0.3, "order1", slope, wanted_slope),
    ):
        over = under = torch.zeros((), dtype=torch.float64)
        for i in range(target.num_points):
            over = over + target.weights[i] * (have[i] - want[i]).abs().pow(p).sum()
            under = under + target.weights[i] * want[i].abs().pow(p).sum()
        norm = (over / under if relative else over) ** (1 / p)
        torch.testing.assert_close(got.terms[name], norm, **SUMS)
        total = total + weight * norm
    torch.testing.assert_close(got.total, total, **SUMS)


def test_space_time_orders_and_channels_are_terms_of_their_own(seed, generator):
    model = tiny_model(seed, transient=True)
    source = known_field(generator, 20, transient=True)
    target = _target(generator, transient=True)
    loss = SobolevLoss(
        order=1,
        powers=(1.0, 3.0),
        weights=(2.0, 0.3),
        time_weights=(0.7,),
        channel_weights=(1.0, 5.0),
    )
    got = loss(model, Example(source, target))
    answer = model.derivatives(source, target)
    total = 0.0
    for weight, name, p, have, want in (
        (2.0, "order0", 1.0, answer.u, target.u),
        (0.3, "order1", 3.0, answer.gradient, target.gradient),
        (0.7, "time1", 3.0, answer.time_derivative, target.time_derivative),
    ):
        for c, factor in enumerate((1.0, 5.0)):
            over, under = (
                (target.weights * v[:, c].reshape(30, -1).abs().pow(p).sum(1)).sum()
                for v in (have - want, want)
            )
            key = f"{name}[u{c}]"
            torch.testing.assert_close(got.terms[key], (over / under) ** (1 / p), **SUMS)
            assert got.weights[key] == weight * factor
            total = total + weight * factor * got.terms[key]
    torch.testing.assert_close(got.total, total, **SUMS)


def test_smoothing_in_time_is_a_term_of_its_own(seed, generator):
    model = tiny_model(seed, transient=True)
    field = known_field(generator, 20, transient=True)

    def terms(**settings):
        loss = SobolevLoss(relative=False, smoothing=(0.1, 0.1), **settings)
        return loss(model, Example(field, field), torch.Generator().manual_seed(seed)).terms

    together, apart = terms(), terms(time_smoothing=(0.2, 0.2))
    for q in (1, 2):
        space, time = apart[f"smoothing{q}"], apart[f"time_smoothing{q}"]
        assert min(space, time) > 1e-3
        torch.testing.assert_close((space**2 + time**2).sqrt(), together[f"smoothing{q}"], **SUMS)


def test_derivatives_of_one_channel_through_the_mesh_are_terms_of_their_own(generator):
    square = _square(generator, 4, SLOPE)
    factor = torch.tensor([3.0, 1.0], dtype=torch.float64)
    model = Nodal(lambda x: (x @ SLOPE) * factor)
    loss = SobolevLoss(order=1, channel_weights=(1.0, 1.0))
    got = loss(model, Example(square, square)).terms
    torch.testing.assert_close(got["order1[u0]"], torch.tensor(2.0).double(), **SUMS)
    assert got["order1[u1]"] < 1e-12


def test_the_second_order_term_of_a_known_function(generator):
    square = _square(generator, 4, SLOPE)
    model = Formula(lambda x: torch.cat([x[..., :1] ** 2, x[..., :1] * x[..., 1:]], -1))
    got = SobolevLoss(order=2, relative=False)(model, Example(square, square)).terms["order2"]
    # The data is linear: its second derivatives are zero. The model's are 2, and 1 twice.
    wanted = (square.weights.sum() * (2**2 + 1 + 1)).sqrt()
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=0)  # nested nodal gradients round


def test_models_without_derivatives_are_differentiated_through_the_mesh(generator):
    square = _square(generator, 4, SLOPE)
    loss = SobolevLoss(order=1)
    got = loss(Nodal(lambda x: 3 * (x @ SLOPE)), Example(square, square)).terms
    # Gradients of linear functions are exact on a mesh: three times as large, off by two.
    torch.testing.assert_close(got["order1"], torch.tensor(2.0).double(), **SUMS)


@pytest.mark.parametrize("kind", ["exact", "nodal", "formula"])
@pytest.mark.parametrize("order", [0, 1])
def test_a_ragged_batch_gives_the_mean_over_its_samples(kind, order, seed, generator):
    squares = [_square(generator, n, SLOPE * n) for n in (2, 4, 3)]
    model = {
        "exact": tiny_model(seed),
        "nodal": Nodal(torch.sin),
        "formula": Formula(torch.sin),
    }[kind]
    loss = SobolevLoss(order=order, p=3.0)
    examples = [Example(square, square) for square in squares]
    single = torch.stack([loss(model, example).total for example in examples]).mean()
    torch.testing.assert_close(loss(model, joined(*examples)).total, single, **SUMS)


def test_splitting_a_target_point_changes_nothing(generator):
    target = _target(generator)
    index = torch.cat([torch.arange(30), torch.tensor([4])])
    twice = PointField(
        **{key: target[key][index] for key in ("pos", "u", "weights", "time", "gradient")}
    )
    loss, model = SobolevLoss(order=1), Formula(torch.sin)
    unbalanced = loss(model, Example(twice, twice)).total
    twice.weights[[4, 30]] /= 2
    whole = loss(model, Example(target, target)).total
    torch.testing.assert_close(loss(model, Example(twice, twice)).total, whole, **SUMS)
    assert abs(unbalanced - whole) > 1e-4


def test_random_points_estimate_the_integral(generator):
    targets = [_target(generator, n) for n in (30, 11)]
    batch = joined(*(Example(t, t) for t in targets))
    model = Formula(torch.sin)
    # Without the root (p = 1) the estimate has no bias.
    whole = SobolevLoss(order=1, p=1.0, relative=False)(model, batch).terms["order1"]
    few = SobolevLoss(order=1, p=1.0, relative=False, num_points=8)
    draws = torch.stack([few(model, batch, generator).terms["order1"] for _ in range(400)])
    sigma = draws.std() / 400**0.5
    assert abs(draws.mean() - whole) < 4 * sigma
    assert sigma < 0.02 * whole


def test_random_points_that_miss_a_local_feature_do_not_blow_up_the_loss(generator):
    def pulse(x: Tensor) -> Tensor:
        return torch.exp(-200 * x.square().sum(-1, keepdim=True))

    pos = 2 * torch.rand(1000, 2, generator=generator, dtype=torch.float64) - 1
    weights = torch.full((1000,), 0.004, dtype=torch.float64)
    values, slope = differentiate(pulse, pos, 1)
    target = PointField(pos, values, weights, gradient=slope)
    model = Formula(lambda x: pulse(x) + 0.01 * x[..., :1])
    few = SobolevLoss(order=1, num_points=16)
    draws = [few(model, Example(target, target), generator).terms["order1"] for _ in range(60)]
    whole = SobolevLoss(order=1, num_points=0)(model, Example(target, target)).terms["order1"]
    # The error is the same everywhere, so that a term is at most the root of 100 times too large.
    torch.testing.assert_close(max(draws), 10 * whole, rtol=1e-10, atol=0)


def test_small_samples_are_integrated_over_all_their_points(generator):
    targets = [_target(generator, n) for n in (30, 11)]
    batch, model = joined(*(Example(t, t) for t in targets)), Formula(torch.sin)
    whole = SobolevLoss(order=1, num_points=0)(model, batch).total
    assert torch.equal(SobolevLoss(order=1, num_points=21)(model, batch).total, whole)
    assert not torch.equal(SobolevLoss(order=1, num_points=20)(model, batch).total, whole)


def test_random_points_of_a_target_with_cells_take_its_mesh_gradient(generator):
    square = _square(generator, 4, SLOPE)
    loss = SobolevLoss(order=1, num_points=5)
    got = loss(Formula(lambda x: 3 * (x @ SLOPE)), Example(square, square), generator)
    torch.testing.assert_close(got.terms["order1"], torch.tensor(2.0).double(), **SUMS)


@pytest.mark.parametrize("volume", [1.0, 50.0])
def test_smoothing_is_a_ratio_of_means(volume, generator):
    target = known_field(generator, 30)
    target.weights *= volume
    got = SobolevLoss(smoothing=(1.0,))(
        Formula(lambda x: x @ SLOPE), Example(target, target), generator
    )
    share = target.weights / target.weights.sum()
    wanted = (SLOPE.square().sum() / (share @ target.u.square()).sum()).sqrt()
    torch.testing.assert_close(got.terms["smoothing1"], wanted, **SUMS)
    absolute = SobolevLoss(smoothing=(1.0,), relative=False)(
        Formula(lambda x: x @ SLOPE), Example(target, target), generator
    )
    torch.testing.assert_close(absolute.terms["smoothing1"], SLOPE.square().sum().sqrt(), **SUMS)


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("form", ["operator", "joint"])
def test_smoothing_is_positive_unless_the_answer_is_constant(form, transient, seed, generator):
    model = tiny_model(seed, form=form, transient=transient)
    example = Example(
        known_field(generator, 20, transient=transient),
        known_field(generator, 30, transient=transient),
    )
    loss = SobolevLoss(weights=(0.0,), smoothing=(0.1, 0.01), num_dummies=8)

    def total(seed: int) -> Tensor:
        return loss(model, example, torch.Generator().manual_seed(seed)).total

    first = total(seed)
    assert first > 1e-3
    torch.testing.assert_close(total(seed), first, rtol=0, atol=0)
    assert total(seed + 1) != first
    with torch.no_grad():
        model.read_out[-1].weight.zero_()
    assert total(seed) < 1e-12


def test_dummy_points_lie_near_the_points_and_between_the_times(generator):
    pos, _ = box("triangle", 8)
    frames = [
        PointField(pos=pos, weights=torch.full((81,), 1 / 81).double(), time=torch.full((81,), t))
        for t in (2.0, 2.5, 4.0)
    ]
    moving = PointField(
        pos=pos.repeat(3, 1),
        weights=torch.cat([f.weights * w for f, w in zip(frames, (0.25, 1.0, 0.75), strict=True)]),
        time=torch.cat([f.time for f in frames]).double(),
    )
    dummies = Dummies().draw(moving, moving, 500, generator)
    assert 2 <= float(dummies.time.min()) < 2.2
    assert 3.8 < float(dummies.time.max()) <= 4
    cell = 0.125  # a weight is about a cell's area: shifts stay within one cell
    assert float(dummies.pos.min()) >= -cell
    assert float(dummies.pos.max()) <= 1 + cell
    assert float(torch.cdist(dummies.pos, pos).amin(1).max()) > 0.2 * cell
    still = Dummies().draw(frames[1], frames[1], 50, generator)
    assert torch.equal(still.time, torch.full((50,), 2.5).double())


def test_dummy_points_stay_near_points_that_each_have_a_time_of_their_own(generator):
    pos = torch.rand(400, 2, generator=generator, dtype=torch.float64)
    weights = torch.full((400,), 3 / 400, dtype=torch.float64)
    time = 3 * torch.rand(400, generator=generator, dtype=torch.float64)
    apart = PointField(pos, weights=weights, time=time)
    near = Dummies().draw(apart, apart, 500, generator)
    # A weight is the area of a square of side 1 / 20 times the time.
    assert float(torch.cdist(near.pos, pos).amin(1).max()) <= 0.05 * 2**0.5 / 2
    outside = (near.pos < -0.025) | (near.pos > 1.025)
    assert not bool(outside.any())


@pytest.mark.parametrize(
    "dummies",
    [Dummies(), Dummies(density="points"), Dummies(near="distance")],
    ids=lambda dummies: f"{dummies.density}-{dummies.near}",
)
def test_dummy_points_of_every_density_estimate_the_same_integral(dummies, generator):
    squares = []
    for n in (8, 12):
        pos, _ = box("triangle", n, bend=0.02)
        away = torch.minimum(pos, 1 - pos).amin(1, keepdim=True)
        weights = 0.2 + torch.rand(len(pos), generator=generator, dtype=pos.dtype)
        squares.append(PointField(pos, away, weights, channels=["distance"]))
    batch = joined(*(Example(square, square) for square in squares))
    draws = torch.stack(
        [
            (points.weights * points.pos[:, 0]).view(2, -1).sum(1)
            for points in (dummies.draw(*batch, 20, generator) for _ in range(300))
        ]
    )
    wanted = torch.stack([(square.weights * square.pos[:, 0]).sum() for square in squares])
    sigma = draws.std(0) / 300**0.5
    # Weights are random, so volumes are not the cells': a cell's width of bias is allowed.
    assert bool(((draws.mean(0) - wanted).abs() < 4 * sigma + 1e-3 * wanted).all())
    assert bool((sigma < 0.05 * wanted).all())


def test_dummy_points_may_be_drawn_near_the_boundary_or_where_the_mesh_is_fine(generator):
    pos, _ = box("triangle", 20)
    away = torch.minimum(pos, 1 - pos).amin(1, keepdim=True)
    fine = torch.where(pos[:, 0] < 0.5, 0.1, 1.9).to(pos)  # small weights: many points there
    square = PointField(pos, away, torch.full_like(fine, 1 / 441), channels=["distance"])
    graded = PointField(pos, away, fine / 441, channels=["distance"])

    def share(dummies: Dummies, field: PointField, where) -> float:
        found = dummies.draw(field, field, 2000, generator)
        return float(where(found.pos).double().mean())

    def outer(x: Tensor) -> Tensor:
        return torch.minimum(x, 1 - x).amin(1) < 0.1

    def left(x: Tensor) -> Tensor:
        return x[:, 0] < 0.5

    # The frame of width .1 has 36 % of the square, and with equal weights, also at its edge, 45 %
    # of the points; the density there is several times larger.
    assert 0.3 < share(Dummies(), square, outer) < 0.5
    assert share(Dummies(near="distance"), square, outer) > 0.65
    assert share(Dummies(), graded, left) < 0.1
    assert share(Dummies(density="points"), graded, left) == pytest.approx(0.5, abs=0.06)
    with pytest.raises(FieldError, match="near 'wall', which the source does not have, only dist"):
        Dummies(near="wall").draw(square, square, 5, generator)
    with pytest.raises(ConfigError, match="expected 'volume' or 'points'"):
        Dummies(density="uniform")


@pytest.mark.parametrize("form", ["operator", "joint"])
def test_gradients_reach_every_parameter(form, seed, generator):
    model = tiny_model(seed, form=form)
    example = Example(known_field(generator, 20), _target(generator))
    SobolevLoss(order=1, smoothing=(0.1,))(model, example, generator).total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_loss_falls_along_its_gradient_as_fast_as_the_gradient_says(seed, generator):
    model = tiny_model(seed)
    example = Example(known_field(generator, 20), _target(generator))
    loss = SobolevLoss(order=1)
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(loss(model, example).total, parameters)

    def at(step: float) -> float:
        with torch.no_grad():
            for p, g in zip(parameters, slopes, strict=True):
                p += step * g
            value = float(loss(model, example).total)
            for p, g in zip(parameters, slopes, strict=True):
                p -= step * g
        return value

    square = float(sum(g.square().sum() for g in slopes))
    h = 1e-5 / square**0.5
    # Central differences: errors of h^2, and rounding 1e-16/h.
    assert (at(h) - at(-h)) / (2 * h) == pytest.approx(square, rel=1e-5)


def test_the_loss_works_without_gradients(seed, generator):
    model = tiny_model(seed)
    example = Example(known_field(generator, 20), _target(generator))
    loss = SobolevLoss(order=1)
    with torch.no_grad():
        quiet = loss(model, example).total
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, loss(model, example).total.detach(), **SUMS)


def test_an_exact_answer_has_no_loss_and_a_finite_gradient(generator):
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    square = _square(generator, 3, SLOPE)
    got = SobolevLoss(order=1)(Formula(lambda x: scale * (x @ SLOPE + 1)), Example(square, square))
    assert float(got.total.detach()) < 1e-12
    got.total.backward()
    assert bool(scale.grad.isfinite())


def test_a_term_of_weight_zero_is_left_out_also_where_it_is_not_defined(seed, generator):
    model = tiny_model(seed, in_names=("u0", "u1"))
    target = _target(generator)
    target.gradient = torch.zeros_like(target.gradient)
    target.u[:, 1] = 0
    example = Example(known_field(generator, 20), target)
    loss = SobolevLoss(
        order=1, weights=(1.0, 0.0), smoothing=(0.0,), channel_weights=(2.0, 0.0), num_dummies=4
    )
    got = loss(model, example, generator)
    assert set(got.terms) == set(got.weights) == {"order0[u0]"}
    assert bool(got.total.isfinite())
    none = SobolevLoss(weights=(0.0,))(model, example)
    assert none.total == 0 and none.terms == {}


def test_a_steady_model_learns_derivatives_in_space_of_targets_that_know_those_in_time(
    seed, generator
):
    model, source = tiny_model(seed), known_field(generator, 20)
    target = _target(generator, transient=True)
    got = SobolevLoss(order=1)(model, Example(source, target)).total
    still = target.with_values(target.u, gradient=target.gradient)
    assert torch.equal(got, SobolevLoss(order=1)(model, Example(source, still)).total)
    with pytest.raises(FieldError, match=r"a model with CSTConfig\(transient=True\)"):
        SobolevLoss(order=1, time_weights=(1.0,))(model, Example(source, target))


def test_a_model_with_derivatives_needs_no_method_that_encodes(generator):
    target = _target(generator)
    example, loss = Example(target, target), SobolevLoss(order=1, smoothing=(0.1,))
    totals = []
    for kind in (Formula, Bare):
        draws = torch.Generator().manual_seed(0)
        totals.append(loss(kind(torch.sin), example, draws).total)
    assert torch.equal(*totals)


def test_points_without_cells_are_differentiated_sample_by_sample_and_frame_by_frame(generator):
    frames = []
    for slope in (1.0, -2.0, 0.5):
        pos = torch.rand(20, 2, generator=generator, dtype=torch.float64)
        weights = torch.full((20,), 0.05, dtype=torch.float64)
        frames.append(PointField(pos, slope * (pos @ SLOPE), weights))
    loss, model = SobolevLoss(order=1), Nodal(lambda x: 3 * (x @ SLOPE))
    single = torch.stack([loss(model, Example(f, f)).terms["order1"] for f in frames])
    # Least squares is exact for linear functions, up to the conditioning of its fits.
    wanted = torch.tensor([2.0, 2.5, 5.0], dtype=torch.float64)
    torch.testing.assert_close(single, wanted, rtol=1e-8, atol=0)
    batch = joined(*(Example(f, f) for f in frames))
    torch.testing.assert_close(loss(model, batch).terms["order1"], wanted.mean(), rtol=1e-8, atol=0)
    moving = PointField(
        *(torch.cat([frame[key] for frame in frames]) for key in ("pos", "u", "weights")),
        time=torch.arange(3).double().repeat_interleave(20),
    )
    size = torch.tensor([1.0, 4.0, 0.25])  # squares of the slopes
    error = torch.tensor([4.0, 25.0, 6.25])
    got = loss(model, Example(moving, moving)).terms["order1"]
    torch.testing.assert_close(got, (error.sum() / size.sum()).sqrt().double(), rtol=1e-7, atol=0)


def test_what_a_term_needs_and_lacks_is_named(seed, generator):
    model = tiny_model(seed)
    field, target = known_field(generator, 20), _target(generator)
    bare = PointField(pos=target.pos, u=target.u)
    with pytest.raises(FieldError, match=r"set them with cst_operator.with_weights\(field\)"):
        SobolevLoss()(model, Example(field, bare))
    plain = joined(Example(field, field), Example(field, field))
    moving = known_field(generator, 20, transient=True)
    for example in (plain, Example(field, moving)):
        with pytest.raises(FieldError, match="no derivatives of order 1 and has no cells.*lower"):
            SobolevLoss(order=1)(model, example)
    with pytest.raises(FieldError, match="in time are to be a term, but there are none"):
        SobolevLoss(order=1, time_weights=(1.0,))(model, Example(field, target))
    with pytest.raises(FieldError, match="no derivatives in time; give no time_weights"):
        SobolevLoss(order=1, time_weights=(1.0,))(Nodal(torch.sin), Example(field, target))
    with pytest.raises(ConfigError, match="1 channel_weights were given; the target has the 2"):
        SobolevLoss(channel_weights=(1.0,))(model, Example(field, target))
    with pytest.raises(FieldError, match="a derivatives method; use target terms"):
        SobolevLoss(smoothing=(1.0,))(Nodal(torch.sin), Example(field, target))


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"order": -1}, "order is -1; expected zero or more"),
        ({"p": 0.5}, "p is 0.5; a norm needs at least 1"),
        ({"order": 1, "weights": (1.0,)}, "1 weights were given; the orders need 2"),
        ({"powers": (2.0, 0.5)}, "p is 0.5; a norm needs at least 1"),
        ({"order": 1, "time_weights": (1.0, 1.0)}, "2 time_weights were given; the orders need 1"),
        ({"time_smoothing": (1.0,)}, "1 time_smoothing were given; the orders need 0"),
        ({"channel_weights": (-1.0,)}, "must not be negative"),
        ({"smoothing": (-1.0,)}, "must not be negative"),
        ({"num_points": -1}, "num_points must be zero or more"),
        ({"num_dummies": 0}, "num_dummies at least one"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        SobolevLoss(**settings)
