"""``cst generate``: solve random problems."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro
from rich.markup import escape

from cst_operator.cli._shared import console, warn
from cst_operator.datasets import generate
from cst_operator.errors import InputError
from cst_operator.solvers import SYSTEMS

__all__ = ["Generate"]


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Options of ``cst generate``."""

    help: ClassVar[str] = (
        f"Draw and solve random problems on random domains. Systems: {', '.join(SYSTEMS)}.\n"
        "An interrupted generation continues when the same command is called again.\n\n"
        "Example:\n  cst generate poisson --n 200 --workers 2 --out data/poisson"
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
    """Processes that solve."""
    refine: int = 0
    """Halvings of the mesh's edge length: 1 gives the same problems with four times the
    points, eight times in space."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the stored values."""

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
            refine=self.refine,
            dtype=self.dtype,
        )
        failures = data.manifest["failures"]
        if failures:
            warn(f"{len(failures)} samples could not be solved: {failures[0]['reason']}")
        console().print(f"{len(data)} solutions of {self.system} in {escape(str(self.out))}")
        return 0
