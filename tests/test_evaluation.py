"""Scores are per sample, whatever the batches."""

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from cst_operator.errors import FieldError, InputError
from cst_operator.evaluation import answer, evaluate
from cst_operator.fields import Example, PointField
from cst_operator.metrics import max_error, relative_l2, rms_error

METRICS = (relative_l2, max_error, rms_error)


class Affine(nn.Module):
    """Answers a function of the query's place and of its own sample's mean source value."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.double()
        self.calls = 0

    def forward(self, source: PointField, target: PointField) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.calls += 1
        count = source.batch.bincount().double()
        mean = source.pos.new_zeros(len(count)).index_add(0, source.batch, source.u[:, 0]) / count
        return self.linear(target.pos) + mean[target.batch][:, None]


@pytest.fixture
def examples(generator: torch.Generator) -> list[Example]:
    """Five samples of different sizes."""

    def field(n: int, c: int, **names: tuple[str, ...]) -> PointField:
        draws = torch.rand(n, 3 + c, generator=generator, dtype=torch.float64)
        return PointField(draws[:, :2], draws[:, 3:], draws[:, 2], **names)

    return [
        Example(field(4 + i, 1), field(7 - i, 2, channels=("v", "p"), units=("m/s", "Pa")))
        for i in range(5)
    ]


def test_batch_size_changes_no_score(examples: list[Example]) -> None:
    model = Affine()
    one = evaluate(model, examples, batch_size=1, metrics=METRICS)
    assert model.calls == 5
    for batch_size, calls in ((2, 3), (8, 1)):
        model.calls = 0
        scores = evaluate(model, examples, batch_size=batch_size, metrics=METRICS)
        assert model.calls == calls
        for name, errors in scores.per_sample.items():
            assert errors.shape == (5, 2)
            # Rounding of sums in another order.
            assert torch.allclose(errors, one.per_sample[name], atol=1e-13, rtol=0)


def test_the_mean_is_that_of_per_sample_errors(examples: list[Example]) -> None:
    scores = evaluate(lambda source, target: 0.5 * target.u, examples, metrics=METRICS)
    assert scores.mean("relative_l2") == pytest.approx(0.5)
    scores = evaluate(lambda s, t: t.u + 1, examples, metrics=METRICS)
    expected = torch.stack([relative_l2(e.target.u + 1, e.target) for e in examples])
    assert torch.equal(scores.per_sample["relative_l2"], expected)
    assert scores.mean("relative_l2") == pytest.approx(float(expected.mean()))
    assert scores.mean("relative_l2", "p") == pytest.approx(float(expected[:, 1].mean()))
    assert scores.num_samples == 5


def test_a_plain_function_gets_one_example_at_a_time(examples: list[Example]) -> None:
    seen: list[Example] = []

    def model(source: PointField, target: PointField) -> Tensor:
        seen.append(Example(source, target))
        return target.u

    evaluate(model, examples, batch_size=4, metrics=METRICS)
    assert [e.target.num_points for e in seen] == [7, 6, 5, 4, 3]


@pytest.mark.parametrize("training", (True, False))
def test_the_mode_is_restored_even_after_an_error(examples: list[Example], training: bool) -> None:
    model = Affine().train(training)
    evaluate(model, examples, metrics=METRICS)
    assert model.training == training

    def broken(prediction: Tensor, target: PointField) -> Tensor:
        raise FieldError("it broke")

    with pytest.raises(FieldError, match="sample 0: it broke"):
        evaluate(model, examples, metrics=(broken,))
    assert model.training == training


def test_examples_are_left_as_they_are(examples: list[Example]) -> None:
    before = [e.target.u.clone() for e in examples]
    evaluate(Affine(), examples, metrics=METRICS)
    assert all(torch.equal(e.target.u, u) for e, u in zip(examples, before, strict=True))
    assert all("batch" not in e.target for e in examples)


def test_rows_are_in_long_form(examples: list[Example]) -> None:
    scores = evaluate(lambda s, t: 0.5 * t.u, examples, metrics=METRICS)
    rows = scores.rows(model="cst", split="test", seed=3)
    assert rows[0] == {
        "model": "cst",
        "split": "test",
        "metric": "relative_l2",
        "value": pytest.approx(0.5),
        "unit": "",
        "seed": 3,
    }
    # A mean over channels of different units would mean nothing.
    assert [(r["metric"], r["unit"]) for r in rows if r["metric"].startswith("rms")] == [
        ("rms_error[v]", "m/s"),
        ("rms_error[p]", "Pa"),
    ]
    with pytest.raises(InputError, match="m/s, Pa; name one channel"):
        scores.mean("rms_error")


def test_the_table_names_metrics_channels_and_what_is_averaged(examples: list[Example]) -> None:
    out = io.StringIO()
    scores = evaluate(lambda s, t: 0.5 * t.u, examples, metrics=METRICS)
    Console(file=out, width=100).print(scores.table("unseen domains"))
    for word in (
        "unseen domains",
        "relative_l2",
        "rms_error",
        "m/s",
        "0.5",
        "per-sample errors, 5",
    ):
        assert word in out.getvalue()


def test_bad_input_is_named(examples: list[Example]) -> None:
    model = Affine()
    with pytest.raises(InputError, match="no examples"):
        evaluate(model, [])
    with pytest.raises(InputError, match="batch_size is 0"):
        evaluate(model, examples, batch_size=0)
    with pytest.raises(InputError, match="different names"):
        evaluate(model, examples, metrics=(relative_l2, relative_l2))
    other = Example(examples[0].source, examples[0].target.select("v"))
    with pytest.raises(InputError, match="sample 5 has channels v but sample 0 has v, p"):
        evaluate(lambda s, t: t.u, [*examples, other], metrics=METRICS)
    with pytest.raises(InputError, match="answered 24 rows for 25 query points"):
        evaluate(_OneRowShort(), examples, metrics=METRICS)
    scores = evaluate(model, examples, metrics=METRICS)
    with pytest.raises(InputError, match="no metric 'h1'; the scores have relative_l2"):
        scores.mean("h1")
    with pytest.raises(InputError, match="no channel 'q'; the scores have v, p"):
        scores.mean("relative_l2", "q")


class _OneRowShort(nn.Module):
    def forward(self, source: PointField, target: PointField) -> Tensor:
        return target.u[1:]


class _Elsewhere(nn.Module):
    """Lives on a device without values; answers zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))
        self.seen: list[str] = []

    def forward(self, source: PointField, target: PointField) -> torch.Tensor:
        self.seen += [field.pos.device.type for field in (source, target)]
        self.seen.append(target.cells["line"].device.type)
        return torch.zeros(target.num_points, 1, dtype=torch.float64)


def test_a_model_answers_on_its_own_device_and_the_fields_stay_where_they_are() -> None:
    pos = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
    cells = {"line": torch.tensor([[0, 1], [1, 2], [2, 3]])}
    source = PointField(pos, u=pos.clone(), channels=("a",))
    target = PointField(pos, u=pos.clone(), channels=("u",), cells=cells)
    model = _Elsewhere()
    field = answer(model, source, target)
    assert model.seen == ["meta"] * 3
    devices = (source.pos, target.pos, target.cells["line"], field.pos, field.u)
    assert {tensor.device.type for tensor in devices} == {"cpu"}
    assert field.channels == ("u",) and field.u.shape == (4, 1)
    assert field.cells["line"].tolist() == cells["line"].tolist()
