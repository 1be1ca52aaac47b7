"""Ordinary differential, integral and integro-differential equations."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    CheckedStep,
    FixedPoint,
    FixedStep,
    IntegralSpirals,
    Lorenz96,
    System,
    solve_integral_equation,
    solve_integro_differential,
    solve_lorenz96,
    solve_ordinary,
)
from cst_operator.solvers.integral_spirals import spiral_kernel

_ONE = torch.ones((), dtype=torch.float64)


def _times(*values):
    return torch.tensor(values, dtype=torch.float64)


def _lorenz_reference(x0, times, force):
    def rate(_, x):
        return (np.roll(x, -1) - np.roll(x, 2)) * np.roll(x, 1) - x + force

    span = (0.0, float(times[-1]))
    found = solve_ivp(rate, span, x0, rtol=1e-12, atol=1e-12, method="DOP853")
    return torch.from_numpy(found.y[:, -1])


def test_lorenz96_agrees_with_scipy(rng):
    x0 = rng.normal(2.3, 3.6, (2, 12))
    times = _times(0.0, 0.7, 2.0)
    step = CheckedStep(dt=0.01, tolerance=1e-8)
    found = solve_lorenz96(torch.from_numpy(x0), times, force=8.0, step=step)
    for i in range(2):
        reference = _lorenz_reference(x0[i], times, 8.0)
        # the tolerance is relative to a norm of 15
        assert torch.allclose(found[i, -1], reference, rtol=0, atol=2e-7)


def test_lorenz96_is_of_order_four(rng):
    x0, times = rng.normal(2.3, 3.6, 12), _times(0.0, 1.0)
    reference = _lorenz_reference(x0, times, 8.0)
    errors = [
        float(
            (
                solve_lorenz96(torch.from_numpy(x0)[None], times, step=FixedStep(dt))[0, -1]
                - reference
            ).norm()
        )
        for dt in (0.01, 0.005, 0.0025)
    ]
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert rates == pytest.approx([4.0, 4.0], abs=0.3)


def test_an_oscillator_turns():
    y0 = _times(1.0, 0.0)[None]
    found = solve_ordinary(
        y0,
        _times(0.0, math.pi / 2, 2 * math.pi),
        nonlinear=lambda y: torch.stack([y[..., 1], -y[..., 0]], dim=-1),
        step=CheckedStep(dt=0.1, tolerance=1e-9),
    )
    exact = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(found[0], exact, rtol=0, atol=1e-8)  # ten times the tolerance


@pytest.mark.parametrize(
    "system", [Lorenz96(final_time=1.0, step=CheckedStep(dt=0.02)), IntegralSpirals()]
)
def test_a_sample_is_one_point_and_refinement_halves_the_interval_of_frames(system):
    assert isinstance(system, System)
    coarse, fine = (system.sample(0, 3, refine=r) for r in (0, 1))
    again = system.sample(0, 3)
    assert coarse.mesh.num_points == 1 and coarse.mesh.weights.tolist() == [1.0]
    assert torch.equal(coarse.u, again.u) and not torch.equal(coarse.u, system.sample(0, 4).u)
    assert torch.allclose(fine.times[::2], coarse.times, rtol=0, atol=1e-15)
    # both within the tolerance of the steps, 1e-6 of a norm of 30
    assert torch.allclose(fine.u[::2], coarse.u, rtol=0, atol=6e-5)
    slope = (fine.u[2:] - fine.u[:-2]) / (2 * float(fine.times[1]))
    error = (slope - fine.time_derivative[1:-1]).abs().max()
    # central differences of step h = .005: h^2 / 6 times the third derivative
    assert float(error) < 5e-3 * float(fine.time_derivative.abs().max())


def test_a_wild_forcing_is_an_error_with_seed_and_index():
    with pytest.raises(SolverError, match="sample 5 of seed 2: .*member 0"):
        Lorenz96(force=1e9).sample(2, 5)
    with pytest.raises(SolverError, match="sample 5 of seed 2: .*did not converge"):
        IntegralSpirals(strength=0.75).sample(2, 5)


def _cosine(factor):
    return lambda t, s: factor * torch.cos(t[:, None] - s)[..., None, None]


def test_an_integral_equation_with_a_kernel_of_rank_two_is_solved_exactly():
    # y = c + f (A cos t + B sin t) with A, B the integrals of cos s y(s) and sin s y(s)
    factor, size = 0.6, _times(1.0, -2.0)
    y = solve_integral_equation(
        lambda t: (size[:, None] * t)[..., None], _cosine(factor), lambda y: y, like=_ONE
    )
    s = np.linspace(0, 1, 100001)
    basis = np.stack([np.cos(s), np.sin(s)])
    gram = np.trapezoid(basis[:, None] * basis, s)  # error 1e-11
    a, b = np.linalg.solve(np.eye(2) - factor * gram, np.trapezoid(basis * s, s))
    times = _times(0.0, 0.3, 1.0)
    exact = times + factor * (a * torch.cos(times) + b * torch.sin(times))
    slope = 1 + factor * (b * torch.cos(times) - a * torch.sin(times))
    assert torch.allclose(y(times)[..., 0], size[:, None] * exact, rtol=0, atol=1e-9)
    assert torch.allclose(y.derivative(times)[..., 0], size[:, None] * slope, rtol=0, atol=1e-9)


def test_integral_equations_converge_spectrally_in_the_nodes():
    times = _times(0.1, 0.9)

    def solve(count):
        return solve_integral_equation(
            lambda t: torch.stack([torch.cos(6 * t), torch.sin(6 * t)], dim=-1)[None],
            lambda t, s: 0.25 * spiral_kernel(t, s),
            torch.cosh,
            like=_ONE,
            num_nodes=count,
        )(times)

    reference = solve(48)
    errors = [float((solve(count) - reference).abs().max()) for count in (16, 20, 32)]
    assert errors[1] < errors[0] / 100  # four more nodes, two digits
    assert errors[2] < 1e-12  # tolerance of the iteration


def test_too_few_nodes_are_an_error():
    with pytest.raises(SolverError, match="not resolved by 6 nodes"):
        solve_integral_equation(
            lambda t: torch.sin(30 * t)[None, :, None],
            _cosine(0.5),
            torch.cosh,
            like=_ONE,
            num_nodes=6,
        )


def test_a_member_that_does_not_converge_is_named():
    size = _times(0.1, 50.0)
    with pytest.raises(SolverError, match="member 1 of the batch did not converge"):
        solve_integral_equation(
            lambda t: (size[:, None] + 0 * t)[..., None], _cosine(0.5), torch.cosh, like=_ONE
        )


def test_an_integro_differential_equation_is_solved_exactly():
    # y' = -y + f e^-t M, M the integral of y: y = e^-t (y0 + f M t),
    # so M = y0 (1 - 1/e) + f M (1 - 2/e)
    y0, factor = _times(1.0, 3.0), 0.8
    y = solve_integro_differential(
        y0[:, None],
        lambda t, y, integral: -y + integral,
        lambda t, s: factor * torch.exp(-t)[:, None, None, None].expand(-1, len(s), 1, 1),
        lambda y: y,
    )
    mean = y0 * (1 - 1 / math.e) / (1 - factor * (1 - 2 / math.e))
    times = _times(0.0, 0.4, 1.0)
    exact = torch.exp(-times) * (y0[:, None] + factor * mean[:, None] * times)
    slope = torch.exp(-times) * factor * mean[:, None] - exact
    assert torch.allclose(y(times)[..., 0], exact, rtol=0, atol=1e-11)  # tolerance 1e-12
    assert torch.allclose(y.derivative(times)[..., 0], slope, rtol=0, atol=1e-10)


def test_integro_differential_equations_on_other_intervals_agree_with_scipy():
    # no integral: an ordinary equation on [1, 3]
    y = solve_integro_differential(
        _times(0.5)[:, None],
        lambda t, y, integral: torch.sin(3 * t)[:, None] - y**2 + integral,
        lambda t, s: torch.zeros(len(t), len(s), 1, 1, dtype=torch.float64),
        torch.cosh,
        interval=(1.0, 3.0),
    )
    found = solve_ivp(lambda t, y: np.sin(3 * t) - y**2, (1, 3), [0.5], rtol=1e-12, atol=1e-13)
    assert float(y(_times(3.0))) == pytest.approx(found.y[0, -1], abs=1e-9)  # tolerances


def test_white_noise_has_its_size_and_leaves_the_derivative():
    clean, noisy = IntegralSpirals(), IntegralSpirals(noise=0.022)
    pairs = [(clean.sample(0, i), noisy.sample(0, i)) for i in range(10)]
    found = torch.stack([b.u - a.u for a, b in pairs]).std()
    assert float(found) == pytest.approx(0.022, rel=0.08)  # 2,000 numbers: 1.6 %
    assert torch.equal(pairs[0][0].time_derivative, pairs[0][1].time_derivative)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lorenz96(num_unknowns=3),
        lambda: Lorenz96(num_frames=1),
        lambda: Lorenz96().sample(0, 0, refine=-1),
        lambda: solve_lorenz96(torch.zeros(1, 3), _times(0.0, 1.0)),
        lambda: solve_lorenz96(torch.zeros(40), _times(0.0, 1.0)),
        lambda: IntegralSpirals(noise=-1.0),
        lambda: FixedPoint(damping=0.0),
        lambda: FixedPoint(tolerance=0.0),
        lambda: solve_integral_equation(torch.sin, _cosine(1), torch.cosh, like=_ONE, num_nodes=1),
        lambda: solve_integral_equation(
            torch.sin, _cosine(1), torch.cosh, like=_ONE, interval=(1.0, 0.0)
        ),
        lambda: replace(IntegralSpirals(), num_frames=0),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(InputError):
        make()
