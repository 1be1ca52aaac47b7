"""The files of a checkpoint: written completely or not at all, compared with their manifest.

Bytes go in and out; what they mean is :mod:`cst_operator.checkpoint`'s to say.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cst_operator.errors import CheckpointError

__all__ = [
    "CONFIG",
    "FORMAT",
    "KNOWN",
    "MANIFEST",
    "TRAINING_TENSORS",
    "TRAINING_VALUES",
    "WEIGHTS",
    "aside",
    "from_json",
    "from_safetensors",
    "manifest_of",
    "read_verified",
    "to_json",
    "to_safetensors",
    "write_folder",
]

FORMAT = 1
CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
TRAINING_VALUES, TRAINING_TENSORS = "training.json", "training.safetensors"
_REQUIRED = {CONFIG, WEIGHTS}
KNOWN = _REQUIRED | {TRAINING_VALUES, TRAINING_TENSORS}


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of files under a temporary name, flush it, and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = aside(path)
    building.mkdir()
    try:
        for name, content in files.items():
            with open(building / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(building)
        os.rename(building, path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows opens no folders and needs no flush of them
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def aside(path: Path) -> Path:
    """A name beside ``path`` that nobody takes for a checkpoint; pruning removes it."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def read_verified(path: Path) -> dict[str, bytes]:
    """The files that the manifest lists, read once and compared with it.

    Raises:
        CheckpointError: naming the file that is missing, unreadable or damaged.
    """
    raw = _bytes(path / MANIFEST)
    manifest = from_json(raw, path / MANIFEST)
    listed = manifest.get("files")
    # Written in one form only, so that a flipped bit anywhere in the manifest shows.
    if (
        to_json(manifest) != raw
        or set(manifest) != {"format", "files"}
        or not isinstance(listed, dict)
        or not set(listed) >= _REQUIRED
        or not set(listed) <= KNOWN
        or (TRAINING_VALUES in listed) != (TRAINING_TENSORS in listed)
    ):
        raise _damaged(path / MANIFEST)
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{path / MANIFEST} has format {manifest['format']!r}, this version reads {FORMAT}; "
            "load it with the version that wrote it, or restore the file if it was damaged"
        )
    files = {name: _bytes(path / name) for name in listed}
    actual = manifest_of(files)["files"]
    for name in listed:
        if actual[name] != listed[name]:
            raise _damaged(path / name)
    return files


def to_json(value: Any) -> bytes:
    """The one form in which JSON is written."""
    return (json.dumps(value, indent=1, sort_keys=False) + "\n").encode()


def to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors, from any device."""
    # Tied parameters share memory, which the format does not allow, hence the copies.
    return bytes(
        safetensors.torch.save(
            {key: t.detach().to("cpu", copy=True).contiguous() for key, t in tensors.items()}
        )
    )


def manifest_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """SHA-256 and size of every file."""
    return {
        "format": FORMAT,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }


def _damaged(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged: it is not what was written; "
        "restore it from a copy or use another checkpoint"
    )


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file} is missing, so the checkpoint is incomplete; use another checkpoint"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"could not read {file}: {error.strerror or error}; check the disk and permissions"
        ) from error


def from_json(content: bytes, file: Path) -> dict[str, Any]:
    """A mapping; the file is named in errors."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(file) from error
    if not isinstance(value, dict):
        raise _damaged(file)
    return value


def from_safetensors(content: bytes, file: Path) -> dict[str, Tensor]:
    """Named tensors on the CPU; the file is named in errors."""
    try:
        return dict(safetensors.torch.load(content))
    except SafetensorError as error:
        raise _damaged(file) from error
