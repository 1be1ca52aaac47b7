"""Public data sets by name: fetched once, checked, and read from the cache from then on."""

import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cst_operator.datasets.public_files import PUBLIC, PublicFile
from cst_operator.errors import InputError

__all__ = ["fetch", "load_public"]


def fetch(
    name: str, *, cache: str | Path | None = None, registry: Mapping[str, PublicFile] | None = None
) -> Path:
    """The path of a public file, which is downloaded if it is nowhere yet (needs ``public``).

    A file of that name below the folder ``CST_DATA`` is taken first, then one in the cache; both
    only with the right digest. Without either, the file is downloaded to the cache, after a line on
    standard error with its licence and source. Once it is there, no network is needed. All files of
    an archive that have an entry are kept, the archive is not.

    Args:
        name: a key of :data:`~cst_operator.datasets.public_files.PUBLIC`.
        cache: folder of downloads; by default the environment variable ``CST_CACHE``, else the
            user's cache folder.
        registry: other entries than :data:`~cst_operator.datasets.public_files.PUBLIC`.

    Raises:
        InputError: if the name is unknown, pooch is not installed, or the file cannot be had or
            has another content.
    """
    entries = PUBLIC if registry is None else registry
    if name not in entries:
        raise InputError(f"there is no public data set {name!r}; choose from {', '.join(entries)}")
    entry = entries[name]
    given = _given(entry)
    if given is not None:
        return given
    try:
        import pooch
    except ImportError as error:
        raise InputError(
            f"{name} is fetched by pooch, which is not installed; "
            "pip install 'cst-operator[public]', or set CST_DATA to a folder that holds "
            f"{entry.name}"
        ) from error
    folder = Path(cache or os.environ.get("CST_CACHE") or pooch.os_cache("cst_operator"))
    if (folder / entry.name).is_file() and _digest(folder / entry.name, entry) == entry.digest:
        return folder / entry.name
    print(f"{name}: {entry.licence}; {entry.source}; from {entry.url}", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")
    try:
        if entry.archived:
            archive = Path(pooch.retrieve(entry.url, None, fname=f"{entry.name}.tar", path=folder))
            of_it = (other for other in entries.values() if other.url == entry.url)
            _unpack(archive, entry.name, of_it)
        else:
            pooch.retrieve(entry.url, entry.digest, fname=entry.name, path=folder)
    except Exception as error:  # of requests, urllib3, ftplib or pooch itself
        words = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be fetched ({words}); try again, or put {entry.name} into a folder and "
            "name that folder in CST_DATA"
        ) from error
    return folder / entry.name


def load_public(name: str, *, cache: str | Path | None = None, **options: Any) -> Any:
    """Fetch a public file, and those beside it, and read it with its format's reader.

    Args:
        name: a key of :data:`~cst_operator.datasets.public_files.PUBLIC`.
        cache: as in :func:`fetch`.
        options: further arguments of the reader.

    Returns:
        What the reader returns: a trajectory, a sequence of them, or the field of a mesh file.

    Raises:
        InputError: as :func:`fetch` and the reader.
    """
    path = fetch(name, cache=cache)
    beside = [fetch(e.name, cache=cache, registry={e.name: e}) for e in PUBLIC[name].beside]
    return PUBLIC[name].read(path, *beside, **options)


def _given(entry: PublicFile) -> Path | None:
    root = os.environ.get("CST_DATA")
    if not root:
        return None
    for path in sorted(Path(root).rglob(entry.name)):
        if path.is_file() and _digest(path, entry) == entry.digest:
            return path
    return None


def _unpack(archive: Path, name: str, entries: Iterable[PublicFile]) -> None:
    """Take files out of an archive, each kept only with the right content, and remove it."""
    wanted = {entry.name: entry for entry in entries}
    temporary = archive.with_suffix(".part")
    try:
        with tarfile.open(archive) as content:
            for item in content:
                entry = wanted.get(PurePosixPath(item.name).name)
                source = content.extractfile(item) if item.isreg() else None
                if entry is None or source is None:
                    continue
                with temporary.open("wb") as file:
                    shutil.copyfileobj(source, file)
                if _digest(temporary, entry) == entry.digest:
                    os.replace(temporary, archive.parent / entry.name)
                    del wanted[entry.name]
    finally:
        temporary.unlink(missing_ok=True)
        archive.unlink()
    if name in wanted:
        raise ValueError(f"the archive holds no {name} with {wanted[name].digest}")


def _digest(path: Path, entry: PublicFile) -> str:
    kind = entry.digest.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
