"""Interpolation as a peer: callables ``model(source, target) -> [M, c]`` without training.

Every one answers the channels that the target names, which the source must have; a target without
channels gets them all. Sources and targets may be PyG batches.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, LinearNDInterpolator, RBFInterpolator, interp1d
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor

from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField
from cst_operator.peers.samples import Sample, channel_names, samples

__all__ = ["CubicSplineInTime", "LinearInterpolation", "Nearest", "ThinPlateSpline"]

Array = NDArray[np.float64]


class _Interpolation(ABC):
    """Splits batches, picks channels, and keeps device and precision."""

    def __call__(self, source: PointField, target: PointField) -> Tensor:
        """Interpolate to the target's points.

        Args:
            source: known field, or a PyG batch of fields.
            target: query points, M in all.

        Returns:
            One row per query point, [M, c].

        Raises:
            FieldError: if the source lacks a wanted channel or does not suit the method.
        """
        known, wanted = channel_names(source), channel_names(target)
        missing = [name for name in wanted if name not in known]
        if missing:
            raise FieldError(
                f"{type(self).__name__} cannot answer {', '.join(missing)}: the source has "
                f"{', '.join(known) or 'no channels'}; interpolation needs what it answers"
            )
        columns = [known.index(name) for name in wanted or known]
        pairs = zip(samples(source), samples(target), strict=True)
        rows = [self._answer(a._replace(u=a.u[:, columns]), b) for a, b in pairs]
        return torch.cat([torch.from_numpy(row).to(target.pos) for row in rows])

    @abstractmethod
    def _answer(self, source: Sample, target: Sample) -> Array:
        """Values at one sample's query points, [M, c]."""


@dataclass(frozen=True)
class Nearest(_Interpolation):
    """The value of the nearest point of the nearest frame."""

    def _answer(self, source: Sample, target: Sample) -> Array:
        pos, time, u = _arrays(source)
        query, when, _ = _arrays(target)
        frames = np.unique(time)
        chosen = frames[np.abs(when[:, None] - frames).argmin(axis=1)]
        out = np.empty((len(query), u.shape[1]))
        for frame in np.unique(chosen):
            here, asked = time == frame, chosen == frame
            out[asked] = u[here][cKDTree(pos[here]).query(query[asked])[1]]
        return out


@dataclass(frozen=True)
class LinearInterpolation(_Interpolation):
    """Linear in time between frames, linear in space on a Delaunay triangulation.

    Outside the convex hull of the points the nearest one counts, outside the times the first or
    last frame. Several frames must know the same points, in the same order.
    """

    def _answer(self, source: Sample, target: Sample) -> Array:
        return _in_time_then_space(source, target, cubic=False)


@dataclass(frozen=True)
class CubicSplineInTime(_Interpolation):
    """A cubic spline through the frames at every point (not-a-knot), linear in space.

    Outside the times the first or last frame counts. With two or three frames the spline is the
    polynomial through them.
    """

    def _answer(self, source: Sample, target: Sample) -> Array:
        return _in_time_then_space(source, target, cubic=True)


@dataclass(frozen=True)
class ThinPlateSpline(_Interpolation):
    r"""The interpolant of least bending, :math:`r^2 \log r` plus a linear polynomial, in space.

    Exact: it solves one dense system of N equations. Above ``dense_limit`` points each query uses
    its ``neighbors`` nearest points instead, which is no longer smooth everywhere. In time it takes
    the source's one frame as it is.

    Args:
        dense_limit: largest N that is solved exactly.
        neighbors: points that a query uses above it.
    """

    dense_limit: int = 3000
    neighbors: int = 64

    def __post_init__(self) -> None:
        if self.neighbors < 4:
            raise ConfigError(f"neighbors is {self.neighbors}; a plane in space needs at least 4")

    def _answer(self, source: Sample, target: Sample) -> Array:
        pos, time, u = _arrays(source)
        query = _arrays(target)[0]
        if len(np.unique(time)) > 1:
            raise FieldError(
                "ThinPlateSpline interpolates in space but the source spans several times; give one"
            )
        neighbors = None if len(pos) <= self.dense_limit else self.neighbors
        center, scale = pos.mean(axis=0), np.ptp(pos, axis=0).max() or 1.0
        try:
            spline = RBFInterpolator(
                (pos - center) / scale, u, kernel="thin_plate_spline", neighbors=neighbors
            )
            answer: Array = spline((query - center) / scale)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise FieldError(
                f"no thin-plate spline goes through the {len(pos)} points of the source; "
                "it needs at least d + 1 different points that are not on one line or plane"
            ) from error
        return answer


def _arrays(sample: Sample) -> tuple[Array, Array, Array]:
    pos, time, u = (t.detach().cpu().double().numpy() for t in (sample.pos, sample.time, sample.u))
    return pos, time, u


def _in_time_then_space(source: Sample, target: Sample, *, cubic: bool) -> Array:
    pos, time, u = _arrays(source)
    query, when, _ = _arrays(target)
    places, times, frames = _frames(pos, time, u)
    asked, row = np.unique(when, return_inverse=True)
    inside = np.clip(asked, times[0], times[-1])
    if len(times) == 1:
        at = np.repeat(frames, len(asked), axis=0)
    elif cubic:
        at = CubicSpline(times, frames, axis=0)(inside)
    else:
        at = interp1d(times, frames, axis=0)(inside)
    out = np.empty((len(query), u.shape[1]))
    space = None
    for k in range(len(asked)):
        mine = row == k
        if query[mine].shape == places.shape and (query[mine] == places).all():
            out[mine] = at[k]
            continue
        space = space or _Space(places)
        out[mine] = space(at[k], query[mine])
    return out


def _frames(pos: Array, time: Array, u: Array) -> tuple[Array, Array, Array]:
    """Points [N, d], times [T] and values [T, N, c] of a source made of frames."""
    times = np.unique(time)
    if len(times) == 1:
        return pos, times, u[None]
    parts = [time == t for t in times]
    places = pos[parts[0]]
    if any(not np.array_equal(pos[part], places) for part in parts[1:]):
        raise FieldError(
            "the frames of the source know different points, so they cannot be interpolated in "
            "time; give frames at the same points in the same order"
        )
    return places, times, np.stack([u[part] for part in parts])


class _Space:
    """Linear interpolation on a triangulation made once for many fields."""

    def __init__(self, pos: Array) -> None:
        self._tree = cKDTree(pos)
        try:
            self._triangulation = Delaunay(pos)
        except (QhullError, ValueError):  # too few points or all on one line: nearest alone
            self._triangulation = None

    def __call__(self, u: Array, query: Array) -> Array:
        out: Array = u[self._tree.query(query)[1]]
        if self._triangulation is not None:
            linear = LinearNDInterpolator(self._triangulation, u)(query)
            out = np.where(np.isnan(linear), out, linear)
        return out
