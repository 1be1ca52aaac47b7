"""``cst inspect``: what is in a mesh file, a data set or a run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.markup import escape
from rich.table import Table

from cst_operator import checkpoint
from cst_operator.cli._shared import console, open_set
from cst_operator.comparison import num_parameters
from cst_operator.config_json import config_to_json
from cst_operator.errors import InputError
from cst_operator.mesh_files import read_mesh
from cst_operator.mesh_report import MeshReport, mesh_report

__all__ = ["Inspect"]


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Options of ``cst inspect``."""

    help: ClassVar[str] = (
        "Show what is in a mesh file (counts, quality, fields, defects; exit status 2 if it is\n"
        "unusable), a data set folder, or a run or checkpoint folder.\n\n"
        "Examples:\n  cst inspect wing.msh\n  cst inspect runs/first"
    )

    path: tyro.conf.Positional[Path]
    """Mesh file, data set folder, or run folder."""

    def run(self) -> int:
        """Print what is there; status 2 if a mesh has defects."""
        if not self.path.exists():
            raise InputError(f"{self.path}: there is no such file or folder; check the path")
        if self.path.is_file():
            report = mesh_report(read_mesh(self.path, weights=False))
            _show_mesh(self.path, report)
            return 0 if report.ok else 2
        if (self.path / "config.json").is_file() or checkpoint.steps(self.path):
            _show_run(self.path)
            return 0
        if (self.path / "manifest.json").is_file():
            _show_set(self.path)
            return 0
        raise InputError(
            f"{self.path} is no data set, run or checkpoint; "
            "name a folder that cst generate or cst train wrote, or a mesh file"
        )


def _show_mesh(path: Path, report: MeshReport) -> None:
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
    out = console()
    out.print(f"[bold]{escape(str(path))}[/bold]")
    out.print(table)
    if report.channels:
        ranges = Table("channel", "unit", "minimum", "mean", "maximum")
        for c in report.channels:
            ranges.add_row(
                escape(c.name),
                escape(c.unit),
                *(f"{x:.4g}" for x in (c.minimum, c.mean, c.maximum)),
            )
        out.print(ranges)
    for problem in report.problems:
        out.print(f"[red]problem:[/red] {escape(problem)}", soft_wrap=True)
    out.print("usable" if report.ok else "[red]unusable as it is[/red]")


def _show_set(path: Path) -> None:
    data = open_set(path)
    first, manifest = data[0], data.manifest
    table = _pairs()
    table.add_row("system", f"{manifest['system']} (version {manifest['version']})")
    table.add_row("trajectories", f"{len(data):,}, {len(manifest['failures'])} failed")
    table.add_row("seed", f"{manifest['seed']}, mesh refined {manifest['refine']} times")
    table.add_row("rejected draws", f"{manifest['rejection_rate']:.1%}")
    table.add_row("frames", f"{first.num_frames}")
    table.add_row("solution", ", ".join(first.channels))
    table.add_row("static channels", ", ".join(first.mesh.channels))
    table.add_row("points", f"{first.mesh.num_points:,} in the first trajectory")
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
