"""Equations on periodic squares: exact solutions, orders in time, conservation."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch._subclasses.fake_tensor import FakeTensorMode

from cst_operator.errors import InputError
from cst_operator.solvers import (
    CheckedStep,
    FixedStep,
    PeriodicAllenCahn,
    PeriodicBox,
    PeriodicFitzHughNagumo,
    PeriodicGrayScott,
    PeriodicNavierStokes,
    diagonal_force,
    solve_periodic_gray_scott,
    solve_reaction_diffusion,
    solve_vorticity,
)
from cst_operator.solvers.etdrk4 import _march
from cst_operator.solvers.periodic_fitzhugh_nagumo import _reaction as fitzhugh_nagumo_reaction
from cst_operator.solvers.periodic_navier_stokes import _equation as vorticity_equation

_TIMES = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)


def _grid(n, length=1.0):
    return PeriodicBox((n, n), (length, length)).points().reshape(n, n, 2).unbind(-1)


def _rates(errors):
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def test_vortices_of_one_wavelength_decay_as_taylor_and_green():
    # all waves have |k| = 5 * 2 pi: the vorticity is 25 (2 pi)^2 psi, which the flow carries along
    x, y = (2 * np.pi * a for a in _grid(32))
    w0 = torch.sin(5 * x) + torch.cos(3 * x + 4 * y) - 2 * torch.sin(4 * x - 3 * y)
    nu = torch.tensor([1e-3, 4e-3], dtype=torch.float64)
    w = solve_vorticity(w0.expand(2, 32, 32), _TIMES, viscosity=nu, step=FixedStep(0.25))
    decay = torch.exp(-nu[:, None] * 25 * 4 * np.pi**2 * _TIMES)
    # the linear term is exact for any step, the nonlinear one vanishes up to rounding
    assert torch.allclose(w, decay[..., None, None] * w0, rtol=0, atol=1e-12)


def _balanced(nu):
    """A steady vorticity of two wavelengths with the force that holds it, by hand."""
    # psi = a cos x + b sin 2y, v = (psi_y, -psi_x) = (2b cos 2y, a sin x), w = a cos x + 4b sin 2y
    a, b = 0.7, 0.2
    x, y = _grid(32, 2 * np.pi)
    w = a * torch.cos(x) + 4 * b * torch.sin(2 * y)
    w_x, w_y = -a * torch.sin(x), 8 * b * torch.cos(2 * y)
    drift = 2 * b * torch.cos(2 * y) * w_x + a * torch.sin(x) * w_y
    return w, drift + nu * (a * torch.cos(x) + 16 * b * torch.sin(2 * y))


def test_a_manufactured_flow_stands_still():
    w, force = _balanced(0.5)
    lengths = (2 * np.pi, 2 * np.pi)
    step = CheckedStep(dt=0.05, tolerance=1e-10)
    found = solve_vorticity(w[None], _TIMES, viscosity=0.5, force=force, lengths=lengths, step=step)
    assert torch.allclose(found[0], w.expand_as(found[0]), rtol=0, atol=1e-10)  # rounding
    without = solve_vorticity(w[None], _TIMES, viscosity=0.5, lengths=lengths, step=step)
    assert float((without[0, -1] - w).abs().max()) > 0.1  # the force does hold it


def test_vorticity_is_of_order_four_in_time(rng):
    system = PeriodicNavierStokes()
    box = PeriodicBox((32, 32), (1.0, 1.0))
    start = 8 * system.initial.sample(rng, box.lengths).on(box)[None]
    force = diagonal_force(box)
    times = torch.tensor([0.0, 2.0], dtype=torch.float64)

    def solve(dt):
        return solve_vorticity(start, times, viscosity=5e-3, force=force, step=FixedStep(dt))[0, -1]

    # no exact solution is known: the reference has a quarter of the smallest step
    reference = solve(1 / 256)
    errors = [float((solve(dt) - reference).norm()) for dt in (1 / 16, 1 / 32, 1 / 64)]
    assert _rates(errors) == pytest.approx([4.0, 4.0], abs=0.25)


def test_flow_without_viscosity_and_force_keeps_energy_and_enstrophy(rng):
    box = PeriodicBox((48, 48), (1.0, 1.0))
    start = 8 * PeriodicNavierStokes().initial.sample(rng, box.lengths).on(box)[None]
    step = CheckedStep(dt=0.02, tolerance=1e-8)
    w = solve_vorticity(start, _TIMES, viscosity=1e-30, step=step)[0]
    stream_function = torch.where(box.laplacian() == 0, 0.0, -1 / box.laplacian())
    energy = (box.inverse(box.forward(w) * stream_function) * w).mean((-2, -1))
    enstrophy = (w**2).mean((-2, -1))
    assert float((w[-1] - w[0]).abs().max()) > 1.0  # it does move
    # the cut-off equation conserves both; the tolerance of the step is 1e-8
    assert torch.allclose(energy, energy[0], rtol=1e-8, atol=0)
    assert torch.allclose(enstrophy, enstrophy[0], rtol=1e-8, atol=0)


def test_the_time_loop_of_the_flow_never_waits_for_the_device():
    # a tensor without values refuses everything that would have to read one
    with FakeTensorMode():
        box = PeriodicBox((16, 16), (1.0, 1.0))
        w = torch.empty(3, 1, 16, 16, dtype=torch.float64)
        nu = torch.empty(3, 1, 1, 1, dtype=torch.float64)
        states = _march(vorticity_equation(box, nu, w), box.forward(w), [(0.5, 5)])
        assert states.shape == (2, 3, 1, 16, 9)


@pytest.mark.parametrize("name", ["vorticity", "force"])
def test_a_flow_with_mean_vorticity_is_refused(name):
    fields = {"vorticity": torch.zeros(1, 8, 8), "force": torch.zeros(8, 8)}
    fields[name] = fields[name] + 1.0
    with pytest.raises(InputError, match=f"the {name} has a mean"):
        solve_vorticity(fields["vorticity"], _TIMES, viscosity=0.1, force=fields["force"])


def test_reaction_and_diffusion_of_an_invading_front_are_exact():
    # Fisher, u' = D u'' + u - u^2: the front (1 + exp(z / sqrt 6))^-2, z = x - 5 t / sqrt 6, D = 1.
    # Two of them, far apart, make it periodic.
    length, n = 160.0, 384
    x = torch.arange(n, dtype=torch.float64) * length / n

    def fronts(t):
        z = (x - length / 2).abs() - 20 - 5 / math.sqrt(6) * t
        return (1 + torch.exp(z / math.sqrt(6))) ** -2

    found = solve_reaction_diffusion(
        fronts(0.0)[None, None],
        torch.tensor([0.0, 5.0], dtype=torch.float64),
        diffusion=[1.0],
        decay=[-1.0],
        reaction=lambda u: -(u**2),
        lengths=(length,),
        step=CheckedStep(dt=0.1, tolerance=1e-8),
    )
    # in the middle the fronts overlap by exp(-20 / sqrt 6), about 3e-4, at the ends they are 1e-14;
    # what the overlap disturbs decays
    assert float((found[0, -1, 0] - fronts(5.0)).abs().max()) < 3e-4


def _gray_scott(u0, times, step, feed=0.03, kill=0.06):
    return solve_periodic_gray_scott(u0, times, feed=feed, kill=kill, step=step)


def test_a_uniform_gray_scott_state_follows_the_ordinary_differential_equation():
    feed, kill = torch.tensor([0.03, 0.05], dtype=torch.float64), 0.06
    u0 = torch.tensor([0.5, 0.3], dtype=torch.float64)[None, :, None, None].expand(2, 2, 8, 8)
    times = torch.tensor([0.0, 20.0, 60.0], dtype=torch.float64)
    step = CheckedStep(dt=1.0, tolerance=1e-10)
    found = _gray_scott(u0, times, step, feed=feed, kill=kill)
    for i, f in enumerate(feed.tolist()):

        def rate(_, w, f=f):
            return [-w[0] * w[1] ** 2 + f * (1 - w[0]), w[0] * w[1] ** 2 - (f + kill) * w[1]]

        reference = solve_ivp(
            rate, (0, 60), [0.5, 0.3], t_eval=times, rtol=1e-11, atol=1e-13, method="DOP853"
        ).y.T
        expected = torch.from_numpy(reference)[:, :, None, None].expand(3, 2, 8, 8)
        assert torch.allclose(found[i], expected, rtol=0, atol=1e-9)  # tolerance of both


def _blobs(n):
    x, y = (2 * np.pi * a for a in _grid(n))
    v = 0.25 * torch.exp(torch.cos(x) + torch.cos(y) - 2)
    return torch.stack([1 - v, v])[None]


def test_gray_scott_is_of_order_four_in_time():
    times = torch.tensor([0.0, 64.0], dtype=torch.float64)
    reference = _gray_scott(_blobs(32), times, FixedStep(0.25))
    errors = [
        float((_gray_scott(_blobs(32), times, FixedStep(dt)) - reference).norm())
        for dt in (4.0, 2.0, 1.0)
    ]
    # the reference has a quarter of the smallest step
    assert _rates(errors) == pytest.approx([4.0, 4.0], abs=0.35)


def test_gray_scott_without_feed_and_kill_conserves_the_total():
    u = _gray_scott(_blobs(32), 20 * _TIMES, CheckedStep(dt=1.0), feed=0.0, kill=0.0)[0]
    total = u.sum(1).mean((-2, -1))
    assert torch.allclose(total, total[0], rtol=0, atol=1e-13)  # exact up to rounding
    assert float((u[-1] - u[0]).abs().max()) > 0.01  # it does react


def test_the_energy_of_allen_cahn_never_grows():
    system = PeriodicAllenCahn()
    sample = system.sample(0, 0)
    slope = (sample.gradient**2).sum(dim=(2, 3))
    density = system.epsilon**2 / 2 * slope + (1 - sample.u[..., 0] ** 2) ** 2 / 4
    energy = density @ sample.mesh.weights
    assert bool((energy.diff() < 0).all())
    assert float(energy[-1]) < 0.5 * float(energy[0])


def test_an_allen_cahn_interface_stands_still():
    eps, n = 0.03, 128
    x = torch.arange(n, dtype=torch.float64) / n
    root = math.sqrt(2) * eps
    u0 = torch.tanh((x - 0.25) / root) - torch.tanh((x - 0.75) / root) - 1
    found = solve_reaction_diffusion(
        u0[None, None],
        torch.tensor([0.0, 5.0], dtype=torch.float64),
        diffusion=[eps**2],
        decay=[-1.0],
        reaction=lambda u: -(u**3),
        lengths=(1.0,),
        step=CheckedStep(dt=0.1),
    )
    # two interfaces half a length apart attract each other by exp(-.5 sqrt 2 / eps) = 6e-11; at
    # the ends of the interval the profiles are cut off at exp(-.25 * 2 / root) = 8e-6
    assert float((found[0, -1, 0] - u0).abs().max()) < 5e-5


def test_a_uniform_fitzhugh_nagumo_state_follows_the_ordinary_differential_equation():
    u0 = torch.tensor([0.4, -0.2], dtype=torch.float64)[None, :, None, None].expand(1, 2, 8, 8)
    found = solve_reaction_diffusion(
        u0,
        5 * _TIMES,
        diffusion=[1e-3, 5e-3],
        decay=[-1.0, 1.0],
        reaction=fitzhugh_nagumo_reaction(0.005),
        lengths=(1.0, 1.0),
        step=CheckedStep(dt=0.1, tolerance=1e-10),
    )
    reference = solve_ivp(
        lambda _, w: [w[0] - w[0] ** 3 - 0.005 - w[1], w[0] - w[1]],
        (0, 5),
        [0.4, -0.2],
        t_eval=5 * _TIMES,
        rtol=1e-11,
        atol=1e-13,
        method="DOP853",
    ).y.T
    expected = torch.from_numpy(reference)[:, :, None, None]
    assert torch.allclose(found[0], expected.expand(3, 2, 8, 8), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"diffusion": [1.0]}, "diffusion has shape"),
        ({"diffusion": [1.0, -1.0]}, "not negative"),
        ({"decay": [1.0]}, "decay has shape"),
        ({"lengths": (1.0,)}, "one of each per axis"),
    ],
)
def test_systems_that_do_not_fit_are_refused(change, words):
    arguments = {
        "diffusion": [1.0, 1.0],
        "reaction": torch.zeros_like,
        "lengths": (1.0, 1.0),
        "step": FixedStep(0.1),
        **change,
    }
    with pytest.raises(InputError, match=words):
        solve_reaction_diffusion(torch.zeros(1, 2, 8, 8).double(), _TIMES, **arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PeriodicNavierStokes(viscosity=0.0),
        lambda: PeriodicGrayScott(num_blobs=(0, 3)),
        lambda: PeriodicGrayScott(feed_kill=()),
        lambda: PeriodicAllenCahn(epsilon=0.0),
        lambda: PeriodicFitzHughNagumo(diffusion=(1.0, -1.0)),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(InputError):
        make()
