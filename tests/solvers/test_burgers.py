from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import CloughTocher2DInterpolator

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    Burgers,
    CheckedStep,
    FixedStep,
    System,
    mesh_geometry,
    rectangle,
    solve_burgers_on_mesh,
)
from cst_operator.solvers.geometry import BOTTOM, LEFT, RIGHT, TOP

_NU = 0.1
_TIMES = torch.tensor([0.0, 0.2, 0.3], dtype=torch.float64)
_SHORT = Burgers(final_time=0.1, num_frames=3)


def _cole_hopf(x, t):
    """u, its gradient and time derivative for phi = 2 + e^(-2 pi^2 nu t) cos(pi x) cos(pi y)."""
    p = torch.cat([x.clone(), torch.full((len(x), 1), t, dtype=torch.float64)], dim=1)

    def potential(q):
        decay = torch.exp(-2 * np.pi**2 * _NU * q[2])
        phi = 2 + decay * torch.cos(np.pi * q[0]) * torch.cos(np.pi * q[1])
        return -2 * _NU * torch.log(phi)

    def velocity(q):
        return torch.func.grad(potential)(q)[:2]

    slope = torch.func.vmap(torch.func.jacfwd(velocity))(p)  # [N, 2, 3]
    return torch.func.vmap(velocity)(p), slope[:, :, :2], slope[:, :, 2]


def _solve(h, dt, degree):
    mesh = mesh_geometry(rectangle(sides=True), h, np.random.default_rng(3))

    def start(i):
        return lambda x: _cole_hopf(torch.from_numpy(x), 0.0)[0][:, i].numpy()

    return mesh, solve_burgers_on_mesh(
        mesh,
        (start(0), start(1)),
        _TIMES,
        viscosity=_NU,
        step=FixedStep(dt),
        neumann=((BOTTOM, TOP), (LEFT, RIGHT)),  # nothing crosses the walls, along them it slips
        degree=degree,
    )


def _errors(h, dt, degree):
    mesh, solution = _solve(h, dt, degree)
    exact = dict(
        zip(
            ("u", "gradient", "time_derivative"),
            _cole_hopf(mesh.pos, float(_TIMES[-1])),
            strict=True,
        )
    )
    return {
        name: float(
            (mesh.weights @ ((getattr(solution, name)[-1] - v) ** 2).flatten(1).sum(1)).sqrt()
        )
        for name, v in exact.items()
    }


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_error_against_cole_and_hopf_falls_at_the_stated_order_in_space(degree):
    orders = {"u": degree + 1, "gradient": degree, "time_derivative": degree + 1}
    # the time step is small enough for its error to be below that of the finest mesh
    found = [_errors(h, 0.0025, degree) for h in (0.2, 0.1, 0.05)]
    for coarse, fine in pairwise(found):
        for name, order in orders.items():
            assert np.log2(coarse[name] / fine[name]) > order - 0.25, name  # scatter of the meshes


def test_error_in_time_is_of_order_three():
    _, reference = _solve(0.3, 0.0015625, 2)  # the same mesh: only the time error remains
    # the time derivative is stiff: measured 2.56, 2.64
    for name, order in (("u", 3.0), ("time_derivative", 2.5)):
        found = []
        for dt in (0.05, 0.025, 0.0125):
            error = getattr(_solve(0.3, dt, 2)[1], name) - getattr(reference, name)
            found.append(float(error[-1].norm()))
        rates = [np.log2(coarse / fine) for coarse, fine in pairwise(found)]
        assert np.allclose(rates, order, atol=0.3), (name, rates)


def test_a_force_and_given_velocities_hold_a_flow_at_rest_in_time():
    # u = (x y, x - y) needs the force (u . grad) u, as it is harmonic; degree 2 contains it
    mesh = mesh_geometry(rectangle(), 0.2, np.random.default_rng(0))

    def u(x):
        return x[:, 0] * x[:, 1]

    def v(x):
        return x[:, 0] - x[:, 1]

    def force(t):
        return (
            lambda x: u(x) * x[:, 1] + v(x) * x[:, 0],
            lambda x: u(x) - v(x),
        )

    solution = solve_burgers_on_mesh(
        mesh,
        (u, v),
        torch.tensor([0.0, 0.5]),
        viscosity=0.05,
        step=FixedStep(0.05),
        velocity=(u, v),
        body=force,
        degree=2,
    )
    assert torch.allclose(solution.u[1], solution.u[0], rtol=0, atol=1e-12)
    assert float(solution.time_derivative.abs().max()) < 1e-10


def test_a_sample_rests_on_its_walls_and_depends_on_seed_and_index_only():
    assert isinstance(_SHORT, System)
    one, two, other = (_SHORT.sample(2, i) for i in (7, 7, 8))
    assert torch.equal(one.u, two.u) and torch.equal(one.time_derivative, two.time_derivative)
    assert other.u.shape != one.u.shape or not torch.equal(other.u, one.u)
    n = one.mesh.num_points
    assert one.u.shape == (3, n, 2) and one.gradient.shape == (3, n, 2, 2)
    boundary = one.mesh.facets["line"].unique()
    assert float(one.u[:, boundary].abs().max()) == 0.0
    assert float(one.time_derivative[:, boundary].abs().max()) == 0.0
    assert one.parameters["time_error"] <= _SHORT.step.tolerance
    assert 0.005 <= one.parameters["viscosity"] <= 0.015
    assert float(one.u[0].abs().max()) > 0.1


def test_refinement_gives_the_same_problem():
    coarse, fine = (_SHORT.sample(1, 0, refine=r) for r in (0, 1))
    inner = coarse.mesh.select("distance").u[:, 0] > 0.05
    x, y = coarse.mesh.pos[inner].numpy(), fine.mesh.pos.numpy()
    for frame in (0, 2):
        for channel in range(2):
            values = coarse.u[frame, inner, channel].numpy()
            there = CloughTocher2DInterpolator(y, fine.u[frame, :, channel].numpy())
            # cubic interpolation of fronts of some .05
            assert np.abs(there(x) - values).max() < 5e-3 * float(coarse.u.abs().max())


def test_time_derivative_is_the_slope_of_the_solution():
    step = CheckedStep(dt=1e-4, tolerance=1e-6)
    sample = replace(_SHORT, final_time=1e-3, step=step).sample(0, 1)
    slope = (sample.u[2] - sample.u[0]) / 1e-3
    error = (slope - sample.time_derivative[1]).abs().max()
    # central differences: 1e-6 / 24 times the third time derivative, about 50^2 of the first
    assert float(error) < 1e-3 * float(sample.time_derivative[1].abs().max())


def test_fronts_too_thin_for_the_mesh_are_an_error_that_names_the_sample(monkeypatch):
    step = CheckedStep(dt=0.05, tolerance=1e-2, max_halvings=1)
    thin = Burgers(h=0.12, viscosity=(2e-4, 2e-4), step=step)
    with pytest.raises(SolverError, match="sample 2 of seed 5: the solution diverged"):
        thin.sample(5, 2)
    monkeypatch.setattr("cst_operator.solvers.burgers._MAX_OVERSHOOT", -0.5)
    with pytest.raises(SolverError, match="sample 2 of seed 5: a component exceeds .* smaller h"):
        replace(_SHORT, h=0.12).sample(5, 2)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"initial": (1.0, 0.0)}, "initial value of u_x differs from g by 1"),
        ({"times": torch.tensor([0.0, 0.0])}, "increasing"),
        ({"viscosity": 0.0}, "positive number"),
        ({"neumann": ((), (7,))}, "neumann names marker 7"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    given = {"initial": (0.0, 0.0), "times": _TIMES, "viscosity": 1.0, "step": FixedStep(0.1)}
    with pytest.raises(InputError, match=words):
        solve_burgers_on_mesh(mesh, **{**given, **change})


@pytest.mark.parametrize(
    "change",
    [{"viscosity": (0.0, 1.0)}, {"speed": (1.0, 0.5)}, {"num_frames": 1}, {"smoothing": 0.0}],
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        Burgers(**change)
