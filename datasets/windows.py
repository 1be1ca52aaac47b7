"""Windows of some successive frames over trajectories, as examples to train on."""

import copy
from collections.abc import Sequence
from typing import overload

from cst_operator.datasets.trajectories import TrajectoryDataset
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = ["Windows"]


class Windows(Sequence[Trajectory]):
    """All windows of a length over trajectories, in order; of generated sets, only they are read.

    The windows of a trajectory begin at frames 0, ``stride``, 2 ``stride``, ...; frames after the
    last whole window are left out. Times stay those of the trajectory.

    Args:
        trajectories: a generated set, whose windows are read from the disk frame by frame, or any
            sequence, of which every item is asked once for its number of frames.
        length: frames of a window.
        stride: frames from one window to the next.

    Raises:
        InputError: if a number is below 1, or a trajectory has fewer frames than a window.
    """

    def __init__(self, trajectories: Sequence[Trajectory], length: int, *, stride: int = 1) -> None:
        if length < 1 or stride < 1:
            raise InputError(f"length is {length} and stride {stride}; expected at least 1")
        self.trajectories = trajectories
        self.length = length
        self._starts: list[tuple[int, int]] = []
        for number in range(len(trajectories)):
            frames = (
                trajectories.num_frames(number)
                if isinstance(trajectories, TrajectoryDataset)
                else trajectories[number].num_frames
            )
            if frames < length:
                raise InputError(
                    f"trajectory {number} has {frames} frames, fewer than a window of {length}; "
                    "take a shorter window"
                )
            self._starts += [(number, start) for start in range(0, frames - length + 1, stride)]

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> "Windows": ...
    def __getitem__(self, index: int | slice) -> "Trajectory | Windows":
        if isinstance(index, slice):
            part = copy.copy(self)
            part._starts = self._starts[index]
            return part
        number, start = self._starts[index]
        frames = range(start, start + self.length)
        if isinstance(self.trajectories, TrajectoryDataset):
            return self.trajectories.read(number, frames)
        return self.trajectories[number].window(frames)
