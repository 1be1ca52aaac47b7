"""``cst export``: a trained model for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.markup import escape

import cst_operator.peers  # noqa: F401 (makes their checkpoints known)
from cst_operator.cli._shared import console
from cst_operator.export import PACKAGE_FILE, PROGRAM_FILE, export

__all__ = ["Export"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Options of ``cst export``."""

    help: ClassVar[str] = (
        "Write a trained model for other programs: safetensors, JSON, a model card, and a program\n"
        "for torch.export.load, which needs PyTorch alone; with --package also one for C++.\n\n"
        "Example:\n  cst export runs/first --out exported/first --package"
    )

    run_folder: tyro.conf.Positional[Path]
    """Run or checkpoint folder."""
    out: Path
    """Folder to make."""
    package: bool = False
    """Compile the program by AOTInductor too, for this kind of processor; needs g++ and a
    minute."""

    def run(self) -> int:
        """Write the folder."""
        export(self.run_folder, self.out, package=self.package)
        files = [PROGRAM_FILE, *([PACKAGE_FILE] if self.package else [])]
        console().print(
            f"the model, its card and {', '.join(files)} are in {escape(str(self.out))}",
            soft_wrap=True,
        )
        return 0
