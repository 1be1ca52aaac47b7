"""The folder of a run: who may write to it, and what is resumed from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from cst_operator import checkpoint
from cst_operator._training_state import saved_state
from cst_operator.checkpoint import Checkpoint
from cst_operator.errors import CheckpointError, InputError

__all__ = ["LOG_FILE", "locked", "open_run"]

LOG_FILE = "log.jsonl"
_LOCK_FILE = ".lock"
# What may differ between a run and its continuation: it changes rounding and random numbers at
# most, not what is learned.
_FREE = frozenset(
    ("device", "num_workers", "keep", "accumulate", "compile", "log_every", "save_every")
)


@contextmanager
def locked(out: Path, *, resume: bool = False) -> Iterator[None]:
    """Keep other processes from writing to a run folder; the system unlocks it if this one dies.

    May be nested. The folder is made, unless it is to be resumed.

    Raises:
        CheckpointError: if there is nothing to resume.
        InputError: if another process writes to it.
    """
    if resume and not out.is_dir():
        raise CheckpointError(f"there is no run to resume at {out}; check the path")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK_FILE, blocking=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another process is training in {out}; wait for it or stop it, "
            "or choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_run(
    model: nn.Module, out: Path, resume: bool, identity: Mapping[str, Any]
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run in a folder without one."""
    if not resume:
        if checkpoint.steps(out):
            raise InputError(
                f"{out} holds a run already; resume it, or choose another folder for a new one"
            )
        return None
    if not checkpoint.steps(out) and (out / LOG_FILE).exists():
        raise CheckpointError(
            f"the run in {out} stopped before its first checkpoint, so there is nothing to go on "
            "from; start it anew, without resume"
        )
    previous = checkpoint.newest(out)
    before = saved_state(previous).values["identity"]
    # When to evaluate matters only where evaluations may end the training.
    free = _FREE if identity.get("patience") else _FREE | {"eval_every"}
    old, new = ({k: v for k, v in d.items() if k not in free} for d in (before, identity))
    if old != new:
        raise CheckpointError(
            f"{previous.path} belongs to another training: {checkpoint.differences(old, new)}; "
            "resume with the same settings and data or start a new run"
        )
    for step, folder in checkpoint.steps(out):
        # Found damaged just now; out of the way, so that it can be written again.
        if step > saved_state(previous).values["step"]:
            folder.rename(checkpoint.aside(folder))
    return previous
