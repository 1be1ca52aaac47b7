"""An example that a relative loss is not defined for is named, before it costs a training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cst_operator.errors import FieldError, TrainingError
from cst_operator.fields import Example, PointField
from cst_operator.physics import PhysicsLoss
from cst_operator.sobolev import SobolevLoss
from tests.training_samples import CONFIG, Doubles, MeanSquare, Net, NetConfig, plain_net, train


def _example(u: torch.Tensor, **options: Any) -> Example:
    pos = torch.linspace(0, 1, len(u), dtype=torch.float64)[:, None]
    weights = torch.full((len(u),), 1 / len(u), dtype=torch.float64)
    field = PointField(pos, u, weights, channels=("p", "q")[: u.shape[1]], **options)
    return Example(field, field)


def _column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


ZERO, FLAT, WAVY = _column(0, 0, 0), _column(2, 2, 2), _column(0, 1, 0)


@pytest.mark.parametrize(
    "loss, u, words",
    [
        (SobolevLoss(), ZERO, "its target is zero everywhere"),
        (SobolevLoss(order=1), ZERO, "its target is zero everywhere"),
        (SobolevLoss(order=1), FLAT, "its target is constant"),
        (
            SobolevLoss(channel_weights=(1.0, 1.0)),
            torch.cat([WAVY, ZERO], 1),
            "'q' is zero everywhere",
        ),
        (PhysicsLoss(residual=lambda state: state.u, order=0), ZERO, "its target is zero"),
    ],
)
def test_a_loss_refuses_what_it_would_divide_by(
    loss: SobolevLoss, u: torch.Tensor, words: str
) -> None:
    with pytest.raises(FieldError, match=f"^{words}.*; leave the example out, or .*relative=False"):
        loss.check(_example(u))
    if isinstance(loss, SobolevLoss):
        replace(loss, relative=False).check(_example(u))


def test_a_loss_takes_every_example_that_it_is_defined_for() -> None:
    SobolevLoss().check(_example(FLAT))
    SobolevLoss().check(_example(torch.cat([WAVY, ZERO], 1)))  # one norm of both channels
    SobolevLoss(order=1).check(_example(WAVY))


def test_what_has_no_weight_may_be_undefined() -> None:
    SobolevLoss(weights=(0.0,)).check(_example(ZERO))
    SobolevLoss(order=1, weights=(1.0, 0.0)).check(_example(FLAT))
    both = _example(torch.cat([WAVY, ZERO], 1))
    SobolevLoss(channel_weights=(1.0, 0.0)).check(both)
    with pytest.raises(FieldError, match="'q' is zero everywhere"):
        SobolevLoss(channel_weights=(0.0, 1.0)).check(both)
    # Smoothing is relative to the values, whatever their own weight.
    with pytest.raises(FieldError, match="its target is zero everywhere"):
        SobolevLoss(weights=(0.0,), smoothing=(1.0,)).check(_example(ZERO))
    steady = _example(WAVY, gradient=torch.ones(3, 1, 1).double(), time_derivative=ZERO)
    SobolevLoss(order=1, time_weights=(0.0,)).check(steady)


def test_derivatives_in_time_must_not_vanish_where_they_are_a_term() -> None:
    gradient = torch.ones(3, 1, 1, dtype=torch.float64)
    steady = _example(WAVY, gradient=gradient, time_derivative=ZERO)
    SobolevLoss(order=1).check(steady)
    with pytest.raises(FieldError, match="its target is steady"):
        SobolevLoss(order=1, time_weights=(1.0,)).check(steady)


@dataclass
class _Counted:
    """Doubles of which one target is zero, that know how often each was read."""

    zero: int
    reads: list[int]

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Example:
        self.reads.append(index)
        source, target = Doubles()[index]
        return Example(source, target.with_values(target.u * (index != self.zero)))


def test_training_names_the_example_before_the_first_step(tmp_path: Path) -> None:
    samples = _Counted(zero=7, reads=[])
    model = plain_net()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FieldError, match="^training example 7: its target is zero everywhere"):
        train(tmp_path / "run", model=model, train=samples, loss=SobolevLoss())
    assert all(map(torch.equal, model.parameters(), before))


def test_defined_examples_are_read_no_oftener_for_the_check() -> None:
    reads = []
    for loss in (SobolevLoss(), MeanSquare()):  # the second checks nothing
        samples = _Counted(zero=-1, reads=[])
        train(model=plain_net(), train=samples, loss=loss)
        reads.append(samples.reads)
    assert reads[0] == reads[1]


@pytest.mark.parametrize("bucket", [0, 2])
def test_a_step_that_is_not_finite_names_its_example(bucket: int) -> None:
    model = Net(NetConfig()).double()
    model.normalization.in_mean += 0.5  # fitted already, so that nothing is read before
    samples = _Counted(zero=7, reads=[])
    config = replace(CONFIG, bucket=bucket)
    with pytest.raises(
        TrainingError, match=r"of step \d is not finite.*; training example 7: its target is zero"
    ):
        train(model=model, train=samples, loss=SobolevLoss(), config=config)
