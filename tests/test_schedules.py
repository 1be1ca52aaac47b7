"""The learning rate of every step, and the choice of how it falls."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from cst_operator.errors import CheckpointError, ConfigError
from cst_operator.training import FitConfig, learning_rate
from tests.training_samples import CONFIG, same, stop_after, train, weights

SCHEDULES = get_args(get_type_hints(FitConfig)["schedule"])


def rates_of(schedule: str) -> list[float]:
    """Rates of 20 steps of warm-up and 81 after it, which end at a tenth of the largest, 2."""
    config = FitConfig(
        steps=101,
        lr=2.0,
        warmup=20 / 101,
        floor=0.1,
        schedule=schedule,  # type: ignore[arg-type]
        cooldown=0.25,
    )
    return [learning_rate(step, config) for step in range(101)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_rises_linearly_to_its_largest_value(schedule: str) -> None:
    rates = rates_of(schedule)
    assert rates[:20] == pytest.approx([2 * (i + 1) / 20 for i in range(20)])
    assert rates[20] == pytest.approx(2.0)
    assert all(a >= b for a, b in zip(rates[20:], rates[21:], strict=False))


@pytest.mark.parametrize(
    "schedule, quarter, half, last_eighth, end",
    [
        # Shares of the way from .2 to 2; cos 45 degrees is the root of a half.
        ("cosine", 0.2 + 1.8 * (2 + math.sqrt(2)) / 4, 1.1, 0.2 + 1.8 * 0.0380602, 0.2),
        ("linear", 0.2 + 1.8 * 0.75, 1.1, 0.2 + 1.8 * 0.125, 0.2),
        ("constant", 2.0, 2.0, 2.0, 2.0),
        ("wsd", 2.0, 2.0, 1.1, 0.2),  # half of its cool-down, the last quarter
    ],
)
def test_the_learning_rate_follows_its_schedule(
    schedule: str, quarter: float, half: float, last_eighth: float, end: float
) -> None:
    rates = rates_of(schedule)
    found = [rates[step] for step in (40, 60, 90, 100)]
    assert found == pytest.approx([quarter, half, last_eighth, end])  # of 80 steps after step 20


def test_every_schedule_is_known_and_no_other() -> None:
    assert FitConfig().schedule == SCHEDULES[0] == "cosine"
    choices = " or ".join(map(repr, SCHEDULES))
    with pytest.raises(ConfigError, match=f"^schedule is 'step'; expected {choices}$"):
        FitConfig(schedule="step")  # type: ignore[arg-type]


def test_the_optimizer_follows_the_schedule_also_after_a_stop(tmp_path: Path) -> None:
    config = replace(CONFIG, schedule="wsd", cooldown=0.5, log_every=1)
    straight = train(config=config)
    rates = [record["lr"] for record in straight.history if "lr" in record]
    assert rates == [learning_rate(step, config) for step in range(config.steps)]
    assert not same(weights(straight), weights(train()))
    train(tmp_path / "run", config=config, stop=stop_after(9))  # within the cool-down
    assert same(weights(train(tmp_path / "run", config=config, resume=True)), weights(straight))
    with pytest.raises(CheckpointError, match="schedule is 'wsd' there and 'cosine' here"):
        train(tmp_path / "run", config=replace(config, schedule="cosine"), resume=True)
