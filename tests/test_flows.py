"""Flows are stable, act on an attention through its values, and contain those of the paper."""

import math

import pytest
import torch
from torch import Tensor

from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError
from cst_operator.nn import (
    FLOWS,
    LINEAR_FLOWS,
    AdvectionDiffusion,
    Diffusion,
    FlowingAttention,
    HiddenFlow,
    ImplicitDiffusion,
    PathLaplacian,
    PointLaplacian,
    QuadratureAttention,
    ReactionDiffusion,
    Wave,
    make_flow,
)
from tests.laplacian_samples import (
    RADIUS,
    everywhere,
    laplacian_on,
    matrix_of,
    on_cells,
    on_points,
    uniform,
)

pytestmark = pytest.mark.usefixtures("seeded")

# Sums of some hundred terms of order one in another order.
SUMS = {"rtol": 0.0, "atol": 1e-12}


every_flow = pytest.mark.parametrize("kind", FLOWS)


# --- the table of the released code ---


def _interior(x: Tensor, update: Tensor) -> Tensor:
    """Add to all but the first and last token."""
    out = x.clone()
    out[:, 1:-1] += update
    return out


def _code(kind: str, x: Tensor, alpha: float, beta: float) -> Tensor:
    difference = x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]
    here = x[:, 1:-1]
    update = {
        "diffusion": alpha * difference,
        "wave": alpha**2 * difference,
        "reaction_diffusion": alpha * difference + beta * here * (1 - torch.sigmoid(here)),
        "advection_diffusion": alpha * difference + beta * (x[:, 2:] - x[:, :-2]) / 2,
    }[kind]
    return _interior(x, update)


@pytest.mark.parametrize(
    "kind, alpha, beta, flow",
    [
        ("diffusion", 0.10, 0.0, Diffusion(steps=1)),
        ("wave", 0.15, 0.0, Diffusion(steps=1, rate=4 * 0.15**2)),
        ("wave", 0.15, 0.0, Wave(steps=1)),
        ("reaction_diffusion", 0.10, 0.02, ReactionDiffusion(steps=1)),
        ("advection_diffusion", 0.10, 0.03, AdvectionDiffusion(steps=1, dim=1)),
    ],
)
@pytest.mark.parametrize("num_points", [1, 2, 3, 9])
def test_initial_steps_on_a_path_are_those_of_the_released_code(
    kind, alpha, beta, flow, num_points
):
    x = torch.randn(2, num_points, 4).double()
    wanted = _code(kind, x, alpha, beta) if num_points > 1 else x
    # Initial coefficients are set in single precision.
    torch.testing.assert_close(flow(x, PathLaplacian()), wanted, rtol=0, atol=1e-6)


def test_steps_of_the_released_code_have_coefficients_of_their_own():
    flow, x = Diffusion(steps=2).double(), torch.randn(1, 9, 4).double()
    with torch.no_grad():
        flow.rate_logit[1] += 1.0
    alpha = flow.rate_logit.sigmoid()[:, 0].detach() / 4
    wanted = _code("diffusion", _code("diffusion", x, alpha[0], 0.0), alpha[1], 0.0)
    torch.testing.assert_close(flow(x, PathLaplacian()).detach(), wanted, **SUMS)


# --- stability ---


def _extreme(kind: str, steps: int, value: float) -> torch.nn.Module:
    flow = make_flow(kind, steps=steps, groups=2, dim=2).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.fill_(value)
            parameter[..., -1] *= -1
    return flow


@pytest.mark.parametrize("value", [0.0, 3.0, 1e3, -1e3, 1e30])
@pytest.mark.parametrize("kind", ["diffusion", "implicit_diffusion", "advection_diffusion"])
@pytest.mark.parametrize("place", ["points", "path"])
def test_no_value_leaves_the_range_whatever_the_parameters(kind, place, value):
    laplacian, n = laplacian_on(place)
    if place == "path":
        flow = make_flow(kind, steps=30, groups=2, dim=1).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.fill_(value)
    else:
        flow = _extreme(kind, 30, value)
    v = torch.randn(2, n, 4).double()
    out = flow(v, laplacian).detach()
    assert bool(out.isfinite().all())
    # Rounding of thirty steps; systems have a condition of a hundred.
    assert bool((out.amax(1) <= v.amax(1) + 1e-12).all())
    assert bool((out.amin(1) >= v.amin(1) - 1e-12).all())


@pytest.mark.parametrize("value", [0.0, 3.0, 1e3, -1e3, 1e30])
@everywhere
def test_a_wave_does_not_amplify_in_the_measure_that_makes_it_symmetric(place, value):
    laplacian, n = laplacian_on(place)
    matrix = matrix_of(laplacian, n)
    if place == "path":  # held ends are a source; with zeros there the rest is symmetric
        measure = torch.ones(1, n).double()
    else:
        # In its stationary distribution the walk is reversible, so the Laplacian symmetric.
        step = torch.eye(n).double() + matrix / laplacian.bound
        measure = torch.linalg.matrix_power(step, 4096)[:, 0]
    v = torch.randn(len(matrix), n, 4).double()
    if place == "path":
        v[:, [0, -1]] = 0
    start = (measure[..., None] * v.square()).sum(1)
    for steps in (1, 2, 7, 40):
        out = _extreme("wave", steps, value)(v, laplacian).detach()
        # At the end of the range, modes at rest after leapfrog's kicks round in forty steps.
        assert bool(((measure[..., None] * out.square()).sum(1) <= start * (1 + 1e-9)).all())


def test_a_step_beyond_the_bound_amplifies():
    v = torch.tensor([0.0, 1, -1, 1, -1, 1, 0]).double().view(1, -1, 1)
    laplacian, flow = PathLaplacian(bound=1.5), Diffusion(steps=20, rate=0.99).double()
    assert flow(v, laplacian).abs().max() > 1.5


@pytest.mark.parametrize("value", [0.0, 1e3, -1e3, 1e30])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_a_reaction_grows_less_than_e_fold(value, steps):
    laplacian, n = laplacian_on("points")
    flow = _extreme("reaction_diffusion", steps, value)
    v = 100 * torch.randn(2, n, 4).double()
    assert flow(v, laplacian).abs().max() <= math.e * v.abs().max()


@every_flow
@everywhere
def test_constants_do_not_flow_but_for_the_reaction(kind, place):
    laplacian, n = laplacian_on(place)
    flow = make_flow(kind, steps=3, groups=2, dim=1 if place == "path" else 2).double()
    v = torch.full((2, n, 4), 0.7).double()
    moved = (flow(v, laplacian) - v).abs().max()
    assert moved > 1e-3 if kind == "reaction_diffusion" else moved < 1e-12


@everywhere
def test_an_implicit_step_solves_its_equation_and_has_the_limit_of_small_explicit_ones(place):
    laplacian, n = laplacian_on(place)
    flow = ImplicitDiffusion(steps=1, groups=2, rate=8.0).double()
    v = torch.randn(2, n, 4).double()
    out = flow(v, laplacian).detach()
    residual = out - 8.0 / laplacian.bound * laplacian.apply(out) - v
    assert residual.abs().max() < 1e-5  # the rate is set in single precision
    many = ImplicitDiffusion(steps=200, rate=0.01).double()(v, laplacian)
    explicit = Diffusion(steps=200, rate=0.01).double()(v, laplacian)
    assert (many - explicit).abs().max() < 2e-2 * (explicit - v).abs().max()  # of first order


def test_a_wave_carries_a_bump_along_where_diffusion_leaves_it():
    x = torch.arange(101).double()
    v = torch.exp(-((x - 50) ** 2) / 18).view(1, -1, 1)
    # Speed sqrt(rate) on a path: 20 steps of 1 and two bumps of half the height.
    out = Wave(steps=20, rate=0.999999).double()(v, PathLaplacian()).detach()
    torch.testing.assert_close(
        out[0, [30, 70], 0], torch.full((2,), 0.5).double(), atol=1e-3, rtol=0
    )
    spread = Diffusion(steps=20, rate=0.999).double()(v, PathLaplacian())
    assert int(spread.argmax()) == 50


# --- where flows act ---


def _flowing(kind: str, radius: float = 0.5) -> FlowingAttention:
    attention = QuadratureAttention(32, 2, 2, max_turns=2.0, radii=(0.3, 1.5))
    flow = make_flow(kind, steps=3, groups=2, dim=2)
    layer = FlowingAttention(attention, flow, lambda s, w: PointLaplacian(s, w, radius)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


def _attention_flows(kind: str, flow: torch.nn.Module, a: Tensor, points: PointLaplacian) -> Tensor:
    """Attention matrices [B, h, M, N] after the steps of the paper, from the right."""
    rate = flow.rate_logit.sigmoid()
    for head in range(a.shape[1]):
        laplacian = points
        if kind == "advection_diffusion":
            u = flow.slope[head : head + 1]
            laplacian = points.drifting(u / (1 + u.square().sum()).sqrt())
        matrix = matrix_of(laplacian, a.shape[-1]) / points.bound
        before = now = a[:, head]
        for k in range(3):
            if kind == "wave":
                change = 4 * rate[head] * now @ matrix
                before, now = now, now + change / 2 if k == 0 else 2 * now - before + change
            elif kind == "implicit_diffusion":
                system = torch.eye(a.shape[-1]).double() - 100 * rate[k, head] * matrix
                now = now @ torch.linalg.inv(system)
            else:
                now = now + rate[k, head] * now @ matrix
        a = torch.cat([a[:, :head], now[:, None], a[:, head + 1 :]], dim=1)
    return a


@pytest.mark.parametrize("kind", LINEAR_FLOWS)
def test_flowing_values_is_flowing_the_attention_matrix(kind):
    layer = _flowing(kind)
    inner = layer.attention
    h, s, log_weights = torch.randn(2, 20, 32).double(), uniform(2, 20, 2), uniform(2, 20).log()
    q, at = torch.randn(2, 6, 32).double(), uniform(2, 6, 2)
    with torch.no_grad():
        key, value = inner.memory(h, s, log_weights)
        matrix = torch.softmax(inner.queries(q, at) @ key.transpose(2, 3), dim=-1)
        moved = _attention_flows(kind, layer.flow, matrix, layer.laplacian(s, log_weights))
        wanted = inner.out((moved @ value).transpose(1, 2).flatten(2))
        got = layer(q, at, layer.memory(h, s, log_weights))
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)  # what was asked for
        assert (moved - matrix).abs().max() > 1e-3
        torch.testing.assert_close(moved.sum(-1), torch.ones_like(moved[..., 0]), **SUMS)
        if kind != "wave":
            assert moved.min() > -1e-14  # still probabilities


@every_flow
def test_a_token_at_the_place_of_a_point_flows_as_the_point(kind):
    laplacian = on_points()
    flow = make_flow(kind, steps=3, groups=1, dim=2).double()
    layer = HiddenFlow(flow, RADIUS)
    h, s = torch.randn(2, 40, 8).double(), laplacian.coordinates
    with torch.no_grad():
        memory = layer.memory(h, s, laplacian.log_weights)
        moved = flow(h, laplacian)
        torch.testing.assert_close(layer(h, s, memory), moved, **SUMS)
        torch.testing.assert_close(layer(h[:, 5:6], s[:, 5:6], memory), moved[:, 5:6], **SUMS)
    assert (moved - h).abs().max() > 1e-2


@every_flow
@everywhere
def test_flows_have_correct_gradients(kind, place):
    laplacian, n = (on_points(5), 5) if place == "points" else laplacian_on(place)
    if place == "cells":
        laplacian, n = on_cells(1), 4
    dim = 1 if place == "path" else 2
    flow = make_flow(kind, steps=2, groups=2, dim=dim).double()
    v = torch.randn(2, n, 2).double().requires_grad_()
    names, parameters = zip(*flow.named_parameters(), strict=True)

    def run(v: Tensor, *values: Tensor) -> Tensor:
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(flow, changed, (v, laplacian))

    assert torch.autograd.gradcheck(run, (v, *parameters))


# --- settings ---


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"flow": "heat"}, "flow is 'heat'; expected none, diffusion"),
        ({"flow_of": "tokens"}, "flow_of is 'tokens'; expected 'attention' or 'hidden'"),
        ({"flow_steps": 0}, "flow_steps is 0; expected at least 1"),
        ({"flow_radius": 0.0}, "flow_radius is 0.0; expected a positive number"),
        ({"flow": "reaction_diffusion"}, 'not linear.*choose flow_of="hidden" or one of'),
        ({"flow": "wave", "attention": ("full", "slice")}, "attention lists full, slice;.*hidden"),
        ({"flow": "wave", "anchors": 9, "depth": 1}, "depth is 1 with anchors.*at least 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_a_remedy(changes, text):
    with pytest.raises(ConfigError, match=text):
        CSTConfig(**({"dim": 2, "in_channels": 2, "out_channels": 2} | changes))
