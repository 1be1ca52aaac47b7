"""Losses across the border: ours in neuraloperator's Trainer, its in our loop."""

import math

import pytest
import torch
from neuralop.losses import H1Loss, LpLoss, WeightedSumLoss

import cst_operator as cst
from cst_operator.interop import (
    GridExamples,
    GridLoss,
    RelativeSobolev,
    TrainerDataset,
    TrainerLoss,
    collate,
)
from tests.interop_samples import clouds, joined


def waves(n, dtype=torch.float64):
    """Two smooth periodic fields on n x n points of the unit box and an approximation, [2, 1, ...].

    The second has a third of the derivatives of the first.
    """
    x = torch.arange(n, dtype=dtype) * (2 * math.pi / n)
    a, b = torch.meshgrid(x, x, indexing="ij")
    y = torch.stack([torch.sin(a) * torch.cos(2 * b), 2 + torch.cos(a) / 3])[:, None]
    error = torch.stack([torch.cos(a + b), torch.sin(2 * a) / 3])[:, None]
    return y + 0.1 * error, y


def exact_h1():
    """The relative H1 errors of both, summed, from the integrals of sines."""
    one, two = (2 * math.pi) ** 2, (4 * math.pi) ** 2
    first = (0.1**2 * (1 / 2 + 2 * one / 2)) / (1 / 4 + (one + two) / 4)
    second = (0.1**2 * (1 / 18 + two / 18)) / (4 + 1 / 18 + one / 18)
    return math.sqrt(first) + math.sqrt(second)


def test_order_one_tends_to_h1_loss_on_a_periodic_grid():
    ours, theirs = [], []
    for n in (16, 32, 64):
        prediction, y = waves(n)
        ours.append(float(RelativeSobolev(order=1, periodic=True)(prediction, y)))
        theirs.append(float(H1Loss(d=2)(prediction, y)))
    gaps = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    # Cells and central differences both have errors of second order, with different constants.
    assert gaps[2] < 0.004
    for coarse, fine in ((gaps[0], gaps[1]), (gaps[1], gaps[2])):
        assert abs(math.log2(coarse / fine) - 2) < 0.2
    # Ours at 64: the error of second order in h = 1/64 for waves of length 1/2.
    assert ours[2] == pytest.approx(exact_h1(), rel=2e-3)


def test_order_zero_is_lp_loss_on_a_grid():
    prediction, y = waves(8)
    for p in (1, 2, 4):
        # Theirs adds 1e-8 to a norm of about 1.
        assert float(RelativeSobolev(p=p)(prediction, y)) == pytest.approx(
            float(LpLoss(d=2, p=p)(prediction, y)), rel=1e-7
        )


def test_order_zero_is_relative_l2_with_quadrature_weights_on_points(generator):
    examples = clouds(generator, 3)
    batch = collate([TrainerDataset(examples)[i] for i in range(3)])
    prediction = torch.randn(batch["y"].shape, generator=generator)
    wanted = sum(
        float(cst.relative_l2(prediction[i, : len(target.u)], target))
        for i, (_, target) in enumerate(examples)
    )
    # The metric is computed in double precision, the loss in single.
    assert float(RelativeSobolev()(prediction, **batch)) == pytest.approx(wanted, rel=1e-5)


def test_order_one_on_points_is_the_norm_of_nodal_gradients(generator):
    examples = clouds(generator, 3, least=20)
    batch = collate([TrainerDataset(examples)[i] for i in range(3)])
    prediction = batch["y"] + torch.randn(batch["y"].shape, generator=generator)
    wanted = 0.0
    for i, (_, target) in enumerate(examples):
        operator = cst.gradient_operator(target)
        error = prediction[i, : len(target.u)] - target.u
        parts = [
            target.weights @ v.square() + operator.weights @ operator.apply(v).square().sum(-1)
            for v in (error, target.u)
        ]
        wanted += float((parts[0] / parts[1]).sqrt())
    # Two orders of the same sums in single precision.
    assert float(RelativeSobolev(order=1)(prediction, **batch)) == pytest.approx(wanted, rel=1e-5)


def test_second_order_knows_second_derivatives():
    n = 64
    x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    a, _ = torch.meshgrid(x, x, indexing="ij")
    y = torch.sin(a)[None, None]
    error = 0.1 * torch.sin(3 * a)[None, None]
    k = 2 * math.pi
    wanted = 0.1 * math.sqrt((1 + (3 * k) ** 2 + (3 * k) ** 4) / (1 + k**2 + k**4))
    value = float(RelativeSobolev(order=2, periodic=True)(y + error, y))
    # Second differences at h = 1/64 are off by about (3 k h)^2 / 3, three per cent.
    assert value == pytest.approx(wanted, rel=0.04)


def test_losses_sum_over_the_batch_and_have_gradients():
    prediction, y = waves(8)
    for loss in (
        RelativeSobolev(order=1),
        TrainerLoss(cst.SobolevLoss(order=1)),
        WeightedSumLoss([RelativeSobolev(), TrainerLoss(cst.SobolevLoss(order=1))], [1.0, 0.5]),
    ):
        guess = prediction.clone().requires_grad_()
        total = loss(guess, y)
        parts = [loss(prediction[i : i + 1], y[i : i + 1]) for i in range(2)]
        # The same sums in another order: rounding.
        assert total.item() == pytest.approx(sum(float(p) for p in parts), rel=1e-12)
        total.backward()
        assert guess.grad.abs().sum() > 0


def test_any_loss_of_the_library_is_the_sum_over_its_samples(generator):
    examples = clouds(generator, 3, least=20)
    batch = collate([TrainerDataset(examples)[i] for i in range(3)])
    prediction = batch["y"] + torch.randn(batch["y"].shape, generator=generator)
    loss = cst.SobolevLoss(order=1, weights=(1.0, 0.1))

    class Known(torch.nn.Module):
        def __init__(self, u):
            super().__init__()
            self.u = u

        def forward(self, source, target):
            return self.u

    wanted = sum(
        float(loss(Known(prediction[i, : len(e.target.u)]), e).total)
        for i, e in enumerate(examples)
    )
    with torch.no_grad():  # as in the Trainer's evaluation
        value = float(TrainerLoss(loss)(prediction, **batch))
    assert value == pytest.approx(wanted, rel=1e-6)  # single precision


def test_cells_of_a_batch_are_differentiated_on(generator):
    grid = [{"x": torch.randn(1, n, n, generator=generator)} for n in (4, 5)]
    examples = GridExamples([{"x": g["x"], "y": g["x"] ** 2} for g in grid])
    batch = collate([TrainerDataset(examples)[i] for i in range(2)])
    assert batch["cells"].shape == (2, 16, 4)
    prediction = batch["y"] + torch.randn(batch["y"].shape, generator=generator)
    at_points = RelativeSobolev(order=1)(prediction, **batch)
    on_grids = sum(
        RelativeSobolev(order=1)(
            prediction[i : i + 1, : n * n].transpose(1, 2).unflatten(2, (n, n)),
            examples[i].target.u.T.view(1, 1, n, n),
        )
        for i, n in enumerate((4, 5))
    )
    assert float(at_points) == pytest.approx(float(on_grids), rel=1e-5)  # single precision


def test_a_smoothing_term_is_refused_with_the_reason():
    prediction, y = waves(8)
    with pytest.raises(cst.FieldError, match="smoothing terms need a model"):
        TrainerLoss(cst.SobolevLoss(smoothing=(0.1,)))(prediction, y)


def test_shapes_that_differ_are_refused():
    prediction, y = waves(8)
    for loss in (RelativeSobolev(), TrainerLoss()):
        with pytest.raises(cst.FieldError, match="expected the same"):
            loss(prediction[..., :4], y)
        with pytest.raises(cst.FieldError, match="expected \\[batch, points, channels\\]"):
            loss(prediction, y, pos=torch.rand(2, 5, 2))


def test_values_out_of_range_are_refused():
    with pytest.raises(cst.ConfigError, match="order is -1"):
        RelativeSobolev(order=-1)
    with pytest.raises(cst.ConfigError, match="p is 0.5"):
        RelativeSobolev(p=0.5)


def test_their_loss_in_our_loop_is_its_mean_over_the_samples(generator):
    prediction, y = waves(8)
    examples = GridExamples([{"x": field, "y": field} for field in y])
    shuffled = []
    orders = [torch.randperm(64, generator=generator) for _ in range(2)]
    for i, order in enumerate(orders):
        source, target = examples[i]
        shuffled.append(cst.Example(source.subset(order), target.subset(order)))
    rows = [p.flatten(1).T[order] for p, order in zip(prediction, orders, strict=True)]
    terms = GridLoss(H1Loss(d=2))(lambda s, t: torch.cat(rows), joined(shuffled))
    assert float(terms.total) == pytest.approx(float(H1Loss(d=2)(prediction, y)) / 2, rel=1e-12)
    assert set(terms.terms) == {"H1Loss"}


def test_their_loss_refuses_points_that_make_no_grid(generator):
    example = clouds(generator, 1)[0]
    with pytest.raises(cst.FieldError, match="make no regular grid"):
        GridLoss(LpLoss(d=2))(lambda source, target: target.u, example)
