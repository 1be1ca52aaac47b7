"""Rollouts: lead times, several input frames, answers that become inputs."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from cst_operator.autoregression import errors_over_time, rollout
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField, Trajectory
from cst_operator.fit_config import FitConfig
from cst_operator.model import CSTOperator
from cst_operator.sobolev import SobolevLoss
from cst_operator.tasks import LeadTime, TaskDataset
from cst_operator.training import fit

# A few products of small matrices in float64.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def _heat(
    generator: torch.Generator, times: Tensor, *, points: int = 24, conductivity: float = 1.0
) -> Trajectory:
    """Exact solution on an interval without flux: cosines that decay, on random places."""
    pos = torch.linspace(0, 1, points).double()[:, None]
    modes = torch.arange(1, 4).double()
    shapes = (math.pi * modes * pos).cos()
    decay = (-conductivity * (math.pi * modes) ** 2 * times[:, None]).exp()
    start = torch.randn(3, generator=generator, dtype=torch.float64)
    weights = torch.full((points,), 1 / (points - 1)).double()
    weights[[0, -1]] /= 2
    return Trajectory(
        mesh=PointField(pos=pos, u=pos * 0 + 7, weights=weights, channels=["static"]),
        times=times,
        u=((decay * start) @ shapes.T)[..., None],
        channels=("u",),
        units=("K",),
        parameters={"conductivity": conductivity},
    )


def _frames(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


def test_the_source_carries_frames_their_ages_and_the_lead(generator):
    times = _frames(0.0, 0.1, 0.3, 0.7)
    one = _heat(generator, times)
    task = LeadTime(inputs=("conductivity", "static"), outputs=("u",), history=2, leads=(2,))
    names = ("conductivity", "static", "u", "u[-1]", "age[1]", "lead")
    source, target = task(one, generator)  # there is one start alone
    assert source.channels == task.source_channels == names
    assert source.units == ("", "", "K", "K", "", "")
    wanted = torch.stack([one.u[1, :, 0], one.u[0, :, 0]], dim=1)
    torch.testing.assert_close(source.u[:, 2:4], wanted, rtol=0, atol=0)
    for columns, value in ((slice(0, 2), (1.0, 7.0)), (slice(4, 6), (0.1, 0.6))):
        wanted = torch.tensor(value, dtype=torch.float64).expand(24, 2)
        torch.testing.assert_close(source.u[:, columns], wanted, **ROUNDING)
    assert torch.equal(target.u, one.u[3])
    assert source.time.eq(0).all()
    torch.testing.assert_close(target.time, torch.full_like(target.time, 0.6), **ROUNDING)
    few = dataclasses.replace(task, num_queries=5)
    assert few(one, generator).target.num_points == 5


def test_every_start_and_every_lead_is_drawn(generator):
    one = _heat(generator, _frames(0.0, 1.0, 3.0, 7.0))
    one = dataclasses.replace(one, u=one.times[:, None, None].expand(4, 24, 1).clone())
    task = LeadTime(inputs=(), outputs=("u",), leads=(1, 2))
    met = set()
    for _ in range(60):
        source, target = task(one, generator)
        start, end, lead = (float(x[0, -1]) for x in (source.u[:, :1], target.u, source.u))
        assert end - start == lead  # small integers
        met.add((start, end))
    assert met == {(0, 1), (1, 3), (3, 7), (0, 3), (1, 7)}


@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_rollout_of_a_linear_model_applies_it_again_and_again(history, generator):
    times = _frames(0.0, 0.1, 0.25, 0.3, 0.7, 0.8)
    one = _heat(generator, times)
    task = LeadTime(inputs=("static",), outputs=("u",), history=history)
    matrix = torch.randn(24, 24, generator=generator, dtype=torch.float64) / 24

    def model(source: PointField, target: PointField) -> Tensor:
        named = dict(zip(source.channels, source.u.T, strict=True))
        assert torch.equal(source.pos, target.pos)
        past = sum(named[f"u[-{k}]"] * named[f"age[{k}]"] for k in range(1, history))
        return ((named["u"] + past) @ matrix + named["lead"] * named["static"])[:, None]

    frames = list(one.u[:history, :, 0])
    for i in range(history, len(times)):
        ages = [times[i - 1] - times[i - 1 - k] for k in range(1, history)]
        past = sum(frames[-1 - k] * age for k, age in enumerate(ages, start=1))
        frames.append((frames[-1] + past) @ matrix + 7 * (times[i] - times[i - 1]))
    answer = rollout(model, task, one)
    assert torch.equal(answer.times, times[history:])
    assert (answer.channels, answer.units) == (("u",), ("K",))
    torch.testing.assert_close(answer.u[..., 0], torch.stack(frames[history:]), **ROUNDING)
    # The frames after those that are read have no part in it, nor does their number.
    short = dataclasses.replace(one, times=times[:history], u=one.u[:history])
    again = rollout(model, task, short, times[history:].tolist())
    torch.testing.assert_close(again.u, answer.u, **ROUNDING)


def test_errors_over_time_are_those_of_the_frames(generator):
    truth = _heat(generator, _frames(0.0, 0.1, 0.2))
    wrong = dataclasses.replace(
        truth, times=truth.times[1:], u=truth.u[1:] * torch.tensor([1.5, 0.9])[:, None, None]
    )
    errors = errors_over_time(wrong, truth)
    torch.testing.assert_close(errors, torch.tensor([[0.5], [0.1]]).double(), rtol=1e-6, atol=0)
    late = dataclasses.replace(truth, times=truth.times + 0.05)
    with pytest.raises(FieldError, match=r"no frame at time 0\.05; predict at its times"):
        errors_over_time(late, truth)


class _Constant(nn.Module):
    """Answers with one, and only in evaluation mode."""

    def forward(self, source: PointField, target: PointField) -> Tensor:
        assert not self.training
        return torch.ones_like(target.pos)


@pytest.mark.parametrize("training", [False, True])
def test_a_module_answers_in_evaluation_mode_and_is_left_as_it_was(training, generator):
    model = _Constant().train(training)
    task = LeadTime(inputs=(), outputs=("u",))
    answer = rollout(model, task, _heat(generator, _frames(0.0, 1.0)))
    assert answer.u.eq(1).all() and model.training is training


def test_what_cannot_be_rolled_out_is_refused(generator):
    one = _heat(generator, _frames(0.0, 0.1, 0.2))
    task = LeadTime(inputs=(), outputs=("u",), history=2)
    with pytest.raises(FieldError, match="times must increase and be later than 0.1"):
        rollout(_Constant(), task, one, [0.1, 0.3])
    with pytest.raises(FieldError, match="3 frames; the task reads 4"):
        rollout(_Constant(), dataclasses.replace(task, history=4), one)
    with pytest.raises(FieldError, match="no times to answer at"):
        rollout(_Constant(), dataclasses.replace(task, history=3), one)
    with pytest.raises(FieldError, match="history 2 and lead 2 need at least 4"):
        dataclasses.replace(task, leads=(2,))(one, generator)
    with pytest.raises(FieldError, match="no channel 'w'; the solution has u"):
        LeadTime(inputs=(), outputs=("w",))(one, generator)
    with pytest.raises(ConfigError, match="history is 0; expected at least 1"):
        LeadTime(inputs=(), outputs=("u",), history=0)
    with pytest.raises(ConfigError, match=r"leads is \(0,\)"):
        LeadTime(inputs=(), outputs=("u",), leads=(0,))


def test_a_model_learns_to_roll_out_the_heat_equation_with_uneven_steps(seed, generator):
    train = [_heat(generator, 0.01 * torch.arange(8).double()).to(torch.float32) for _ in range(48)]
    uneven = _frames(0.0, 0.02, 0.03, 0.06, 0.07)
    test = [_heat(generator, uneven).to(torch.float32) for _ in range(6)]
    task = LeadTime(inputs=(), outputs=("u",), leads=(1, 2, 3))
    names = task.source_channels
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CSTOperator(
            CSTConfig(
                dim=1,
                in_channels=len(names),
                out_channels=1,
                in_names=names,
                width=32,
                depth=2,
                heads=2,
                hidden=32,
            )
        )
        fit(
            model,
            TaskDataset(train, task),
            loss=SobolevLoss(order=0),
            config=FitConfig(steps=100, batch_size=16, seed=seed),
            progress=False,
        )
    errors, still = [], []
    for one in test:
        errors.append(errors_over_time(rollout(model, task, one), one))
        start = one.u[:1].expand(4, -1, -1).clone()
        same = dataclasses.replace(one, times=one.times[1:], u=start)
        still.append(errors_over_time(same, one))
    learned, persistence = (torch.stack(e).mean((0, 2)) for e in (errors, still))
    # Measured: a quarter of the error of the first frame for ever, in the end a twentieth.
    assert (learned < 0.7 * persistence).all()
    assert learned[-1] < 0.1 * persistence[-1]
