"""Layers are quadratures: they have limits under refinement and depend on no numbering."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cst_operator.derivatives import differentiate
from cst_operator.nn import (
    Block,
    FourierFeatures,
    QuadratureAttention,
    RotaryCoordinates,
    TokenNorm,
)
from cst_operator.nn import SmoothInterpolant as Interpolant

pytestmark = pytest.mark.usefixtures("seeded")

# Sums of some hundred terms of order one in another order.
SUMS = {"rtol": 0.0, "atol": 1e-12}


def _uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def _attention(dim: int, width: int = 32, heads: int = 2) -> QuadratureAttention:
    layer = QuadratureAttention(width, heads, dim, max_turns=2.0, radii=(0.3, 1.5)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


def _read(layer: QuadratureAttention, h: Tensor, s: Tensor, w: Tensor, q: Tensor, at: Tensor):
    return layer(q, at, layer.memory(h, s, w.log()))


# --- encodings ---


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_rotary_scores_depend_on_relative_places_alone(dim):
    rotary = RotaryCoordinates(dim, 2, 6, 4.0).double()
    x, y = torch.randn(2, 1, 2, 5, 6, dtype=torch.float64)
    s, t, shift = _uniform(1, 5, dim), _uniform(1, 5, dim), _uniform(dim)
    score = (rotary(x, s) * rotary(y, t)).sum(-1)
    torch.testing.assert_close((rotary(x, s + shift) * rotary(y, t + shift)).sum(-1), score, **SUMS)
    assert ((rotary(x, s + shift) * rotary(y, t)).sum(-1) - score).abs().max() > 0.1


def test_rotary_encoding_turns_and_does_not_stretch():
    rotary = RotaryCoordinates(2, 2, 6, 4.0).double()
    x, s = torch.randn(1, 2, 5, 6, dtype=torch.float64), _uniform(1, 5, 2)
    torch.testing.assert_close(rotary(x, s).norm(dim=-1), x.norm(dim=-1), **SUMS)
    torch.testing.assert_close(rotary(x, torch.zeros_like(s)), x, rtol=0, atol=0)


def test_fourier_features_have_their_shape_and_periods():
    layer = FourierFeatures(2, 4, 1.0).double()
    s = _uniform(3, 7, 2)
    out = layer(s)
    assert out.shape == (3, 7, 4)
    torch.testing.assert_close(out[..., :2] ** 2 + out[..., 2:] ** 2, torch.ones(3, 7, 2).to(s))
    # Two frequencies in two dimensions: a shift by whole periods of both.
    period = torch.linalg.solve(layer.frequencies.T, torch.tensor([1.0, -2.0]).to(s))
    torch.testing.assert_close(layer(s + period), out, rtol=0, atol=1e-10)  # angles up to 1e3
    assert (layer(s + period / 3) - out).abs().max() > 0.1


def test_fourier_features_stay_with_the_model_and_are_not_trained():
    layer = FourierFeatures(3, 8, 2.0)
    assert list(layer.state_dict()) == ["frequencies"]
    assert list(layer.parameters()) == []
    assert FourierFeatures(3, 0, 1.0)(torch.zeros(5, 3)).shape == (5, 0)


# --- attention ---


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_attention_is_the_formula_of_its_docstring(dim):
    layer = _attention(dim)
    h, s, w = torch.randn(2, 5, 32).double(), _uniform(2, 5, dim), 0.1 + _uniform(2, 5)
    q, at = torch.randn(2, 3, 32).double(), _uniform(2, 3, dim)
    k, pairs = layer.turning, layer.turning // 2
    radius = layer.log_radius.exp()

    def turned(x: Tensor, head: int, place: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for j in range(pairs):
            angle = layer.rotary.frequencies[head, j] @ place
            a, b = x[j], x[j + pairs]
            out[j] = a * angle.cos() - b * angle.sin()
            out[j + pairs] = a * angle.sin() + b * angle.cos()
        return out

    wanted = torch.zeros(2, 3, 32, dtype=torch.float64)
    with torch.no_grad():
        for b in range(2):
            for m in range(3):
                for head in range(2):
                    part = slice(head * k, (head + 1) * k)
                    over, under = torch.zeros(16).double(), 0.0
                    for i in range(5):
                        query = turned(layer.query(q[b, m])[part], head, at[b, m])
                        key = turned(layer.key(h[b, i])[part], head, s[b, i])
                        window = ((at[b, m] - s[b, i]) ** 2 / (2 * radius[head] ** 2)).sum()
                        mass = w[b, i] * torch.exp(query @ key / math.sqrt(k) - window)
                        over += mass * layer.value(h[b, i])[head * 16 : (head + 1) * 16]
                        under += mass
                    wanted[b, m, head * 16 : (head + 1) * 16] = over / under
        got = _read(layer, h, s, w, q, at)
        torch.testing.assert_close(got, layer.out(wanted), **SUMS)


def test_attention_is_the_same_when_everything_is_shifted():
    layer = _attention(2)
    h, s, w = torch.randn(1, 20, 32).double(), _uniform(1, 20, 2), 0.1 + _uniform(1, 20)
    q, at, shift = torch.randn(1, 6, 32).double(), _uniform(1, 6, 2), _uniform(2)
    here = _read(layer, h, s, w, q, at)
    torch.testing.assert_close(_read(layer, h, s + shift, w, q, at + shift), here, **SUMS)
    assert (_read(layer, h, s, w, q, at + shift) - here).abs().max() > 1e-3


def test_attention_has_correct_gradients():
    layer = _attention(1, width=10)
    h, s, w = torch.randn(1, 4, 10).double(), _uniform(1, 4, 1), 0.1 + _uniform(1, 4)
    q, at = torch.randn(1, 2, 10).double(), _uniform(1, 2, 1)
    inputs = [x.requires_grad_() for x in (h, s, w, q, at)]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert torch.autograd.gradcheck(lambda *x: _read(layer, *x), inputs)
        assert torch.autograd.gradgradcheck(lambda *x: _read(layer, *x), inputs)


def _grid(n: int, rule: str) -> tuple[Tensor, Tensor]:
    """Points and weights of a rule in the unit square, n cells a side: [1, N, 2], [1, N]."""
    if rule == "midpoint":
        x, w = (torch.arange(n).double() + 0.5) / n, torch.full((n,), 1 / n).double()
    else:
        x, w = torch.linspace(0, 1, n + 1).double(), torch.full((n + 1,), 1 / n).double()
        w[[0, -1]] /= 2
    s = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(1, -1, 2)
    return s, (w[:, None] * w).view(1, -1)


def _tokens(s: Tensor, width: int) -> Tensor:
    """A smooth field of tokens."""
    j = torch.arange(width, dtype=s.dtype)
    return torch.sin(s[..., :1] * (1 + j % 3) + s[..., 1:] * (j % 4) + j)


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid"])
def test_attention_converges_at_the_order_of_its_quadrature(rule):
    layer = _attention(2)
    at = _uniform(1, 6, 2)

    def answer(n: int) -> Tensor:
        s, w = _grid(n, rule)
        with torch.no_grad():
            return _read(layer, _tokens(s, 32), s, w, _tokens(at, 32), at)

    coarse, middle, fine = (answer(n) for n in (16, 32, 64))
    rate = math.log2((coarse - middle).norm() / (middle - fine).norm())
    assert abs(rate - 2) < 0.1  # both rules are of second order for smooth integrands


def test_weights_make_graded_points_converge_to_the_same_limit():
    layer = _attention(1)
    at = torch.tensor([0.2, 0.5, 0.9]).double().view(1, 3, 1)

    def tokens(s: Tensor) -> Tensor:
        return _tokens(torch.cat([s, s**2], -1), 32)

    def answer(n: int, grade: int, weighted: bool = True) -> Tensor:
        t = (torch.arange(n).double() + 0.5) / n
        s = (t**grade).view(1, n, 1)
        w = grade * t ** (grade - 1) / n if weighted else torch.full_like(t, 1 / n)
        with torch.no_grad():
            return _read(layer, tokens(s), s, w[None], tokens(at), at)

    limit = answer(2000, 1)
    # Midpoint rule: errors of 1/n^2 times second derivatives of order 100.
    assert (answer(2000, 2) - limit).abs().max() < 1e-4
    apart = [float((answer(n, 2, weighted=False) - limit).abs().max()) for n in (500, 2000)]
    assert apart[1] > 1e-2
    assert apart[1] == pytest.approx(apart[0], rel=1e-2)  # refinement does not help


# --- interpolant ---


def _cloud(num_points: int = 60, dim: int = 2) -> tuple[Tensor, Tensor]:
    return _uniform(1, num_points, dim), (0.1 + _uniform(1, num_points)).log()


def test_interpolant_reproduces_constants():
    s, log_weights = _cloud()
    value = torch.tensor([3.0, -0.25]).double().expand(1, 60, 2)
    got = Interpolant(2, 0.2).double()(_uniform(1, 9, 2), s, value, log_weights)
    torch.testing.assert_close(got, value[:, :9], **SUMS)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_interpolant_reproduces_linear_functions_up_to_its_ridge(dim):
    s, log_weights = _cloud(80, dim)
    slope = torch.randn(dim, 2).double()
    at = _uniform(1, 9, dim)

    def error(ridge: float) -> float:
        layer = Interpolant(dim, 0.3, ridge).double()
        got = layer(at, s, s @ slope + 1, log_weights).detach()
        return float((got - at @ slope - 1).abs().max())

    assert error(0.0) < 1e-10  # moments cancel: 1e-16 times (distance / radius)^2 of about 100
    assert 0 < error(1e-2) < 0.1 * float(slope.norm())
    assert error(1e-3) / error(5e-4) == pytest.approx(2, rel=0.05)  # linear in the ridge


def test_splitting_a_sample_changes_no_interpolated_value():
    s, log_weights = _cloud()
    value, at = torch.randn(1, 60, 2).double(), _uniform(1, 9, 2)
    layer = Interpolant(2, 0.2).double()
    twice = [torch.cat([x, x[:, :1]], 1) for x in (s, value, log_weights)]
    twice[2][:, [0, -1]] -= math.log(2)
    torch.testing.assert_close(layer(at, *twice), layer(at, s, value, log_weights), **SUMS)


def test_interpolant_is_twice_differentiable_in_everything():
    layer = Interpolant(2, 0.4).double()
    s, log_weights = _cloud(6)
    value, at = torch.randn(1, 6, 1).double(), _uniform(1, 2, 2)
    inputs = [x.requires_grad_() for x in (at, s, value, log_weights)]
    assert torch.autograd.gradcheck(layer, inputs)
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels have one reverse derivative
        assert torch.autograd.gradgradcheck(layer, inputs)


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid"])
def test_interpolant_converges_under_refinement_with_its_radius_fixed(rule):
    layer, at = Interpolant(2, 0.3).double(), _uniform(1, 9, 2)

    def answer(n: int) -> Tensor:
        s, w = _grid(n, rule)
        value = torch.sin(4 * s[..., :1]) * torch.cos(3 * s[..., 1:])
        with torch.no_grad():
            return layer(at, s, value, w.log())

    coarse, middle, fine = (answer(n) for n in (16, 32, 64))
    rate = math.log2((coarse - middle).norm() / (middle - fine).norm())
    assert abs(rate - 2) < 0.1  # the order of the rules
    exact = torch.sin(4 * at[..., :1]) * torch.cos(3 * at[..., 1:])
    assert 1e-2 < (fine - exact).abs().max() < 0.5  # to a smoothed field, not to the field


def test_a_smaller_radius_smooths_less():
    at = 0.2 + 0.6 * _uniform(1, 9, 2)
    s, w = _grid(64, "midpoint")
    value = torch.sin(4 * s[..., :1])

    def error(radius: float) -> float:
        got = Interpolant(2, radius).double()(at, s, value, w.log()).detach()
        return float((got - torch.sin(4 * at[..., :1])).abs().max())

    # The bias of local-linear regression is radius^2 / 2 times the second derivative.
    assert math.log2(error(0.1) / error(0.05)) == pytest.approx(2, abs=0.3)


# --- derivatives of layers ---


def _block() -> Block:
    block = Block(_attention(2, width=16), width=16, hidden=8).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def test_a_layer_is_the_same_inside_and_outside_of_transforms():
    s, log_weights = _cloud(12)
    block, h = _block(), torch.randn(1, 12, 16).double()
    memory = block.memory(h, s, log_weights)
    inside, _ = torch.func.jvp(lambda x: block(x, s, memory), (h,), (h,))
    torch.testing.assert_close(inside, block(h, s, memory), **SUMS)
    several = torch.func.vmap(lambda x: block(x, s, memory))(torch.stack([h, -h]))
    torch.testing.assert_close(several[1], block(-h, s, memory), **SUMS)


def test_second_derivatives_of_a_layer_do_not_depend_on_the_mode_they_are_taken_in():
    # Forward over reverse, where the tangent of a tensor cannot be seen from inside.
    s, log_weights = _cloud(12)
    block, h = _block(), torch.randn(1, 2, 16).double()
    memory = block.memory(torch.randn(1, 12, 16).double(), s, log_weights)

    def total(x: Tensor) -> Tensor:
        return block(x, s[:, :2], memory).square().sum()

    forward, reverse = torch.func.jacfwd, torch.func.jacrev
    exact = {"rtol": 1e-11, "atol": 1e-11}  # values up to 40, sums of some hundred terms
    wanted = forward(forward(total))(h)
    torch.testing.assert_close(forward(reverse(total))(h), wanted, **exact)
    torch.testing.assert_close(reverse(forward(total))(h), wanted, **exact)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention kernels have no second derivative
        outside = torch.autograd.functional.hessian(total, h)
    torch.testing.assert_close(outside, wanted, **exact)


@pytest.mark.parametrize("name", ["norm", "interpolant"])
def test_gradients_of_first_derivatives_agree_with_finite_differences(name):
    # Fused kernels may pass gradcheck and be wrong here: their forward rules have no derivative.
    s, log_weights = _cloud(12)
    norm, interpolant = TokenNorm(5).double(), Interpolant(2, 0.4).double()
    mix, way = torch.randn(2, 2, 5).double()
    at = _uniform(1, 3, 2)

    def loss(mix: Tensor) -> Tensor:
        def layer(x: Tensor) -> Tensor:
            if name == "norm":
                return norm(x @ mix)
            return interpolant(x, s, s.sin() @ mix, log_weights)

        return sum(part.sin().sum() for part in differentiate(layer, at, 2))

    mix.requires_grad_()
    slope = (torch.autograd.grad(loss(mix), mix)[0] * way).sum()
    with torch.no_grad():
        # Central differences with a step of 1e-5: 1e-10 of curvature and 1e-11 of rounding, for
        # derivatives of order ten to a thousand.
        wanted = (loss(mix + 1e-5 * way) - loss(mix - 1e-5 * way)) / 2e-5
    torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-5)
