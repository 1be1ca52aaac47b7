"""Files and locks on the file systems of clusters."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cst_operator._atomic import only_writer, write_atomically
from cst_operator.errors import InputError


def _nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let flock answer as on NFS, which locks only what is open for writing (man 2 flock)."""
    flock = fcntl.flock

    def like_nfs(handle: int, operation: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", like_nfs)


def test_a_folder_has_one_writer_and_keeps_no_file_of_the_lock(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process is writing to")
    with only_writer(tmp_path), refused, only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_folder_on_nfs_has_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nfs(monkeypatch)
    refused = pytest.raises(InputError, match="another process is writing to")
    with only_writer(tmp_path), refused, only_writer(tmp_path):
        pass
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    done = False
    with pytest.warns(UserWarning, match="has no locks"), only_writer(tmp_path):
        done = True
    assert done


def test_other_troubles_with_a_lock_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), only_writer(tmp_path / "none"):
        pass


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_files_are_as_open_as_the_user_wants_them(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
