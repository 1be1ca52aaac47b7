from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import CloughTocher2DInterpolator

from cst_operator.errors import InputError
from cst_operator.solvers import Heat, System, mesh_geometry, rectangle, solve_heat

_RATE = 2 * np.pi**2
_TIMES = torch.tensor([0.0, 0.01, 0.02], dtype=torch.float64)


def _steady(x):
    return x[:, 0] ** 2 - x[:, 1]


def _mode(x):
    return np.sin(np.pi * x[:, 0]) * np.sin(np.pi * x[:, 1])


def _solve(h, dt, degree=2):
    # u = x^2 - y + exp(-2 pi^2 t) sin(pi x) sin(pi y): f = -2
    mesh = mesh_geometry(rectangle(), h, np.random.default_rng(3))
    solution = solve_heat(
        mesh,
        lambda x: _steady(x) + _mode(x),
        _TIMES,
        dt=dt,
        f=-2.0,
        g=_steady,
        degree=degree,
    )
    return mesh, solution


def _errors(h, dt, degree=2):
    mesh, solution = _solve(h, dt, degree)
    x, t = mesh.pos.numpy(), float(_TIMES[-1])
    decay = np.exp(-_RATE * t)
    c = np.pi * np.cos(np.pi * x[:, ::1]) * np.sin(np.pi * x[:, ::-1])
    exact = {
        "u": _steady(x) + decay * _mode(x),
        "gradient": np.stack([2 * x[:, 0], -np.ones(len(x))], axis=1) + decay * c,
        "time_derivative": -_RATE * decay * _mode(x),
    }
    w = mesh.weights.numpy()
    return {
        name: np.sqrt(
            w
            @ (
                (getattr(solution, name)[-1].numpy().reshape(len(x), -1) - v.reshape(len(x), -1))
                ** 2
            )
        ).sum()
        for name, v in exact.items()
    }


@pytest.mark.parametrize(
    "degree, orders",
    [
        (2, {"u": 3, "gradient": 2, "time_derivative": 3}),
        (1, {"u": 2, "gradient": 1, "time_derivative": 2}),
    ],
)
def test_error_in_space_falls_at_the_stated_order(degree, orders):
    # the time step is small enough for its error to be below that of the finest mesh
    found = [_errors(h, 0.0002, degree) for h in (0.1, 0.05, 0.025)]
    for coarse, fine in pairwise(found):
        for name, order in orders.items():
            assert np.log2(coarse[name] / fine[name]) > order - 0.2, name  # scatter of the meshes


def test_error_in_time_is_of_order_two():
    _, reference = _solve(0.2, 0.00005)  # the same mesh: only the time error remains
    for name in ("u", "time_derivative"):
        found = []
        for dt in (0.0025, 0.00125, 0.000625):
            error = getattr(_solve(0.2, dt)[1], name) - getattr(reference, name)
            found.append(float(error[-1].norm()))
        rates = [np.log2(coarse / fine) for coarse, fine in pairwise(found)]
        assert np.allclose(rates, 2.0, atol=0.15), name


def test_time_derivative_is_the_slope_of_the_solution():
    system = Heat(final_time=0.0002, num_frames=21, dt=1e-5)
    sample = system.sample(0, 1)
    step = float(sample.times[1] - sample.times[0])
    slope = (sample.u[2:] - sample.u[:-2]) / (2 * step)
    # central differences: step^2 / 6 times the third time derivative, about (1e3)^2 of the first
    error = (slope - sample.time_derivative[1:-1]).abs().max()
    assert float(error) < 1e-3 * float(sample.time_derivative.abs().max())


def test_a_sample_starts_in_agreement_with_its_boundary_and_decays_to_the_steady_state():
    sample = replace(Heat(), final_time=1.0, num_frames=3, dt=0.01).sample(0, 2)
    boundary = sample.mesh.facets["line"].unique()
    assert float(sample.u[:, boundary].abs().max()) == 0.0
    assert float(sample.time_derivative[:, boundary].abs().max()) == 0.0
    start, end = sample.time_derivative[0].abs().max(), sample.time_derivative[-1].abs().max()
    assert float(end) < 1e-8 * float(start)  # the slowest mode decays at some 50 or faster


@pytest.mark.parametrize("neumann", [0.0, 0.5])
def test_refinement_gives_the_same_problem(neumann):
    system = Heat(neumann=neumann)
    assert isinstance(system, System)
    coarse, fine = (system.sample(1, 0, refine=r) for r in (0, 1))
    inner = coarse.mesh.select("distance", "distance_neumann").u.min(dim=1).values > 0.05
    for frame in (0, 1, 10):
        for name in ("u", "time_derivative"):
            values = getattr(coarse, name)[frame, :, 0]
            there = CloughTocher2DInterpolator(
                fine.mesh.pos.numpy(), getattr(fine, name)[frame, :, 0].numpy()
            )
            error = there(coarse.mesh.pos[inner].numpy()) - values[inner].numpy()
            # cubic interpolation of a field of correlation length .2 filtered at .07
            assert np.abs(error).max() < 1e-2 * float(values.abs().max())


def test_a_sample_depends_on_seed_and_index_only():
    one, two = (Heat().sample(2, 7) for _ in range(2))
    assert torch.equal(one.u, two.u) and torch.equal(one.time_derivative, two.time_derivative)
    n = one.mesh.num_points
    assert one.u.shape == (11, n, 1) and one.gradient.shape == (11, n, 1, 2)


def test_an_insulated_body_with_one_warm_side_keeps_its_temperature():
    mesh = mesh_geometry(rectangle(), 0.25, np.random.default_rng(0))
    middle = mesh.pos[mesh.facets["line"]].mean(dim=1)
    mesh.facet_markers = {"line": torch.where(middle[:, 0] < 1e-9, 1, 2)}
    solution = solve_heat(mesh, 3.0, _TIMES, dt=0.01, g=3.0, neumann=(2,))
    assert torch.allclose(solution.u, torch.full_like(solution.u, 3.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"initial": 1.0}, "differs from g by 1"),
        ({"times": torch.tensor([0.0, 0.0])}, "increasing"),
        ({"times": torch.zeros(2, 2)}, "increasing"),
        ({"dt": 0.0}, "positive time step"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    with pytest.raises(InputError, match=words):
        solve_heat(mesh, **{"initial": 0.0, "times": _TIMES, "dt": 0.01, **change})


@pytest.mark.parametrize(
    "change", [{"neumann": -1.0}, {"num_frames": 1}, {"dt": 0.0}, {"smoothing": 0.0}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        Heat(**change)
