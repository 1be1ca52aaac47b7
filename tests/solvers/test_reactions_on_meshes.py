from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CloughTocher2DInterpolator

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    AllenCahn,
    CheckedStep,
    Constant,
    FitzHughNagumo,
    FixedDomain,
    FixedStep,
    GrayScott,
    System,
    disk,
    mesh_geometry,
    rectangle,
    solve_reactions,
)

_TIMES = torch.tensor([0.0, 0.3, 0.5], dtype=torch.float64)
_D = (0.02, 0.05)
SYSTEMS = [
    AllenCahn(final_time=1.0, num_frames=3),
    FitzHughNagumo(final_time=0.25, num_frames=3, h=0.043),
    GrayScott(final_time=20.0, num_frames=3),
]
by_name = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


def _shape(x):
    return np.stack([np.cos(np.pi * x[:, 0]) * np.cos(np.pi * x[:, 1]), np.cos(np.pi * x[:, 1])])


def _growth(t):
    return np.array([np.cos(3 * t), 1 + np.sin(2 * t)])[:, None]


def _exact(x, t):
    return 0.5 + _growth(t) * _shape(x)


def _rate(x, t):
    return np.array([-3 * np.sin(3 * t), 2 * np.cos(2 * t)])[:, None] * _shape(x)


def _law(w):
    u, v = w
    return np.stack([-u * v**2 + u, u * v**2 - v])


def _reaction(w, x, t):
    """The law, and what makes the exact solution one."""
    waves = np.array([2.0, 1.0])[:, None] * np.pi**2
    diffused = -np.array(_D)[:, None] * waves * (_exact(x, t) - 0.5)
    return _law(w) + _rate(x, t) - diffused - _law(_exact(x, t))


def _solve(h, dt, degree):
    mesh = mesh_geometry(rectangle(), h, np.random.default_rng(3))
    return mesh, solve_reactions(
        mesh,
        [lambda x: _exact(x, 0.0)[0], lambda x: _exact(x, 0.0)[1]],
        _TIMES,
        diffusion=_D,
        reaction=_reaction,
        step=FixedStep(dt),
        degree=degree,
    )


def _errors(h, dt, degree):
    mesh, solution = _solve(h, dt, degree)
    x, t = mesh.pos.numpy(), float(_TIMES[-1])
    a, b = np.pi * x.T
    zero = np.zeros_like(a)
    slope = np.array(
        [[-np.sin(a) * np.cos(b), -np.cos(a) * np.sin(b)], [zero, -np.sin(b)]]
    )  # [2, 2, N]
    exact = {
        "u": _exact(x, t).T,
        "gradient": (np.pi * _growth(t)[:, None] * slope).transpose(2, 0, 1),
        "time_derivative": _rate(x, t).T,
    }
    w = mesh.weights.numpy()
    return {
        name: np.sqrt(w @ ((getattr(solution, name)[-1].numpy() - v) ** 2).reshape(len(w), -1))
        .sum()
        .item()
        for name, v in exact.items()
    }


# Measured from h = .4 to .2 and .1: see docs/solvers.rst.
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_error_in_space_falls_at_the_stated_order(degree):
    orders = {"u": degree + 1, "gradient": degree, "time_derivative": degree + 1}
    # the time step is small enough for its error to be below that of the finest mesh
    found = [_errors(h, 0.00625, degree) for h in (0.4, 0.2, 0.1)]
    for coarse, fine in pairwise(found):
        for name, order in orders.items():
            assert np.log2(coarse[name] / fine[name]) > order - 0.25, (
                name,
                coarse,
                fine,
            )  # scatter of the meshes


def test_error_in_time_is_of_order_three():
    _, reference = _solve(0.3, 0.003125, 2)  # the same mesh: only the time error remains
    for name in ("u", "time_derivative"):
        found = []
        for dt in (0.1, 0.05, 0.025):
            error = getattr(_solve(0.3, dt, 2)[1], name) - getattr(reference, name)
            found.append(float(error[-1].norm()))
        rates = [np.log2(coarse / fine) for coarse, fine in pairwise(found)]
        assert np.allclose(rates, 3.0, atol=0.3), (name, rates)


def test_a_checked_step_bounds_the_error_in_time():
    def solve(step):
        mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(3))
        start = [lambda x: _exact(x, 0.0)[0], lambda x: _exact(x, 0.0)[1]]
        return solve_reactions(
            mesh, start, _TIMES, diffusion=_D, reaction=_reaction, step=step, degree=2
        )

    exact = solve(FixedStep(0.003125))
    loose, tight = (solve(CheckedStep(dt=0.3, tolerance=t)) for t in (1e-3, 1e-5))
    for solution, tolerance in ((loose, 1e-3), (tight, 1e-5)):
        error = (solution.u - exact.u).norm(dim=1) / exact.u.norm(dim=1)
        assert 0 < solution.parameters["time_error"] <= tolerance
        assert float(error.max()) < 2 * tolerance  # the estimate is asymptotic
    assert tight.parameters["dt"] < loose.parameters["dt"] < 0.3


def test_nothing_flows_through_a_curved_boundary():
    # cos(pi r^2) has no slope at r = 1; with the diffusion's share given back it stays
    def still(w, x, t):
        s = np.pi * (x**2).sum(axis=1)
        return 0.1 * (4 * np.pi * np.sin(s) + 4 * np.pi * s * np.cos(s))[None]

    def start(x):
        return np.cos(np.pi * (x**2).sum(axis=1))

    errors = []
    for h in (0.2, 0.1):
        geometry = disk(1.0, num_points=20000)
        mesh = mesh_geometry(geometry, h, np.random.default_rng(0))
        solution = solve_reactions(
            mesh,
            [start],
            torch.tensor([0.0, 1.0]),
            diffusion=(0.1,),
            reaction=still,
            step=FixedStep(0.05),
            channels=("u",),
            degree=2,
            geometry=geometry,
        )
        errors.append(
            float(
                (solution.u[1, :, 0] - torch.from_numpy(start(mesh.pos.numpy()))).norm()
                / len(mesh.pos) ** 0.5
            )
        )
    assert np.log2(errors[0] / errors[1]) > 2.75


def test_what_reacts_is_not_lost():
    # elements of degree 1, whose integrals the weights of the mesh are
    mesh = mesh_geometry(rectangle(), 0.1, np.random.default_rng(0))

    def law(w, x, t):
        product = w[0] * w[1] ** 2
        return np.stack([-product, product])

    solution = solve_reactions(
        mesh,
        [lambda x: 1 + x[:, 0], lambda x: 2 * x[:, 1] ** 2],
        torch.linspace(0.0, 1.0, 5),
        diffusion=(0.01, 0.1),
        reaction=law,
        step=FixedStep(0.05),
        degree=1,
    )
    u, v = (mesh.weights @ solution.u[..., i].T for i in range(2))  # [T] each
    assert torch.allclose(u + v, (u + v)[0], rtol=1e-13, atol=0)  # rounding
    assert float(v[-1] - v[0]) > 0.1


def test_equal_diffusion_keeps_a_uniform_total():
    # of the system, without feed and kill: u + v = 1 at the start and everywhere
    sample = GrayScott(
        feed_kill=((0.0, 0.0),), diffusion=(1e-4, 1e-4), final_time=30.0, num_frames=2, h=0.06
    ).sample(0, 1)
    assert torch.allclose(sample.u.sum(dim=2), torch.ones(()).double(), rtol=0, atol=1e-10)
    assert float((sample.u[-1] - sample.u[0]).abs().max()) > 0.1


def test_uniform_states_follow_their_kinetics():
    def law(t, w):
        u, v = w
        return [u - u**3 - 0.3 - v, u - v]

    system = FitzHughNagumo(
        k=0.3,
        initial=Constant(0.7),
        final_time=2.0,
        num_frames=3,
        h=0.1,
        step=CheckedStep(dt=0.125, tolerance=1e-6),
    )
    sample = system.sample(0, 0)
    exact = solve_ivp(law, (0, 2), [0.7, 0.7], rtol=1e-10, atol=1e-12, t_eval=[0, 1, 2]).y.T
    assert torch.allclose(sample.u, torch.from_numpy(exact)[:, None], rtol=0, atol=3e-6)
    assert float(sample.gradient.abs().max()) < 1e-9


def test_the_energy_of_two_phases_never_grows():
    system = AllenCahn()
    sample = system.sample(0, 1)
    well = (1 - sample.u[:, :, 0] ** 2) ** 2 / 4
    slope = system.epsilon**2 * (sample.gradient[:, :, 0] ** 2).sum(dim=2) / 2
    energy = (well + slope) @ sample.mesh.weights
    assert bool((energy.diff() < 0).all())


def test_an_interface_rests():
    # tanh(x / sqrt 2 epsilon), with 20 epsilon to either side
    geometry = rectangle(2.0, 0.5)
    mesh = mesh_geometry(geometry, 0.05, np.random.default_rng(0))

    def profile(x):
        return np.tanh((x[:, 0] - 1) / (np.sqrt(2) * 0.05))

    solution = solve_reactions(
        mesh,
        [profile],
        torch.tensor([0.0, 5.0]),
        diffusion=(0.05**2,),
        reaction=lambda w, x, t: w - w**3,
        step=FixedStep(0.05),
        channels=("u",),
        degree=3,
    )
    # elements of degree 3, edges as long as epsilon; the linearized equation keeps errors
    assert float((solution.u[1] - solution.u[0]).abs().max()) < 2e-3


@by_name
def test_a_sample_depends_on_seed_and_index_only(system):
    assert isinstance(system, System)
    one, two, other = (system.sample(2, i) for i in (7, 7, 8))
    assert torch.equal(one.u, two.u) and torch.equal(one.time_derivative, two.time_derivative)
    n, c = one.mesh.num_points, len(system.channels)
    assert one.u.shape == (3, n, c) and one.gradient.shape == (3, n, c, 2)
    assert one.channels == system.channels and one.mesh.channels == ("distance",)
    assert other.u.shape != one.u.shape or not torch.equal(other.u, one.u)
    assert one.parameters["time_error"] <= system.step.tolerance


@by_name
def test_refinement_gives_the_same_problem(system):
    coarse, fine = (system.sample(1, 0, refine=r) for r in (0, 1))
    inner = coarse.mesh.u[:, 0] > 0.05
    x, y = coarse.mesh.pos[inner].numpy(), fine.mesh.pos.numpy()
    for name in ("u", "time_derivative"):
        for frame in (0, 2):
            values = getattr(coarse, name)[frame, inner, -1].numpy()
            there = CloughTocher2DInterpolator(y, getattr(fine, name)[frame, :, -1].numpy())
            scale = float(getattr(coarse, name)[..., -1].abs().max())
            # cubic interpolation, and the time error of the estimate
            assert np.abs(there(x) - values).max() < 5e-3 * scale, (name, frame)


@by_name
def test_time_derivative_is_the_slope_of_the_solution(system):
    span = system.final_time / 1000
    step = CheckedStep(dt=span / 10, tolerance=1e-6)
    sample = replace(system, final_time=span, num_frames=3, step=step).sample(0, 1)
    slope = (sample.u[2] - sample.u[0]) / span
    error = (slope - sample.time_derivative[1]).abs().max()
    # central differences over a thousandth of the time in which things change
    assert float(error) < 1e-3 * float(sample.time_derivative[1].abs().max())


def test_a_solution_that_diverges_names_the_sample():
    system = AllenCahn(
        initial=Constant(1e3), step=CheckedStep(dt=0.5, max_halvings=1), h=0.15
    )  # cubic growth of the explicit part
    with pytest.raises(SolverError, match="sample 4 of seed 9: the solution diverged"):
        system.sample(9, 4)
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    with pytest.raises(SolverError, match="diverged; use smaller"):
        solve_reactions(
            mesh,
            [1.0],
            torch.tensor([0.0, 20.0]),
            diffusion=(1.0,),
            reaction=lambda w, x, t: w**3,
            step=FixedStep(0.5),
            channels=("u",),
        )


def test_an_error_above_the_tolerance_names_the_sample():
    system = AllenCahn(
        domain=FixedDomain(disk(0.5)),
        step=CheckedStep(dt=1.0, tolerance=1e-12, max_halvings=1),
        h=0.15,
        final_time=1.0,
        num_frames=2,
    )
    with pytest.raises(SolverError, match="sample 4 of seed 9: .* above the tolerance of 1e-12"):
        system.sample(9, 4)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"initial": [1.0, 2.0]}, "2 initial values, 1 numbers of diffusion and 1 channels"),
        ({"times": torch.tensor([0.0, 0.0])}, "increasing"),
        ({"diffusion": (0.0,)}, "positive numbers"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    given = {
        "initial": [0.0],
        "times": _TIMES,
        "diffusion": (1.0,),
        "reaction": lambda w, x, t: w,
        "step": FixedStep(0.1),
        "channels": ("u",),
    }
    with pytest.raises(InputError, match=words):
        solve_reactions(mesh, **{**given, **change})


@pytest.mark.parametrize(
    "make",
    [
        lambda: AllenCahn(epsilon=0.0),
        lambda: AllenCahn(smoothing=0.0),
        lambda: FitzHughNagumo(num_frames=1),
        lambda: GrayScott(num_blobs=(0, 3)),
        lambda: GrayScott(feed_kill=()),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(InputError):
        make()
