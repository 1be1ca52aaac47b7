"""Trajectories in HDF5 files, one or many a file, checked when they are read.

Layout: root attributes ``format``, ``format_version``, ``channels``, ``units`` (JSON lists) and
whatever the writer adds (system, version, seed, index); group ``parameters`` with one attribute
each; data sets ``times`` [T], ``u`` [T, N, c] and where known ``gradient`` [T, N, c, d] and
``time_derivative`` [T, N, c]; group ``mesh`` with attributes ``channels`` and ``units``, data sets
``pos``, ``time``, ``u``, ``weights``, ... of the point field and groups ``cells``, ``facets`` and
``facet_markers`` with one data set per cell type. Every chunk and every header has a checksum.
Equal trajectories give equal bytes. A packed file has the format ``cst_operator.trajectories``, the
set's ``manifest`` (JSON, as bytes) and one such group a trajectory, ``trajectories/000000``, ...
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

import h5py
import numpy as np
import torch
from torch import Tensor

from cst_operator._atomic import write_atomically
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory

__all__ = [
    "count_frames",
    "read_attributes",
    "read_num_points",
    "read_packed_manifest",
    "read_trajectory",
    "stored_kind",
    "write_packed",
    "write_trajectory",
]

_FORMAT = "cst_operator.trajectory"
_PACKED = "cst_operator.trajectories"
_VERSION = 1
_SERIES = ("gradient", "time_derivative")
_MESH = ("pos", "time", "u", "weights", "gradient", "time_derivative")
_GROUPS = ("cells", "facets", "facet_markers")

Precision = Literal["float64", "float32"]
PRECISIONS = get_args(Precision)


def write_trajectory(
    path: str | Path,
    trajectory: Trajectory,
    *,
    dtype: Precision | None = None,
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write a trajectory to a file that appears whole or not at all.

    Args:
        path: file to write; an existing one is replaced.
        trajectory: what to write.
        dtype: precision of all values but the times, which keep theirs; as they are if omitted.
        attributes: further attributes of the file, e.g. the name and version of the solver.

    Raises:
        InputError: if the folder does not exist or the precision is not one of the two.
    """
    if dtype is not None and dtype not in PRECISIONS:
        raise InputError(f"dtype is {dtype!r}; expected 'float64' or 'float32'")
    path = Path(path)
    _writable(path)
    # Made in memory: HDF5 crashes the process if the disk is full when it writes.
    with h5py.File(path.name, "w", driver="core", backing_store=False, libver=_LIBVER) as file:
        _write(file, trajectory, dtype, {"format": _FORMAT, **(attributes or {})})
        file.flush()
        content = file.id.get_file_image()
    write_atomically(path, content)
    _sync(path.parent)


def write_packed(
    path: str | Path,
    manifest: bytes,
    shards: Iterable[tuple[str, Trajectory, Mapping[str, str | int | float]]],
    *,
    size: int,
) -> None:
    """Write a set to one file that appears whole or not at all.

    Args:
        path: file to write; an existing one is replaced.
        manifest: the set's manifest.
        shards: name, trajectory and attributes of every sample.
        size: bytes that they take, for which the disk must have room.

    Raises:
        InputError: if the folder does not exist.
        OSError: if the disk has no room.
    """
    path = Path(path)
    _writable(path)
    with _whole_file(path, size) as file:
        _attributes(file, {"format": _PACKED, "format_version": _VERSION})
        content = np.frombuffer(manifest, dtype=np.uint8)
        _chunked(file, "manifest", content, content.shape)
        for name, trajectory, attributes in shards:
            group = file.create_group(f"trajectories/{name}")
            _write(group, trajectory, None, {"format": _FORMAT, **attributes})


# File format 1.10: its headers have checksums, and no times are recorded.
_LIBVER = ("v110", "v110")


def _writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; make it")


@contextmanager
def _whole_file(path: Path, size: int) -> Iterator[h5py.File]:
    """A file that takes its place if all goes well, after a test that the disk has room for it."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with aside.open("wb") as room:
            os.posix_fallocate(room.fileno(), 0, size)
        with h5py.File(aside, "w", libver=_LIBVER) as file:
            yield file
        _sync(aside)
        os.replace(aside, path)
        _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(
    file: h5py.Group,
    trajectory: Trajectory,
    dtype: str | None,
    attributes: Mapping[str, str | int | float],
) -> None:
    _attributes(file, {"format_version": _VERSION, **attributes})
    _names(file, trajectory.channels, trajectory.units)
    _attributes(file.create_group("parameters"), trajectory.parameters)
    _dataset(file, "times", trajectory.times, None)
    _dataset(file, "u", trajectory.u, dtype)
    for name in _SERIES:
        value = getattr(trajectory, name)
        if value is not None:
            _dataset(file, name, value, dtype)
    mesh = file.create_group("mesh")
    _names(mesh, trajectory.mesh.channels, trajectory.mesh.units)
    for name in _MESH:
        if name in trajectory.mesh:
            _dataset(mesh, name, trajectory.mesh[name], dtype)
    for name in _GROUPS:
        if name in trajectory.mesh:
            group = mesh.create_group(name)
            for kind, index in sorted(trajectory.mesh[name].items()):
                _dataset(group, kind, index, None)


def _names(group: h5py.Group, channels: tuple[str, ...], units: tuple[str, ...]) -> None:
    _attributes(group, {"channels": json.dumps(channels), "units": json.dumps(units)})


def _attributes(group: h5py.Group, attributes: Mapping[str, str | int | float]) -> None:
    for name, value in sorted(attributes.items()):
        if isinstance(value, str):
            # Fixed length: text of variable length would lie in a heap without a checksum.
            data = value.encode()
            kind = h5py.string_dtype("utf-8", max(len(data), 1))
            group.attrs.create(name, np.array(data, dtype=kind), dtype=kind)
        else:
            group.attrs.create(name, value)


def _dataset(group: h5py.Group, name: str, value: Tensor, dtype: str | None) -> None:
    array = value.detach().cpu().numpy()
    if dtype is not None and array.dtype.kind == "f":
        array = array.astype(dtype)
    if array.size == 0:  # cannot be chunked, and has nothing to protect
        group.create_dataset(name, data=array)
        return
    # One frame is one chunk, so that a frame can be read alone.
    chunks = (1, *array.shape[1:]) if array.ndim > 2 else array.shape
    _chunked(group, name, array, chunks)


def _chunked(group: h5py.Group, name: str, array: Any, chunks: tuple[int, ...]) -> None:
    # A chunk gets its place in the file when it is flushed. Left to the end of the object, that
    # place would depend on who else holds it, e.g. a profiler that looks at our frames.
    group.create_dataset(name, data=array, chunks=chunks, fletcher32=True).flush()


def read_trajectory(
    path: str | Path, name: str | None = None, *, frames: range | None = None
) -> Trajectory:
    """Read a trajectory that :func:`write_trajectory` wrote, or one of a packed file.

    Args:
        path: the file.
        name: name of the trajectory in a packed file.
        frames: frames to read, all if omitted; the others are not touched.

    Raises:
        InputError: naming the file, if it is missing, truncated, damaged or of another format.
    """
    with _Shard(Path(path), _FORMAT if name is None else _PACKED) as file:
        group = file if name is None else file[f"trajectories/{name}"]
        return _read(group, Path(path).stat().st_size, frames)


def count_frames(path: str | Path, name: str | None = None) -> int:
    """Frames of a trajectory, without reading it.

    Raises:
        InputError: as :func:`read_trajectory`.
    """
    with _Shard(Path(path), _FORMAT if name is None else _PACKED) as file:
        return len((file if name is None else file[f"trajectories/{name}"])["times"])


def read_packed_manifest(path: str | Path) -> bytes:
    """The manifest of a packed file.

    Raises:
        InputError: as :func:`read_trajectory`.
    """
    with _Shard(Path(path), _PACKED) as file:
        return _tensor(file["manifest"], Path(path).stat().st_size).numpy().tobytes()


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a trajectory's file and its parameters, without its values.

    Raises:
        InputError: as :func:`read_trajectory`.
    """
    with _Shard(Path(path)) as file:
        parameters = {name: float(value) for name, value in file["parameters"].attrs.items()}
        return {**_plain(file), "parameters": parameters}


def read_num_points(path: str | Path, name: str | None = None) -> int:
    """Points of all frames of a trajectory, without reading its values.

    Args:
        path: the file.
        name: name of the trajectory in a packed file.

    Raises:
        InputError: as :func:`read_trajectory`.
    """
    with _Shard(Path(path), _FORMAT if name is None else _PACKED) as file:
        group = file if name is None else file[f"trajectories/{name}"]
        frames, points, _ = group["u"].shape
        return int(frames * points)


def stored_kind(path: str | Path) -> Literal["trajectory", "set", ""]:
    """Whether a file holds one trajectory, a packed set, or neither (or nothing readable)."""
    try:
        with h5py.File(path, "r") as file:
            kind = _plain(file).get("format")
    except Exception:  # not HDF5, or damaged: whoever reads it says what is wrong
        return ""
    if kind == _FORMAT:
        return "trajectory"
    return "set" if kind == _PACKED else ""


class _Shard:
    """Opens a shard; whatever HDF5 says of a damaged file becomes one error that names it."""

    def __init__(self, path: Path, kind: str = _FORMAT) -> None:
        self.path = path
        self.kind = kind

    def __enter__(self) -> h5py.File:
        if not self.path.is_file():
            raise InputError(f"there is no trajectory file {self.path}; check the path")
        try:
            self.file = h5py.File(self.path, "r")
        except (OSError, RuntimeError, ValueError) as error:
            raise self._damaged(error) from error
        try:
            found = _plain(self.file)
        except Exception as error:
            self.file.close()
            raise self._damaged(error) from error
        if found.get("format") != self.kind or found.get("format_version") != _VERSION:
            self.file.close()
            raise InputError(
                f"{self.path} has format {found.get('format')} version "
                f"{found.get('format_version')}; expected {self.kind} version {_VERSION}"
            )
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.file.close()
        # A flipped bit in a header can surface as nearly any exception of h5py or torch.
        if isinstance(error, Exception):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return InputError(
            f"{self.path} is damaged or not a trajectory file ({reason}); if it was generated, "
            "delete it and generate it again"
        )


def _plain(group: h5py.Group) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in group.attrs.items():
        if isinstance(value, bytes):
            result[name] = value.decode()
        else:
            result[name] = value.item() if isinstance(value, np.generic) else value
    return result


def _read(file: h5py.Group, size: int, frames: range | None) -> Trajectory:
    cut = None if frames is None else slice(frames.start, frames.stop, frames.step)
    mesh = file["mesh"]
    names, mesh_names = _plain(file), _plain(mesh)
    known: dict[str, Any] = {name: _tensor(mesh[name], size) for name in _MESH if name in mesh}
    for name in _GROUPS:
        if name in mesh:
            known[name] = {kind: _tensor(mesh[name][kind], size) for kind in mesh[name]}
    field = PointField(
        channels=json.loads(mesh_names["channels"]),
        units=json.loads(mesh_names["units"]),
        **known,
    )
    return Trajectory(
        mesh=field,
        times=_tensor(file["times"], size, cut),
        u=_tensor(file["u"], size, cut),
        channels=tuple(json.loads(names["channels"])),
        units=tuple(json.loads(names["units"])),
        parameters={name: float(value) for name, value in file["parameters"].attrs.items()},
        **{name: _tensor(file[name], size, cut) for name in _SERIES if name in file},
    )


def _tensor(dataset: h5py.Dataset, size: int, cut: slice | None = None) -> Tensor:
    if dataset.nbytes > size:  # before memory is taken for it
        raise ValueError(f"{dataset.name} claims {dataset.nbytes} bytes in a file of {size}")
    return torch.from_numpy(np.asarray(dataset[() if cut is None else cut]))
