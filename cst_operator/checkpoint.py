"""Models on disk: written atomically, verified when read, never unpickled.

A checkpoint is a folder::

    config.json            name and configuration of the model, versions, metadata
    model.safetensors      its parameters and buffers
    training.safetensors   state of the optimizer and the like (only inside a run)
    training.json          step, configuration of the training, history (only inside a run)
    manifest.json          SHA-256 and size of each file; written last

It is built under a temporary name beside its place, every file and folder is flushed to the disk,
and one rename puts it in place: whatever interrupts the writing, the folder of that name is either
complete or absent, and older checkpoints are untouched. A run folder holds checkpoints named
``step-00001000``.
"""

import platform
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator._checkpoint_files import (
    CONFIG,
    FORMAT,
    KNOWN,
    MANIFEST,
    TRAINING_TENSORS,
    TRAINING_VALUES,
    WEIGHTS,
    aside,
    from_json,
    from_safetensors,
    manifest_of,
    read_verified,
    to_json,
    to_safetensors,
    write_folder,
)
from cst_operator._model_registry import KINDS, name_of, register
from cst_operator.config_json import config_from_json, config_to_json
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import CheckpointError
from cst_operator.model import CSTOperator

__all__ = [
    "Checkpoint",
    "TrainingState",
    "aside",
    "differences",
    "load",
    "name_of",
    "newest",
    "prune",
    "read",
    "register",
    "restore",
    "save",
    "step_folder",
    "steps",
]

_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a training needs beside the model to go on as if it had not stopped."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Named tensors."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Anything JSON can say."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint in memory, all parts from one and the same folder."""

    path: Path
    """The folder it was read from."""
    name: str
    """Registered name of the model."""
    config: Any
    """Configuration of the model."""
    weights: Mapping[str, Tensor]
    """Parameters and buffers, on the CPU."""
    metadata: Mapping[str, Any]
    """What was given to :func:`save`."""
    versions: Mapping[str, str]
    """Versions of the software that wrote it."""
    training: TrainingState | None = None
    """State of the training, inside a run."""


register("cst", CSTConfig, CSTOperator)


def save(
    model: nn.Module,
    path: str | Path,
    *,
    training: TrainingState | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint to a new folder, completely or not at all.

    Args:
        model: an instance of a registered class.
        path: folder to make; its parents are made as needed.
        training: further state, for a checkpoint within a run.
        metadata: anything JSON can say, e.g. scores.

    Returns:
        The folder.

    Raises:
        CheckpointError: if the folder exists, the model is not registered, a weight is not finite,
            or the disk refuses (then nothing is left behind).
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(f"{path} exists already; save to another name or remove it first")
    name = name_of(model)
    weights = _tensors(model)
    tensors = {} if training is None else dict(training.tensors)
    # Buffers may hold infinities on purpose (masks); what is learned may not.
    for key, tensor in (*model.named_parameters(), *tensors.items()):
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{key} has values that are not finite, so {path} was not written; "
                "go back to the last checkpoint and train with a smaller lr"
            )
    config = {
        "format": FORMAT,
        "model": name,
        "config": config_to_json(model.config),
        "versions": _versions(),
        "metadata": dict(metadata or {}),
    }
    files = {CONFIG: to_json(config), WEIGHTS: to_safetensors(weights)}
    if training is not None:
        files[TRAINING_VALUES] = to_json(training.values)
        files[TRAINING_TENSORS] = to_safetensors(tensors)
    files[MANIFEST] = to_json(manifest_of(files))
    try:
        write_folder(path, files)
    except OSError as error:
        raise CheckpointError(
            f"could not write {path}: {error.strerror or error}; "
            "older checkpoints are intact, free some space or choose another folder"
        ) from error
    return path


def load(path: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """Build the model of a checkpoint, in eval mode.

    Args:
        path: a checkpoint folder, or a run folder, of which the newest valid checkpoint is taken.
        device: where the model goes, wherever it was trained.

    Raises:
        CheckpointError: if there is no checkpoint, or it is incomplete, damaged or does not fit.
    """
    checkpoint = read(path)
    _, model_class = KINDS[checkpoint.name]
    # The initial weights are drawn and thrown away; the caller's random numbers are not touched.
    with torch.random.fork_rng(devices=[]):
        model = model_class(checkpoint.config)
    restore(model, checkpoint)
    return model.to(device).eval()


def read(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint folder, or the newest valid one of a run folder.

    Raises:
        CheckpointError: as :func:`load`.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}; check the path")
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file; expected a checkpoint folder or a run folder, "
            "as cst_operator.save and fit write them"
        )
    if any((path / name).exists() for name in KNOWN):  # a data set has a manifest, too
        return _read_folder(path)
    return newest(path)


def newest(run: str | Path) -> Checkpoint:
    """The newest valid checkpoint of a run folder; warns of every damaged one it passes over.

    Raises:
        CheckpointError: if none is valid.
    """
    run = Path(run)
    folders = steps(run)
    if not folders:
        raise CheckpointError(
            f"{run} holds no checkpoint; expected {CONFIG} and {MANIFEST}, or folders like "
            "step-00001000, in it"
        )
    problems: list[str] = []
    for _, folder in reversed(folders):
        try:
            checkpoint = _read_folder(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on with {folder.name}", stacklevel=2)
        return checkpoint
    raise CheckpointError(f"{run} holds no valid checkpoint: {problems[0]}")


def steps(run: str | Path) -> list[tuple[int, Path]]:
    """Step number and folder of every checkpoint of a run, oldest first, not verified."""
    run = Path(run)
    if not run.is_dir():
        return []
    found = ((_STEP.fullmatch(entry.name), entry) for entry in run.iterdir())
    return sorted((int(match[1]), entry) for match, entry in found if match)


def step_folder(run: str | Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return Path(run) / f"step-{step:08d}"


def prune(run: str | Path, *, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of a run, and what killed writers left."""
    run = Path(run)
    for _, folder in steps(run)[:-keep]:
        # Renamed first: a half-removed folder must not carry a checkpoint's name.
        half_removed = aside(folder)
        folder.rename(half_removed)
        shutil.rmtree(half_removed)
    for leftover in run.glob(".step-*.tmp-*"):
        shutil.rmtree(leftover)


def restore(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model of the same configuration, in place.

    The model takes the precision of the weights, and stays on its device.

    Raises:
        CheckpointError: if configuration, names or shapes differ; both sides are listed.
    """
    if name_of(model) != checkpoint.name:
        raise CheckpointError(
            f"{checkpoint.path} holds a model of kind {checkpoint.name!r}, expected "
            f"{name_of(model)!r}; use another folder"
        )
    expected = model.config
    if expected != checkpoint.config:
        raise CheckpointError(
            f"{checkpoint.path} belongs to another configuration: "
            f"{differences(config_to_json(checkpoint.config), config_to_json(expected))}; "
            "use the same configuration or another folder"
        )
    own = _tensors(model)
    shapes = {key: tuple(tensor.shape) for key, tensor in own.items()}
    saved = {key: tuple(tensor.shape) for key, tensor in checkpoint.weights.items()}
    if shapes != saved:
        raise CheckpointError(
            f"{checkpoint.path / WEIGHTS} does not fit the model: "
            f"{differences(saved, shapes)}; load it with the version that wrote it"
        )
    with torch.no_grad():
        holders: dict[str, Tensor] = {}
        holders |= dict(model.named_parameters(remove_duplicate=False))
        holders |= dict(model.named_buffers(remove_duplicate=False))
        for key, tensor in checkpoint.weights.items():
            holders[key].data = tensor.to(holders[key].device, copy=True)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What differs between two mappings, both values of each, in words."""
    missing = object()
    parts = []
    for key in [*saved, *(key for key in given if key not in saved)]:
        old, new = saved.get(key, missing), given.get(key, missing)
        if old != new:
            old, new = ("absent" if v is missing else repr(v) for v in (old, new))
            parts.append(f"{key} is {old} there and {new} here")
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers under their names."""
    state = model.state_dict()
    # neuralop's models put the arguments of their constructor there; the config says the same.
    extra = [k for k, v in state.items() if not torch.is_tensor(v) and k != "_metadata"]
    if extra:
        raise CheckpointError(
            f"{', '.join(extra)} in the state of {type(model).__name__} is no tensor; "
            "keep it in the configuration"
        )
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def _versions() -> dict[str, str]:
    try:
        own = packages.version("cst-operator")
    except packages.PackageNotFoundError:  # run from a checkout
        own = "unknown"
    return {"cst_operator": own, "torch": torch.__version__, "python": platform.python_version()}


def _read_folder(path: Path) -> Checkpoint:
    """Read every file once, compare it with the manifest, and parse what was compared."""
    files = read_verified(path)
    config = from_json(files[CONFIG], path / CONFIG)
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / CONFIG} has format {config.get('format')!r}, this version reads {FORMAT}; "
            "load it with the version that wrote it"
        )
    name = config["model"]
    if name not in KINDS:
        raise CheckpointError(
            f"{path / CONFIG} is of the unknown kind {name!r} (known: {', '.join(KINDS)}); "
            "import the module that registers it first"
        )
    training = None
    if TRAINING_VALUES in files:
        training = TrainingState(
            tensors=from_safetensors(files[TRAINING_TENSORS], path / TRAINING_TENSORS),
            values=from_json(files[TRAINING_VALUES], path / TRAINING_VALUES),
        )
    return Checkpoint(
        path=path,
        name=name,
        config=config_from_json(KINDS[name][0], config["config"], str(path / CONFIG)),
        weights=from_safetensors(files[WEIGHTS], path / WEIGHTS),
        metadata=config["metadata"],
        versions=config["versions"],
        training=training,
    )
