"""The configuration of an experiment: TOML, types, and what a run keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from cst_operator.config import (
    ExperimentConfig,
    from_mapping,
    load_config,
    to_toml,
    write_config,
)
from cst_operator.cst_config import Architecture
from cst_operator.errors import ConfigError
from cst_operator.fields import PointField, Trajectory
from cst_operator.masking import (
    EquallySpacedFrames,
    FrameMask,
    LastFrames,
    Masking,
    RandomFrames,
    Subsampled,
)
from cst_operator.sobolev import SobolevLoss
from cst_operator.task_config import Kind, Mask, TaskConfig
from cst_operator.tasks import Forecast, LeadTime, PointUpsampling, Steady
from cst_operator.training import FitConfig

CHANNELS = {"static": ("f", "a", "distance"), "solved": ("u",), "cells": ("triangle",)}


def read(text: str, folder: Path) -> ExperimentConfig:
    path = folder / "train.toml"
    path.write_text(text)
    return load_config(path)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert read("", tmp_path) == ExperimentConfig()


def test_values_of_every_table_arrive(tmp_path: Path) -> None:
    config = read(
        "data = 'd'\n[task]\ninputs = ['f', 'a']\n[model]\nwidth = 32\nradii = [0.2, 2]\n"
        "[loss]\norder = 0\n[fit]\nlr = 3e-4\nclip = 2\n",
        tmp_path,
    )
    assert config == ExperimentConfig(
        data="d",
        task=TaskConfig(inputs=("f", "a")),
        model=Architecture(width=32, radii=(0.2, 2.0)),
        loss=SobolevLoss(order=0),
        fit=FitConfig(lr=3e-4, clip=2.0),
    )
    assert isinstance(config.fit.clip, float)


def test_what_is_written_is_read_back_as_the_same(tmp_path: Path) -> None:
    config = ExperimentConfig(
        data='odd "name" \\ ü\n',
        task=TaskConfig(kind="steady", inputs=("f",), outputs=("u",)),
        loss=SobolevLoss(order=2, weights=(1.0, 0.1, 1e-5), relative=False),
        fit=FitConfig(lr=1e-5, steps=7, precision="bfloat16", schedule="wsd", cooldown=0.1),
    )
    path = write_config(tmp_path / "experiment.toml", config)
    assert load_config(path) == config
    assert "[fit]" in to_toml(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fit]\nstepz = 3", ["'fit.stepz'", "'fit.steps'"]),
        ("lr = 1e-3", ["'lr'", "'fit.lr'"]),
        ("[optim]\nlr = 1e-3", ["'optim'"]),
        ("[model]\nwidht = 3", ["'model.widht'", "'model.width'"]),
        ("[fit]\nsteps = 'many'", ["fit.steps", "'many'", "an integer"]),
        ("[fit]\nsteps = 3.5", ["fit.steps", "an integer"]),
        ("[fit]\nsteps = true", ["fit.steps", "an integer"]),
        ("[fit]\nlr = '1e-3'", ["fit.lr", "a number"]),
        ("[fit]\nlr = -1.0", ["[fit]", "lr is -1.0", "positive"]),
        ("[fit]\ndevice = 'gpu'", ["fit.device", "'gpu'", "'cuda'"]),
        ("[fit]\nschedule = 'step'", ["fit.schedule", "'step'", "'cosine'", "'wsd'"]),
        ("[loss]\nrelative = 1", ["loss.relative", "true or false"]),
        ("[loss]\nweights = 1.0", ["loss.weights", "a list"]),
        ("[model]\nradii = [1.0]", ["model.radii", "1 entries", "expected 2"]),
        ("[task]\ninputs = [1]", ["task.inputs", "a string"]),
        ("fit = 3", ["fit", "table [fit]"]),
        ("[fit\nlr = 1", ["not TOML"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "train.toml" in message
    for word in words:
        assert word in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(tmp_path / "absent.toml")


def test_a_mapping_may_come_from_anywhere() -> None:
    assert from_mapping(TaskConfig, {"kind": "steady"}, "here").kind == "steady"


def test_inputs_follow_from_the_system() -> None:
    task = TaskConfig().resolve(system="darcy", num_frames=1, **CHANNELS)
    assert (task.kind, task.inputs, task.outputs) == ("steady", ("f", "a", "distance"), ("u",))
    assert task.source_channels == ("f", "a", "distance")
    plain = Steady(inputs=("f", "a", "distance"), outputs=("u",))
    assert task.build() == replace(plain, resample=True, num_queries=64)
    assert task.at_all_points().build() == plain


def test_a_steady_task_reads_the_boundary_where_there_is_one() -> None:
    task = TaskConfig().resolve(system="poisson", num_frames=1, bounded=True, **CHANNELS)
    assert task.source_channels == ("f", "distance", "boundary")
    assert task.at_all_points().build().boundary
    for other in (
        TaskConfig().resolve(system="heat", num_frames=3, bounded=True, **CHANNELS),
        TaskConfig(boundary=False).resolve(
            system="poisson", num_frames=1, bounded=True, **CHANNELS
        ),
        TaskConfig().resolve(system="poisson", num_frames=1, bounded=False, **CHANNELS),
    ):
        assert not other.boundary and "boundary" not in other.source_channels


def test_a_steady_task_must_read_something() -> None:
    alone = {**CHANNELS, "static": ()}
    task = TaskConfig().resolve(system="mine", num_frames=1, bounded=True, **alone)
    assert task.source_channels == ("boundary",)
    with pytest.raises(ConfigError, match="reads nothing: .* name those .* cst convert --static"):
        TaskConfig().resolve(system="mine", num_frames=1, bounded=False, **alone)


def test_quadrilaterals_are_not_resampled() -> None:
    task = TaskConfig().resolve(system="", num_frames=1, **{**CHANNELS, "cells": ("quad",)})
    assert not task.resample


def test_several_frames_are_forecast_from_the_first() -> None:
    task = TaskConfig(num_queries=9).resolve(system="heat", num_frames=3, **CHANNELS)
    assert task.source_channels == ("f", "distance", "u")
    assert task.build() == Forecast(inputs=("f", "distance"), outputs=("u",), num_queries=9)
    assert task.at_all_points().build() == Forecast(inputs=("f", "distance"), outputs=("u",))


def test_upsampling_reads_what_it_answers() -> None:
    task = TaskConfig(kind="upsampling", fraction=0.5)
    task = task.resolve(system="poisson", num_frames=2, **CHANNELS)
    assert task.source_channels == task.outputs == ("u",)
    assert task.build(num_frames=2) == PointUpsampling(
        channels=("u",), frames=(0, 1), fraction=0.5, num_queries=64
    )


def test_lead_times_read_a_history() -> None:
    task = TaskConfig(kind="lead_time", history=2, leads=(1, 3), num_queries=9)
    task = task.resolve(system="heat", num_frames=5, **CHANNELS)
    expected = LeadTime(
        inputs=("f", "distance"), outputs=("u",), history=2, leads=(1, 3), num_queries=9
    )
    assert task.build() == expected
    assert task.source_channels == expected.source_channels
    assert not task.transient


@pytest.mark.parametrize(
    ("mask", "frames", "points"),
    [
        ("random", RandomFrames(hidden=4), 1.0),
        ("last", LastFrames(hidden=4), 1.0),
        ("equally_spaced", EquallySpacedFrames(known=5), 1.0),
        ("points", None, 0.1),
    ],
)
def test_masking_hides_half_of_the_frames_or_most_points(
    mask: Mask, frames: FrameMask | None, points: float
) -> None:
    task = TaskConfig(kind="masking", mask=mask, inputs=("f",))
    task = task.resolve(system="heat", num_frames=9, **CHANNELS)
    assert task.build() == Masking(channels=("u",), frames=frames, points=points, num_queries=64)
    assert (task.source_channels, task.window, task.transient) == (("u",), 9, True)


def test_windows_decide_how_many_frames_are_hidden() -> None:
    task = TaskConfig(kind="masking", window=4, stride=2, mask="last")
    task = task.resolve(system="heat", num_frames=9, **CHANNELS)
    assert task.build(num_frames=9) == Masking(
        channels=("u",), frames=LastFrames(hidden=2), num_queries=64
    )
    x = torch.linspace(0, 1, 3)[:, None]
    trajectory = Trajectory(
        mesh=PointField(x), times=torch.arange(9.0), u=torch.ones(9, 3, 1), channels=("u",)
    )
    windows = task.windows([trajectory])
    assert [float(window.times[0]) for window in windows] == [0.0, 2.0, 4.0]
    assert {window.num_frames for window in windows} == {4}
    assert len(replace(task, window=0).windows([trajectory])) == 1


def test_a_random_part_of_the_source_is_read_in_training_alone() -> None:
    task = TaskConfig(num_sources=7).resolve(system="heat", num_frames=3, **CHANNELS)
    forecast = Forecast(inputs=("f", "distance"), outputs=("u",), num_queries=64)
    assert task.build() == Subsampled(task=forecast, num_sources=7)
    assert task.at_all_points().build() == replace(forecast, num_queries=0)


def test_what_is_resolved_stays_as_it_is() -> None:
    for kind in get_args(Kind):
        form: dict[str, Any] = {"system": "heat", "num_frames": 6, **CHANNELS}
        task = TaskConfig(kind=kind).resolve(**form)
        assert task.resolve(**form) == task


def test_a_foreign_system_gives_all_its_static_channels() -> None:
    task = TaskConfig().resolve(system="mine", num_frames=1, **CHANNELS)
    assert task.inputs == CHANNELS["static"]


@pytest.mark.parametrize("wrong", [{"inputs": ("distanse",)}, {"outputs": ("v",)}])
def test_a_channel_the_data_lack_is_named(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="do not have.*choose from"):
        TaskConfig(**wrong).resolve(system="poisson", num_frames=1, **CHANNELS)
