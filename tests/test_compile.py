"""The model compiles without graph breaks, on batches of any form."""

import copy
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from cst_operator import checkpoint
from cst_operator.errors import ConfigError
from cst_operator.fields import Example
from cst_operator.fit_config import FitConfig
from cst_operator.model import CSTOperator
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import Run, fit
from tests.model_samples import joined, known_field, queries_in, tiny_model
from tests.training_samples import Doubles, MeanSquare, plain_net, stop_after, weights

# The same operations, some of them decomposed, on numbers of order one in float64.
ROUNDING = {"rtol": 1e-9, "atol": 1e-10}

FORMS: dict[str, dict[str, object]] = {
    "default": {},
    "joint": {"form": "joint"},
    "anchors": {"anchors": 12, "interpolant_points": 14, "query_depth": 1},
    "aggregating": {"anchors": 12, "aggregate_at_queries": True},
    "recompute": {"recompute": True},
}


# The compiler looks at this attribute of everything that a program is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch.compiler.reset()


def _batches(generator: torch.Generator) -> list[Example]:
    def one(n: int, m: int) -> Example:
        return Example(known_field(generator, n), queries_in(generator, m))

    ragged = joined(one(40, 15), one(27, 3)), joined(one(31, 21), one(23, 31), one(29, 5))
    return [one(40, 15), *ragged, one(37, 12)]


def _slopes(model: CSTOperator, answer: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(answer.square().sum(), list(model.parameters())))


def _agree(compiled: CSTOperator, model: CSTOperator, batches: list[Example]) -> None:
    for batch in batches:
        answers = [m(*batch) for m in (compiled, model)]
        torch.testing.assert_close(*answers, **ROUNDING)
        got, wanted = (_slopes(m, a) for m, a in zip((compiled, model), answers, strict=True))
        for a, b in zip(got, wanted, strict=True):
            # Gradients sum over all points: relative to their size.
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(1 + b.abs().max()))


def test_ragged_batches_compile_without_breaks_forward_and_backward(seed, generator):
    model = tiny_model(seed, depth=1)
    compiled = copy.deepcopy(model)
    compiled.compile(fullgraph=True, backend="eager")
    _agree(compiled, model, _batches(generator)[1:3])


@pytest.mark.slow
def test_a_field_compiles_with_the_whole_call(seed, generator):
    model = tiny_model(seed)
    whole = torch.compile(model, fullgraph=True, backend="eager")
    source, target = known_field(generator, 40), queries_in(generator, 15)
    torch.testing.assert_close(whole(source, target), model(source, target), **ROUNDING)


def test_a_copy_of_a_compiled_model_has_its_own_weights(seed, generator):
    model = tiny_model(seed, depth=1)
    model.compile(fullgraph=True, backend="eager")
    source, target = known_field(generator, 40), queries_in(generator, 15)
    before = model(source, target)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter *= 1.1
    assert (other(source, target) - before).abs().max() > 1e-3
    torch.testing.assert_close(model(source, target), before, rtol=0, atol=0)


@pytest.mark.slow
def test_a_compiled_model_predicts_and_differentiates(seed, generator):
    model = tiny_model(seed, recompute=True)
    compiled = copy.deepcopy(model)
    compiled.compile(fullgraph=True, backend="eager")
    source, target = known_field(generator, 40), queries_in(generator, 15)
    for ask in (
        lambda m: m.predict(source, target, chunk=7).u,
        lambda m: m.derivatives(source, target, 2).laplacian,
    ):
        torch.testing.assert_close(ask(compiled), ask(model), **ROUNDING)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS.keys())
def test_compiled_backward_passes_agree(changes, backend, seed, generator):
    model = tiny_model(seed, **changes)
    compiled = copy.deepcopy(model)
    compiled.compile(fullgraph=True, backend=backend)
    _agree(compiled, model, _batches(generator))


class _Fields:
    """Examples of several sizes that depend on their number alone."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Example:
        generator = torch.Generator().manual_seed(index)
        target = known_field(generator, 9 + index)
        target.gradient = torch.randn(9 + index, 2, 2, generator=generator, dtype=torch.float64)
        return Example(known_field(generator, 20 + index), target)


PLAIN = FitConfig(
    steps=4, batch_size=2, lr=1e-3, ema=0.9, save_every=2, eval_every=2, log_every=2, device="cpu"
)
COMPILED = replace(PLAIN, compile=True)


def _trained(seed: int, config: FitConfig, out: Path | None = None, **arguments: Any) -> Run:
    model = tiny_model(seed, depth=1)
    return fit(
        model, _Fields(), _Fields(), config=config, out=out, loss=LOSS, progress=False, **arguments
    )


# In forward mode, by reading and by answering: what is compiled and what is not.
LOSS = SobolevLoss(order=1, num_points=4, smoothing=(0.1,), num_dummies=3)


def _near(run: Run, other: Run) -> None:
    assert weights(run).keys() == weights(other).keys()
    for key, value in weights(other).items():
        # Rounding, 1e-16, of gradients of 1e-3 or more, which the optimizers divide by, four times.
        torch.testing.assert_close(weights(run)[key], value, rtol=0, atol=1e-9)


def test_a_compiled_training_is_the_plain_one_and_its_checkpoint_resumes_either_way(
    seed, tmp_path, monkeypatch
):
    calls = []
    compile_in_place = CSTOperator.compile

    def cheap(self: CSTOperator, **options: object) -> None:
        calls.append(options)
        compile_in_place(self, backend="eager", fullgraph=True, **options)

    monkeypatch.setattr(CSTOperator, "compile", cheap)
    whole = _trained(seed, PLAIN)
    _trained(seed, PLAIN, tmp_path / "plain", stop=stop_after(2))
    assert not calls
    compiled = _trained(seed + 1, COMPILED, tmp_path / "plain", resume=True)
    assert calls == [{"dynamic": True}]
    _trained(seed, COMPILED, tmp_path / "compiled", stop=stop_after(2))
    assert len(calls) == 2
    plain = _trained(seed + 1, PLAIN, tmp_path / "compiled", resume=True)
    assert len(calls) == 2
    for name, run in (("plain", compiled), ("compiled", plain)):
        _near(run, whole)
        loaded = checkpoint.load(tmp_path / name)
        assert loaded.state_dict().keys() == whole.model.state_dict().keys()
        source, target = _Fields()[0]
        torch.testing.assert_close(
            loaded(source, target), run.model(source, target).detach(), **ROUNDING
        )


def test_any_module_is_compiled_with_its_own_method(monkeypatch):
    torch_compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch_compile, backend="eager"))
    runs = [
        fit(plain_net(), Doubles(), loss=MeanSquare(), config=config, progress=False)
        for config in (PLAIN, COMPILED)
    ]
    assert runs[1].model._compiled_call_impl is not None
    _near(*runs)


@pytest.mark.slow
def test_a_training_compiled_by_inductor_is_the_plain_one(seed):
    _near(_trained(seed, COMPILED), _trained(seed, PLAIN))


def test_compile_is_yes_or_no():
    with pytest.raises(ConfigError, match="compile is 'inductor'; expected True or False"):
        FitConfig(compile="inductor")  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS.keys())
def test_no_value_is_waited_for(changes, training, seed, generator, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # refuses to say
    model = tiny_model(seed, noise=0.1, **changes).train(training).to("meta")
    batch = joined(
        Example(known_field(generator, 40), queries_in(generator, 15)),
        Example(known_field(generator, 7), queries_in(generator, 3)),
    )
    # Tensors of this device have no values, so a branch or an index that needs one is an error.
    source, target = (side.to("meta") for side in batch)
    answer = model(source, target)
    answer.sum().backward()
    assert answer.shape == (18, 2)
    assert all(p.grad.device.type == "meta" for p in model.parameters())
