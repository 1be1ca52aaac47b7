"""Balanced terms count as their weights say, and a balanced training resumes bit for bit."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cst_operator._balancing import Balancing
from cst_operator.errors import ConfigError
from cst_operator.fields import Example
from cst_operator.processes import Processes
from cst_operator.sobolev import LossTerms
from tests.training_samples import (
    CONFIG,
    Balanced,
    Doubles,
    MeanSquare,
    plain_net,
    same,
    stop_after,
    train,
    untimed,
    weights,
)

BALANCED = replace(CONFIG, balance=0.5)


@dataclass(frozen=True)
class Uneven:
    """Three terms of very different sizes, the first without weight."""

    def __call__(self, model: nn.Module, batch: Example, **_: Any) -> LossTerms:
        error = model(batch.source, batch.target) - batch.target.u
        terms = {"idle": error.mean(), "large": 1e4 * error.abs().mean(), "small": error.var()}
        weights = {"idle": 0.0, "large": 1.0, "small": 0.5}
        total = sum(weights[name] * terms[name] for name in terms)
        return LossTerms(torch.as_tensor(total), terms, weights)


def test_the_first_term_keeps_its_size_and_the_others_take_it_times_their_weight():
    balancing = Balancing(0.5)
    weights = {"a": 2.0, "b": 1.0, "c": 0.0}
    terms = [
        {"a": torch.tensor(x), "b": torch.tensor(y), "c": torch.tensor(z)}
        for x, y, z in ((4.0, 100.0, 7.0), (2.0, 300.0, 7.0))
    ]
    total = torch.tensor(11.0)
    assert balancing.total(total, terms[0], weights) is total
    for values in terms:
        for _ in range(2):  # two halves of a step
            balancing.add(values, 0.5)
        balancing.update(Processes())
    # Means (4 + 2) / 2 and (100 + 300) / 2.
    assert float(balancing.means["a"]) == 3.0 and float(balancing.means["b"]) == 200.0
    wanted = 2 * 2.0 + 300 * 3 / 200
    assert float(balancing.total(total, terms[1], weights)) == pytest.approx(wanted, rel=1e-6)


def test_a_term_that_vanishes_or_overflows_leaves_the_balance_finite():
    balancing = Balancing(0.5)
    one = {"a": torch.tensor(1.0), "b": torch.tensor(0.0)}
    balancing.add(one, 1.0)
    balancing.update(Processes())
    balancing.add({"a": torch.tensor(torch.inf), "b": torch.tensor(torch.nan)}, 1.0)
    balancing.update(Processes())
    total = balancing.total(one["a"], one, {"a": 1.0, "b": 1.0})
    assert float(total) == 1.0 and float(balancing.means["a"]) == 1.0


def test_balance_changes_a_training_and_without_it_nothing_is_kept():
    fixed, balanced, again = (
        train(config=config, loss=Uneven()) for config in (CONFIG, BALANCED, BALANCED)
    )
    assert not same(weights(fixed), weights(balanced))
    assert same(weights(balanced), weights(again))
    assert Balancing(0.0).means == {}


def test_a_balanced_training_resumes_bit_for_bit(tmp_path: Path):
    whole = train(tmp_path / "whole", BALANCED, loss=Uneven())
    half = train(tmp_path / "half", BALANCED, loss=Uneven(), stop=stop_after(5))
    assert half.interrupted
    rest = train(tmp_path / "half", BALANCED, seed=2, loss=Uneven(), resume=True)
    assert same(weights(rest), weights(whole))
    assert untimed(rest.history) == untimed(whole.history)


def test_the_balance_does_not_depend_on_how_a_step_is_cut():
    runs = [
        train(
            config=replace(BALANCED, batch_size=4, accumulate=parts),
            model=plain_net(),
            train=Doubles(),
            validation=Doubles(4),
            loss=Balanced(),
        )
        for parts in (1, 2)
    ]
    for whole, cut in zip(*(weights(run).values() for run in runs), strict=True):
        # Sums of four terms in another order, after twelve steps of AdamW.
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)


def test_a_loss_that_does_not_say_its_weights_is_not_balanced():
    with pytest.raises(ConfigError, match="does not say the weights of its terms; use a loss"):
        train(config=BALANCED, loss=MeanSquare())
