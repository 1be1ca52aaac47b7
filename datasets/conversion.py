"""Data sets of what others computed: files of meshes, series and data, or trajectories at hand."""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, NamedTuple, overload

import torch

from cst_operator._labels import label
from cst_operator.boundary import distance_to_boundary
from cst_operator.datasets._workers import Spawned
from cst_operator.datasets.generation import fill_set
from cst_operator.datasets.readers._reading import existing
from cst_operator.datasets.readers.by_suffix import holds_data, read_file
from cst_operator.datasets.store import Precision
from cst_operator.datasets.trajectories import MANIFEST, TrajectoryDataset
from cst_operator.errors import FieldError, InputError
from cst_operator.fields import Trajectory
from cst_operator.quadrature import with_weights

__all__ = ["CONVERTED", "TrajectoryFiles", "convert"]

CONVERTED = "converted"
"""What stands for the system in the manifest of a set that was converted."""

_FEW = 5


class TrajectoryFiles(Sequence[Trajectory]):
    """The trajectories of several files, one after the other, each read when it is asked for.

    Args:
        paths: what :func:`~cst_operator.datasets.readers.by_suffix.read_file` reads. A mesh file is
            a trajectory of one frame, a series is one, a data file may have many.
        fields: of meshes and series, the fields to read, see
            :func:`~cst_operator.mesh_files.read_mesh`.
        dtype: of coordinates and channels; torch's default if omitted.

    Raises:
        InputError: if there is no file, one is missing or named twice, or a data file cannot be
            opened.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        fields: Sequence[str] | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not paths:
            raise InputError("no file is named; give one or more")
        self.files = tuple(_File.of(Path(path)) for path in paths)
        for path, number in Counter(file.path.resolve() for file in self.files).items():
            if number > 1:
                raise InputError(f"{path} is named {number} times; name every file once")
        self.fields = None if fields is None else tuple(fields)
        self.dtype = dtype
        self._ends = list(accumulate(self._count(file) for file in self.files))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Sequence[Trajectory]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        file, number = self._place(index)
        return self._open(file)[number]

    def label(self, index: int) -> str:
        """The file of a trajectory, with its number in files that may have several."""
        file, number = self._place(index)
        return str(file.path) if file.single else f"{file.path}[{number}]"

    def digest(self) -> str:
        """Changes when the files do: a hash of their names, sizes and times of change.

        Of a series it is the file that lists the frames, not that of each frame.
        """
        named = [(str(file.path), file.size, file.changed) for file in self.files]
        text = repr((named, self.fields, self.dtype or torch.get_default_dtype()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _place(self, index: int) -> "tuple[_File, int]":
        """File of a trajectory and its number in it."""
        index = range(len(self))[index]
        which = bisect_right(self._ends, index)
        return self.files[which], index - (self._ends[which - 1] if which else 0)

    def _count(self, file: "_File") -> int:
        return 1 if file.single else len(self._open(file))

    def _open(self, file: "_File") -> Sequence[Trajectory]:
        return _opened(file, self.fields, self.dtype)


class _File(NamedTuple):
    path: Path
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> "_File":
        found = existing(path).stat()
        return cls(path, found.st_size, found.st_mtime_ns)

    @property
    def single(self) -> bool:
        """Whether it is a mesh or series, which is one trajectory."""
        return not holds_data(self.path)


@lru_cache(maxsize=1)  # a data file of many trajectories is opened once, as they come in turn
def _opened(
    file: _File, fields: tuple[str, ...] | None, dtype: torch.dtype | None
) -> Sequence[Trajectory]:
    return read_file(file.path, fields, dtype=dtype)


def convert(
    trajectories: Sequence[Trajectory],
    *,
    out: str | Path,
    static: Sequence[str] = (),
    distance: bool = False,
    shuffle: bool = True,
    workers: int = 1,
    dtype: Precision = "float64",
    licence: str = "",
    progress: bool = True,
) -> TrajectoryDataset:
    """Write trajectories to a folder as a data set, as ``generate`` does with a solver's.

    Points without weights get :func:`~cst_operator.quadrature.with_weights`. A trajectory that
    cannot be read or used, or has other channels, units or dimensions than the first that can, is
    no part of the set but in its manifest under "failures", with the reason. An interrupted
    conversion of :class:`TrajectoryFiles` continues when it is called again.

    Args:
        trajectories: what to write: :class:`TrajectoryFiles`, or any sequence.
        out: folder, made if it does not exist.
        static: channels that are given and do not change in time (coefficients, forcing, loads);
            they become channels of the mesh, which a task can read.
        distance: whether to add the distance to the boundary as a static channel "distance".
        shuffle: whether to write in a random order, the same for equally many, because the end of a
            set is taken for validation; the manifest tells under "config" where each one is from.
        workers: number of processes.
        dtype: precision of the stored values, "float64" or "float32".
        licence: what others may do with the set, an attribute of every file.
        progress: whether to show a progress bar on stderr.

    Returns:
        The data set.

    Raises:
        InputError: if there is nothing to write, none of the first few can be used, the folder
            holds something else, or a number is out of range.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    count = len(trajectories)
    if not count:
        raise InputError("there is no trajectory to write")
    files = trajectories if isinstance(trajectories, TrajectoryFiles) else None
    if files is None and (Path(out) / MANIFEST).is_file():
        raise InputError(f"{out} holds a data set; give another folder, or delete this one")
    order = list(range(count))
    if shuffle:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    labels = [files.label(i) if files else f"trajectory {i}" for i in order]
    prepared = _Prepared(trajectories, order, labels, static, distance)
    return fill_set(
        _Conversion(
            version=files.digest() if files else "1",
            trajectories=prepared,
            samples=tuple(labels),
            form=_common_form(prepared),
        ),
        sorted(range(count), key=order.__getitem__),  # in the order of the files
        out=out,
        seed=0,
        workers=Spawned(workers),
        refine=0,
        dtype=dtype,
        licence=licence,
        title="convert" if progress else "",
    )


class _Prepared:
    """Trajectories in some order, with their static channels and weights."""

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        order: Sequence[int],
        labels: Sequence[str],
        static: Sequence[str],
        distance: bool,
    ) -> None:
        self._trajectories = trajectories
        self._order = order
        self._labels = labels
        self._static = static
        self._distance = distance

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Trajectory:
        trajectory = self._trajectories[self._order[index]]  # its errors name the file
        try:
            return self._prepare(trajectory)
        except InputError as error:
            raise type(error)(f"{self._labels[index]}: {error}") from error

    def _prepare(self, trajectory: Trajectory) -> Trajectory:
        trajectory = _with_static(trajectory, self._static)
        if not trajectory.channels:
            raise FieldError(
                "it has no channel that a model is to answer; make fewer static, or name the "
                "fields of cells that are to be read"
            )
        mesh = trajectory.mesh
        if "weights" not in mesh:
            mesh = with_weights(mesh)
        if self._distance and "distance" not in mesh.channels:
            mesh = mesh.with_channels(distance_to_boundary(mesh)[:, None], ["distance"])
        return replace(trajectory, mesh=mesh)


def _with_static(trajectory: Trajectory, static: Sequence[str]) -> Trajectory:
    """The same with some of its channels moved to the mesh."""
    names = [name for name in static if name not in trajectory.mesh.channels]
    if not names:
        return trajectory
    given = trajectory.frame(0).select(*names)
    columns = [trajectory.channels.index(name) for name in names]
    values = trajectory.u[..., columns]
    for name, varies in zip(
        names, (values != values[0]).flatten(0, 1).any(0).tolist(), strict=True
    ):
        if varies:
            raise FieldError(f"the channel {name!r} changes in time, so it cannot be static")
    rest = [i for i, name in enumerate(trajectory.channels) if name not in names]
    known = {
        name: value[:, :, rest]
        for name in ("u", "gradient", "time_derivative")
        if (value := getattr(trajectory, name)) is not None
    }
    return replace(
        trajectory,
        mesh=trajectory.mesh.with_channels(given.u, given.channels, given.units),
        channels=tuple(trajectory.channels[i] for i in rest),
        units=tuple(trajectory.units[i] for i in rest),
        **known,
    )


class _Form(NamedTuple):
    """What all trajectories of a set have in common."""

    dim: int
    static: tuple[str, ...]
    channels: tuple[str, ...]

    @classmethod
    def of(cls, trajectory: Trajectory) -> "_Form":
        static, solved = (
            tuple(label(name, unit) for name, unit in zip(of.channels, of.units, strict=True))
            for of in (trajectory.mesh, trajectory)
        )
        return cls(trajectory.mesh.dim, static, solved)

    def __str__(self) -> str:
        static, solved = (", ".join(names) or "none" for names in (self.static, self.channels))
        return f"{self.dim} dimensions, static channels {static}, others {solved}"


def _common_form(trajectories: _Prepared) -> _Form:
    """The form of the first that can be used, which is one of the first few."""
    tried = min(_FEW, len(trajectories))
    first = None
    for index in range(tried):
        try:
            return _Form.of(trajectories[index])
        except InputError as error:
            first = first or error
    raise InputError(f"none of {tried} trajectories can be used; the first: {first}") from first


@dataclass(frozen=True, kw_only=True)
class _Conversion:
    """A system whose solutions are there already."""

    name: ClassVar[str] = CONVERTED
    version: str
    trajectories: _Prepared
    samples: tuple[str, ...]
    form: _Form

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """The trajectory of that number."""
        try:
            trajectory = self.trajectories[index]
        except InputError as error:
            raise FieldError(str(error)) from error
        form = _Form.of(trajectory)
        if form != self.form:
            raise FieldError(f"{self.samples[index]}: it has {form}; expected {self.form}")
        return trajectory
