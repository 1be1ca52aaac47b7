"""Reading generated data sets."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from cst_operator.datasets.store import read_trajectory
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = ["TrajectoryDataset", "read_manifest"]

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "cst_operator.trajectories"
MANIFEST_VERSION = 1


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a generated set.

    Raises:
        InputError: if there is none, or it is damaged or of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder} has no {MANIFEST}, so it is not a data set; make one with cst generate"
        )
    try:
        manifest = json.loads(path.read_bytes())
        found = manifest["format"], manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); generate the set again") from error
    if found != (MANIFEST_FORMAT, MANIFEST_VERSION):
        raise InputError(
            f"{path} has format {found[0]} version {found[1]}; "
            f"expected {MANIFEST_FORMAT} version {MANIFEST_VERSION}"
        )
    return dict(manifest)


class TrajectoryDataset(Sequence[Trajectory]):
    """The trajectories of a generated set, read from their files when asked for.

    Slices and :meth:`split` give data sets over the same files.

    Args:
        path: folder that :func:`~cst_operator.datasets.generation.generate` wrote.

    Raises:
        InputError: if the folder holds no set, an incomplete one, or no solution at all.
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
        return read_trajectory(self.path / self._shards[index]["file"])

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
        """Compare every file with its digest in the manifest.

        Raises:
            InputError: naming the first file that is missing or differs.
        """
        for shard in self._shards:
            path = self.path / shard["file"]
            if not path.is_file():
                raise InputError(f"{path} is missing; generate the set again to restore it")
            if hashlib.sha256(path.read_bytes()).hexdigest() != shard["sha256"]:
                raise InputError(f"{path} was changed; generate the set again to restore it")
