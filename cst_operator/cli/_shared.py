"""What several commands need: the console, data sets, runs with their task, pictures."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from torch import nn

from cst_operator import checkpoint
from cst_operator.boundary import boundary_facets, boundary_points, distance_to_boundary
from cst_operator.config import EXPERIMENT_FILE, load_config
from cst_operator.datasets import TrajectoryDataset
from cst_operator.errors import ConfigError, FieldError, InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.processes import autocast, choose_device
from cst_operator.sampling import BOUNDARY, with_boundary
from cst_operator.task_config import Kind, TaskConfig
from cst_operator.tasks import TaskDataset, static_fields

__all__ = [
    "Placement",
    "PlacementFlags",
    "SinglePrecision",
    "TrainedModel",
    "console",
    "examples_of",
    "examples_to_train",
    "num_held_out",
    "open_model",
    "open_set",
    "picture_fields",
    "quoted",
    "reading",
    "resolve_task",
    "select_source",
    "warn",
    "warn_outside",
]


def console(*, quiet: bool = False) -> Console:
    """Where results go; made anew because the standard output may have changed."""
    return Console(highlight=False, quiet=quiet)


def quoted(path: str | Path) -> str:
    """A path as the shell wants it in a command that is shown, for rich's print."""
    return escape(shlex.quote(str(path)))


def warn(text: str) -> None:
    """One line on standard error that is no error."""
    print(f"warning: {text}", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how precisely a command evaluates a model."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; "auto" takes a GPU if there is one."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model's passes; lower ones take less time and memory on a GPU."""


PlacementFlags = Annotated[Placement, tyro.conf.arg(name="")]
"""A :class:`Placement` as the flags ``--device`` and ``--precision``."""


class SinglePrecision(Sequence[Trajectory]):
    """Trajectories in torch's default precision; the first that were read are kept in memory.

    Args:
        trajectories: what is read.
        room: bytes that are kept at most.
    """

    def __init__(self, trajectories: Sequence[Trajectory], *, room: int = 2**29) -> None:
        self._source = trajectories
        self._room = room
        self._kept: dict[int, Trajectory] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index in self._kept:
            return self._kept[index]
        trajectory = self._source[index].to(torch.get_default_dtype())
        size = _num_bytes(trajectory)
        if size <= self._room:
            self._kept[index] = trajectory
            self._room -= size
        return trajectory


def _num_bytes(trajectory: Trajectory) -> int:
    mesh = trajectory.mesh
    values = [trajectory.u, trajectory.gradient, trajectory.time_derivative]
    values += [mesh[name] for name in mesh.keys() if torch.is_tensor(mesh[name])]  # noqa: SIM118
    values += list((mesh.get("cells") or {}).values())
    return sum(value.nbytes for value in values if value is not None)


def open_set(folder: str | Path) -> TrajectoryDataset:
    """A generated data set.

    Raises:
        InputError: if there is none at that place.
    """
    if not Path(folder).exists():
        raise InputError(
            f"{folder}: there is no such folder; make a data set with cst generate or cst convert"
        )
    return TrajectoryDataset(folder)


def resolve_task(task: TaskConfig, data: TrajectoryDataset) -> TaskConfig:
    """The task with every choice made, by the first trajectory."""
    first = data[0]
    cells = first.mesh.get("cells") or {}
    return task.resolve(
        system=str(data.manifest.get("system", "")),
        num_frames=first.num_frames,
        static=tuple(first.mesh.channels),
        solved=tuple(first.channels),
        cells=tuple(cells),
        parameters=tuple(first.parameters),
        bounded=bool(cells) and bool(boundary_facets(cells)),
    )


@dataclass(frozen=True)
class TrainedModel:
    """A model read from its folder.

    Args:
        name: name of the folder.
        model: the model, in eval mode.
        task: what it reads and answers.
        transient: whether time is a coordinate.
        experiment: the run folder's configuration file, where there is one.
    """

    name: str
    model: nn.Module
    task: TaskConfig
    transient: bool
    experiment: Path | None


def open_model(path: str | Path, placement: Placement = Placement()) -> TrainedModel:
    """Read a checkpoint or the newest one of a run folder, with its task.

    Args:
        path: the folder.
        placement: where the model goes, and the precision in which it then answers.

    Raises:
        CheckpointError: if there is no valid checkpoint.
        ConfigError: if there is no such device, or the model does not say which channels it reads.
    """
    import cst_operator.peers  # noqa: F401 (makes their checkpoints known)

    path, device = Path(path), choose_device(placement.device)
    model = checkpoint.load(path, device=device)
    if placement.precision != "float32":
        # The model alone: weights, distances and scores beside it keep their precision.
        for call in ("forward", "predict"):
            if hasattr(model, call):
                setattr(model, call, autocast(device, placement.precision)(getattr(model, call)))
    config: Any = model.config
    file = next(
        (f / EXPERIMENT_FILE for f in (path, path.parent) if (f / EXPERIMENT_FILE).is_file()), None
    )
    inputs, outputs = (tuple(getattr(config, key, ())) for key in ("in_names", "out_names"))
    if not inputs or not outputs:
        raise ConfigError(
            f"the {type(model).__name__} in {path} does not name its channels; train one whose "
            "configuration has in_names and out_names, or use it from Python"
        )
    transient = bool(getattr(config, "transient", False))
    saved = TaskConfig() if file is None else load_config(file).task
    kind: Kind = saved.kind
    if kind == "auto":
        kind = "forecast" if transient else "upsampling" if inputs == outputs else "steady"
    boundary = kind == "steady" and inputs[-1] == BOUNDARY
    task = replace(saved, kind=kind, inputs=(), outputs=outputs, boundary=boundary).at_all_points()
    implied = task.source_channels
    task = replace(task, inputs=tuple(name for name in inputs if name not in implied))
    name = path.resolve().name
    return TrainedModel(name, model, task, transient, file)


def num_held_out(wanted: int, available: int) -> int:
    """Trajectories that are kept for validation, a tenth if nothing is said.

    Raises:
        InputError: if nothing would be left to train on.
    """
    number = wanted or max(1, available // 10)
    if number < 0 or number >= available:
        raise InputError(
            f"validation is {number} of {available} trajectories; "
            "leave at least one of each, or generate more"
        )
    return number


def examples_to_train(
    trajectories: Sequence[Trajectory], task: TaskConfig, seed: int = 0
) -> TaskDataset:
    """Examples of a resolved task, drawn anew in every epoch.

    Raises:
        InputError: if a trajectory has fewer frames than the task's window.
    """
    frames = trajectories[0].num_frames if len(trajectories) else 1
    chosen = task.windows(trajectories)
    kept = chosen if isinstance(chosen, SinglePrecision) else SinglePrecision(chosen)
    return TaskDataset(kept, task.build(num_frames=frames), seed=seed)


def examples_of(trajectories: Sequence[Trajectory], task: TaskConfig) -> TaskDataset:
    """Examples to score: all points are asked; any random choice is the same every time.

    Raises:
        InputError: as :func:`examples_to_train`.
    """
    return examples_to_train(trajectories, task.at_all_points())


def picture_fields(trajectory: Trajectory, task: TaskConfig) -> tuple[PointField, PointField]:
    """Source and wanted field of one trajectory, to draw: the last frame asked, with cells."""
    trajectory = trajectory.to(torch.get_default_dtype())
    generator = torch.Generator().manual_seed(0)
    if task.kind == "lead_time":
        source, truth = task.at_all_points().build()(trajectory, generator)
        return source, truth
    if task.kind == "masking":
        trajectory = task.windows([trajectory])[0]
        source, target = task.at_all_points().build()(trajectory, generator)
        last = int((trajectory.times.to(target.time) == target.time.max()).nonzero()[0])
        return source, trajectory.frame(last).select(*task.outputs)
    truth = trajectory.frame(trajectory.num_frames - 1).select(*task.outputs)
    if task.kind == "upsampling":
        order = torch.randperm(truth.num_points, generator=generator)
        known = order[: max(1, round(task.fraction * truth.num_points))]
        return truth.subset(known), truth
    source = static_fields(trajectory, task.inputs)
    if task.kind == "forecast":
        first = trajectory.frame(0).select(*task.outputs)
        source = source.with_channels(first.u, first.channels, first.units)
        source.time = first.time
    return source, truth


def reading(field: PointField, task: TaskConfig) -> PointField:
    """What the model of a task is given of a source with cells and all other channels."""
    return with_boundary(field, boundary_points(field)) if task.boundary else field


def select_source(field: PointField, names: Sequence[str], place: str | Path) -> PointField:
    """The channels a model reads, from a mesh file; the distance to the boundary is computed.

    Raises:
        FieldError: naming what is missing and what is there.
    """
    missing = [name for name in names if name not in field.channels]
    if "distance" in missing and (field.get("cells") or {}):
        distance = distance_to_boundary(field).to(field.pos)
        field = field.with_channels(distance[:, None], ["distance"])
        missing.remove("distance")
    if missing:
        there = ", ".join(field.channels) or "none"
        raise FieldError(
            f"{place} lacks the channel{'s' * (len(missing) > 1)} {', '.join(missing)} that the "
            f"model reads; its point data are: {there}; add or rename them in the file"
        )
    return field.select(*names)


def warn_outside(model: nn.Module, field: PointField, place: str | Path) -> None:
    """Warn of points outside of the box of the training data."""
    normalization: Any = getattr(model, "normalization", None)
    if normalization is None:
        return
    center, scale = normalization.pos_center.cpu(), normalization.pos_scale.cpu()
    outside = ((field.pos - center) / scale).abs().amax(dim=1) > 1.05
    if bool(outside.any()):
        corners = [
            f"({', '.join(f'{x:.4g}' for x in corner.tolist())})"
            for corner in (center - scale, center + scale)
        ]
        warn(
            f"{int(outside.sum())} of {field.num_points} points of {place} lie outside of the box "
            f"{corners[0]} to {corners[1]} of the training data; answers there are extrapolated"
        )
