"""``cst predict`` and ``cst upsample``: from mesh file to mesh file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro
from rich.markup import escape
from torch import Tensor

from cst_operator.cli._shared import (
    TrainedModel,
    answer,
    console,
    open_model,
    reading,
    select_source,
    warn_outside,
)
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import read_mesh, write_mesh, write_series
from cst_operator.quadrature import with_weights

__all__ = ["Predict", "Upsample"]

_DEFAULT_FRAMES = 11
_SERIES = (".pvd", ".xdmf")


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Options of ``cst predict``."""

    help: ClassVar[str] = (
        "Answer at the points of a mesh file. The channels that the model reads are the file's\n"
        'point data of the same names; "distance" (to the boundary) is computed if missing.\n\n'
        "Examples:\n"
        "  cst predict runs/first --mesh new.vtu --out answer.vtu\n"
        "  cst predict runs/heat --mesh start.vtu --times 0:0.02:21 --out answer.pvd"
    )

    run_folder: tyro.conf.Positional[Path]
    """Run or checkpoint folder."""
    mesh: Path
    """Mesh file with the input channels."""
    out: Path
    """File to write: .vtu, .vtk, .msh or .xdmf; .pvd or .xdmf for several times."""
    times: str = ""
    """Time, or FIRST:LAST:NUMBER, for models of time; the times of the training if omitted."""

    def run(self) -> int:
        """Read, answer, write."""
        trained = open_model(self.run_folder)
        field = read_mesh(self.mesh)
        return _answer_file(trained, (self.mesh, field), (self.mesh, field), self.times, self.out)


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

    def run(self) -> int:
        """Read both, answer, write."""
        trained = open_model(self.run_folder)
        source, target = read_mesh(self.source), read_mesh(self.target)
        return _answer_file(
            trained, (self.source, source), (self.target, target), self.times, self.out
        )


def _answer_file(
    trained: TrainedModel,
    source: tuple[Path, PointField],
    target: tuple[Path, PointField],
    times: str,
    out: Path,
) -> int:
    model: Any = trained.model
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    names = replace(trained.task, boundary=False).source_channels
    read = select_source(source[1], names, source[0])
    if "weights" not in read:
        read = with_weights(read)
    read = reading(read, trained.task)
    asked = target[1].select()
    if asked.dim != read.dim:
        raise InputError(
            f"{target[0]} has {asked.dim} dimensions and {source[0]} {read.dim}; give meshes alike"
        )
    for place, field in {source[0]: read, target[0]: asked}.items():
        warn_outside(model, field, place)
    if not trained.transient:
        if times:
            raise InputError(
                f"{trained.name} is no model of time; leave out --times, "
                "or train on data with several frames"
            )
        write_mesh(out, answer(model, read, asked))
    else:
        first, moments = _times(trained, times)
        read.time = torch.full_like(read.time, first)
        if len(moments) > 1 and out.suffix.lower() not in _SERIES:
            raise InputError(f"{out}: {len(moments)} times need a .pvd or .xdmf file; rename it")
        fields = []
        for moment in moments.tolist():
            at = asked.clone()
            at.time = torch.full_like(at.time, moment)
            fields.append(answer(model, read, at))
        if out.suffix.lower() not in _SERIES:
            write_mesh(out, fields[0])
        else:
            trajectory = Trajectory(
                mesh=asked,
                times=moments,
                u=torch.stack([field.u for field in fields]),
                channels=tuple(fields[0].channels),
            )
            write_series(out, trajectory)
    console().print(
        f"{', '.join(trained.task.outputs)} at {asked.num_points:,} points in {escape(str(out))}"
    )
    return 0


def _times(trained: TrainedModel, text: str) -> tuple[float, Tensor]:
    """Time of the source, which is the first of the training, and the times asked."""
    normalization: Any = trained.model.normalization
    center, half = float(normalization.time_center), float(normalization.time_scale)
    first, last = center - half, center + half
    if not text:
        return first, torch.linspace(first, last, _DEFAULT_FRAMES)
    parts = text.split(":")
    try:
        if len(parts) == 1:
            return first, torch.tensor([float(parts[0])])
        start, stop, number = float(parts[0]), float(parts[1]), int(parts[2])
        if len(parts) != 3 or number < 2 or not start < stop:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(
            f"times is {text!r}; expected one time or FIRST:LAST:NUMBER, e.g. 0:1:21"
        ) from error
    return first, torch.linspace(start, stop, number)
