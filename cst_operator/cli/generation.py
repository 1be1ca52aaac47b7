"""``cst generate``: solve random problems."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import tyro
from rich.markup import escape

from cst_operator.cli._shared import console, warn
from cst_operator.datasets import Dask, Slurm, generate
from cst_operator.errors import InputError
from cst_operator.solvers import SYSTEMS

__all__ = ["Generate"]


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Options of ``cst generate``."""

    help: ClassVar[str] = (
        f"Draw and solve random problems on random domains. Systems: {', '.join(SYSTEMS)}.\n"
        "An interrupted generation continues when the same command is called again.\n\n"
        "Examples:\n  cst generate poisson --n 200 --workers 2 --out data/poisson\n"
        "  cst generate poisson --n 9999 --on slurm --slurm.jobs 64 --out data/poisson\n"
        "  cst generate poisson --n 9999 --on dask --dask.scheduler tcp://node1:8786 --out data/p"
    )

    system: tyro.conf.Positional[str]
    """What is solved; the names are above."""
    n: int
    """Number of solutions."""
    out: Path
    """Folder of the data set."""
    seed: int = 0
    """Seed of the set; take another one for test data."""
    workers: int = 1
    """Processes of this machine that solve."""
    on: Literal["here", "slurm", "dask"] = "here"
    """Where they are solved: here, as jobs of SLURM, or on a Dask cluster."""
    slurm: Slurm = field(default_factory=Slurm)
    """Jobs, for --on slurm."""
    dask: Dask = field(default_factory=Dask)
    """Cluster, for --on dask."""
    refine: int = 0
    """Halvings of the mesh's edge length: 1 gives the same problems with four times the
    points, eight times in space."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the stored values."""
    licence: str = ""
    """What others may do with the set, e.g. CC-BY-4.0; written to every file."""

    def run(self) -> int:
        """Generate, and say what was left out."""
        if self.system not in SYSTEMS:
            raise InputError(
                f"there is no system {self.system!r}; choose from {', '.join(SYSTEMS)}"
            )
        data = generate(
            SYSTEMS[self.system],
            self.n,
            out=self.out,
            seed=self.seed,
            workers=self.workers,
            on={"here": None, "slurm": self.slurm, "dask": self.dask}[self.on],
            refine=self.refine,
            dtype=self.dtype,
            licence=self.licence,
        )
        failures = data.manifest["failures"]
        if failures:
            warn(f"{len(failures)} samples could not be solved: {failures[0]['reason']}")
        console().print(
            f"{len(data)} solutions of {self.system} in {escape(str(self.out))}, "
            f"{data.manifest['rejection_rate']:.1%} of the draws rejected",
            soft_wrap=True,
        )
        return 0
