"""Flows are stable, act on an attention through its values, and contain those of the paper."""

import math

import pytest
import torch
from torch import Tensor

from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField
from cst_operator.nn import (
    FLOWS,
    LINEAR_FLOWS,
    AdvectionDiffusion,
    CellLaplacian,
    Diffusion,
    FlowingAttention,
    HiddenFlow,
    ImplicitDiffusion,
    Laplacian,
    PathLaplacian,
    PointLaplacian,
    QuadratureAttention,
    ReactionDiffusion,
    Wave,
    make_flow,
)
from tests.mesh_samples import box

# Sums of some hundred terms of order one in another order.
SUMS = {"rtol": 0.0, "atol": 1e-12}
RADIUS = 0.25


@pytest.fixture(autouse=True)
def _seeded(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def _on_points(num_points: int = 40, batch: int = 2) -> PointLaplacian:
    log_weights = (0.1 + _uniform(batch, num_points)).log()
    return PointLaplacian(_uniform(batch, num_points, 2), log_weights, RADIUS)


def _on_cells(n: int = 6, bend: float = 0.02) -> CellLaplacian:
    pos, cells = box("triangle", n, bend=bend)
    return CellLaplacian.of(PointField(pos=pos, cells=cells))


def _places(name: str) -> tuple[Laplacian, int]:
    """A Laplacian and its number of points."""
    return {
        "points": lambda: (_on_points(), 40),
        "cells": lambda: (_on_cells(), 49),
        "path": lambda: (PathLaplacian(), 12),
    }[name]()


def _matrix(laplacian: Laplacian, num_points: int) -> Tensor:
    """The Laplacian of every unit vector, [B, N, N]."""
    batch = len(laplacian.coordinates) if isinstance(laplacian, PointLaplacian) else 1
    return laplacian.apply(torch.eye(num_points).double().expand(batch, -1, -1))


everywhere = pytest.mark.parametrize("place", ["points", "cells", "path"])
every_flow = pytest.mark.parametrize("kind", FLOWS)


# --- Laplacians ---


def test_the_laplacian_of_points_is_the_formula_of_its_docstring():
    laplacian, v = _on_points(7), torch.randn(2, 7, 3).double()
    wanted = torch.zeros_like(v)
    for b in range(2):
        for i in range(7):
            away = (laplacian.coordinates[b] - laplacian.coordinates[b, i]).square().sum(-1)
            mass = laplacian.log_weights[b].exp() * torch.exp(-away / (2 * RADIUS**2))
            wanted[b, i] = 2 / RADIUS**2 * (mass @ v[b] / mass.sum() - v[b, i])
    torch.testing.assert_close(laplacian.apply(v), wanted, **SUMS)


@everywhere
def test_no_eigenvalue_exceeds_the_bound(place):
    laplacian, n = _places(place)
    eigenvalues = torch.linalg.eigvals(-_matrix(laplacian, n))
    assert eigenvalues.imag.abs().max() < 1e-10  # symmetric up to a measure; rounding
    assert eigenvalues.real.min() > -1e-10
    assert 0.3 * laplacian.bound < eigenvalues.real.max() <= laplacian.bound


@everywhere
@pytest.mark.parametrize("drifting", [False, True])
def test_steps_within_the_bound_are_averages(place, drifting):
    # Angles are not obtuse on the regular mesh.
    laplacian, n = (_on_cells(bend=0.0), 49) if place == "cells" else _places(place)
    if drifting:
        dim = 1 if place == "path" else 2
        laplacian = laplacian.drifting(torch.full((1, dim), 0.999 / dim**0.5).double())
    step = torch.eye(n).double() + _matrix(laplacian, n) / laplacian.bound
    assert step.min() > -1e-14
    torch.testing.assert_close(step.sum(-1), torch.ones_like(step[..., 0]), **SUMS)


def test_padding_and_splitting_do_not_change_the_laplacian():
    laplacian, v = _on_points(9, batch=1), torch.randn(1, 9, 3).double()
    s, log_weights = laplacian.coordinates, laplacian.log_weights.clone()
    padded = PointLaplacian(
        torch.cat([s, s[:, :1]], 1), torch.nn.functional.pad(log_weights, (0, 1), value=-1e4), 0.25
    )
    junk = torch.cat([v, torch.full_like(v[:, :1], 1e6)], 1)
    torch.testing.assert_close(padded.apply(junk)[:, :9], laplacian.apply(v), **SUMS)
    log_weights[:, 0] -= math.log(2)
    split = PointLaplacian(
        torch.cat([s, s[:, :1]], 1), torch.cat([log_weights, log_weights[:, :1]], 1), 0.25
    )
    twice = torch.cat([v, v[:, :1]], 1)
    torch.testing.assert_close(split.apply(twice)[:, :9], laplacian.apply(v), **SUMS)


def _graded(n: int) -> tuple[Tensor, Tensor]:
    """Midpoints of n squared cells of the square, eight times denser in one corner: [1, N, 2]."""
    t = (torch.arange(n).double() + 0.5) / n
    x, w = t + t * (t - 1) * 0.7, (1 + 0.7 * (2 * t - 1)) / n
    s = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(1, -1, 2)
    return s, (w[:, None] * w).view(1, -1)


def test_the_laplacian_of_graded_points_tends_to_that_of_the_function_with_weights_alone():
    s, w = _graded(64)
    x, y = s[0].T
    v = (torch.sin(3 * x) * torch.cos(2 * y))[None, :, None]
    at = torch.tensor([[[0.4, 0.45], [0.5, 0.6]]]).double()
    own = (torch.sin(3 * at[..., :1]) * torch.cos(2 * at[..., 1:])).double()

    def error(radius: float, weighted: bool = True) -> float:
        measure = w.log() if weighted else torch.zeros_like(w)
        got = PointLaplacian(s, measure, radius).at(at).apply(v, own)
        return float((got + 13 * own).abs().max())

    # The average of a Gaussian has the symbol exp(-13 r^2 / 2): the error is 13 r^2 / 4 of 13.
    assert math.log2(error(0.1) / error(0.05)) == pytest.approx(2, abs=0.2)
    assert error(0.05) < 0.2
    assert error(0.05, weighted=False) > 1  # drifts to where the points are


def test_the_laplacian_of_a_mesh_is_exact_for_quadratics_on_a_regular_one():
    pos, cells = box("triangle", 6)
    laplacian = CellLaplacian.of(PointField(pos=pos, cells=cells))
    v = (pos[:, :1] ** 2 + 3 * pos[:, 1:] ** 2 + pos[:, :1] * pos[:, 1:])[None]
    inside = ((pos > 0.01) & (pos < 0.99)).all(1)
    torch.testing.assert_close(laplacian.apply(v)[0, inside], torch.full((25, 1), 8.0).double())


def test_the_lowest_modes_of_a_mesh_are_those_of_the_square():
    eigenvalues = torch.linalg.eigvals(-_matrix(_on_cells(12), 169)).real[0].sort().values
    wanted = torch.tensor([0, 1, 1, 2]).double() * math.pi**2
    # Linear elements of size 1/12: pi^2 h^2 / 12 relative, times a constant of order one.
    torch.testing.assert_close(eigenvalues[:4], wanted, rtol=2e-2, atol=1e-10)


@pytest.mark.parametrize("place", ["points", "cells"])
def test_a_drift_adds_the_gradient(place):
    drift = torch.tensor([[0.06, -0.03]]).double()
    if place == "points":
        s, w = _graded(48)
        laplacian, length = PointLaplacian(s, w.log(), 0.08), 0.08
    else:
        pos, cells = box("triangle", 12)
        s, laplacian, length = pos[None], _on_cells(12, bend=0.0), 2**0.5 / 12
    slope = torch.tensor([[2.0], [-1.0]]).double()
    got = laplacian.drifting(drift).apply(s @ slope) - laplacian.apply(s @ slope)
    inside = ((s > 0.3) & (s < 0.7)).all(-1)
    wanted = 2 / length * (drift @ slope).squeeze()
    # Linear functions have no error on this mesh; on points, quadrature's is about 1e-4.
    torch.testing.assert_close(
        got[inside][:, 0], wanted.expand(int(inside.sum())), rtol=1e-2, atol=0
    )


def test_a_field_without_cells_is_refused_with_a_remedy():
    with pytest.raises(FieldError, match="no cells; use PointLaplacian"):
        CellLaplacian.of(PointField(pos=_uniform(5, 2)))


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
    laplacian, n = _places(place)
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
    laplacian, n = _places(place)
    matrix = _matrix(laplacian, n)
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
    laplacian, n = _places("points")
    flow = _extreme("reaction_diffusion", steps, value)
    v = 100 * torch.randn(2, n, 4).double()
    assert flow(v, laplacian).abs().max() <= math.e * v.abs().max()


@every_flow
@everywhere
def test_constants_do_not_flow_but_for_the_reaction(kind, place):
    laplacian, n = _places(place)
    flow = make_flow(kind, steps=3, groups=2, dim=1 if place == "path" else 2).double()
    v = torch.full((2, n, 4), 0.7).double()
    moved = (flow(v, laplacian) - v).abs().max()
    assert moved > 1e-3 if kind == "reaction_diffusion" else moved < 1e-12


@everywhere
def test_an_implicit_step_solves_its_equation_and_has_the_limit_of_small_explicit_ones(place):
    laplacian, n = _places(place)
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
        matrix = _matrix(laplacian, a.shape[-1]) / points.bound
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
    h, s, log_weights = torch.randn(2, 20, 32).double(), _uniform(2, 20, 2), _uniform(2, 20).log()
    q, at = torch.randn(2, 6, 32).double(), _uniform(2, 6, 2)
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
    laplacian = _on_points()
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
    laplacian, n = (_on_points(5), 5) if place == "points" else _places(place)
    if place == "cells":
        laplacian, n = _on_cells(1), 4
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
