"""Forward mode by the rules of the layers' operations."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cst_operator import _jet_attention
from cst_operator._jet_attention import attend_with_slopes
from cst_operator.derivatives import differentiate

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, sums of some ten numbers of order one

FUNCTIONS = {
    "add": lambda x, t: (t + x) + (x + 1) + (2 + x) + x[..., :1],
    "subtract": lambda x, t: (t - x) * (x - t) * (1 - x) * (x - x[..., :1]),
    "multiply": lambda x, t: x * t * 3 * x * (2 * x[..., 1:]),
    "divide": lambda x, t: (x / t) / (2 + x * x) + t / x + 1 / x + x / 3,
    "power": lambda x, t: x**3 - (-x) ** 2,
    "matmul": lambda x, t: (x @ t.T) @ t @ (x.T @ x) + (x.mT @ t)[:1],
    "einsum": lambda x, t: (
        torch.einsum("nd,md->nm", x, t) + torch.einsum("nd,nd->n", x, x)[:, None]
    ),
    "cat": lambda x, t: torch.cat([x, t, x * x], dim=-1),
    "stack": lambda x, t: torch.stack([t, x.exp()], dim=1).flatten(1),
    "split": lambda x, t: x.repeat_interleave(2, dim=-1).split([1, 3], dim=-1)[1].square(),
    "chunk": lambda x, t: x.sin().chunk(2, dim=-1)[0] * x.cos().unbind(-1)[1][:, None],
    "pad": lambda x, t: F.pad(x, (1, 2)).exp() * F.pad(x, (2, 1), value=3.0),
    "alpha": lambda x, t: torch.add(t, x, alpha=2) * torch.sub(x, x * x, alpha=3),
    "addcmul": lambda x, t: torch.addcmul(x, x, t) + torch.addcmul(t, x, x, value=2.0),
    "mean": lambda x, t: x.mean(-1, keepdim=True) * x.sum(-1, keepdim=True),
    "sigmoid": lambda x, t: x.sigmoid() * torch.sigmoid(2 * x),
    "gelu": lambda x, t: F.gelu(x) * F.gelu(3 * x, approximate="tanh"),
    "softmax": lambda x, t: torch.softmax(x @ t.T, dim=-1) * F.softmax(t - x, dim=0)[:, :1],
    "clamp_max": lambda x, t: (x * t).clamp_max(0.3) * x,
    "reciprocal": lambda x, t: (x.square() + 1).reciprocal().exp2(),
    "baddbmm": lambda x, t: (
        torch.baddbmm(x[None, :, :1], x[None], (x * t).T[None], alpha=-2)
        + torch.baddbmm(t[None, :, :1], t[None], x.T[None], beta=0.5)
    ),
    "silu": lambda x, t: F.silu(3 * x),
    "layer_norm": lambda x, t: F.layer_norm(x @ t[:2], (2,), t[0], t[1], 0.1),
    "layer_norm_of_all": lambda x, t: F.layer_norm(x @ t[:2], (3, 2)),
    "linear": lambda x, t: F.linear(x, t, t[:, 0]),
    "no_rule": lambda x, t: torch.linalg.norm(x, dim=-1, keepdim=True) + x.atan(),
    "two_results": lambda x, t: torch.max(x, dim=-1, keepdim=True).values,
    "comparison": lambda x, t: torch.where(x > 0, x, 2 * x) + torch.where(x <= t, t, x * x),
    "detached": lambda x, t: x * x.detach() + torch.zeros_like(x) + x.new_ones(1, 1),
    "other_type": lambda x, t: t.to(x) * x.to(torch.float64),
    "constant": lambda x, t: t,
}

# Second derivatives of torch's own layer_norm are wrong.
DEFINITIONS = {
    "layer_norm": lambda x, t: _normalized(x @ t[:2], (-1,), 0.1) * t[0] + t[1],
    "layer_norm_of_all": lambda x, t: _normalized(x @ t[:2], (-2, -1), 1e-5),
}


def _normalized(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_torchs_transforms(name, order, generator):
    x = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    t = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    # Rows may see each other here, so a direction moves all of them at once.
    moved = torch.zeros(2, dtype=torch.float64)

    def along(h: Tensor) -> Tensor:
        return (FUNCTIONS | DEFINITIONS)[name](x + h, t)

    wanted = [along(moved), torch.func.jacfwd(along)(moved)]
    wanted.append(torch.func.jacfwd(torch.func.jacfwd(along))(moved))
    found = differentiate(lambda s: FUNCTIONS[name](s, t), x, order)
    assert len(found) == order + 1
    for got, expected in zip(found, wanted, strict=False):
        torch.testing.assert_close(got, expected, **EXACT)


def _attention(generator, groups=6, rows=20, keys=9):
    shapes = ((groups, rows, 4), (groups, 2, rows, 4), (groups, keys, 4), (groups, keys, 3))
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in shapes
    ]


def _by_definition(q: Tensor, dq: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    weight = torch.softmax(q @ k.mT, -1)
    moved = weight[:, None] * (dq @ k.mT[:, None])
    out = weight @ v
    return out, moved @ v[:, None] - moved.sum(-1, keepdim=True) * out[:, None]


@pytest.mark.parametrize("scores", [1, 1000, 3000, 10**6])
def test_attention_and_its_derivatives_do_not_depend_on_the_tiles(scores, generator, monkeypatch):
    monkeypatch.setitem(_jet_attention._SCORES, "cpu", scores)
    parts = _attention(generator)
    tiles = list(_jet_attention._tiles(parts[1], parts[2]))
    assert len(tiles) == {1: 12, 1000: 6, 3000: 2, 10**6: 1}[scores]
    ways = [torch.randn(6, *rest, dtype=torch.float64) for rest in ((20, 3), (2, 20, 3))]
    found = attend_with_slopes(*parts)
    wanted = _by_definition(*parts)
    slopes = torch.autograd.grad(found, parts, ways)
    for got, expected in zip(
        (*found, *slopes), (*wanted, *torch.autograd.grad(wanted, parts, ways)), strict=True
    ):
        torch.testing.assert_close(got, expected, **EXACT)


def test_large_scores_do_not_overflow(generator):
    query, *rest = _attention(generator)
    for got, expected in zip(
        attend_with_slopes(1e3 * query, *rest), _by_definition(1e3 * query, *rest), strict=True
    ):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)  # of scores near 1e4


def test_gradients_of_gradients_are_exact(generator):
    parts = _attention(generator, groups=2, rows=3, keys=4)
    assert torch.autograd.gradgradcheck(attend_with_slopes, parts)
    some = [parts[0], *(part.detach() for part in parts[1:])]
    assert torch.autograd.gradgradcheck(attend_with_slopes, some)
