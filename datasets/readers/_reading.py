"""What the readers share: errors that name the file, lazy sequences, reads of checked size."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers import _hdf5_check
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = [
    "DEFLATE",
    "LazyTrajectories",
    "check_attributes",
    "check_stored",
    "default_names",
    "existing",
    "map_array",
    "needs",
    "open_hdf5",
    "read_array",
    "reading",
    "sorted_frames",
    "tensor",
]

# No deflate stream unpacks to more than this many times its size (zlib's documentation).
DEFLATE = 1032


def existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise InputError(f"{path}: not a file; name the data file itself")
    return path


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Put the file's name (and the sample's) before the message of what is wrong with it."""
    place = f"{path}: {what}: " if what else f"{path}: "
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}{error}") from error.__cause__
    except ImportError:
        raise
    except IndexError as error:
        raise InputError(f"{place}cannot be read ({_line(error)}); copy it again") from error
    except Exception as error:  # a damaged file can surface as nearly any exception of its library
        raise InputError(f"{place}cannot be read ({_line(error)}); copy it again") from error


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split())[:200]
    return words or type(error).__name__


def needs(package: str, extra: str) -> InputError:
    """The error of a reader whose optional library is missing."""
    return InputError(
        f"this format is read by {package}, which is not installed; "
        f"pip install 'cst-operator[{extra}]'"
    )


class LazyTrajectories(Sequence[Trajectory]):
    """Trajectories of one file, each read when it is asked for; slices read nothing.

    Args:
        path: the file, for messages.
        read: reads the sample of a number; picklable, so that loaders can send it to workers.
        indices: numbers of the samples.
    """

    def __init__(self, path: Path, read: Callable[[int], Trajectory], indices: range) -> None:
        self.path = path
        self._read = read
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyTrajectories": ...
    def __getitem__(self, index: int | slice) -> "Trajectory | LazyTrajectories":
        if isinstance(index, slice):
            return LazyTrajectories(self.path, self._read, self._indices[index])
        number = self._indices[index]
        with reading(self.path, f"sample {number}"):
            return self._read(number)


def open_hdf5(path: Path) -> h5py.File:
    if not h5py.is_hdf5(path):
        raise InputError("it is not an HDF5 file; check that it was copied completely")
    return h5py.File(path, "r")


def check_attributes(path: Path, timeout: float = 8.0) -> None:
    """Refuse an HDF5 file whose attributes crash or hang HDF5, which damaged text can do."""
    command = [sys.executable, "-P", _hdf5_check.__file__, str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError("its attributes cannot be read in time; copy it again") from error
    if done.returncode:
        raise InputError("its attributes cannot be read; copy it again")


def check_stored(dataset: h5py.Dataset) -> None:
    """Refuse a data set that claims more values than the file can hold."""
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > stored * (DEFLATE if dataset.compression else 1):
        raise InputError(
            f"{dataset.name} claims {dataset.nbytes:,} bytes but {stored:,} are stored; "
            "the file is incomplete, so copy it again"
        )


def read_array(dataset: Any, index: Any = ()) -> NDArray[Any]:
    """Some of a data set of numbers, after a look at what is stored."""
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{dataset.name} is a group; expected an array")
    if dataset.dtype.kind not in "iufb":
        raise InputError(f"{dataset.name} holds {dataset.dtype}; expected numbers")
    check_stored(dataset)
    return np.asarray(dataset[index])


def default_names(count: int, alone: str = "u") -> list[str]:
    """Names of channels that a file does not name, ``alone`` if there is one."""
    return [alone] if count == 1 else [f"u{i}" for i in range(count)]


def map_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, mapped: what is not looked at is not read."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb":
        raise InputError("it does not hold one array of numbers; is it an .npz file?")
    return array


def tensor(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of its own memory; numpy's big-endian and unsigned types become torch's."""
    if array.dtype.kind in "ub" or not array.dtype.isnative:
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array)).to(dtype)


def sorted_frames(
    times: NDArray[np.floating], frames: NDArray[Any]
) -> tuple[NDArray[np.floating], NDArray[Any]]:
    """Frames, [T, ...], in the order of their times; equal times are refused later."""
    if bool((np.diff(times) > 0).all()):
        return times, frames
    order = np.argsort(times, kind="stable")
    return times[order], frames[order]
