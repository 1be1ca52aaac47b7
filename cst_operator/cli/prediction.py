"""``cst predict`` and ``cst upsample``: from mesh file to mesh file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from rich.markup import escape
from torch import Tensor

from cst_operator.autoregression import rollout
from cst_operator.cli._shared import (
    Placement,
    PlacementFlags,
    TrainedModel,
    console,
    open_model,
    reading,
    select_source,
    warn,
    warn_outside,
)
from cst_operator.errors import InputError
from cst_operator.evaluation import answer
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, read_series, write_mesh, write_series
from cst_operator.quadrature import with_weights

__all__ = ["Predict", "Upsample"]

_DEFAULT_FRAMES = 11
_SERIES = (".pvd", ".xdmf")
_OF_FRAMES = ("lead_time", "masking")
_MARGIN = 1.5  # by which steps of a rollout may leave the lead times of the training


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Options of ``cst predict``."""

    help: ClassVar[str] = (
        "Answer at the points of a mesh file. The channels that the model reads are the file's\n"
        'point data of the same names; "distance" (to the boundary) is computed if missing.\n'
        "A lead-time model is rolled out from a mesh file with the first frame, or from a series\n"
        "with as many first frames as it reads; a masking model reads all frames of a series.\n\n"
        "Examples:\n"
        "  cst predict runs/first --mesh new.vtu --out answer.vtu\n"
        "  cst predict runs/heat --mesh start.vtu --times 0:0.02:21 --out answer.pvd\n"
        "  cst predict runs/steps --mesh start.pvd --times 0.1:2:20 --out rollout.pvd"
    )

    run_folder: tyro.conf.Positional[Path]
    """Run or checkpoint folder."""
    mesh: Path
    """Mesh file with the input channels; for lead times and masking also a series of them, .pvd or
    .xdmf."""
    out: Path
    """File to write: .vtu, .vtk, .msh or .xdmf; .pvd or .xdmf for several times."""
    times: str = ""
    """Time, or FIRST:LAST:NUMBER, for models of time; the times of the training if omitted, and of
    a rollout ten steps of its average lead time."""
    placement: PlacementFlags = Placement()

    def run(self) -> int:
        """Read, answer, write."""
        trained = open_model(self.run_folder, self.placement)
        _check_folder(self.out)
        if trained.task.kind == "lead_time":
            return _roll_out(trained, self.mesh, self.times, self.out)
        return _answer_file(trained, self.mesh, self.mesh, self.times, self.out)


@dataclass(frozen=True, kw_only=True)
class Upsample:
    """Options of ``cst upsample``."""

    help: ClassVar[str] = (
        "Read the model's input channels from a coarse file and answer at the points of a fine\n"
        "one, which needs no fields of its own.\n\n"
        "Example:\n  cst upsample runs/first --from coarse.vtu --to fine.vtu --out up.vtu"
    )

    run_folder: tyro.conf.Positional[Path]
    """Run or checkpoint folder."""
    source: Annotated[Path, tyro.conf.arg(name="from")]
    """Mesh file with the input channels."""
    target: Annotated[Path, tyro.conf.arg(name="to")]
    """Mesh file with the points that are asked."""
    out: Path
    """File to write, as for cst predict."""
    times: str = ""
    """Time, or FIRST:LAST:NUMBER, for models of time; the times of the training if omitted."""
    placement: PlacementFlags = Placement()

    def run(self) -> int:
        """Read both, answer, write."""
        trained = open_model(self.run_folder, self.placement)
        _check_folder(self.out)
        if trained.task.kind == "lead_time":
            raise InputError(
                f"{trained.name} is rolled out on the points it reads; "
                f"use cst predict --mesh {self.source}"
            )
        return _answer_file(trained, self.source, self.target, self.times, self.out)


def _answer_file(trained: TrainedModel, source: Path, target: Path, times: str, out: Path) -> int:
    """Answer at all points and times of interest from what one file holds."""
    given = _read(trained, source)
    asked = (given if target == source else _read(trained, target)).mesh
    read = _source(trained, given, source)
    if asked.dim != read.dim:
        raise InputError(
            f"{target} has {asked.dim} dimensions and {source} {read.dim}; give meshes alike"
        )
    for place, field in {source: read, target: asked}.items():
        warn_outside(trained.model, field, place)
    if not trained.transient:
        if times:
            raise InputError(
                f"{trained.name} is no model of time; leave out --times, "
                "or train on data with several frames"
            )
        write_mesh(out, answer(trained.model, read, asked))
    else:
        moments = _times(times, torch.linspace(*_training_times(trained), _DEFAULT_FRAMES), out)
        fields = []
        for moment in moments.tolist():
            at = asked.clone()
            at.time = torch.full_like(at.time, moment)
            fields.append(answer(trained.model, read, at))
        course = Trajectory(
            mesh=asked,
            times=moments,
            u=torch.stack([field.u for field in fields]),
            channels=tuple(fields[0].channels),
        )
        _write(out, course)
    return _report(trained, asked.num_points, out)


def _roll_out(trained: TrainedModel, source: Path, times: str, out: Path) -> int:
    """Answer step by step from the first frames of a file."""
    step = trained.task.lead_time()
    given = _read(trained, source)
    if given.num_frames < step.history:
        raise InputError(
            f"{trained.name} reads {step.history} frames but {source} has {given.num_frames}; "
            "give a .pvd or .xdmf series with its first frames"
        )
    start = _chosen(trained, given.window(range(step.history)), source)
    warn_outside(trained.model, start.mesh, source)
    lead = _average_lead(trained)
    now = start.times[-1:]
    moments = _times(times, now + lead * torch.arange(1, _DEFAULT_FRAMES), out)
    steps = torch.cat([now, moments]).diff()
    shortest, longest = (lead * k * len(step.leads) / sum(step.leads) for k in _ends(step.leads))
    if float(steps.min()) < shortest / _MARGIN or float(steps.max()) > longest * _MARGIN:
        warn(
            f"steps of {float(steps.min()):.4g} to {float(steps.max()):.4g} differ from the lead "
            f"times of the training, about {shortest:.4g} to {longest:.4g}; choose other --times"
        )
    _write(out, rollout(trained.model, step, start, moments))
    return _report(trained, start.mesh.num_points, out)


def _read(trained: TrainedModel, path: Path) -> Trajectory:
    """The frames of a file with all their channels; of a mesh file one, at the first time."""
    if trained.task.kind in _OF_FRAMES and path.suffix.lower() in _SERIES:
        return read_series(path)
    first = _training_times(trained)[0] if trained.transient else 0.0
    return Trajectory.of(read_mesh(path), first)


def _source(trained: TrainedModel, given: Trajectory, place: Path) -> PointField:
    """What a model reads to answer at any point and time."""
    if trained.task.kind == "masking":
        return _chosen(trained, given, place).space_time(range(given.num_frames))
    names = replace(trained.task, boundary=False).source_channels
    return reading(_weighted(select_source(given.frame(0), names, place)), trained.task)


def _chosen(trained: TrainedModel, given: Trajectory, place: Path) -> Trajectory:
    """The task's inputs in the first frame, which are static, and its outputs in all."""
    task = trained.task
    frames = [select_source(given.frame(i), task.outputs, place).u for i in range(given.num_frames)]
    return Trajectory(
        mesh=_weighted(select_source(given.frame(0), task.inputs, place)),
        times=given.times,
        u=torch.stack(frames),
        channels=task.outputs,
    )


def _weighted(field: PointField) -> PointField:
    return field if "weights" in field else with_weights(field)


def _training_times(trained: TrainedModel) -> tuple[float, float]:
    """First and last time of the training, of which the first is that of the source."""
    normalization: Any = trained.model.normalization
    center, half = float(normalization.time_center), float(normalization.time_scale)
    return center - half, center + half


def _average_lead(trained: TrainedModel) -> float:
    """Mean lead time of the training: the last channel that is read."""
    normalization: Any = trained.model.normalization
    return float(normalization.in_mean[-1])


def _ends(numbers: tuple[int, ...]) -> tuple[int, int]:
    return min(numbers), max(numbers)


def _times(text: str, otherwise: Tensor, out: Path) -> Tensor:
    """The times asked, of which several need a file for a series."""
    moments = _parsed(text) if text else otherwise
    if len(moments) > 1 and out.suffix.lower() not in _SERIES:
        raise InputError(f"{out}: {len(moments)} times need a .pvd or .xdmf file; rename it")
    return moments


def _parsed(text: str) -> Tensor:
    parts = text.split(":")
    try:
        if len(parts) == 1:
            return torch.tensor([float(parts[0])])
        start, stop, number = float(parts[0]), float(parts[1]), int(parts[2])
        if len(parts) != 3 or number < 2 or not start < stop:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(
            f"times is {text!r}; expected one time or FIRST:LAST:NUMBER, e.g. 0:1:21"
        ) from error
    return torch.linspace(start, stop, number)


def _check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")


def _write(out: Path, course: Trajectory) -> None:
    if out.suffix.lower() in _SERIES:
        write_series(out, course)
    else:
        write_mesh(out, course.frame(0))


def _report(trained: TrainedModel, num_points: int, out: Path) -> int:
    outputs = ", ".join(trained.task.outputs)
    words = f"{outputs} at {num_points:,} points in {escape(str(out))}"
    console().print(words, soft_wrap=True)
    return 0
