import math
from itertools import pairwise

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import CheckedStep, FixedStep, Semilinear
from cst_operator.solvers.etdrk4 import _march

_TIMES = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)


def _logistic(rate):
    # v' = rate v - v^2
    return Semilinear(torch.tensor(rate, dtype=torch.float64), lambda v: -(v**2))


def _exact(rate, v0, t):
    growth = torch.expm1(rate * t) / rate if rate else t
    return v0 * torch.exp(rate * t) / (1 + v0 * growth)


def _start(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None]  # [B, 1, 1]


@pytest.mark.parametrize("rate", [2.0, -5.0, 0.0])
def test_error_falls_at_order_four(rate):
    errors = []
    for dt in (0.1, 0.05, 0.025):
        states = FixedStep(dt).integrate(_logistic(rate), _start(0.4), _TIMES).states
        errors.append(float((states[-1, 0, 0, 0] - _exact(rate, 0.4, _TIMES[-1])).abs()))
    # relative to the solution all are below 1e-3: the rates are close to their limit
    scale = float(_exact(rate, 0.4, _TIMES[-1]))
    assert errors[0] < 1e-3 * scale
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert rates == pytest.approx([4.0, 4.0], abs=0.4)


def test_linear_equations_are_solved_exactly_with_one_step():
    linear = torch.tensor([-1e6, -3.0, 0.0, 2.0], dtype=torch.float64)
    turn = torch.tensor([1j, 40j, -1e3j, -2 + 3j])
    start = torch.ones(1, 1, 4, dtype=torch.float64)
    for diagonal, v in ((linear, start), (turn, start.to(torch.complex128))):
        equation = Semilinear(diagonal, torch.zeros_like)
        found = FixedStep(1.0).integrate(equation, v, _TIMES[[0, 2]]).states[-1, 0, 0]
        assert torch.allclose(found, torch.exp(diagonal).to(found.dtype), rtol=1e-6, atol=1e-12)


def test_a_constant_right_hand_side_of_a_stiff_equation_reaches_its_steady_state():
    # the coefficients lose no digits to cancellation, for small and large L: v = (e^(L t) - 1) / L
    linear = torch.tensor([-1e5, -1.0, -1e-3, -1e-8, 1e-12], dtype=torch.float64)
    equation = Semilinear(linear, torch.ones_like)
    states = FixedStep(0.7).integrate(equation, torch.zeros(1, 1, 5).double(), _TIMES).states
    exact = torch.expm1(linear) / linear
    assert torch.allclose(states[-1, 0, 0], exact, rtol=1e-13, atol=0)  # rounding


def test_a_checked_step_is_halved_until_the_estimate_is_small_and_the_estimate_is_honest():
    step = CheckedStep(dt=0.5, tolerance=1e-8)
    frames = step.integrate(_logistic(2.0), _start(0.1, 0.4), _TIMES)
    assert frames.dt < 0.5
    exact = torch.stack([_exact(2.0, v, _TIMES) for v in (0.1, 0.4)], dim=1)
    error = ((frames.states[:, :, 0, 0] - exact) / exact).abs().amax(dim=0)
    assert bool((frames.error <= 1e-8).all())
    # the estimate is asymptotically right
    assert torch.allclose(frames.error, error, rtol=0.5, atol=0)


def test_frames_closer_than_the_step_do_not_fool_the_check():
    step = CheckedStep(dt=0.5, tolerance=1e-9)
    times = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    frames = step.integrate(_logistic(2.0), _start(0.4), times)
    error = (frames.states[:, 0, 0, 0] / _exact(2.0, 0.4, times) - 1).abs().max()
    assert frames.dt < 0.1
    assert float(frames.error) == pytest.approx(float(error), rel=0.5)  # asymptotically right


def test_blow_up_is_an_error_that_names_the_member():
    # v' = v^2 from 2 is infinite at time 1/2
    grows = Semilinear(torch.zeros((), dtype=torch.float64), lambda v: v**2)
    start = _start(0.1, 2.0, 0.2)
    for step in (CheckedStep(dt=0.02, max_halvings=2), FixedStep(0.01)):
        with pytest.raises(SolverError, match="member 1 of the batch diverged"):
            step.integrate(grows, start, 2 * _TIMES)


def test_a_tolerance_that_is_not_reached_is_an_error():
    step = CheckedStep(dt=0.5, tolerance=1e-12, max_halvings=2)
    with pytest.raises(SolverError, match=r"steps of 0\.0875, .* member 0 .* tolerance of 1e-12"):
        step.integrate(_logistic(2.0), _start(0.4), _TIMES)


def test_the_time_loop_never_waits_for_the_device():
    # a tensor without values refuses everything that would have to read one
    with FakeTensorMode():
        start = torch.empty(2, 1, 8, dtype=torch.complex128, device="cuda")
        linear = torch.empty(8, dtype=torch.float64, device="cuda")
        equation = Semilinear(linear, lambda v: v * v)
        states = _march(equation, start, [(0.5, 5), (0.2, 2)])
        assert states.shape == (3, 2, 1, 8) and states.device.type == "cuda"
        with pytest.raises(RuntimeError):
            float(states.abs().max())


def test_precision_is_kept():
    start = _start(0.4).to(torch.float32)
    states = CheckedStep(dt=0.1, tolerance=1e-4).integrate(_logistic(2.0), start, _TIMES).states
    assert states.dtype == torch.float32
    assert float(states[-1]) == pytest.approx(float(_exact(2.0, 0.4, _TIMES[-1])), rel=1e-4)


def test_gradients_flow_through_the_solution():
    start = _start(0.4).requires_grad_()
    step = FixedStep(0.25)
    assert torch.autograd.gradcheck(
        lambda v: step.integrate(_logistic(2.0), v, _TIMES).states, (start,)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedStep(0.0),
        lambda: CheckedStep(dt=-1.0),
        lambda: CheckedStep(dt=1.0, tolerance=0.0),
        lambda: CheckedStep(dt=1.0, max_halvings=0),
        lambda: FixedStep(0.1).integrate(_logistic(1.0), _start(1.0), torch.tensor([0.0, 0.0])),
    ],
)
def test_impossible_steps_and_times_are_refused(make):
    with pytest.raises(InputError):
        make()
