"""Tasks make examples of trajectories, and nothing but their seeds decides which."""

import dataclasses

import pytest
import torch

from cst_operator._batches import fingerprint
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.tasks import Forecast, FrameInterpolation, PointUpsampling, Steady, TaskDataset
from tests.mesh_samples import box

# Weights are scaled by a quotient of sums of some ten numbers.
SUMS = {"rtol": 1e-12, "atol": 0.0}


def _trajectory(generator: torch.Generator, num_frames: int = 4) -> Trajectory:
    pos, cells = box("triangle", 4)
    n = len(pos)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=pos.dtype)

    mesh = PointField(
        pos=pos, u=draw(n, 2), weights=0.1 + draw(n).abs(), channels=("f", "distance"), cells=cells
    )
    times = torch.tensor([0.0, 1.0, 3.0, 4.0]).double()[:num_frames]
    t = num_frames
    return Trajectory(
        mesh=mesh,
        times=times,
        u=draw(t, n, 2),
        channels=("u", "v"),
        gradient=draw(t, n, 2, 2),
        time_derivative=draw(t, n, 2),
    )


def test_steady_reads_static_fields_and_asks_for_the_solution(generator):
    one = _trajectory(generator)
    source, target = Steady(inputs=("distance", "f"), outputs=("v",))(one, generator)
    assert source.channels == ("distance", "f")
    assert torch.equal(source.u, one.mesh.u[:, [1, 0]])
    assert torch.equal(target.u, one.u[0, :, 1:])
    assert torch.equal(target.gradient, one.gradient[0, :, 1:])
    assert "cells" not in source
    assert "cells" in target
    assert "cells" in one.mesh  # nothing was taken from the trajectory
    some = Steady(inputs=("f",), outputs=("u",), num_queries=7)(one, generator).target
    assert some.num_points == 7
    torch.testing.assert_close(some.weights.sum(), one.mesh.weights.sum(), **SUMS)


@pytest.mark.parametrize("kind", [Steady, Forecast])
def test_a_parameter_of_the_trajectory_is_a_constant_channel(kind, generator):
    trajectory = dataclasses.replace(_trajectory(generator), parameters={"viscosity": 0.25})
    name = trajectory.mesh.channels[0]
    task = kind(inputs=("viscosity", name), outputs=trajectory.channels[:1])
    source, _ = task(trajectory, generator)
    assert source.channels[:2] == ("viscosity", name)
    assert source.u[:, 0].eq(0.25).all()
    torch.testing.assert_close(source.u[:, 1], trajectory.mesh.u[:, 0])


def test_forecast_reads_the_first_frame_and_asks_for_the_others(generator):
    one = _trajectory(generator)
    source, target = Forecast(inputs=("f",), outputs=("u", "v"))(one, generator)
    assert source.channels == ("f", "u", "v")
    assert torch.equal(source.u[:, 1:], one.u[0])
    assert torch.equal(source.time, torch.zeros(25).double())
    assert torch.equal(target.u, one.u[1:].flatten(0, 1))
    assert torch.equal(target.time.unique(), torch.tensor([1.0, 3.0, 4.0]).double())
    assert target.time_derivative.shape == (75, 2)
    # Trapezoidal rule over times 1, 3, 4: weights 1, 1.5, 0.5.
    torch.testing.assert_close(target.weights.sum(), 3 * one.mesh.weights.sum(), **SUMS)
    some = Forecast(inputs=("f",), outputs=("u",), num_queries=7)(one, generator).target
    assert some.num_points == 7
    torch.testing.assert_close(some.weights.sum(), 3 * one.mesh.weights.sum(), **SUMS)
    with pytest.raises(FieldError, match="at least two frames, the trajectory has one"):
        Forecast(inputs=("f",), outputs=("u",))(_trajectory(generator, 1), generator)


def test_frame_interpolation_asks_for_the_frames_between(generator):
    one = _trajectory(generator)
    task = FrameInterpolation(channels=("v",), sources=(0, 2), targets=(1,))
    source, target = task(one, generator)
    assert torch.equal(source.u[:, 0], one.u[[0, 2], :, 1].flatten())
    assert torch.equal(target.u[:, 0], one.u[1, :, 1])
    assert torch.equal(target.time.unique(), torch.tensor([1.0]).double())
    torch.testing.assert_close(source.weights.sum(), 3 * one.mesh.weights.sum(), **SUMS)
    few = FrameInterpolation(
        channels=("v",), sources=(0, 2), targets=(1, 3), num_sources=6, num_queries=9
    )
    source, target = few(one, generator)
    assert (source.num_points, target.num_points) == (12, 9)
    assert torch.equal(source.pos[:6], source.pos[6:])  # the same places in every frame
    torch.testing.assert_close(source.weights.sum(), 3 * one.mesh.weights.sum(), **SUMS)


@pytest.mark.parametrize("fraction, known", [(0.001, 1), (0.2, 5), (0.999, 24)])
def test_upsampling_reads_some_points_and_asks_for_all_others(fraction, known, generator):
    one = _trajectory(generator)
    task = PointUpsampling(channels=("u",), frames=(2,), fraction=fraction)
    source, target = task(one, generator)
    assert (source.num_points, target.num_points) == (known, 25 - known)
    places = torch.cat([source.pos, target.pos])
    assert len(places.unique(dim=0)) == 25  # disjoint, and nothing is lost
    assert torch.equal(source.time.unique(), torch.tensor([3.0]).double())
    for side in (source, target):
        torch.testing.assert_close(side.weights.sum(), one.mesh.weights.sum(), **SUMS)
    values = dict(zip(map(tuple, one.mesh.pos.tolist()), one.u[2, :, 0].tolist(), strict=True))
    got = zip(map(tuple, places.tolist()), torch.cat([source.u, target.u])[:, 0], strict=True)
    assert all(values[place] == float(u) for place, u in got)


def test_upsampling_draws_every_frame(generator):
    one = _trajectory(generator)
    task = PointUpsampling(channels=("u",), frames=(1, 3), fraction=0.5, num_queries=3)
    examples = [task(one, generator) for _ in range(20)]
    assert {float(example.source.time[0]) for example in examples} == {1.0, 4.0}
    assert all(example.target.num_points == 3 for example in examples)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigError, match="expected between 0 and 1"):
        PointUpsampling(channels=("u",), frames=(0,), fraction=fraction)


def test_an_unknown_channel_is_refused(generator):
    with pytest.raises(FieldError, match="no channel 'w'; the field has u, v"):
        Steady(inputs=("f",), outputs=("w",))(_trajectory(generator), generator)


def _same(a: Example, b: Example) -> bool:
    return all(
        torch.equal(x.pos, y.pos) and torch.equal(x.u, y.u) for x, y in zip(a, b, strict=True)
    )


def test_an_item_depends_on_seed_epoch_and_index_alone(generator):
    trajectories = [_trajectory(generator), _trajectory(generator)]
    task = PointUpsampling(channels=("u",), frames=(0, 1, 2), fraction=0.3)

    def made(seed: int, epoch: int) -> TaskDataset:
        dataset = TaskDataset(trajectories, task, repeats=3, seed=seed)
        dataset.set_epoch(epoch)
        return dataset

    first = made(1, 2)
    assert len(first) == 6
    items = [first[i] for i in range(6)]
    again = made(1, 2)
    torch.rand(5, generator=generator)
    assert all(_same(again[i], items[i]) for i in (5, 0, 3, 3))  # in any order, more than once
    assert _same(again[-1], items[5])
    assert not _same(made(2, 2)[0], items[0])
    assert not _same(made(1, 3)[0], items[0])
    assert not _same(items[0], items[2])  # the same trajectory, another draw
    with pytest.raises(IndexError, match="example 6 of 6"):
        first[6]


def test_a_fingerprint_shows_other_trajectories_tasks_and_draws_and_no_other_epoch(generator):
    trajectories = [_trajectory(generator), _trajectory(generator)]
    task = PointUpsampling(channels=("u",), frames=(0, 1, 2), fraction=0.3)
    dataset = TaskDataset(trajectories, task, seed=1)
    original = fingerprint(dataset)
    dataset.set_epoch(3)
    assert fingerprint(dataset) == original
    assert fingerprint(TaskDataset(trajectories, task, seed=1)) == original
    u = trajectories[1].u.clone()
    u[:3] *= 1 + 1e-15  # the last bits of the frames that are drawn
    others = (
        TaskDataset([trajectories[0], dataclasses.replace(trajectories[1], u=u)], task, seed=1),
        TaskDataset(trajectories[::-1], task, seed=1),
        TaskDataset(trajectories, dataclasses.replace(task, fraction=0.5), seed=1),
        TaskDataset(trajectories, dataclasses.replace(task, channels=("v",)), seed=1),
        TaskDataset(trajectories, task, seed=2),
        TaskDataset(trajectories, task, repeats=2, seed=1),
    )
    assert len({original, *map(fingerprint, others)}) == 1 + len(others)


def test_the_command_line_keeps_no_more_trajectories_than_it_has_room_for(generator):
    from cst_operator.cli._shared import SinglePrecision

    class Counted(list[Trajectory]):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    source = Counted(_trajectory(generator) for _ in range(3))
    size = sum(  # values in single precision, and cells
        v.nbytes // 2 for v in (source[0].u, source[0].gradient, source[0].time_derivative)
    )
    kept = SinglePrecision(source, room=3 * size)  # of two, with their meshes
    source.reads = 0
    for _ in range(2):
        for i in range(3):
            assert torch.equal(kept[i].u, list(source)[i].u.float())
    assert source.reads == 4  # the third one is read again
