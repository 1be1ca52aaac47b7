"""Errors are those of fields, not of point sets."""

import math

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from cst_operator.errors import FieldError
from cst_operator.fields import PointField
from cst_operator.metrics import max_error, relative_h1, relative_l2, rms_error
from cst_operator.quadrature import with_weights

ALL = (relative_l2, relative_h1, max_error, rms_error)
# Sums of a few hundred float64 terms of size one.
ROUNDING = 1e-12


def grid(x: Tensor, y: Tensor) -> PointField:
    """Triangulated tensor grid with given coordinates of columns and rows."""
    pos = torch.cartesian_prod(x, y)
    n = torch.arange(len(pos)).view(len(x), len(y))
    a, b, c, d = n[:-1, :-1], n[1:, :-1], n[1:, 1:], n[:-1, 1:]
    triangles = torch.cat([torch.stack(t, -1).flatten(0, 1) for t in ((a, b, c), (a, c, d))])
    return with_weights(PointField(pos, cells={"triangle": triangles}))


@pytest.fixture
def square() -> PointField:
    """Two channels on the unit square: x and x y."""
    s = torch.linspace(0, 1, 9, dtype=torch.float64)
    mesh = grid(s, s)
    x, y = mesh.pos.T
    return mesh.with_values(torch.stack([x, x * y], 1), ("a", "b"), ("m", "K"))


def test_errors_of_scaled_channels_are_the_scales(square: PointField) -> None:
    prediction = square.u * torch.tensor([1.25, 0.5])
    for metric in (relative_l2, relative_h1, max_error):
        expected = torch.tensor([0.25, 0.5], dtype=torch.float64)
        assert torch.allclose(metric(prediction, square), expected, atol=ROUNDING, rtol=0)


def test_values_of_hand_computed_examples() -> None:
    field = PointField(
        torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0])
    )
    prediction = torch.tensor([[2.0], [4.0]])  # errors 1 and 2
    assert float(relative_l2(prediction, field)) == pytest.approx(math.sqrt(13 / 13))
    assert float(rms_error(prediction, field)) == pytest.approx(math.sqrt(13 / 4))
    assert float(max_error(prediction, field)) == pytest.approx(1.0)
    prediction = torch.tensor([[1.0], [3.0]])  # errors 0 and 1
    assert float(relative_l2(prediction, field)) == pytest.approx(math.sqrt(3 / 13))
    assert float(max_error(prediction, field)) == pytest.approx(0.5)


def test_h1_sees_slopes_and_no_offsets(square: PointField) -> None:
    x = square.pos[:, :1]
    target = square.with_values(x)
    assert float(relative_h1(x + 7, target)) < ROUNDING
    # |grad y| / |grad x| = 1 on the square, and e = y.
    wrong = x + square.pos[:, 1:]
    assert float(relative_h1(wrong, target)) == pytest.approx(1, abs=ROUNDING)


def test_splitting_a_point_into_two_of_half_the_weight_changes_nothing(
    generator: torch.Generator,
) -> None:
    pos = torch.rand(20, 2, generator=generator, dtype=torch.float64)
    u, prediction = torch.rand(2, 20, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    field = PointField(pos, u, weights)
    index = torch.cat([torch.arange(20), torch.tensor([4])])
    halved = weights.clone()
    halved[4] /= 2
    split = PointField(pos[index], u[index], halved[index])
    for metric in (relative_l2, max_error, rms_error):
        before, after = metric(prediction, field), metric(prediction[index], split)
        assert torch.allclose(before, after, atol=ROUNDING, rtol=0)


def test_graded_points_do_not_bias() -> None:
    def error(metric: object, x: Tensor) -> float:
        mesh = grid(x, torch.linspace(0, 1, 5, dtype=torch.float64))
        x = mesh.pos[:, :1]
        # The error sits where the graded mesh has most of its points.
        return float(metric(x + torch.exp(-4 * x), mesh.with_values(x)))  # type: ignore[operator]

    s = torch.linspace(0, 1, 201, dtype=torch.float64)
    exact = {
        relative_l2: math.sqrt((1 - math.exp(-8)) / 8 * 3),  # int e^2 over int x^2
        relative_h1: math.sqrt(16 * (1 - math.exp(-8)) / 8),
    }
    for metric, value in exact.items():
        # The quadrature has second order: h^2 is 2.5e-5 uniform, 1e-4 at the coarse end graded.
        assert error(metric, s) == pytest.approx(value, rel=1e-3)
        assert error(metric, s**2) == pytest.approx(value, rel=1e-3)
    mesh = grid(s**2, torch.linspace(0, 1, 5, dtype=torch.float64))
    x = mesh.pos[:, :1]
    unweighted = float(torch.exp(-4 * x).norm() / x.norm())
    assert abs(unweighted / exact[relative_l2] - 1) > 0.3  # what the weights are for


def test_h1_without_cells_is_taken_time_by_time(generator: torch.Generator) -> None:
    pos = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    weights = torch.full((60,), 1 / 60, dtype=torch.float64)
    slopes = (1.0, -2.0)
    both = PointField(
        pos.repeat(2, 1),
        torch.cat([s * pos[:, :1] for s in slopes]),
        weights.repeat(2),
        time=torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(60),
    )
    prediction = torch.cat([pos[:, :1], -pos[:, :1]])  # slope errors 0 and 1
    # Weighted least squares is exact on linear functions, up to the conditioning of its fits.
    assert float(relative_h1(prediction, both)) == pytest.approx(math.sqrt(1 / 5), abs=1e-8)


@pytest.mark.parametrize("metric", (relative_l2, relative_h1, max_error))
def test_a_zero_channel_is_an_error_that_names_it(metric: object, square: PointField) -> None:
    target = square.with_values(torch.cat([square.u[:, :1], 0 * square.u[:, 1:]], 1), ("a", "p"))
    with pytest.raises(FieldError, match="channel 'p' of the target is .* use rms_error"):
        metric(square.u, target)  # type: ignore[operator]
    assert bool((rms_error(square.u, target) >= 0).all())


def test_h1_of_a_constant_channel_is_an_error() -> None:
    s = torch.linspace(0, 1, 8, dtype=torch.float64) ** 1.5  # so that differences round
    mesh = grid(s, s)
    target = mesh.with_values(torch.full((mesh.num_points, 1), 1 / 3, dtype=torch.float64))
    with pytest.raises(FieldError, match="is constant"):
        relative_h1(mesh.pos[:, :1], target)
    assert float(relative_l2(target.u, target)) == 0


@pytest.mark.parametrize("metric", (relative_l2, relative_h1, rms_error))
def test_missing_weights_are_an_error_with_the_remedy(metric: object) -> None:
    field = PointField(torch.rand(5, 2), torch.rand(5, 1))
    with pytest.raises(FieldError, match="with_weights"):
        metric(field.u, field)  # type: ignore[operator]


def test_max_error_needs_no_weights() -> None:
    field = PointField(torch.rand(5, 2), torch.rand(5, 1))
    assert float(max_error(field.u, field)) == 0


@pytest.mark.parametrize("metric", ALL)
def test_a_batch_or_a_wrong_shape_is_refused(metric: object, square: PointField) -> None:
    batch = Batch.from_data_list([square, square])
    with pytest.raises(FieldError, match="batch of 2 fields"):
        metric(batch.u, batch)  # type: ignore[operator]
    with pytest.raises(FieldError, match="prediction has shape"):
        metric(square.u[:, :1], square)  # type: ignore[operator]


def test_float32_predictions_are_summed_in_float64(square: PointField) -> None:
    for metric in ALL:
        assert metric(square.u.float(), square).dtype == torch.float64
