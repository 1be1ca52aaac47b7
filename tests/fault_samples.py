"""What tests of faults in data share: a system that can fail, other processes, digests."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cst_operator.fields import PointField, Trajectory

__all__ = ["ROOT", "SLOW", "Line", "child", "digests", "same"]

ROOT = Path(__file__).resolve().parents[1]
# Hundreds of interpreters are started, which takes long on a busy machine.
SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Line:
    """A system on a line that can be slow, diverge, or kill the process that solves it."""

    pause: float = 0.0
    cfl: float = 0.4
    kill: str = ""
    name: str = "line"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        time.sleep(self.pause)
        mark = Path(self.kill) / str(index) if self.kill else None
        if mark is not None and index == 2 and not mark.exists():
            mark.touch(exist_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if mark is not None and index == 3 and (mark.parent / "always").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        x = np.linspace(0, 1, 33)
        # index 1 and every fourth after it is rough enough to show an unstable step
        u = np.random.default_rng([seed, index]).normal(size=33)
        frames = [u]
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(300):
                u = u.copy()
                u[1:-1] += self.cfl * (u[2:] - 2 * u[1:-1] + u[:-2])
                frames.append(u)
        return Trajectory(
            mesh=PointField(torch.tensor(x)[:, None]),
            times=torch.arange(301, dtype=torch.float64),
            u=torch.tensor(np.stack(frames))[:, :, None],
            channels=("u",),
        )


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a set."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.h5")
    }


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another interpreter that sees the library and this module."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def same(one: Trajectory, two: Trajectory) -> bool:
    """Whether two trajectories are equal, up to what belongs to the mesh alone."""
    return (
        torch.equal(one.u, two.u)
        and torch.equal(one.times, two.times)
        and torch.equal(one.mesh.pos, two.mesh.pos)
        and one.channels == two.channels
        and one.units == two.units
        and one.parameters == two.parameters
    )
