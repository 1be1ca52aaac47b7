"""Which part of a trajectory is read and which is asked, drawn anew in every epoch.

The maskings of the Continuous Spatiotemporal Transformer (Fonseca et al., 2023): random frames, the
last frames, all but equally spaced frames, and random points are hidden, and asked for.

>>> import torch
>>> import cst_operator as cst
>>> x = torch.linspace(0, 1, 11)[:, None]
>>> mesh = cst.PointField(x, weights=torch.full((11,), 0.1))
>>> times = torch.arange(20.0)
>>> wave = cst.Trajectory(
...     mesh=mesh, times=times, u=torch.sin(x - times[:, None, None]), channels=("u",)
... )
>>> hide_end = Masking(channels=("u",), frames=LastFrames(hidden=5), num_queries=30)
>>> examples = cst.TaskDataset([wave], hide_end, seed=0)
>>> examples[0].source.time.max(), examples[0].target.num_points
(tensor(14.), 30)
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField, Trajectory, trapezoid_weights
from cst_operator.sampling import distinct
from cst_operator.tasks import Task

__all__ = [
    "EquallySpacedFrames",
    "FrameMask",
    "LastFrames",
    "Masking",
    "RandomFrames",
    "Subsampled",
]


class FrameMask(Protocol):
    """Decides which frames are read."""

    def __call__(self, num_frames: int, generator: torch.Generator) -> Tensor:
        """Numbers of the frames that are read, increasing; the others are hidden.

        Raises:
            FieldError: if there are too few frames.
        """
        ...


@dataclass(frozen=True)
class RandomFrames:
    """Random frames are hidden.

    Args:
        hidden: how many.
    """

    hidden: int

    def __post_init__(self) -> None:
        _positive(self.hidden, "hidden")

    def __call__(self, num_frames: int, generator: torch.Generator) -> Tensor:
        """Numbers of the frames that are read."""
        _enough(num_frames, self.hidden + 1)
        order = torch.randperm(num_frames, generator=generator)
        return order[self.hidden :].sort().values


@dataclass(frozen=True)
class LastFrames:
    """The last frames are hidden.

    Args:
        hidden: how many.
    """

    hidden: int

    def __post_init__(self) -> None:
        _positive(self.hidden, "hidden")

    def __call__(self, num_frames: int, generator: torch.Generator) -> Tensor:
        """Numbers of the frames that are read."""
        _enough(num_frames, self.hidden + 1)
        return torch.arange(num_frames - self.hidden)


@dataclass(frozen=True)
class EquallySpacedFrames:
    """All frames but equally spaced ones, the first and the last among them, are hidden.

    Args:
        known: how many are read, at least 2.
    """

    known: int

    def __post_init__(self) -> None:
        _positive(self.known - 1, "known - 1")

    def __call__(self, num_frames: int, generator: torch.Generator) -> Tensor:
        """Numbers of the frames that are read."""
        _enough(num_frames, self.known + 1)
        return torch.linspace(0, num_frames - 1, self.known, dtype=torch.float64).round().long()


@dataclass(frozen=True, kw_only=True)
class Masking:
    """A part of a trajectory in, what is hidden of it out.

    What is asked keeps its weights in the integral over all frames, scaled to the same total.

    Args:
        channels: channels of the solution.
        frames: which frames are hidden; none if omitted, then points must be.
        points: share of the points that is read in the other frames, above 0 and at most 1; the
            places are drawn once for all frames of an example, as sensors would be.
        num_queries: ask at that many random hidden points of space-time; at all if zero.
    """

    channels: tuple[str, ...]
    frames: FrameMask | None = None
    points: float = 1.0
    num_queries: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.points <= 1:
            raise ConfigError(f"points is {self.points}; expected a share above 0 and at most 1")
        if self.frames is None and self.points == 1:
            raise ConfigError("nothing is hidden; give frames, or points below 1")

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example of one trajectory."""
        count, n = trajectory.num_frames, trajectory.mesh.num_points
        every = torch.arange(count)
        read = every if self.frames is None else self.frames(count, generator).sort().values
        known = max(1, round(self.points * n))
        if self.points < 1:
            if n < 2:
                raise FieldError("hiding a share of the points needs at least two, there is one")
            known = min(known, n - 1)
        places = distinct(n, known, generator).sort().values
        seen = (read[:, None] * n + places).flatten()
        hidden = count * n - len(seen)
        asked = torch.arange(hidden)
        if self.num_queries:
            asked = distinct(hidden, self.num_queries, generator)
        # The k-th hidden number comes after all seen ones that have at most k hidden before them.
        before = seen - torch.arange(len(seen))
        asked = asked + torch.searchsorted(before, asked, right=True)
        return Example(
            _gather(trajectory, seen // n, seen % n, read).select(*self.channels),
            _gather(trajectory, asked // n, asked % n, every).select(*self.channels),
        )


@dataclass(frozen=True, kw_only=True)
class Subsampled:
    """Random points of what another task reads and asks.

    Args:
        task: the other task.
        num_sources: read at most at that many points; at all if zero.
        num_queries: ask at most at that many points; at all if zero.
    """

    task: Task
    num_sources: int = 0
    num_queries: int = 0

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example of one trajectory."""
        source, target = self.task(trajectory, generator)
        return Example(
            _some(source, self.num_sources, generator), _some(target, self.num_queries, generator)
        )


def _gather(trajectory: Trajectory, frame: Tensor, point: Tensor, frames: Tensor) -> PointField:
    """Some points of space-time, by frame and point [n], with weights of all of ``frames``."""
    mesh = trajectory.mesh
    known = {
        name: value[frame, point]
        for name in ("u", "gradient", "time_derivative")
        if (value := getattr(trajectory, name)) is not None
    }
    weights = None
    if "weights" in mesh:
        per_frame = torch.zeros_like(trajectory.times)
        per_frame[frames] = trapezoid_weights(trajectory.times[frames])
        per_frame = per_frame.to(mesh.weights)
        weights = mesh.weights[point] * per_frame[frame]
        weights = weights * (mesh.weights.sum() * per_frame.sum() / weights.sum())
    return PointField(
        pos=mesh.pos[point],
        time=trajectory.times[frame].to(mesh.pos),
        weights=weights,
        channels=trajectory.channels,
        units=trajectory.units,
        **known,
    )


def _positive(number: int, name: str) -> None:
    if number < 1:
        raise ConfigError(f"{name} is {number}; expected at least 1")


def _enough(num_frames: int, needed: int) -> None:
    if num_frames < needed:
        raise FieldError(
            f"the trajectory has {num_frames} frames; this masking needs at least {needed}"
        )


def _some(field: PointField, wanted: int, generator: torch.Generator) -> PointField:
    if not 0 < wanted < field.num_points:
        return field
    return field.subset(distinct(field.num_points, wanted, generator))
