"""``cst convert``: a data set of files that others wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import tyro
from rich.markup import escape

from cst_operator.cli._shared import console, warn
from cst_operator.datasets import TrajectoryFiles, convert

__all__ = ["Convert"]

_LINES = 10  # of files that are left out


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Options of ``cst convert``."""

    help: ClassVar[str] = (
        "Make a data set to train on of files that others wrote: mesh files with fields (.vtu,\n"
        ".msh, ...), each a steady solution; series of them (.pvd, .xdmf); data files (PDEBench,\n"
        "The Well, neuraloperator's .pt, netCDF, ...). A file that cannot be read, or has other\n"
        "channels, is left out with a warning. The order is random, because training takes the\n"
        "end of a set for validation.\n\n"
        "Examples:\n"
        "  cst convert runs/*/solution.vtu --static load E --out data/plates\n"
        "  cst convert flows/*.pvd --out data/flows\n"
        "  cst convert 2D_DarcyFlow_beta1.0_Train.hdf5 --out data/darcy"
    )

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files to read."""
    out: Path
    """Folder of the data set."""
    static: tuple[str, ...] = ()
    """Channels that are given and do not change in time, for the model to read (coefficients,
    forcing, loads); the others are solved for."""
    fields: tuple[str, ...] = ()
    """Fields to read of mesh files and series, among them those of cells; all those of points if
    omitted."""
    distance: bool = False
    """Add the distance to the boundary as a static channel."""
    shuffle: bool = True
    """Whether the order is random; else it is that of the files."""
    workers: int = 1
    """Processes that read."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the stored values."""
    licence: str = ""
    """What others may do with the set, e.g. CC-BY-4.0; written to every file."""

    def run(self) -> int:
        """Convert, and say what was left out."""
        files = TrajectoryFiles(self.files, self.fields or None, dtype=torch.float64)
        data = convert(
            files,
            out=self.out,
            static=self.static,
            distance=self.distance,
            shuffle=self.shuffle,
            workers=self.workers,
            dtype=self.dtype,
            licence=self.licence,
        )
        failures = data.manifest["failures"]
        for failure in failures[:_LINES]:
            warn(failure["reason"])
        if len(failures) > _LINES:
            warn(f"and {len(failures) - _LINES} more; {self.out / 'manifest.json'} has all")
        first = data[0]
        out = console()
        out.print(
            f"{len(data)} trajectories in {escape(str(self.out))}, {len(failures)} left out",
            soft_wrap=True,
        )
        none = "none; --static names the channels that are given"
        out.print(f"static: {escape(', '.join(first.mesh.channels)) or none}")
        out.print(f"solved for: {escape(', '.join(first.channels))}")
        return 0
