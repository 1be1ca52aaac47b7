"""Files that a reader finds either old or new, never half written."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cst_operator.errors import InputError

__all__ = ["only_writer", "write_atomically"]


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder against other writers; the lock ends with the process and leaves no file.

    Raises:
        InputError: if another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing to {folder}; wait for it, or give another folder"
            ) from error
        yield
    finally:
        os.close(handle)


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write a whole file aside, flush it to the disk and move it into place.

    The folder is made if missing. Text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that only the owner reads
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
