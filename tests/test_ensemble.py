"""The spread of an ensemble is a standard deviation and, calibrated, the size of its error."""

import pytest
import torch

from cst_operator import checkpoint
from cst_operator.ensemble import Ensemble
from cst_operator.errors import ConfigError, InputError
from cst_operator.fields import Example, PointField
from tests.model_samples import joined, known_field, queries_in, tiny_model

NAMES = {"in_names": ("f", "g"), "out_names": ("a", "b")}


def _ensemble(seed: int, count: int = 3) -> Ensemble:
    return Ensemble([tiny_model(seed + i, **NAMES) for i in range(count)]).double().eval()


def _source(generator: torch.Generator) -> PointField:
    return known_field(generator, 30).with_values(
        torch.randn(30, 2, generator=generator, dtype=torch.float64), channels=("f", "g")
    )


def _examples(ensemble: Ensemble, generator: torch.Generator, error: float) -> list[Example]:
    """Truth that is off the mean by so many times the spread."""
    examples = []
    for m in (40, 25, 60):
        source, target = _source(generator), queries_in(generator, m)
        target.weights = 0.1 + torch.rand(m, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            noise = torch.randn(m, 2, generator=generator, dtype=torch.float64)
            u = ensemble(source, target) + error * noise * ensemble.spread(source, target)
        examples.append(Example(source, target._with(u=u, channels=("a", "b"), units=("", ""))))
    return examples


def test_the_answer_is_the_mean_and_the_spread_the_standard_deviation(seed, generator):
    ensemble, source, target = _ensemble(seed), _source(generator), queries_in(generator, 9)
    answers = torch.stack([member(source, target) for member in ensemble.members])
    torch.testing.assert_close(ensemble(source, target), answers.mean(0), rtol=0, atol=1e-14)
    spread = ensemble.spread(source, target)
    torch.testing.assert_close(spread, answers.std(0), rtol=0, atol=1e-14)
    assert spread.min() > 0


def test_a_prediction_carries_the_spread_as_channels(seed, generator):
    ensemble, source, target = _ensemble(seed), _source(generator), queries_in(generator, 9)
    answer = ensemble.predict(source, target, chunk=4)
    assert answer.channels == ("a", "b", "a_std", "b_std")
    torch.testing.assert_close(answer.u[:, :2], ensemble(source, target), rtol=0, atol=1e-12)
    spread = ensemble.spread(source, target)
    torch.testing.assert_close(answer.u[:, 2:], spread, rtol=0, atol=1e-12)


@pytest.mark.parametrize("error", [0.2, 5.0])
def test_calibration_makes_the_spread_as_large_as_the_error(error, seed, generator):
    ensemble = _ensemble(seed)
    examples = _examples(ensemble, generator, error)
    assert ensemble.calibration(examples).ratio == pytest.approx(error, rel=0.2)
    found = ensemble.calibrate(examples).calibration(examples)
    # Each channel has its own scale, so over both the squares agree exactly.
    assert found.ratio == pytest.approx(1, rel=1e-10)
    # The errors are normal: 68 % and 95 % of 250 of them, with a scatter of 3 % and 1.4 %.
    assert found.coverage[1.0] == pytest.approx(0.683, abs=0.12)
    assert found.coverage[2.0] == pytest.approx(0.954, abs=0.06)


@pytest.mark.parametrize("power", [1, -1])
def test_the_correlation_tells_whether_hard_samples_are_known(power, seed, generator):
    ensemble = _ensemble(seed)
    examples = _examples(ensemble, generator, 1.0)
    unit = ensemble.members[0].normalization.out_std
    for example in examples:
        weight = example.target.weights / example.target.weights.sum()
        with torch.no_grad():
            spread = (weight @ (ensemble.spread(*example) / unit).square()).sum().sqrt()
            example.target.u = ensemble(*example) + spread**power
    assert ensemble.calibration(examples).correlation == pytest.approx(power, abs=1e-9)


def test_calibration_is_measured_in_evaluation_mode_and_leaves_members_as_they_were(
    seed, generator
):
    ensemble = Ensemble([tiny_model(seed + i, noise=0.5, **NAMES) for i in range(2)]).double()
    examples = _examples(ensemble, generator, 1.0)
    assert not ensemble.training  # its members are not
    wanted = ensemble.calibration(examples)
    ensemble.train()
    ensemble.members[0].eval()
    assert ensemble.calibration(examples) == wanted
    ensemble.calibrate(examples)
    assert ensemble.calibration(examples).ratio == pytest.approx(1, rel=1e-10)
    assert [ensemble.training, *(m.training for m in ensemble.members)] == [True, False, True]


def test_a_calibration_does_not_depend_on_the_units_of_channels(seed, generator):
    ensemble = _ensemble(seed)
    examples = _examples(ensemble, generator, 0.7)
    wanted = ensemble.calibration(examples)
    factor = torch.tensor([1.0, 1e5], dtype=torch.float64)
    for example in examples:
        example.target.u = example.target.u * factor
    for member in ensemble.members:
        member.normalization.out_mean *= factor
        member.normalization.out_std *= factor
    got = ensemble.calibration(examples)
    assert got.ratio == pytest.approx(wanted.ratio, rel=1e-9)
    assert got.correlation == pytest.approx(wanted.correlation, rel=1e-9)


def test_what_tells_nothing_of_the_spread_is_refused(seed, generator):
    ensemble = _ensemble(seed)
    examples = _examples(ensemble, generator, 1.0)
    alike = Ensemble([tiny_model(seed, **NAMES) for _ in range(2)]).double().eval()
    for measure in ("calibrate", "calibration"):
        with pytest.raises(InputError, match="no examples to calibrate on; give at least one"):
            getattr(ensemble, measure)([])
        with pytest.raises(InputError, match="the same answers.*train them from different seeds"):
            getattr(alike, measure)(examples)
    assert torch.equal(alike.scale, torch.ones(2).double())


def test_an_ensemble_answers_batches_and_learns_as_one_model(seed, generator):
    ensemble = _ensemble(seed)
    examples = [Example(_source(generator), queries_in(generator, m)) for m in (5, 8)]
    single = torch.cat([ensemble(*example) for example in examples])
    torch.testing.assert_close(ensemble(*joined(*examples)), single, rtol=0, atol=1e-12)


def test_an_ensemble_is_saved_with_its_calibration(seed, generator, tmp_path):
    ensemble = _ensemble(seed)
    ensemble.scale.copy_(torch.tensor([2.0, 3.0]))
    checkpoint.save(ensemble, tmp_path / "ensemble")
    loaded = checkpoint.load(tmp_path / "ensemble")
    source, target = _source(generator), queries_in(generator, 9)
    torch.testing.assert_close(loaded.spread(source, target), ensemble.spread(source, target))


def test_one_model_is_no_ensemble(seed):
    with pytest.raises(ConfigError, match="no spread; give two models"):
        Ensemble([tiny_model(seed)])


def test_members_of_different_tasks_are_refused(seed):
    with pytest.raises(ConfigError, match=r"\(f, g to a, b and f, g to b, a\); train them on one"):
        Ensemble(
            [tiny_model(seed, **NAMES), tiny_model(seed, **{**NAMES, "out_names": ("b", "a")})]
        )
