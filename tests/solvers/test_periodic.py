"""Equations on periodic boxes: exact solutions, orders in time, conservation, samples."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    CheckedStep,
    FixedStep,
    KortewegDeVries,
    KuramotoSivashinsky,
    PeriodicAllenCahn,
    PeriodicBurgers,
    PeriodicFitzHughNagumo,
    PeriodicGrayScott,
    PeriodicNavierStokes,
    System,
    solve_burgers,
    solve_korteweg_de_vries,
    solve_kuramoto_sivashinsky,
)

SYSTEMS = [
    PeriodicBurgers(),
    KortewegDeVries(final_time=5.0),
    KuramotoSivashinsky(final_time=10.0, num_frames=11),
    PeriodicNavierStokes(final_time=6.0, num_frames=7),
    PeriodicGrayScott(final_time=30.0, num_frames=4),
    PeriodicAllenCahn(final_time=5.0, num_frames=6),
    PeriodicFitzHughNagumo(final_time=1.0, num_frames=5),
]
by_name = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


def _points(n, length):
    return torch.arange(n, dtype=torch.float64) * (length / n)


def _rates(errors):
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def _cole_hopf(x, t, nu, amplitude):
    # phi = 1 + a exp(-nu k^2 t) cos(k x) solves the heat equation; u = -2 nu phi_x / phi
    k = 2 * np.pi
    a = amplitude * math.exp(-nu * k**2 * t)
    return 2 * nu * a * k * torch.sin(k * x) / (1 + a * torch.cos(k * x))


def _burgers_error(n, step):
    x, nu = _points(n, 1.0), torch.tensor([0.02, 0.05], dtype=torch.float64)
    amplitude = (0.9, 0.5)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    exact = torch.stack(
        [
            torch.stack([_cole_hopf(x, float(t), float(v), a) for t in times])
            for v, a in zip(nu, amplitude, strict=True)
        ]
    )
    return float((solve_burgers(exact[:, 0], times, viscosity=nu, step=step) - exact).abs().max())


def test_burgers_agrees_with_cole_hopf():
    # u is about .5; the tolerance of the step is 1e-10
    assert _burgers_error(128, CheckedStep(dt=0.02, tolerance=1e-10)) < 1e-9


def test_burgers_converges_spectrally_in_space():
    errors = [_burgers_error(n, CheckedStep(dt=0.02, tolerance=1e-10)) for n in (24, 48, 96)]
    # phi has a pole at distance log(r) / 2 pi: errors fall as r^(-N / 3), faster than any power
    assert errors[1] < errors[0] / 30 and errors[2] < errors[1] / 900


def test_burgers_is_of_order_four_in_time():
    rates = _rates([_burgers_error(128, FixedStep(dt)) for dt in (0.01, 0.005, 0.0025)])
    assert rates == pytest.approx([4.0, 4.0], abs=0.35)


def _soliton(x, t, c, length):
    z = (x - length / 2 - c * t + length / 2) % length - length / 2
    return 0.5 * c / torch.cosh(0.5 * math.sqrt(c) * z) ** 2


def _soliton_error(step):
    c, length = 4.0, 32.0  # exp(-32) at the ends
    x = _points(256, length)
    times = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    exact = torch.stack([_soliton(x, float(t), c, length) for t in times])[None]
    u = solve_korteweg_de_vries(exact[:, 0], times, length=length, step=step)
    return float((u - exact).abs().max())


def test_a_soliton_travels_unchanged():
    assert _soliton_error(CheckedStep(dt=0.01, tolerance=1e-8)) < 1e-7  # of an amplitude of 2


def test_korteweg_de_vries_is_of_order_four_in_time():
    rates = _rates([_soliton_error(FixedStep(dt)) for dt in (0.005, 0.0025, 0.00125)])
    assert rates == pytest.approx([4.0, 4.0], abs=0.35)


def test_two_solitons_pass_through_each_other():
    length, x = 60.0, _points(360, 60.0)
    start = _soliton(x - 6, 0.0, 4.0, length) + _soliton(x - 20, 0.0, 1.0, length)
    times = torch.tensor([0.0, 9.0], dtype=torch.float64)
    step = CheckedStep(dt=0.01, tolerance=1e-4)
    u = solve_korteweg_de_vries(start[None], times, length=length, step=step)[0, -1]
    # With k = sqrt(c) / 2 they leave log((k1 + k2) / (k1 - k2)) / k before and behind their paths.
    fast, slow = 6 + 36 + math.log(3), 20 + 9 - 2 * math.log(3)
    expected = _soliton(x - fast, 0.0, 4.0, length) + _soliton(x - slow, 0.0, 1.0, length)
    # the start is a sum, not the exact pair: exp(-14), about 1e-6, times the number of widths
    assert float((u - expected).abs().max()) < 1e-3


def test_korteweg_de_vries_conserves_mass_momentum_and_energy():
    sample = KortewegDeVries().sample(0, 0)
    w, u, slope = sample.mesh.weights, sample.u[..., 0], sample.gradient[..., 0, 0]
    mass, momentum = u @ w, u**2 @ w
    energy = (u**3 - slope**2 / 2) @ w
    assert torch.allclose(mass, mass[0], rtol=0, atol=1e-12)  # exact up to rounding
    assert torch.allclose(momentum, momentum[0], rtol=1e-6, atol=0)  # tolerance of the step
    assert torch.allclose(energy, energy[0], rtol=0, atol=1e-4 * float((slope**2 @ w)[0]))


def test_kuramoto_sivashinsky_is_of_order_four_in_time():
    # no exact solution is known: the reference has a quarter of the smallest step
    x = _points(256, 60.0)
    start = torch.cos(np.pi * x / 6) + torch.sin(7 * np.pi * x / 30)
    times = torch.tensor([0.0, 10.0], dtype=torch.float64)

    def solve(dt):
        return solve_kuramoto_sivashinsky(start[None], times, length=60.0, step=FixedStep(dt))

    reference = solve(1 / 512)
    errors = [float((solve(dt) - reference).abs().max()) for dt in (1 / 32, 1 / 64, 1 / 128)]
    assert _rates(errors) == pytest.approx([4.0, 4.0], abs=0.25)
    assert errors[0] < 1e-4


def test_kuramoto_sivashinsky_grows_linear_waves_at_the_rate_of_its_symbol():
    x, k = _points(64, 2 * np.pi / 0.5), 0.5
    times = torch.tensor([0.0, 4.0], dtype=torch.float64)
    u = solve_kuramoto_sivashinsky(1e-6 * torch.cos(k * x)[None], times, length=2 * np.pi / k)
    growth = float(u[0, 1].abs().max() / u[0, 0].abs().max())
    # quadratic terms are 1e-6 of the wave
    assert growth == pytest.approx(math.exp((k**2 - k**4) * 4.0), rel=1e-5)


@by_name
def test_a_sample_has_frames_weights_and_derivatives(system):
    sample = system.sample(0, 0)
    assert isinstance(system, System)
    n, c, d = sample.mesh.num_points, len(sample.channels), sample.mesh.dim
    assert sample.u.shape == (system.num_frames, n, c)
    assert sample.gradient.shape == (system.num_frames, n, c, d)
    assert len(sample.mesh.weights.unique()) == 1
    assert sample.parameters["time_error"] <= system.step.tolerance
    again = system.sample(0, 0)
    assert torch.equal(sample.u, again.u) and torch.equal(
        sample.time_derivative, again.time_derivative
    )


@by_name
def test_the_time_derivative_is_the_slope_of_the_solution(system):
    frames = system.num_frames - 1
    fine = replace(system, final_time=system.final_time / frames / 10, num_frames=41)
    sample = fine.sample(0, 2)
    slope = (sample.u[2:] - sample.u[:-2]) / (2 * float(sample.times[1]))
    error = (slope - sample.time_derivative[1:-1])[10:].abs().max()  # fast transients are gone
    # central differences of step h: h^2 / 6 of the third derivative
    assert float(error) < 2e-3 * float(sample.time_derivative[10:].abs().max())


@by_name
def test_refinement_gives_the_same_problem(system):
    coarse, fine = (system.sample(1, 1, refine=r) for r in (0, 1))
    shape = (2 * round(coarse.mesh.num_points ** (1 / coarse.mesh.dim)),) * coarse.mesh.dim
    every = (slice(None, None, 2),) * coarse.mesh.dim
    there = torch.arange(fine.mesh.num_points).reshape(shape)[every].reshape(-1)
    assert torch.equal(coarse.mesh.pos, fine.mesh.pos[there])
    assert torch.allclose(coarse.u[0], fine.u[0, there], rtol=0, atol=1e-12)  # rounding
    scale = float(coarse.u.abs().max())
    # both are resolved to 1e-2 of the smallest scales
    assert float((coarse.u - fine.u[:, there]).abs().max()) < 2e-3 * scale


def test_seeds_and_indices_give_other_samples():
    system = PeriodicBurgers()
    starts = [system.sample(s, i).u[0] for s, i in ((0, 0), (0, 1), (1, 0))]
    assert all(not torch.equal(a, b) for a, b in pairwise([*starts, starts[0]]))


def test_an_unresolved_sample_is_refused_with_seed_and_index():
    thin = PeriodicBurgers(viscosity=0.002)
    with pytest.raises(SolverError, match="sample 3 of seed 7 is not resolved by 128 points"):
        thin.sample(7, 3)


def test_a_diverging_sample_is_refused_with_seed_and_index():
    wild = PeriodicBurgers(step=FixedStep(0.5), viscosity=1e-6, final_time=50.0)
    wild = replace(wild, initial=replace(wild.initial, scale=5000.0))
    with pytest.raises(SolverError, match="sample 3 of seed 7: .* diverged"):
        wild.sample(7, 3)


def test_members_of_a_batch_do_not_see_each_other(generator):
    x = _points(64, 1.0)
    u0 = torch.stack([torch.sin(2 * np.pi * x), 0.3 * torch.cos(4 * np.pi * x)])
    times = torch.tensor([0.0, 0.4], dtype=torch.float64)
    nu = torch.tensor([0.05, 0.1], dtype=torch.float64)
    step = FixedStep(0.01)
    together = solve_burgers(u0, times, viscosity=nu, step=step)
    for i in range(2):
        alone = solve_burgers(u0[i : i + 1], times, viscosity=float(nu[i]), step=step)
        assert torch.allclose(together[i], alone[0], rtol=0, atol=1e-14)  # rounding


def test_single_precision_stays_single_precision():
    u0 = torch.sin(2 * np.pi * _points(64, 1.0)).to(torch.float32)[None]
    step = CheckedStep(dt=0.02, tolerance=1e-4)
    times = torch.tensor([0.0, 0.4])
    u = solve_burgers(u0, times, viscosity=0.05, step=step)
    exact = solve_burgers(u0.double(), times, viscosity=0.05)
    assert u.dtype == torch.float32
    assert float((u - exact).abs().max()) < 1e-4  # single precision over 40 steps


@pytest.mark.parametrize(
    "change, words",
    [
        ({"viscosity": 0.0}, "positive"),
        ({"viscosity": torch.ones(3)}, "one for each of the 1 members"),
        ({"u0": torch.zeros(1, 64, 64)}, "one of each per axis"),
        ({"u0": torch.full((1, 64), torch.nan)}, "finite"),
        ({"u0": torch.zeros(1, 64, dtype=torch.int64)}, "float32 or float64"),
        ({"times": torch.tensor([1.0, 0.0])}, "increasing"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, words):
    u0 = torch.zeros(1, 64, dtype=torch.float64)
    arguments = {"u0": u0, "times": torch.tensor([0.0, 1.0]), "viscosity": 0.1, **change}
    with pytest.raises(InputError, match=words):
        solve_burgers(arguments.pop("u0"), arguments.pop("times"), **arguments)


@pytest.mark.parametrize(
    "change", [{"num_frames": 1}, {"final_time": 0.0}, {"viscosity": 0.0}, {"num_points": 127}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        PeriodicBurgers(**change).sample(0, 0)
