"""``cst inspect``: what is in a mesh file, a data set or a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.markup import escape
from rich.table import Table

from cst_operator import checkpoint
from cst_operator.cli._shared import console, open_set, warn
from cst_operator.comparison import num_parameters
from cst_operator.config_json import config_to_json
from cst_operator.datasets import TrajectoryDataset, read_trajectory
from cst_operator.datasets.conversion import CONVERTED
from cst_operator.datasets.inspection import SetReport, inspect_trajectories
from cst_operator.datasets.readers.by_suffix import holds_data, read_file
from cst_operator.datasets.store import stored_kind
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import is_series, read_to_inspect, write_mesh
from cst_operator.mesh_repair import MeshRepair, repair_mesh
from cst_operator.mesh_report import ChannelRange, MeshReport, mesh_report

__all__ = ["Inspect"]

_LINES = 20  # of problems and of notes


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Options of ``cst inspect``."""

    help: ClassVar[str] = (
        "Show what is in a mesh file (counts, quality, fields, defects), a data set (ranges,\n"
        "values that are not finite, constant frames, outliers, bad cells), a data file that\n"
        "others wrote (PDEBench, The Well, netCDF, ...), or a run or checkpoint folder. Exit\n"
        "status 2 if it is unusable. With --repair a mesh file is written anew, without repeated\n"
        "points and without degenerate, duplicate and inverted cells.\n\n"
        "Examples:\n  cst inspect wing.msh\n  cst inspect data/heat --thumbnail heat.png\n"
        "  cst inspect 2D_DarcyFlow_beta1.0_Train.hdf5\n"
        "  cst inspect wing.msh --repair whole.vtu"
    )

    path: tyro.conf.Positional[Path]
    """Mesh or data file, data set (folder or file), or run folder."""
    thumbnail: Path | None = None
    """PNG file to draw a mesh, or the first solutions of a data set, into."""
    repair: Path | None = None
    """Mesh file to write, repaired: points, point fields, cells and marked facets; cell fields
    are left out, with a warning."""
    merge: bool = True
    """Whether a repair merges points that coincide; not where there is a crack or a jump."""
    drop_unused: bool = False
    """Whether a repair drops points that no cell uses."""

    def run(self) -> int:
        """Print what is there; status 2 if it has defects."""
        if not self.path.exists():
            raise InputError(f"{self.path}: there is no such file or folder; check the path")
        if self.repair is None and (self.drop_unused or not self.merge):
            raise InputError(
                "--drop-unused and --no-merge tell how to repair; give --repair as well"
            )
        if _is_mesh(self.path):
            return self._mesh()
        if self.repair is not None:
            raise InputError(f"{self.path} is no file of one mesh; only such a file is repaired")
        if (self.path / "config.json").is_file() or checkpoint.steps(self.path):
            _show_run(self.path)
            return 0
        kind = stored_kind(self.path) if self.path.is_file() else ""
        if kind == "trajectory":
            return self._trajectories([read_trajectory(self.path)])
        if kind == "set" or (self.path / "manifest.json").is_file():
            data = open_set(self.path)
            _show_set(self.path, data)
            return self._trajectories(data)
        if self.path.is_file():
            return self._trajectories(read_file(self.path))
        raise InputError(
            f"{self.path} is no data set, run or checkpoint; "
            "name a folder that cst generate, convert or train wrote, or a mesh file"
        )

    def _mesh(self) -> int:
        field, cell_fields = read_to_inspect(self.path)
        report = mesh_report(field)
        _show_mesh(self.path, report, cell_fields)
        self._draw({self.path.name: field})
        if self.repair is None:
            return 0 if report.ok else 2
        if self.repair.exists() and self.repair.samefile(self.path):
            raise InputError(
                f"{self.repair} is the file that is repaired; name another for --repair"
            )
        repaired, done = repair_mesh(field, merge=self.merge, drop_unused=self.drop_unused)
        write_mesh(self.repair, repaired)
        if cell_fields:
            warn(
                f"{self.repair} is without the cell fields {', '.join(cell_fields)}; to keep them, "
                "turn them into point fields first (in ParaView: Cell Data to Point Data)"
            )
        _show_repair(self.repair, done)
        report = mesh_report(repaired)
        _show_mesh(self.repair, report)
        return 0 if report.ok else 2

    def _trajectories(self, data: Sequence[Trajectory]) -> int:
        report = inspect_trajectories(data)
        _show_trajectories(report)
        if report.ok:
            self._draw(_frames(data))
        return 0 if report.ok else 2

    def _draw(self, fields: dict[str, PointField]) -> None:
        if self.thumbnail is None:
            return
        from cst_operator.cli._thumbnail import thumbnail
        from cst_operator.plots import save_figure

        save_figure(thumbnail(fields), self.thumbnail, dpi=100)


def _is_mesh(path: Path) -> bool:
    """Whether a file holds one mesh, and is none of this library nor of a known kind of data."""
    known = holds_data(path) or not path.is_file()
    return not known and not stored_kind(path) and not is_series(path)


def _show_mesh(path: Path, report: MeshReport, cell_fields: Sequence[str] = ()) -> None:
    def box(corner: tuple[float, ...]) -> str:
        return f"({', '.join(f'{x:.6g}' for x in corner)})"

    def counts(numbers: dict[str, int]) -> str:
        return ", ".join(f"{n:,} {kind}" for kind, n in numbers.items()) or "none"

    table = _pairs()
    table.add_row("points", f"{report.num_points:,} in {report.dim} dimensions")
    table.add_row("cells", counts(report.num_cells))
    table.add_row("marked facets", counts(report.num_facets))
    table.add_row("boundary facets", f"{report.num_boundary_facets:,}")
    table.add_row("box", f"{box(report.lower)} to {box(report.upper)}")
    if report.num_cells:
        table.add_row("volume", f"{report.volume:.6g}")
        table.add_row(
            "quality", f"{report.quality_mean:.3f} on average, {report.quality_min:.3f} at worst"
        )
    if cell_fields:
        table.add_row("cell fields", f"{escape(', '.join(cell_fields))} (read if they are named)")
    out = console()
    out.print(f"[bold]{escape(str(path))}[/bold]")
    out.print(table)
    if report.channels:
        out.print(_ranges(report.channels))
    for problem in report.problems:
        out.print(f"[red]problem:[/red] {escape(problem)}", soft_wrap=True)
    for note in report.notes:
        out.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    out.print("usable" if report.ok else "[red]unusable as it is[/red]")


def _show_repair(path: Path, done: MeshRepair) -> None:
    table = Table("repair", "number")
    for what, number in (
        ("points merged with another", done.duplicates),
        ("degenerate cells dropped", done.degenerate),
        ("duplicate cells dropped", done.duplicate_cells),
        ("inverted cells turned", done.inverted),
        ("marked facets dropped", done.facets),
        ("points of no cell dropped", done.unused),
    ):
        table.add_row(what, f"{number:,}")
    out = console()
    out.print(table)
    if done.volume:
        out.print(f"volume of the degenerate cells: {done.volume:.3g}")
    words = f"repaired as {escape(str(path))}" if done.changed else "there was nothing to repair"
    out.print(words, soft_wrap=True)


def _ranges(channels: Sequence[ChannelRange]) -> Table:
    ranges = Table("channel", "unit", "minimum", "mean", "maximum")
    for c in channels:
        numbers = (f"{x:.4g}" for x in (c.minimum, c.mean, c.maximum))
        ranges.add_row(escape(c.name), escape(c.unit), *numbers)
    return ranges


def _show_trajectories(report: SetReport) -> None:
    def span(numbers: tuple[int, int]) -> str:
        low, high = numbers
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    table = _pairs()
    table.add_row("readable", f"{report.num_readable:,} of {report.num_trajectories:,}")
    table.add_row("frames", span(report.num_frames))
    table.add_row("points", span(report.num_points))
    table.add_row("static channels", escape(", ".join(report.static_channels)) or "none")
    out = console()
    out.print(table)
    if report.channels:
        out.print(_ranges(report.channels))
    for title, colour, lines in (
        ("problem", "red", report.problems),
        ("note", "yellow", report.warnings),
    ):
        for line in lines[:_LINES]:
            out.print(f"[{colour}]{title}:[/{colour}] {escape(line)}", soft_wrap=True)
        if len(lines) > _LINES:
            out.print(f"... and {len(lines) - _LINES} more")
    out.print("usable" if report.ok else "[red]unusable as it is[/red]")


def _frames(data: Sequence[Trajectory]) -> dict[str, PointField]:
    """Frames of the first solution, or of a steady set its first solutions."""
    first = data[0]
    if first.num_frames > 1:
        steps = dict.fromkeys((0, first.num_frames // 2, first.num_frames - 1))
        return {f"t = {float(first.times[step]):.4g}": first.frame(step) for step in steps}
    return {f"sample {i}": data[i].frame(0) for i in range(min(3, len(data)))}


def _show_set(path: Path, data: TrajectoryDataset) -> None:
    manifest = data.manifest
    table = _pairs()
    table.add_row("system", escape(f"{manifest['system']} (version {manifest['version']})"))
    table.add_row("trajectories", f"{len(data):,}, {len(manifest['failures'])} failed")
    if manifest["system"] != CONVERTED:
        table.add_row("seed", f"{manifest['seed']}, mesh refined {manifest['refine']} times")
        table.add_row("rejected draws", f"{manifest['rejection_rate']:.1%}")
    table.add_row("licence", escape(manifest.get("licence", "not stated")))
    out = console()
    out.print(f"[bold]{escape(str(path))}[/bold]: data set")
    out.print(table)


def _show_run(path: Path) -> None:
    import cst_operator.peers  # noqa: F401 (makes their checkpoints known)

    read = checkpoint.read(path)
    config = config_to_json(read.config)
    table = _pairs()
    table.add_row("model", read.name)
    table.add_row("parameters", f"{num_parameters(checkpoint.load(read.path)):,}")
    for key, value in config.items():
        table.add_row(key, escape(json.dumps(value)))
    for title, entries in (("metadata", read.metadata), ("versions", read.versions)):
        for key, value in entries.items():
            table.add_row(f"{title}: {key}", escape(str(value)))
    out = console()
    out.print(f"[bold]{escape(str(path))}[/bold]: checkpoint {escape(read.path.name)}")
    out.print(table)


def _pairs() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    return table
