"""What is hidden is what is asked, and nothing but the seed decides which."""

import pytest
import torch

from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField, Trajectory
from cst_operator.masking import (
    EquallySpacedFrames,
    LastFrames,
    Masking,
    RandomFrames,
    Subsampled,
)
from cst_operator.tasks import Forecast, TaskDataset

# Weights are scaled by a quotient of sums of some hundred numbers.
SUMS = {"rtol": 1e-12, "atol": 0.0}
T, N = 12, 9


@pytest.fixture
def numbered() -> Trajectory:
    """Every value is its own number, in frames of unequal distance."""
    times = torch.arange(T).double() ** 1.5
    return Trajectory(
        mesh=PointField(torch.linspace(0, 1, N).double()[:, None], weights=torch.ones(N).double()),
        times=times,
        u=torch.arange(T * N).double().reshape(T, N, 1),
        channels=("u",),
        gradient=-torch.arange(T * N).double().reshape(T, N, 1, 1),
    )


@pytest.mark.parametrize(
    "frames, known, points",
    [
        (LastFrames(hidden=4), range(8), 1.0),
        (LastFrames(hidden=4), range(8), 1 / 3),
        (EquallySpacedFrames(known=3), (0, 6, 11), 1.0),
        (EquallySpacedFrames(known=2), (0, 11), 1 / 3),
        (None, range(T), 1 / 3),
    ],
)
def test_what_is_hidden_is_asked(frames, known, points, numbered, generator):
    source, target = Masking(channels=("u",), frames=frames, points=points)(numbered, generator)
    read, asked = (side.u[:, 0].long().tolist() for side in (source, target))
    assert sorted(read + asked) == list(range(T * N))
    assert sorted({number // N for number in read}) == list(known)
    places = {number % N for number in read}
    assert len(places) == round(points * N) and len(read) == len(places) * len(known)
    for side in (source, target):
        numbers = side.u[:, 0].long()
        assert torch.equal(side.time, numbered.times[numbers // N])
        assert torch.equal(side.pos, numbered.mesh.pos[numbers % N])
        assert torch.equal(side.gradient[:, 0, 0], -side.u[:, 0])
    torch.testing.assert_close(target.weights.sum(), N * numbered.times[-1], **SUMS)
    if points == 1:
        (whole,) = {float(w) for w in source.weights.reshape(len(known), N).sum(0)}
        first, last = (numbered.times[k] for k in (known[0], known[-1]))
        assert whole == pytest.approx(float(last - first), rel=1e-12)


def test_random_frames_are_drawn_anew_in_every_epoch_and_alike_for_a_seed(numbered):
    data = TaskDataset([numbered], Masking(channels=("u",), frames=RandomFrames(hidden=5)), seed=3)
    seen = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        source, target = data[0]
        frames = (source.u[:, 0] // N).unique().tolist()
        assert len(frames) == 7 and (target.u[:, 0] // N).unique().numel() == 5
        seen.append(frames)
    assert seen[0] == seen[2] != seen[1]


def test_a_share_of_the_hidden_points_is_asked(numbered, generator):
    masking = Masking(channels=("u",), frames=LastFrames(hidden=2), num_queries=7)
    _, target = masking(numbered, generator)
    assert target.num_points == 7 and bool((target.u >= 10 * N).all())
    torch.testing.assert_close(target.weights.sum(), N * numbered.times[-1], **SUMS)


def test_another_task_is_subsampled(numbered, generator):
    task = Forecast(inputs=(), outputs=("u",))
    whole = task(numbered, generator)
    source, target = Subsampled(task=task, num_sources=4, num_queries=10)(numbered, generator)
    assert (source.num_points, target.num_points) == (4, 10)
    for some, of in zip((source, target), whole, strict=True):
        assert set(some.u[:, 0].tolist()) <= set(of.u[:, 0].tolist())
        torch.testing.assert_close(some.weights.sum(), of.weights.sum(), **SUMS)
    again = Subsampled(task=task, num_sources=99)(numbered, generator)
    assert torch.equal(again.source.u, whole.source.u)  # no more than there are
    assert torch.equal(again.target.u, whole.target.u)


def test_one_point_cannot_be_shared(numbered, generator):
    one = Trajectory(
        mesh=numbered.mesh.subset(torch.tensor([3])),
        times=numbered.times,
        u=numbered.u[:, 3:4],
        channels=("u",),
    )
    with pytest.raises(FieldError, match="needs at least two, there is one"):
        Masking(channels=("u",), points=0.5)(one, generator)


def test_maskings_that_hide_nothing_or_all_are_refused(numbered, generator):
    with pytest.raises(ConfigError, match="nothing is hidden; give frames, or points below 1"):
        Masking(channels=("u",))
    with pytest.raises(ConfigError, match="points is 0; expected a share"):
        Masking(channels=("u",), points=0)
    for mask in (LastFrames, RandomFrames):
        with pytest.raises(ConfigError, match="hidden is 0; expected at least 1"):
            mask(hidden=0)
        with pytest.raises(FieldError, match="12 frames; this masking needs at least 13"):
            Masking(channels=("u",), frames=mask(hidden=12))(numbered, generator)
    with pytest.raises(ConfigError, match="expected at least 1"):
        EquallySpacedFrames(known=1)
    short = numbered.window(range(3))
    with pytest.raises(FieldError, match="3 frames; this masking needs at least 4"):
        Masking(channels=("u",), frames=EquallySpacedFrames(known=3))(short, generator)
