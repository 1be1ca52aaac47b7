from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import CloughTocher2DInterpolator
from scipy.special import jn_zeros, jv

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import System, Wave, disk, mesh_geometry, rectangle, solve_wave

_TIMES = torch.tensor([0.0, 0.25, 0.4], dtype=torch.float64)
_OMEGA = np.pi * np.sqrt(5.0)


def _mode(x):
    return np.sin(np.pi * x[:, 0]) * np.sin(2 * np.pi * x[:, 1])


def _steady(x):
    return x[:, 0] ** 2 - x[:, 1]


def _solve(h, dt, degree=2):
    # u = x^2 - y + sin(pi x) sin(2 pi y) (cos wt + sin wt): f = -2
    mesh = mesh_geometry(rectangle(), h, np.random.default_rng(3))
    solution = solve_wave(
        mesh,
        lambda x: _steady(x) + _mode(x),
        _TIMES,
        dt=dt,
        velocity=lambda x: _OMEGA * _mode(x),
        f=-2.0,
        g=_steady,
        degree=degree,
    )
    return mesh, solution


def _errors(h, dt, degree):
    mesh, solution = _solve(h, dt, degree)
    x, phase = mesh.pos.numpy(), _OMEGA * float(_TIMES[-1])
    swing, rate = np.cos(phase) + np.sin(phase), _OMEGA * (np.cos(phase) - np.sin(phase))
    a, b = np.pi * x[:, 0], 2 * np.pi * x[:, 1]
    slope = np.stack([np.pi * np.cos(a) * np.sin(b), 2 * np.pi * np.sin(a) * np.cos(b)], axis=1)
    exact = {
        "u": (_steady(x) + swing * _mode(x))[:, None],
        "gradient": np.stack([2 * x[:, 0], -np.ones(len(x))], axis=1) + swing * slope,
        "time_derivative": rate * _mode(x)[:, None],
    }
    w = mesh.weights.numpy()
    return {
        name: np.sqrt(
            (w @ (getattr(solution, name)[-1].numpy().reshape(value.shape) - value) ** 2).sum()
        )
        for name, value in exact.items()
    }


# Measured from h = .1 to .05 and .025: degree 2: values 4.36 3.80 (nodes gain an order), gradient
# 2.07 2.02, time derivative 3.31 2.39; degree 1: 2.07 2.06, 1.73 1.63, 2.15 1.90.
@pytest.mark.parametrize(
    "degree, orders",
    [
        (2, {"u": 3, "gradient": 2, "time_derivative": 2}),
        (1, {"u": 2, "gradient": 1, "time_derivative": 1}),
    ],
)
def test_error_in_space_falls_at_the_stated_order(degree, orders):
    # the time step is small enough for its error to be below that of the finest mesh
    found = [_errors(h, 0.0005, degree) for h in (0.1, 0.05, 0.025)]
    for coarse, fine in pairwise(found):
        for name, order in orders.items():
            rate = np.log2(coarse[name] / fine[name])
            assert rate > order - 0.2, name  # scatter of the meshes


def test_error_in_time_is_of_order_two():
    _, reference = _solve(0.2, 0.0002)  # the same mesh: only the time error remains
    for name in ("u", "time_derivative"):
        found = []
        for dt in (0.01, 0.005, 0.0025):
            error = getattr(_solve(0.2, dt)[1], name) - getattr(reference, name)
            found.append(float(error[-1].norm()))
        rates = [np.log2(coarse / fine) for coarse, fine in pairwise(found)]
        assert np.allclose(rates, 2.0, atol=0.15), name


def test_energy_is_conserved_to_rounding_with_large_steps_and_forces():
    mesh = mesh_geometry(rectangle(sides=True), 0.1, np.random.default_rng(3))
    solution = solve_wave(
        mesh,
        _mode,
        torch.linspace(0.0, 20.0, 11),
        dt=0.05,
        f=lambda x: np.cos(3 * x[:, 0]),
        a=lambda x: 1 + x[:, 1],
        flux=0.7,
        neumann=(2, 3),
    )
    # 400 steps of rounding
    assert solution.parameters["energy_drift"] < 1e-11 * solution.parameters["energy"]
    # half of a |grad|^2 of the start by hand; the forces add the work -f u and -flux u
    w, x = mesh.weights.numpy(), mesh.pos.numpy()
    slope = solution.gradient[0, :, 0].numpy()
    elastic = 0.5 * w @ ((1 + x[:, 1]) * (slope**2).sum(axis=1))
    assert abs(solution.parameters["energy"] / elastic - 1) < 0.1  # lumped weights, small forces


def test_a_drum_sounds_at_the_zeros_of_bessel_functions():
    geometry = disk(1.0, num_points=20000)
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    omega = float(jn_zeros(1, 1)[0])

    def mode(x):
        r = np.maximum(np.hypot(*x.T), 1e-12)
        return jv(1, omega * r) * x[:, 0] / r

    times = torch.tensor([0.0, np.pi / omega, 2 * np.pi / omega], dtype=torch.float64)
    drum = solve_wave(mesh, mode, times, dt=0.005, degree=3, geometry=geometry)
    start = torch.from_numpy(mode(mesh.pos.numpy()))
    # the midpoint rule is late by (omega dt)^2 / 12 of the phase: 6e-5, of second order in u
    assert torch.allclose(drum.u[1, :, 0], -start, rtol=0, atol=2e-4)
    assert torch.allclose(drum.u[2, :, 0], start, rtol=0, atol=2e-4)


def test_time_derivative_is_the_slope_of_the_solution():
    sample = Wave(final_time=0.1, num_frames=101, dt=0.0005).sample(0, 1)
    step = float(sample.times[1] - sample.times[0])
    slope = (sample.u[2:] - sample.u[:-2]) / (2 * step)
    # central differences: step^2 / 6 times the third time derivative, about 40^2 of the first
    error = (slope - sample.time_derivative[1:-1]).abs().max()
    assert float(error) < 1e-3 * float(sample.time_derivative.abs().max())


@pytest.mark.parametrize("neumann", [0.0, 0.5])
def test_refinement_gives_the_same_problem(neumann):
    system = Wave(neumann=neumann)
    assert isinstance(system, System)
    coarse, fine = (system.sample(1, 0, refine=r) for r in (0, 1))
    inner = coarse.mesh.select("distance", "distance_neumann").u.min(dim=1).values > 0.05
    x, y = coarse.mesh.pos[inner].numpy(), fine.mesh.pos.numpy()
    for frame in (0, 10, 20):
        for name in ("u", "time_derivative"):
            values = getattr(coarse, name)[frame, inner, 0].numpy()
            there = CloughTocher2DInterpolator(y, getattr(fine, name)[frame, :, 0].numpy())
            # cubic interpolation of waves of some 0.2
            scale = float(getattr(coarse, name).abs().max())
            assert np.abs(there(x) - values).max() < 1e-2 * scale, (frame, name)


def test_a_sample_depends_on_seed_and_index_only_and_keeps_its_boundary_and_energy():
    one, two = (Wave().sample(2, 7) for _ in range(2))
    assert torch.equal(one.u, two.u) and torch.equal(one.time_derivative, two.time_derivative)
    n = one.mesh.num_points
    assert one.u.shape == (21, n, 1) and one.gradient.shape == (21, n, 1, 2)
    boundary = one.mesh.facets["line"].unique()
    assert float(one.u[:, boundary].abs().max()) == 0.0
    assert float(one.time_derivative[0].abs().max()) == 0.0
    assert one.parameters["energy_drift"] < 1e-11 * one.parameters["energy"]
    assert float(one.u.abs().max()) > 0.1


def test_a_failure_names_the_sample(monkeypatch):
    def fail(*given):
        raise SolverError("too loud")

    monkeypatch.setattr("cst_operator.solvers.wave._midpoint", fail)
    with pytest.raises(SolverError, match="sample 2 of seed 6: too loud"):
        Wave().sample(6, 2)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"initial": 1.0}, "initial value differs from g by 1"),
        ({"times": torch.tensor([0.0, 0.0])}, "increasing"),
        ({"dt": 0.0}, "positive time step"),
        ({"a": -1.0}, "must be positive"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    with pytest.raises(InputError, match=words):
        solve_wave(mesh, **{"initial": 0.0, "times": _TIMES, "dt": 0.01, **change})


@pytest.mark.parametrize(
    "change", [{"neumann": -1.0}, {"num_frames": 1}, {"dt": 0.0}, {"smoothing": 0.0}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        replace(Wave(), **change)
