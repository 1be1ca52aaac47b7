"""From trajectories to examples: what is read and what is asked.

A task is a small callable; it gets a trajectory and a seeded generator and returns an
:class:`~cst_operator.fields.Example`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from cst_operator._seeds import mix
from cst_operator.boundary import boundary_points
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.sampling import distinct, sample_cells, thin_out, union, with_boundary

__all__ = [
    "FrameInterpolation",
    "Forecast",
    "LeadTime",
    "PointUpsampling",
    "Steady",
    "Task",
    "TaskDataset",
    "static_fields",
]

Task = Callable[[Trajectory, torch.Generator], Example]


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Static fields in, the steady solution out, on the same points.

    Args:
        inputs: what the source carries, in this order: channels of the mesh, or parameters of the
            trajectory, which become constant channels.
        outputs: channels of the solution that are asked for.
        num_queries: ask at that many random points, drawn anew in every epoch; all if zero.
        resample: read and ask at a random sampling of the solution instead of the nodes, drawn
            anew in every epoch: in most examples of the nodes and one random point in every cell,
            in the others of the nodes, and of either a random share. A model that has met many
            samplings of a field depends less on the mesh. For training on simplices only.
        boundary: the source carries the points of the boundary as well, with their own measure
            and the channel ``boundary``, see :func:`~cst_operator.sampling.with_boundary`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    num_queries: int = 0
    resample: bool = False
    boundary: bool = False

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make the example of one solution."""
        mesh = source = static_fields(trajectory, self.inputs)
        target = trajectory.frame(0).select(*self.outputs)
        if self.resample:
            inside, share = torch.rand(2, generator=generator).tolist()
            if inside < 0.6:
                source, target = (
                    union(field, sample_cells(field, generator)) for field in (source, target)
                )
            # Fewer points than nodes make a step cheap, and different numbers teach the integral.
            count = max(1, round((0.35 + 0.45 * share) * mesh.num_points))
            source, target = thin_out(source, count, generator), _bare(target)
        if self.boundary:
            source = with_boundary(source, boundary_points(mesh))
        return Example(_bare(source), _some(target, self.num_queries, generator))


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Static fields and the first frame in, the solution at later times out.

    Args:
        inputs: channels of the mesh and parameters of the trajectory that the source carries.
        outputs: channels of the solution, read at the first frame and asked for at all others.
        num_queries: ask at that many random points of space-time; all if zero.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    num_queries: int = 0

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make the example of one trajectory."""
        if trajectory.num_frames < 2:
            raise FieldError("a forecast needs at least two frames, the trajectory has one")
        first = trajectory.frame(0).select(*self.outputs)
        static = static_fields(trajectory, self.inputs)
        source = static.with_channels(first.u, first.channels, first.units)
        source.time = first.time
        later = trajectory.space_time(range(1, trajectory.num_frames)).select(*self.outputs)
        return Example(_bare(source), _some(later, self.num_queries, generator))


@dataclass(frozen=True, kw_only=True)
class LeadTime:
    """Static fields and the last frames in, the solution a lead time later out; for rollouts.

    The source carries, in this order, the inputs, the last frame, the frames before it (``u[-1]``,
    ``u[-2]``, ...), their ages before the last one (``age[1]``, ...), and the lead time ``lead``.
    Ages and leads are constant channels in units of time, so frames may be unevenly spaced. Times
    of the example are relative to the last frame that is read: what else depends on time must be
    among the inputs. :func:`~cst_operator.autoregression.rollout` feeds answers back.

    Args:
        inputs: channels of the mesh and parameters of the trajectory that the source carries.
        outputs: channels of the solution, read and asked for.
        history: number of successive frames that are read.
        leads: how many frames after the last one that is read may be asked; one is drawn for each
            example, and so is the last frame.
        num_queries: ask at that many random points; all if zero.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    history: int = 1
    leads: tuple[int, ...] = (1,)
    num_queries: int = 0

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ConfigError(f"history is {self.history}; expected at least 1")
        if not self.leads or min(self.leads) < 1:
            raise ConfigError(f"leads is {self.leads}; expected numbers of frames, at least 1")

    @property
    def source_channels(self) -> tuple[str, ...]:
        """What the source carries, in its order."""
        before = range(1, self.history)
        past = [f"{name}[-{k}]" for k in before for name in self.outputs]
        ages = [f"age[{k}]" for k in before]
        return (*self.inputs, *self.outputs, *past, *ages, "lead")

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example of one trajectory."""
        lead = self.leads[int(torch.randint(len(self.leads), (1,), generator=generator))]
        starts = trajectory.num_frames - self.history - lead + 1
        if starts < 1:
            raise FieldError(
                f"the trajectory has {trajectory.num_frames} frames; history {self.history} and "
                f"lead {lead} need at least {self.history + lead}"
            )
        first = int(torch.randint(starts, (1,), generator=generator))
        last = first + self.history - 1
        read = trajectory.u[first : last + 1][..., _columns(trajectory, self.outputs)]
        wait = float(trajectory.times[last + lead] - trajectory.times[last])
        source = self.source(trajectory, read, trajectory.times[first : last + 1], wait)
        target = trajectory.frame(last + lead).select(*self.outputs)
        target.time = torch.full_like(target.time, wait)
        return Example(source, _some(target, self.num_queries, generator))

    def source(
        self, trajectory: Trajectory, frames: torch.Tensor, times: torch.Tensor, lead: float
    ) -> PointField:
        """What is read to answer a time ``lead`` after the last of some frames.

        Args:
            trajectory: what the inputs are taken from.
            frames: samples of the outputs, oldest first, [history, N, c].
            times: their times, [history].
            lead: the lead time.
        """
        static = static_fields(trajectory, self.inputs)
        ages = [float(times[-1] - time) for time in times.flip(0)[1:]]
        constants = frames.new_tensor([*ages, lead]).expand(frames.shape[1], -1)
        units = [trajectory.units[i] for i in _columns(trajectory, self.outputs)]
        new = len(self.source_channels) - len(self.inputs)
        source = static.with_channels(
            torch.cat([*frames.flip(0), constants], dim=1),
            self.source_channels[len(self.inputs) :],
            [*(units * self.history), *[""] * (new - len(units) * self.history)],
        )
        source.time = torch.zeros_like(source.time)
        return _bare(source)


@dataclass(frozen=True, kw_only=True)
class FrameInterpolation:
    """Some frames in, the frames between them out: the paper's masking in time.

    Args:
        channels: channels of the solution.
        sources: frame numbers that are read.
        targets: frame numbers that are asked for.
        num_sources: read at that many random points of each source frame; all if zero.
        num_queries: ask at that many random points in all; all if zero.
    """

    channels: tuple[str, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    num_sources: int = 0
    num_queries: int = 0

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example of one trajectory."""
        n = trajectory.mesh.num_points
        source = trajectory.space_time(self.sources).select(*self.channels)
        if self.num_sources:
            places = distinct(n, self.num_sources, generator)
            index = torch.cat([places + i * n for i in range(len(self.sources))])
            source = source.subset(index)
        target = trajectory.space_time(self.targets).select(*self.channels)
        return Example(_bare(source), _some(target, self.num_queries, generator))


@dataclass(frozen=True, kw_only=True)
class PointUpsampling:
    """A random part of a frame's points in, the rest of that frame out.

    Args:
        channels: channels of the solution.
        frames: frame numbers to draw from; one is drawn for each example.
        fraction: share of the points that is read, between 0 and 1.
        num_queries: ask at that many of the other points; all if zero.
    """

    channels: tuple[str, ...]
    frames: tuple[int, ...]
    fraction: float
    num_queries: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ConfigError(f"fraction is {self.fraction}; expected between 0 and 1")

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example of one frame."""
        which = int(torch.randint(len(self.frames), (1,), generator=generator))
        field = trajectory.frame(self.frames[which]).select(*self.channels)
        order = torch.randperm(field.num_points, generator=generator)
        if field.num_points < 2:
            raise FieldError("upsampling needs at least two points, the frame has one")
        known = min(max(1, round(self.fraction * field.num_points)), field.num_points - 1)
        return Example(
            field.subset(order[:known]),
            _some(field.subset(order[known:]), self.num_queries, generator),
        )


class TaskDataset(Dataset[Example]):
    """Examples of a task, made when asked for.

    Item i of epoch e depends on (seed, e, i) alone, so any worker makes the same.

    Args:
        trajectories: what examples are made of.
        task: how.
        repeats: examples of each trajectory in an epoch.
        seed: seed of all draws.
    """

    def __init__(
        self, trajectories: Sequence[Trajectory], task: Task, *, repeats: int = 1, seed: int = 0
    ) -> None:
        self.trajectories = trajectories
        self.task = task
        self.repeats = repeats
        self.seed = seed
        self.epoch = 0
        self._kind: dict[str, object] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw anew for another epoch."""
        self.epoch = epoch

    def numbers_of_points(self) -> list[int]:
        """Points of the trajectory that each example is made of, without making examples.

        Trajectories that say their numbers themselves, such as those of a
        :class:`~cst_operator.datasets.TrajectoryDataset`, are not read.
        """
        tell = getattr(self.trajectories, "numbers_of_points", None)
        if tell is None:
            numbers = [
                trajectory.u.shape[0] * trajectory.u.shape[1] for trajectory in self.trajectories
            ]
        else:
            numbers = list(tell())
        return numbers * self.repeats

    def __len__(self) -> int:
        """Number of examples in an epoch."""
        return len(self.trajectories) * self.repeats

    def __getitem__(self, index: int) -> Example:
        """Example number ``index`` of the current epoch.

        Raises:
            FieldError: if it has other channels, units, dimensions or precision than the first
                example that was made.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        index %= len(self)
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, index))
        number = index % len(self.trajectories)
        example = self.task(self.trajectories[number], generator)
        kind = _kind(example)
        self._kind = self._kind or kind
        for name, value in kind.items():
            if value != self._kind[name]:
                raise FieldError(
                    f"trajectory {number} has {name} {value}, those before {self._kind[name]}; "
                    "convert them to one kind first"
                )
        return example


def _kind(example: Example) -> dict[str, object]:
    """What examples must share to be learnt from together."""
    return {
        f"{what} of the {side}": value
        for side, field in (("source", example.source), ("target", example.target))
        for what, value in (
            ("dimensions", field.dim),
            ("channels", field.channels),
            ("units", field.units),
            ("precision", field.u.dtype),
            ("coordinates' precision", field.pos.dtype),
        )
    }


def static_fields(trajectory: Trajectory, names: Sequence[str]) -> PointField:
    """The mesh with some of its channels and of the trajectory's parameters, in this order."""
    mesh = trajectory.mesh
    for name in names:
        if name not in mesh.channels and name in trajectory.parameters:
            value = mesh.pos.new_full((mesh.num_points, 1), float(trajectory.parameters[name]))
            mesh = mesh.with_channels(value, [name])
    return mesh.select(*names)


def _columns(trajectory: Trajectory, names: Sequence[str]) -> list[int]:
    for name in names:
        if name not in trajectory.channels:
            raise FieldError(
                f"there is no channel {name!r}; the solution has {', '.join(trajectory.channels)}"
            )
    return [trajectory.channels.index(name) for name in names]


def _some(field: PointField, wanted: int, generator: torch.Generator) -> PointField:
    """All points with their cells if ``wanted`` is zero, else at most so many, never with cells."""
    if not wanted:
        return field
    return field.subset(distinct(field.num_points, wanted, generator))


def _bare(field: PointField) -> PointField:
    """A source needs no cells; leaving them out makes batches light."""
    bare = field.clone()
    for key in ("cells", "facets", "facet_markers"):
        if key in bare:
            del bare[key]
    return bare
