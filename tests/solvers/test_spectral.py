import numpy as np
import pytest
import torch

from cst_operator.errors import InputError
from cst_operator.solvers import PeriodicBox, PeriodicGaussianField, spectral_gradient

_BOX = PeriodicBox((16, 24), (2.0, 3.0))


def _wave(box):
    x, y = box.points().reshape(*box.shape, 2).unbind(-1)
    phase_x, phase_y = np.pi * x * 3, 2 * np.pi / 3 * y * 2  # 3 and 2 periods
    return phase_x, phase_y


def test_weights_integrate_and_points_start_at_the_origin():
    field = _BOX.field()
    assert field.pos[0].tolist() == [0.0, 0.0] and field.pos[1].tolist() == [0.0, 0.125]
    assert float(field.weights.sum()) == pytest.approx(6.0)


def test_derivatives_of_waves_are_exact():
    a, b = _wave(_BOX)
    slope = spectral_gradient(torch.sin(a) * torch.cos(b), _BOX)
    exact = torch.stack([3 * np.pi * a.cos() * b.cos(), -4 * np.pi / 3 * a.sin() * b.sin()], dim=-1)
    assert torch.allclose(slope, exact, rtol=0, atol=1e-12)  # rounding
    laplacian = _BOX.inverse(_BOX.laplacian() * _BOX.forward(torch.sin(a) * torch.cos(b)))
    factor = -((3 * np.pi) ** 2 + (4 * np.pi / 3) ** 2)
    assert torch.allclose(laplacian, factor * a.sin() * b.cos(), rtol=0, atol=1e-11)


def test_a_mode_that_changes_sign_from_point_to_point_has_no_slope():
    box = PeriodicBox((8,), (1.0,))
    u = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert float(spectral_gradient(u, box).abs().max()) < 1e-13  # rounding


@pytest.mark.parametrize("degree", [2, 3])
def test_products_of_kept_modes_are_free_of_aliasing(degree, generator):
    box = PeriodicBox((24, 12), (1.0, 1.0))
    kept = box.kept(degree)
    factors = torch.randn(degree, *box.shape, generator=generator, dtype=torch.float64)
    coefficients = box.forward(factors) * kept
    fine = box.refined(2)
    spread = torch.zeros(degree, *fine.modes, dtype=torch.complex128)
    half = box.shape[0] // 2
    spread[:, :half, : box.modes[1]] = coefficients[:, :half]
    spread[:, -half:, : box.modes[1]] = coefficients[:, -half:]
    there = fine.forward(fine.inverse(spread).prod(0))
    exact = torch.cat([there[:half, : box.modes[1]], there[-half:, : box.modes[1]]])
    product = box.forward(box.inverse(coefficients).prod(0))
    error = (product - exact).abs()
    assert float(error[kept].max()) < 1e-14  # rounding
    assert float(error.max()) > 1e-4  # the modes beyond are not


def test_the_tail_tells_resolved_from_unresolved():
    box = PeriodicBox((96,), (1.0,))
    x = box.points()[:, 0]
    smooth = torch.exp(torch.sin(2 * np.pi * x)) + 100.0
    steep = torch.sign(torch.sin(2 * np.pi * x) - 0.1)
    tail = box.tail(torch.stack([smooth, steep]), 2)
    assert float(tail[0]) < 1e-12 and float(tail[1]) > 0.01


def test_a_random_field_is_the_same_function_on_every_box(rng):
    field = PeriodicGaussianField(scale=2.0, tau=3.0, alpha=2.0, num_waves=5, mean=0.7)
    drawn = field.sample(rng, (1.0, 2.0))
    box = PeriodicBox((16, 12), (1.0, 2.0))
    coarse, fine = drawn.on(box), drawn.on(box.refined(1))
    assert torch.allclose(fine[::2, ::2], coarse, rtol=0, atol=1e-13)  # rounding
    assert float(coarse.mean()) == pytest.approx(0.7)
    with pytest.raises(InputError, match="more than 10"):
        drawn.on(PeriodicBox((10, 12), (1.0, 2.0)))


def test_a_random_field_has_the_stated_variance(rng):
    field = PeriodicGaussianField(scale=3.0, tau=2.0, alpha=1.5, num_waves=4)
    box = PeriodicBox((12,), (5.0,))
    found = torch.stack([field.sample(rng, box.lengths).on(box) for _ in range(4000)]).var()
    k = 2 * np.pi * np.arange(1, 5) / 5.0
    stated = 2 * np.sum(9.0 * (k**2 + 4.0) ** -1.5) / 5.0
    # 4000 draws of at most 8 normals each: about 2 % of standard error
    assert float(found) == pytest.approx(stated, rel=0.06)


@pytest.mark.parametrize(
    "shape, lengths", [((), ()), ((7,), (1.0,)), ((8,), (0.0,)), ((8, 8), (1.0,)), ((2,), (1.0,))]
)
def test_impossible_boxes_are_refused(shape, lengths):
    with pytest.raises(InputError):
        PeriodicBox(shape, lengths)


@pytest.mark.parametrize("change", [{"num_waves": 0}, {"tau": 0.0}, {"scale": -1.0}])
def test_impossible_random_fields_are_refused(change):
    with pytest.raises(InputError):
        PeriodicGaussianField(**{"scale": 1.0, "tau": 1.0, "alpha": 2.0, "num_waves": 3, **change})
