"""Reading generated data sets."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from cst_operator.datasets.store import (
    count_frames,
    read_attributes,
    read_num_points,
    read_packed_manifest,
    read_trajectory,
    write_packed,
)
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = ["TrajectoryDataset", "pack", "read_manifest"]

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "cst_operator.trajectories"
MANIFEST_VERSION = 2  # since 2 it has a digest of itself
_FILE = re.compile(r"\d{6,}\.h5")


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a generated set.

    Args:
        path: folder of the set, or the file that it was packed into.

    Raises:
        InputError: if there is none, or it is damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        if not (path / MANIFEST).is_file():
            raise InputError(
                f"{path} has no {MANIFEST}, so it is not a data set; make one with cst generate, "
                "or with cst convert of files that others wrote"
            )
        path /= MANIFEST
    try:
        content = path.read_bytes() if path.name == MANIFEST else read_packed_manifest(path)
        manifest = json.loads(content)
        found = manifest["format"], manifest["format_version"]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); generate the set again") from error
    if found != (MANIFEST_FORMAT, MANIFEST_VERSION):
        raise InputError(
            f"{path} has format {found[0]} version {found[1]}; "
            f"expected {MANIFEST_FORMAT} version {MANIFEST_VERSION}; generate the set again"
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise InputError(f"{path} was changed; generate the set again to restore it")
    for shard in manifest["shards"]:
        if not _FILE.fullmatch(shard["file"]):  # never a path to elsewhere
            raise InputError(f"{path} names the file {shard['file']!r}; generate the set again")
    return dict(manifest)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its digest, written in one way."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class TrajectoryDataset(Sequence[Trajectory]):
    """The trajectories of a generated set, read from their files when asked for.

    Slices and :meth:`split` give data sets over the same files.

    Args:
        path: folder that :func:`~cst_operator.datasets.generation.generate` wrote, or file that
            :func:`pack` wrote.

    Raises:
        InputError: if the place holds no set, an incomplete one, or no solution at all.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(path)
        """What was generated: system, config, seed, failures, rejection rate, digests."""
        self._shards: list[dict[str, Any]] = self.manifest["shards"]
        absent = self.manifest["n"] - len(self._shards) - len(self.manifest["failures"])
        if absent:
            raise InputError(
                f"{path} lacks {absent} of {self.manifest['n']} samples because its generation was "
                "interrupted; run it again to continue"
            )
        if not self._shards:
            reason = self.manifest["failures"][0]["reason"]
            raise InputError(f"{path} holds no solution; the first failure was: {reason}")

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> "TrajectoryDataset": ...
    def __getitem__(self, index: int | slice) -> "Trajectory | TrajectoryDataset":
        if isinstance(index, slice):
            return self._part(self._shards[index])
        return self.read(index)

    def read(self, index: int, frames: range | None = None) -> Trajectory:
        """A trajectory, or some of its frames, for which the others are not read.

        Raises:
            InputError: naming the file, if it is missing or damaged.
        """
        return read_trajectory(*self._place(self._shards[index]), frames=frames)

    def num_frames(self, index: int) -> int:
        """Frames of a trajectory, which is not read for it."""
        return count_frames(*self._place(self._shards[index]))

    def _place(self, shard: dict[str, Any]) -> tuple[Path, str | None]:
        """File and name in it."""
        if self.path.is_file():
            return self.path, Path(shard["file"]).stem
        return self.path / shard["file"], None

    def numbers_of_points(self) -> list[int]:
        """Points of all frames of every trajectory, without reading their values."""
        return [read_num_points(*self._place(shard)) for shard in self._shards]

    def _part(self, shards: list[dict[str, Any]]) -> "TrajectoryDataset":
        part = object.__new__(TrajectoryDataset)
        part.path, part.manifest, part._shards = self.path, self.manifest, shards
        return part

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the samples in the generated set; failed ones are missing."""
        return tuple(shard["index"] for shard in self._shards)

    def split(self, *sizes: int) -> tuple["TrajectoryDataset", ...]:
        """Consecutive parts of these sizes; samples are independent, so any part is random.

        Raises:
            InputError: if a size is negative or there are fewer samples than asked for.
        """
        if min(sizes, default=0) < 0 or sum(sizes) > len(self):
            raise InputError(
                f"sizes {sizes} add up to {sum(sizes)} but {self.path} has {len(self)} samples; "
                "generate more or ask for fewer"
            )
        parts, start = [], 0
        for size in sizes:
            parts.append(self[start : start + size])
            start += size
        return tuple(parts)

    def verify(self) -> None:
        """Check every checksum: digests of files, or checksums inside of a packed file.

        Raises:
            InputError: naming the first file or trajectory that is missing or differs, and how many
                do.
        """
        wrong = [words for words in map(self._damage, self._shards) if words]
        if wrong:
            more = f" (and {len(wrong) - 1} more of {len(self)})" if len(wrong) > 1 else ""
            raise InputError(f"{wrong[0]}{more}; generate the set again to restore it")

    def _damage(self, shard: dict[str, Any]) -> str:
        if self.path.is_file():
            try:
                read_trajectory(*self._place(shard))
            except InputError as error:
                return f"{Path(shard['file']).stem}: {error}"
            return ""
        path = self.path / shard["file"]
        if not path.is_file():
            return f"{path} is missing"
        with path.open("rb") as file:
            changed = hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]
        return f"{path} was changed" if changed else ""


def pack(folder: str | Path, out: str | Path) -> TrajectoryDataset:
    """Join the files of a generated set into one, which is read and trained from like the set.

    Every file is checked before; the set itself stays as it is.

    Args:
        folder: the set.
        out: the file to write, e.g. ``heat.h5``.

    Raises:
        InputError: if the set is incomplete or damaged, or is a packed file already.
    """
    if Path(folder).is_file():
        raise InputError(f"{folder} is packed already; copy it")
    data = TrajectoryDataset(folder)
    data.verify()
    files = [data.path / shard["file"] for shard in data._shards]
    write_packed(
        out,
        (data.path / MANIFEST).read_bytes(),
        ((file.stem, read_trajectory(file), _own(read_attributes(file))) for file in files),
        # Nearly the sum: headers of files become headers of groups.
        size=sum(file.stat().st_size for file in files) + 2**20,
    )
    return TrajectoryDataset(out)


def _own(attributes: dict[str, Any]) -> dict[str, str | int | float]:
    """What the writer of a trajectory added to its attributes."""
    taken = ("format", "format_version", "channels", "units", "parameters")
    return {name: value for name, value in attributes.items() if name not in taken}
