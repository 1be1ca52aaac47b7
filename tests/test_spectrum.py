import math

import pytest
import torch

from cst_operator.errors import ConfigError, FieldError
from cst_operator.spectrum import (
    dominant_frequency,
    harmonic_basis,
    phase_coordinates,
    phase_weights,
)


def wave(times: torch.Tensor, frequency: float, generator: torch.Generator) -> torch.Tensor:
    """Two harmonics with random amplitudes at 30 points, and an offset, [T, 30]."""
    basis = harmonic_basis(times, frequency, 2)
    amplitude = torch.randn(5, 30, generator=generator, dtype=torch.float64)
    return basis @ (amplitude * torch.tensor([9.0, 1.0, 0.3, 1.0, 0.3])[:, None].double())


def test_a_frequency_just_below_half_the_sampling_rate_is_found(generator):
    times = torch.arange(0, 50, 2, dtype=torch.float64)
    found = dominant_frequency(wave(times, 0.18, generator), times, harmonics=2)
    # the grid is 1/960 apart; the parabola through a smooth maximum is good to a few percent of it
    assert found == pytest.approx(0.18, abs=5e-5)


def test_uneven_times_resolve_a_frequency_above_half_the_mean_rate(generator):
    times = torch.rand(40, generator=generator, dtype=torch.float64).sort().values * 40
    u = wave(times, 0.8, generator)
    assert dominant_frequency(u, times, bounds=(0.3, 1.2), harmonics=2) == pytest.approx(
        0.8, abs=5e-4
    )


def test_too_few_samples_a_constant_and_reversed_bounds_are_refused():
    times = torch.arange(8.0)
    with pytest.raises(FieldError, match="at least 9 samples"):
        dominant_frequency(torch.rand(8, 2), times, harmonics=3)
    with pytest.raises(FieldError, match="does not change"):
        dominant_frequency(torch.ones(8, 2), times)
    with pytest.raises(ConfigError, match="bounds"):
        dominant_frequency(torch.rand(8, 2), times, bounds=(0.5, 0.1))


def test_equal_phases_are_equal_places():
    times = torch.tensor([0.3, 0.3 + 1 / 0.18, 0.3 + 5 / 0.18], dtype=torch.float64)
    places = phase_coordinates(times, 0.18, radius=2.5)
    torch.testing.assert_close(places, places[:1].expand(3, 2), rtol=0, atol=1e-12)
    assert places.norm(dim=1).tolist() == pytest.approx([2.5] * 3)


def test_phase_weights_integrate_over_a_period(generator):
    times = 30 * torch.rand(25, generator=generator, dtype=torch.float64)
    weights = phase_weights(times, 0.18)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(weights.min()) >= 0
    even = phase_weights(torch.arange(8, dtype=torch.float64) / 8, 1.0)
    torch.testing.assert_close(even, torch.full((8,), 1 / 8, dtype=torch.float64))
    assert phase_weights(torch.tensor([4.2]), 0.18).tolist() == [1.0]
    # one full wave over the period has no mean: exact for even points
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    assert float(even @ angle.cos()) == pytest.approx(0.0, abs=1e-15)


def test_a_phase_weight_is_half_the_arcs_on_both_sides():
    weights = phase_weights(torch.tensor([3.5, 0.0, 1.75], dtype=torch.float64), 1.0)
    assert weights.tolist() == pytest.approx([0.375, 0.375, 0.25])  # at .5, 0 and .75 of a period
