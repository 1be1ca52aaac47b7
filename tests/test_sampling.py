"""Other samplings of a field integrate over the same domain and know the same field."""

import math

import pytest
import torch

from cst_operator.boundary import boundary_points
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import with_weights
from cst_operator.sampling import distinct, sample_cells, thin_out, union, with_boundary
from tests.mesh_samples import box


def _field(n: int, function, gradient=None) -> PointField:
    pos, cells = box("triangle", n)
    values = function(pos)[:, None]
    slope = None if gradient is None else gradient(pos)[:, None]
    return with_weights(PointField(pos=pos, u=values, channels=["u"], cells=cells, gradient=slope))


def _quadratic(x: torch.Tensor) -> torch.Tensor:
    return 1 + x[:, 0] - 2 * x[:, 1] + x[:, 0] ** 2 + 3 * x[:, 0] * x[:, 1]


def _slope(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 + 2 * x[:, 0] + 3 * x[:, 1], -2 + 3 * x[:, 0]], dim=1)


def test_points_in_cells_know_a_quadratic_function_and_its_gradient(generator) -> None:
    drawn = sample_cells(_field(4, _quadratic, _slope), generator)
    # Exact up to rounding of some ten terms of order one.
    torch.testing.assert_close(drawn.u[:, 0], _quadratic(drawn.pos), rtol=0, atol=1e-13)
    torch.testing.assert_close(drawn.gradient[:, 0], _slope(drawn.pos), rtol=0, atol=1e-13)


def test_points_in_cells_without_a_gradient_know_a_linear_function(generator) -> None:
    drawn = sample_cells(_field(4, lambda x: 1 + x[:, 0] - 2 * x[:, 1]), generator)
    torch.testing.assert_close(
        drawn.u[:, 0], 1 + drawn.pos[:, 0] - 2 * drawn.pos[:, 1], rtol=0, atol=1e-14
    )


def test_values_in_cells_are_of_third_order(seed) -> None:
    def error(n: int) -> float:
        wave = _field(n, lambda x: torch.sin(3 * x[:, 0]) * torch.cos(2 * x[:, 1]), _wave_slope)
        generator = torch.Generator().manual_seed(seed)
        drawn = [sample_cells(wave, generator) for _ in range(8)]
        errors = [
            d.u[:, 0] - torch.sin(3 * d.pos[:, 0]) * torch.cos(2 * d.pos[:, 1]) for d in drawn
        ]
        return float(torch.cat(errors).square().mean().sqrt())

    # The places are random, so the rate of two meshes scatters by some hundredths.
    assert math.log2(error(8) / error(16)) == pytest.approx(3, abs=0.2)


def _wave_slope(x: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [
            3 * torch.cos(3 * x[:, 0]) * torch.cos(2 * x[:, 1]),
            -2 * torch.sin(3 * x[:, 0]) * torch.sin(2 * x[:, 1]),
        ],
        dim=1,
    )


def test_points_are_uniform_in_their_cell(generator) -> None:
    pos = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    cell = with_weights(PointField(pos=pos, cells={"triangle": torch.tensor([[0, 1, 2]])}))
    drawn = torch.cat([sample_cells(cell, generator).pos for _ in range(4000)])
    # Mean 1/3 and second moment 1/6 of a coordinate; four standard errors of 4,000 draws.
    assert drawn.mean(0).tolist() == pytest.approx([1 / 3] * 2, abs=4 * 0.236 / 4000**0.5)
    assert drawn.square().mean(0).tolist() == pytest.approx([1 / 6] * 2, abs=4 * 0.2 / 4000**0.5)


def test_every_sampling_keeps_the_measure_of_the_domain(generator) -> None:
    field = _field(5, _quadratic)
    inside = sample_cells(field, generator)
    for sampling in (inside, union(field, inside), thin_out(field, 11, generator)):
        assert float(sampling.weights.sum()) == pytest.approx(1, rel=1e-13)


def test_thinning_gives_each_weight_to_the_nearest_point_that_stays(generator) -> None:
    pos = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.1, 0.0]], dtype=torch.float64)
    field = PointField(pos=pos, weights=torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    for _ in range(10):
        kept = thin_out(field, 2, generator)
        expected = [0.0, 0.0]
        for place, weight in zip(pos[:, 0].tolist(), field.weights.tolist(), strict=True):
            first, second = (abs(place - x) for x in kept.pos[:, 0].tolist())
            expected[int(second < first)] += weight
        assert kept.weights.tolist() == expected


@pytest.mark.parametrize("channels", [True, False])
def test_the_boundary_brings_its_own_measure_and_a_flag(channels: bool) -> None:
    field = _field(4, _quadratic)
    field = field if channels else field.select()
    boundary = boundary_points(field)
    both = with_boundary(field, boundary)
    flag = both.u[:, both.channels.index("boundary")]
    assert flag.tolist() == [0.0] * field.num_points + [1.0] * boundary.num_points
    assert float(both.weights[flag == 0].sum()) == pytest.approx(0.5, rel=1e-13)
    assert float(both.weights[flag == 1].sum()) == pytest.approx(0.5, rel=1e-13)


def test_cells_that_are_not_simplices_are_refused(generator) -> None:
    pos, cells = box("quad", 2)
    for field in (PointField(pos=pos, cells=cells), PointField(pos=pos)):
        with pytest.raises(MeshError, match="split its cells or use its nodes"):
            sample_cells(field, generator)


@pytest.mark.parametrize(
    ("available", "wanted"), [(5, 3), (3, 5), (1000, 3), (100_000, 2000), (40, 1)]
)
def test_numbers_are_drawn_once_and_alike_for_a_seed(available: int, wanted: int) -> None:
    drawn = distinct(available, wanted, torch.Generator().manual_seed(1))
    assert len(drawn) == min(available, wanted) == drawn.unique().numel()
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < available
    assert torch.equal(drawn, distinct(available, wanted, torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, distinct(available, wanted, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("available", [66, 60])  # two of them, one by one and of an order of all
def test_every_pair_of_numbers_is_equally_likely(available: int, generator) -> None:
    rounds = 20_000
    pairs = torch.stack([distinct(available, 2, generator) for _ in range(rounds)])
    # Counts of a number, first or second, are binomial: six standard deviations in 4 x 66 counts.
    expected = rounds / available
    for column in pairs.T:
        counts = torch.bincount(column, minlength=available)
        assert float((counts - expected).abs().max()) < 6 * expected**0.5
    rising = int((pairs[:, 0] < pairs[:, 1]).sum())
    assert abs(rising - rounds / 2) < 6 * (rounds / 4) ** 0.5
