"""Files that a reader finds either old or new, never half written."""

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from cst_operator.errors import InputError

__all__ = ["only_writer", "write_atomically"]

# What file systems without locks answer, such as some mounts of Lustre and NFS.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder against other writers; the lock ends with the process.

    The lock leaves no file but on NFS, where it is on the file ``.lock``, as NFS locks only what is
    open for writing. A file system without locks gets a warning.

    Raises:
        InputError: if another process holds it.
    """
    handle = None
    try:
        try:
            handle = _locked(folder, os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            handle = _locked(folder / ".lock", os.O_RDWR | os.O_CREAT)
    except BlockingIOError as error:
        raise InputError(
            f"another process is writing to {folder}; wait for it, or give another folder"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {folder} has no locks; let no other process write there",
            stacklevel=4,  # past this function and what contextlib makes of it
        )
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(path: Path, flags: int) -> int:
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write a whole file aside, flush it to the disk and move it into place.

    The folder is made if missing. Text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    try:
        with aside.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path
