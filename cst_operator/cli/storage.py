"""``cst verify`` and ``cst pack``: checksums of what was stored, and one file instead of many."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.markup import escape

from cst_operator import checkpoint
from cst_operator.cli._shared import console, open_set
from cst_operator.datasets import pack, read_trajectory
from cst_operator.datasets.store import stored_kind
from cst_operator.errors import InputError

__all__ = ["Pack", "Verify"]


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Options of ``cst verify``."""

    help: ClassVar[str] = (
        "Check every checksum of a data set, a packed file, a trajectory file, or a run or\n"
        "checkpoint folder; exit status 2 if something is missing or changed.\n\n"
        "Examples:\n  cst verify data/heat\n  cst verify runs/first"
    )

    path: tyro.conf.Positional[Path]
    """Data set folder or file, run folder or checkpoint."""

    def run(self) -> int:
        """Check, and say what was checked."""
        out = console()
        name = escape(str(self.path))
        if checkpoint.steps(self.path) or (self.path / "config.json").is_file():
            folders = [folder for _, folder in checkpoint.steps(self.path)] or [self.path]
            for folder in folders:
                checkpoint.read(folder)
            out.print(f"{name}: {len(folders)} checkpoints are whole")
        elif stored_kind(self.path) == "trajectory":
            read_trajectory(self.path)
            out.print(f"{name}: one trajectory, whole")
        else:
            data = open_set(self.path)
            data.verify()
            out.print(f"{name}: {len(data)} trajectories are whole")
        return 0


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Options of ``cst pack``."""

    help: ClassVar[str] = (
        "Join the files of a data set into one HDF5 file, which can be named wherever the set\n"
        "can.\n\nExample:\n  cst pack data/heat --out heat.h5"
    )

    path: tyro.conf.Positional[Path]
    """Data set folder."""
    out: Path
    """File to write."""

    def run(self) -> int:
        """Pack, and say how large the file is."""
        if self.out.is_dir():
            raise InputError(f"{self.out} is a folder; name the file to write")
        data = pack(self.path, self.out)
        size = self.out.stat().st_size / 2**20
        words = f"{len(data)} trajectories in {escape(str(self.out))}, {size:.1f} MiB"
        console().print(words, soft_wrap=True)
        return 0
