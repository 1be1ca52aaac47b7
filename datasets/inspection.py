"""What is in a set of trajectories and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.fields import Trajectory
from cst_operator.mesh_report import ChannelRange, mesh_report

__all__ = ["SetReport", "inspect_trajectories"]

_SPREADS = 10.0  # how far beyond the middle 98 % of the values an outlier lies, in their range


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """Counts, ranges and defects of a set of trajectories.

    Args:
        num_trajectories: trajectories in the set.
        num_readable: those that could be read.
        num_frames: smallest and largest number of frames.
        num_points: smallest and largest number of points.
        static_channels: names of the channels that do not change in time.
        channels: ranges of the solution's channels over all readable trajectories.
        problems: what makes a trajectory unusable: damaged files, values that are not finite, times
            that do not increase, degenerate or duplicate cells, channels, units, dimensions or
            precisions that differ from the first one's. One line each, with the sample's number.
        warnings: what may be meant: frames equal to the one before, channels that never vary,
            outliers, inverted or concave cells, repeated points, points of no cell.
    """

    num_trajectories: int
    num_readable: int
    num_frames: tuple[int, int]
    num_points: tuple[int, int]
    static_channels: tuple[str, ...]
    channels: tuple[ChannelRange, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every trajectory can be used."""
        return not self.problems


def inspect_trajectories(trajectories: Sequence[Trajectory]) -> SetReport:
    r"""Read every trajectory once and look for defects; never raises for a bad one.

    An outlier lies farther from the range of the middle 98 % of a channel's values (over all frames
    and points of its trajectory) than ten times the width of that range.

    Args:
        trajectories: any sequence, e.g. a generated set or what a reader returns.
    """
    problems: list[str] = []
    warnings: list[str] = []
    frames: list[int] = []
    points: list[int] = []
    ranges: list[tuple[Tensor, Tensor, Tensor]] = []
    first: Trajectory | None = None
    for index in range(len(trajectories)):
        try:
            one = trajectories[index]
        except InputError as error:
            problems.append(f"sample {index}: {error}")
            continue
        first = first or one
        problems += [f"sample {index}: {words}" for words in differences(first, one)]
        bad, odd = _defects(one)
        problems += [f"sample {index}: {words}" for words in bad]
        warnings += [f"sample {index}: {words}" for words in odd]
        frames.append(one.num_frames)
        points.append(one.mesh.num_points)
        if one.u.numel() and one.channels == first.channels:
            flat = one.u.double().flatten(0, 1)
            ranges.append((flat.amin(0), flat.mean(0), flat.amax(0)))
    return SetReport(
        num_trajectories=len(trajectories),
        num_readable=len(frames),
        num_frames=(min(frames, default=0), max(frames, default=0)),
        num_points=(min(points, default=0), max(points, default=0)),
        static_channels=() if first is None else first.mesh.channels,
        channels=_ranges(first, ranges),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def differences(first: Trajectory, other: Trajectory) -> list[str]:
    """What keeps two trajectories from being learnt from together, one line each."""
    pairs = (
        ("channels", first.channels, other.channels),
        ("units", first.units, other.units),
        ("static channels", first.mesh.channels, other.mesh.channels),
        ("units of the static channels", first.mesh.units, other.mesh.units),
        ("dimensions", first.mesh.dim, other.mesh.dim),
        ("precision", first.u.dtype, other.u.dtype),
        ("precision of the coordinates", first.mesh.pos.dtype, other.mesh.pos.dtype),
    )
    return [
        f"{what} {_text(b)} differ from the first sample's {_text(a)}"
        for what, a, b in pairs
        if a != b
    ]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(repr(item) for item in value) or "none"
    return str(value)


def _ranges(
    first: Trajectory | None, found: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[ChannelRange, ...]:
    if first is None or not found:
        return ()
    lower = torch.stack([low for low, _, _ in found]).amin(0)
    mean = torch.stack([middle for _, middle, _ in found]).mean(0)
    upper = torch.stack([high for _, _, high in found]).amax(0)
    return tuple(
        ChannelRange(
            name=name,
            unit=unit,
            minimum=float(lower[i]),
            mean=float(mean[i]),
            maximum=float(upper[i]),
        )
        for i, (name, unit) in enumerate(zip(first.channels, first.units, strict=True))
    )


def _defects(one: Trajectory) -> tuple[list[str], list[str]]:
    """What makes a trajectory unusable, and what may be meant."""
    report = mesh_report(one.mesh)
    bad, odd = list(report.problems), list(report.notes)
    for i, name in enumerate(one.channels):
        u = one.u[:, :, i].double()
        same = (u[1:] == u[:-1]).all(dim=1)
        if bool(same.any()):
            odd.append(
                f"{int(same.sum())} frames of {name!r} equal the one before, the first is frame "
                f"{int(same.nonzero()[0]) + 1}"
            )
        if u.numel() > 1 and float(u.amin()) == float(u.amax()):
            odd.append(f"{name!r} is {float(u.amin()):g} everywhere")
        where = _outliers(u)
        if len(where):
            frame, point = where[0].tolist()
            odd.append(
                f"{len(where)} outliers in {name!r}, the first in frame {frame} at point {point}"
            )
    return bad, odd


def _outliers(u: Tensor) -> Tensor:
    """Frames and points of values far outside of the others' range, [n, 2]."""
    values = u.flatten().numpy()
    lower, upper = np.quantile(values, [0.01, 0.99])
    reach = _SPREADS * (upper - lower)
    if reach == 0:
        return torch.empty(0, 2)
    return ((u < lower - reach) | (u > upper + reach)).nonzero()
