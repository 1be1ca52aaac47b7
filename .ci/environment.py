"""Make a virtual environment with the package (editable), its tests, docs and tools.

Usage: python .ci/environment.py FOLDER keep|pinned

Every version comes from constraints.txt, with one exception: if the interpreter that runs this
script already has torch >= 2.11 (an active virtual or conda environment, a container image), that
build is kept, unless ``pinned`` is asked for. The new environment then sees that interpreter's
packages behind its own, so nothing of the caller's environment is changed or downloaded again.
"""

from __future__ import annotations  # an old Python should reach the message below

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 11)


def installed_torch() -> str | None:
    """Version of this interpreter's torch if it is recent enough to be kept."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    recent = tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TORCH
    if not recent:
        print(f"torch {version} is older than 2.11 and will not be used", flush=True)
    return version if recent else None


def constraints(torch: str | None) -> str:
    """The text of constraints.txt, with the torch that is to be used."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    if torch is not None:
        lines = [f"torch=={torch}" if line.startswith("torch==") else line for line in lines]
    return "\n".join(lines) + "\n"


def main(folder: Path, *, keep: bool) -> None:
    """Create or complete the environment in ``folder``."""
    torch = installed_torch() if keep else None
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    site_packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    behind = Path(site_packages, "zz_caller.pth")
    behind.unlink(missing_ok=True)
    if torch is None:
        print(f"installing torch and everything else into {folder}: a few minutes", flush=True)
    else:
        print(f"keeping torch {torch} of {sys.prefix}; installing into {folder}", flush=True)
        # addsitedir also follows the .pth files there, so an editable build of torch is found.
        folders = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
        behind.write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in folders))
    constraint_file = folder / "constraints.txt"
    constraint_file.write_text(constraints(torch))
    subprocess.run(
        [python, "-m", "pip", "install", "-qq", "--constraint", constraint_file]
        + ["--editable", f"{ROOT}[test,docs,dev]"],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("keep", "pinned"):
        sys.exit(__doc__)
    if sys.version_info[:2] < OLDEST_PYTHON:
        sys.exit(
            f"Python {sys.version.split()[0]} is too old, 3.11 or newer is needed; "
            "name one: make PYTHON=python3.11 ..."
        )
    try:
        main(Path(sys.argv[1]).absolute(), keep=sys.argv[2] == "keep")
    except subprocess.CalledProcessError as error:
        sys.exit(f"pip could not install the package (exit status {error.returncode}), see above")
