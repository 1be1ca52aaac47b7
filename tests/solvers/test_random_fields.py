import numpy as np
import pytest

from cst_operator.errors import InputError
from cst_operator.solvers import Constant, GaussianField, Inclusions


@pytest.mark.parametrize("log", [False, True])
def test_gradient_agrees_with_finite_differences(log, rng):
    v = GaussianField(log=log).sample(rng)
    x = rng.uniform(0, 1, (20, 2))
    step = 1e-5
    differences = np.stack(
        [(v(x + step * e) - v(x - step * e)) / (2 * step) for e in np.eye(2)], axis=1
    )
    # central differences: step^2 / 6 times the third derivative (1 / .3^3), plus rounding / step
    assert np.allclose(v.gradient(x), differences, rtol=1e-7, atol=1e-7)


def test_covariance_is_the_gaussian_kernel(rng):
    sampler = GaussianField(length_scale=0.3, std=2.0, mean=1.0, mean_std=0.5, num_modes=16)
    x = np.array([[0.0, 0.0], [0.2, 0.1], [0.5, 0.0], [1.0, 1.0]])
    draws = np.stack([sampler.sample(rng)(x) for _ in range(8000)])
    square = ((x[:, None] - x) ** 2).sum(axis=2)
    expected = 4.0 * np.exp(-square / (2 * 0.3**2)) + 0.25
    # 8,000 draws of variance 4.25: standard errors .023 and 4.25 sqrt(2 / 8000) = .067; 4 of them
    assert np.abs(draws.mean(axis=0) - 1.0).max() < 0.1
    assert np.abs(np.cov(draws.T) - expected).max() < 0.28


def test_a_value_does_not_depend_on_the_other_points(rng):
    v = GaussianField().sample(rng)
    x = rng.uniform(0, 1, (30, 2))
    assert np.array_equal(v(x)[7:9], v(x[7:9]))


def test_log_fields_are_positive_and_constants_constant(rng):
    x = rng.uniform(0, 1, (100, 2))
    assert GaussianField(log=True, std=3.0).sample(rng)(x).min() > 0
    assert np.array_equal(Constant(2.5).sample(rng)(x), np.full(100, 2.5))


def test_impossible_options_are_refused():
    with pytest.raises(InputError, match="length_scale"):
        GaussianField(length_scale=0.0)
    with pytest.raises(InputError, match="num_modes"):
        GaussianField(num_modes=0)


@pytest.mark.parametrize(
    "change",
    [{"number": (3, 2)}, {"radius": (0.0, 1.0)}, {"inside": (-1.0, 1.0)}, {"background": 0.0}],
)
def test_impossible_inclusions_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Inclusions(**change)


def test_inclusions_have_their_value_inside_and_the_background_outside(rng):
    drawn = Inclusions(number=(3, 3), background=2.0).sample(rng)
    x = rng.uniform(0, 1, (500, 2))
    away = np.linalg.norm(x[:, None] - drawn.centres, axis=2) - drawn.radii
    value = drawn(x)
    assert np.array_equal(value == 2.0, (away >= 0).all(axis=1))
    assert np.array_equal(drawn(drawn.centres[-1:]), drawn.inside[-1:])
    assert set(value) <= {2.0, *drawn.inside}
    assert (drawn.inside >= 0.1).all() and (drawn.inside <= 10).all()
