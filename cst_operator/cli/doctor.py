"""``cst doctor``: what is installed and what the machine offers."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import torch
from rich.markup import escape
from rich.table import Table

from cst_operator.cli._shared import console

__all__ = ["Doctor"]

_REQUIRED = {
    "torch": "torch",
    "torch-geometric": "torch_geometric",
    "numpy": "numpy",
    "scipy": "scipy",
    "meshio": "meshio",
    "h5py": "h5py",
    "safetensors": "safetensors",
    "scikit-fem": "skfem",
    "matplotlib": "matplotlib",
    "rich": "rich",
    "tyro": "tyro",
    "neuraloperator": "neuralop",
}
_OPTIONAL = {"gmsh": "gmsh"}


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Options of ``cst doctor``."""

    help: ClassVar[str] = (
        "Show versions, devices, memory and what is missing; send this with a question.\n\n"
        "Example:\n  cst doctor"
    )

    def run(self) -> int:
        """Print the findings; status 1 if something required is missing."""
        table = Table(show_header=False, box=None, pad_edge=False)
        problems = []
        table.add_row("python", f"{platform.python_version()} at {sys.executable}")
        table.add_row("system", f"{platform.system()} {platform.release()} {platform.machine()}")
        for package, module in {"cst-operator": "cst_operator", **_REQUIRED, **_OPTIONAL}.items():
            problem = _import_problem(module)
            if not problem:
                table.add_row(package, _version(package))
            elif package in _OPTIONAL:
                table.add_row(package, "not installed (optional)")
            else:
                problems.append(f"{package} cannot be imported: {problem}")
                table.add_row(package, f"[red]{escape(problem)}[/red]")
        cuda = torch.version.cuda or getattr(torch.version, "hip", None)
        table.add_row("torch build", f"CUDA {cuda}" if cuda else "CPU only")
        table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors")
        for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
            if name in os.environ:
                table.add_row(name, escape(os.environ[name]))
        table.add_row("memory", _memory())
        for text in _devices():
            table.add_row("GPU", text)
        here = Path.cwd()
        free = shutil.disk_usage(here).free / 2**30
        writable = _writable(here)
        table.add_row(
            "this folder", f"{free:,.1f} GiB free, {'' if writable else '[red]not [/red]'}writable"
        )
        if not writable:
            problems.append(f"{here} is not writable; go to a folder of yours")
        out = console()
        out.print(table)
        for problem in problems:
            out.print(f"[red]problem:[/red] {escape(problem)}", soft_wrap=True)
        out.print("something required is missing" if problems else "everything required is there")
        return 1 if problems else 0


def _import_problem(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "from its source folder"


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (
            os.sysconf(name) * page / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
        )
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total:,.1f} GiB, {free:,.1f} GiB of it unused"


def _devices() -> list[str]:
    if not torch.cuda.is_available():
        return ["none that torch sees; everything runs on the processor"]
    found = []
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        found.append(f"{device.name}, {device.total_memory / 2**30:,.0f} GiB")
    return found


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
