"""Half precision where it is enough, single precision where it is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cst_operator.fields import Example, PointField
from cst_operator.fit_config import FitConfig
from cst_operator.model import CSTOperator
from cst_operator.nn import make_attention
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import fit
from tests.model_samples import KINDS, known_field, tiny_model

every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
# Unit roundoffs: 8 and 11 bits.
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
both_types = pytest.mark.parametrize("dtype", ROUNDING)

# What is linear in the points: full attention over so many would take minutes.
FOR_MANY_POINTS = {
    kind: KINDS[kind] for kind in ("anchors", "latent", "kernel", "nystrom", "slice")
} | {"modulated": KINDS["modulated"] | KINDS["anchors"]}


def _single(field: PointField) -> PointField:
    return field.apply(lambda x: x.float() if x.is_floating_point() else x)


def _example(generator: torch.Generator, num_points: int = 40) -> Example:
    """Random samples, and targets with random derivatives."""
    target = known_field(generator, 15)
    target.gradient = torch.randn(15, 2, 2, generator=generator, dtype=target.u.dtype)
    return Example(_single(known_field(generator, num_points)), _single(target))


def _apart(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).detach().norm() / wanted.detach().norm())


def _check_answers(model: CSTOperator, example: Example, dtype: torch.dtype) -> None:
    with torch.no_grad():
        wanted = model(*example)
        with torch.autocast("cpu", dtype):
            got = model(*example)
    assert got.isfinite().all()
    # Measured: 1 to 6 roundings, of some dozen operations one after the other.
    assert 0 < _apart(got, wanted) < 8 * ROUNDING[dtype]


@both_types
@every_kind
def test_answers_in_half_precision_differ_by_its_rounding(changes, dtype, seed, generator):
    _check_answers(tiny_model(seed, **changes).float(), _example(generator), dtype)


@both_types
@pytest.mark.parametrize("kind", FOR_MANY_POINTS)
def test_so_do_answers_of_many_points(kind, dtype, seed, generator):
    model = tiny_model(seed, **FOR_MANY_POINTS[kind]).float()
    _check_answers(model, _example(generator, 100_000), dtype)


@both_types
@pytest.mark.parametrize("kind, heaviest", [("kernel", 1e-5), ("slice", 0.98)])
def test_however_many_points_that_are_alike_have_their_own_average(
    kind, heaviest, dtype, generator
):
    # Sums of 100,000 ones overflow in float16, where shares of 1e-7 or 1e-8 are nothing.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = make_attention(kind, 32, 2, dim=2, count=9, max_turns=2.0, radii=(0.3, 2.0))
    count = 100_000
    h = torch.randn(1, 1, 32, generator=generator).expand(-1, count, -1)
    s = torch.zeros(1, count, 2)
    share = torch.full((1, count), (1 - heaviest) / (count - 1))
    share[0, -1] = heaviest
    with torch.no_grad():
        one = h[:, :1], s[:, :1]
        wanted = layer(*one, layer.memory(*one, torch.zeros(1, 1)))
        with torch.autocast("cpu", dtype):
            got = layer(*one, layer.memory(h, s, share.log()))
    assert _apart(got, wanted) < 8 * ROUNDING[dtype]


@both_types
@every_kind
def test_so_do_gradients_of_a_loss_with_derivatives(changes, dtype, seed, generator):
    model = tiny_model(seed, **changes).float()
    example = _example(generator)
    loss = SobolevLoss(order=1, smoothing=(0.1,))
    scale = 2.0**10  # gradients below 6e-8 are nothing in float16; training scales them too

    def gradient(context: Callable[[], torch.autocast]) -> tuple[Tensor, Tensor]:
        with context():
            total = loss(model, example, torch.Generator().manual_seed(seed)).total
        slopes = torch.autograd.grad(total * scale, list(model.parameters()))
        return total, torch.cat([slope.flatten() for slope in slopes]) / scale

    wanted = gradient(lambda: torch.autocast("cpu", enabled=False))
    got = gradient(lambda: torch.autocast("cpu", dtype))
    assert got[1].isfinite().all()
    assert _apart(got[0], wanted[0]) < 8 * ROUNDING[dtype]
    # Measured: 1 to 3 roundings; 12 through the inverse of the Nystrom approximation.
    assert 0 < _apart(got[1], wanted[1]) < 20 * ROUNDING[dtype]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_with_derivatives_starts_alike_and_learns(precision, seed, generator):
    examples = [_example(generator) for _ in range(4)]

    def train(precision: str) -> tuple[list[float], CSTOperator]:
        config = FitConfig(
            steps=6, batch_size=2, lr=1e-3, log_every=1, ema=0.0, seed=seed, precision=precision
        )
        model = tiny_model(seed).float()
        run = fit(model, examples, loss=SobolevLoss(order=1), config=config, progress=False)
        return [record["loss"] for record in run.history if "loss" in record], model

    wanted, _ = train("float32")
    got, model = train(precision)
    assert got[0] == pytest.approx(wanted[0], rel=0.01)
    # With float16, steps that overflow at the first scales are left out, so it lags behind.
    assert wanted[-1] < 0.8 * wanted[0] and got[-1] < 0.8 * got[0]
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in model.parameters())
