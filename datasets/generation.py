"""Making data sets with a solver: resumable, in parallel, the same for any number of workers."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cst_operator._atomic import only_writer, write_atomically
from cst_operator.datasets._workers import Spawned, Workers, map_unordered
from cst_operator.datasets.clusters import Dask, Slurm
from cst_operator.datasets.store import (
    PRECISIONS,
    Precision,
    read_attributes,
    write_trajectory,
)
from cst_operator.datasets.trajectories import (
    MANIFEST,
    MANIFEST_FORMAT,
    MANIFEST_VERSION,
    TrajectoryDataset,
    manifest_digest,
    read_manifest,
)
from cst_operator.errors import FieldError, InputError, MeshError, SolverError
from cst_operator.solvers.system import System

__all__ = ["describe", "generate"]

_MAX_ATTEMPTS = 3  # what a failed sample counts as in the rejection rate
# What a problem that cannot be solved ends in, where its solver does not say so itself.
_NUMERICAL = (ArithmeticError, np.linalg.LinAlgError, torch.linalg.LinAlgError)


def generate(
    system: System,
    n: int,
    *,
    out: str | Path,
    seed: int = 0,
    workers: int = 1,
    on: Slurm | Dask | None = None,
    refine: int = 0,
    dtype: Precision = "float64",
    licence: str = "",
    progress: bool = True,
) -> TrajectoryDataset:
    """Write n solutions of a system to a folder, one file each, and a manifest.

    A run that was interrupted continues when it is called again, with the same or a larger n: only
    files that are missing or damaged are made. The files do not depend on the number of workers or
    where they are. With workers > 1, the calling script needs ``if __name__ == "__main__":``, as
    processes are spawned, and the system must be importable there.

    Args:
        system: what draws and solves problems.
        n: number of samples, indices 0 to n - 1.
        out: folder, made if it does not exist.
        seed: seed of the set.
        workers: number of processes, each with one BLAS thread; 1 works in this process.
        on: the cluster whose workers are taken instead, see :mod:`cst_operator.datasets.clusters`.
        refine: halvings of the mesh's edge length, for the same problems on finer meshes.
        dtype: precision of the stored values, "float64" or "float32".
        licence: what others may do with the set, e.g. "CC-BY-4.0", an attribute of every file.
        progress: whether to show a progress bar with rate and time left on stderr.

    Returns:
        The data set; samples that could not be solved (the system raised SolverError, FieldError,
        MeshError, ArithmeticError or LinAlgError) are not in it but in its manifest under
        "failures", with their reason. Any other error is raised, with a note of the sample.

    Raises:
        InputError: if the folder holds something else or another process writes to it, or a number
            is out of range, or the cluster cannot be used.
        SolverError: if workers died twice without finishing anything; the death of one is made
            good by doing its sample again.
    """
    if n < 1 or workers < 1 or refine < 0 or seed < 0:
        raise InputError(
            f"n is {n}, workers {workers}, refine {refine}, seed {seed}; expected at least 1, 1, 0 "
            "and 0"
        )
    if on is not None and workers != 1:
        raise InputError(f"workers is {workers} but {on} has its own; leave workers out")
    return fill_set(
        system,
        range(n),
        out=out,
        seed=seed,
        workers=on or Spawned(workers),
        refine=refine,
        dtype=dtype,
        licence=licence,
        title=f"generate {system.name}" if progress else "",
    )


def fill_set(
    system: System,
    turns: Sequence[int],
    *,
    out: str | Path,
    seed: int,
    workers: Workers,
    refine: int,
    dtype: Precision,
    licence: str,
    title: str,
) -> TrajectoryDataset:
    """What :func:`generate` does, sample after sample in turn; without a title, without a bar."""
    if dtype not in PRECISIONS:
        raise InputError(f"dtype is {dtype!r}; expected 'float64' or 'float32'")
    n = len(turns)
    folder = Path(out)
    identity = _identity(system, seed, refine, dtype, licence)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        old = _prepare(folder, identity, n)
        shards = _kept(folder, n, {s["index"]: s for s in old.get("shards", [])})
        failures = {f["index"]: f for f in old.get("failures", [])}
        missing = [i for i in turns if i not in shards and i not in failures]
        _write_manifest(folder, identity, n, shards, failures)
        order = _Order(system, seed, refine, dtype, licence, str(folder.resolve()))
        try:
            with _bar(title, n, n - len(missing)) as advance:
                for outcome in map_unordered(order.make, missing, workers):
                    if outcome.reason is None:
                        shards[outcome.index] = _entry(folder, outcome.index, outcome.attempts)
                    else:
                        failures[outcome.index] = {
                            "index": outcome.index,
                            "seed": seed,
                            "reason": outcome.reason,
                        }
                    advance()
        finally:
            _write_manifest(folder, identity, n, shards, failures)
    return TrajectoryDataset(folder)


def describe(thing: Any) -> Any:
    """A system's configuration as plain JSON values, to be stored and compared.

    Dataclasses become their type and fields, arrays a digest, functions their name.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"type": type(thing).__qualname__, **fields}
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, (np.ndarray, torch.Tensor)):
        array = np.ascontiguousarray(thing)
        return f"array {list(array.shape)} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, (tuple, list)):
        return [describe(value) for value in thing]
    named = thing if callable(thing) and hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _identity(system: System, seed: int, refine: int, dtype: str, licence: str) -> dict[str, Any]:
    return {
        "format": MANIFEST_FORMAT,
        "format_version": MANIFEST_VERSION,
        "system": system.name,
        "version": system.version,
        "config": describe(system),
        "seed": seed,
        "refine": refine,
        "dtype": dtype,
        **_licensed(licence),
    }


def _licensed(licence: str) -> dict[str, str]:
    return {"licence": licence} if licence else {}


def _prepare(folder: Path, identity: dict[str, Any], n: int) -> dict[str, Any]:
    """The manifest of a folder that is continued; refuse it if it holds something else."""
    if not (folder / MANIFEST).is_file():
        if any(not p.name.startswith(".") for p in folder.iterdir()):
            raise InputError(f"{folder} is not empty and has no {MANIFEST}; give another folder")
        return {}
    old = read_manifest(folder)
    for key in (*identity, "licence"):
        value = identity.get(key)
        if old.get(key) != value:
            raise InputError(
                f"{folder} holds a set with another {_difference(key, old.get(key), value)}; "
                "give another folder, or delete this one"
            )
    if n < old["n"]:
        raise InputError(
            f"{folder} holds {old['n']} samples, more than the {n} asked for; "
            f"read it and take the first {n}"
        )
    return old


def _difference(key: str, old: Any, new: Any) -> str:
    """Where two configurations differ first, e.g. ``config.domain.gap: 0.06, not 0.08``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                return _difference(f"{key}.{name}", old.get(name), new.get(name))
    return f"{key} ({old!r}, asked for {new!r})"


def shard_name(index: int) -> str:
    """File name of a sample."""
    return f"{index:06d}.h5"


def _kept(folder: Path, n: int, listed: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Entries of the files that are there and whole; a killed run may not have listed its last."""
    kept = {}
    for pattern in (".[0-9]*.h5.*", f".{MANIFEST}.*"):  # what a killed writer left
        for aside in folder.glob(pattern):
            aside.unlink()
    for index in range(n):
        path = folder / shard_name(index)
        if not path.is_file():
            continue
        if index in listed:
            entry = _entry(folder, index, listed[index]["attempts"])
            if entry == listed[index]:
                kept[index] = entry
            continue
        try:
            attempts = read_attributes(path)["parameters"].get("attempts", 1.0)
        except InputError:
            continue
        kept[index] = _entry(folder, index, int(attempts))
    return kept


def _entry(folder: Path, index: int, attempts: int) -> dict[str, Any]:
    path = folder / shard_name(index)
    if not path.is_file():
        raise InputError(
            f"a worker made {path}, which is not here; give a folder that all machines share"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"index": index, "file": path.name, "sha256": digest, "attempts": attempts}


def _write_manifest(
    folder: Path,
    identity: dict[str, Any],
    n: int,
    shards: dict[int, dict[str, Any]],
    failures: dict[int, dict[str, Any]],
) -> None:
    draws = sum(s["attempts"] for s in shards.values()) + _MAX_ATTEMPTS * len(failures)
    manifest = {
        **identity,
        "n": n,
        "draws": draws,
        "rejection_rate": 1.0 - len(shards) / draws if draws else 0.0,
        "failures": [failures[i] for i in sorted(failures)],
        "shards": [shards[i] for i in sorted(shards)],
    }
    manifest["digest"] = manifest_digest(manifest)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1))


@dataclass(frozen=True)
class _Order:
    """What a worker needs to make any sample."""

    system: System
    seed: int
    refine: int
    dtype: Precision
    licence: str
    folder: str

    def make(self, index: int) -> "_Outcome":
        """Draw, solve and write one sample."""
        try:
            trajectory = self.system.sample(self.seed, index, refine=self.refine)
        except (SolverError, FieldError, MeshError) as error:
            return _Outcome(index, 0, str(error))
        except _NUMERICAL as error:
            return _Outcome(index, 0, f"{type(error).__name__}: {error}")
        except Exception as error:
            error.add_note(f"this was sample {index} of seed {self.seed}")
            raise
        write_trajectory(
            Path(self.folder) / shard_name(index),
            trajectory,
            dtype=self.dtype,
            attributes={
                "system": self.system.name,
                "version": self.system.version,
                "seed": self.seed,
                "index": index,
                "refine": self.refine,
                **_licensed(self.licence),
            },
        )
        return _Outcome(index, int(trajectory.parameters.get("attempts", 1)), None)


@dataclass(frozen=True)
class _Outcome:
    index: int
    attempts: int
    reason: str | None


class _Rate(ProgressColumn):
    """Samples a second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.3g}/s" if rate else "")


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not title) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda: bar.advance(task)
