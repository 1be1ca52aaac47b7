"""Shallow water over uneven ground, between walls: its rate of change, and steps in time.

The scheme is that of :mod:`cst_operator.solvers.shallow_water`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cst_operator.errors import SolverError
from cst_operator.solvers.finite_volumes import FAR, MedianDual, limited

__all__ = ["Basin", "integrate_water", "velocity"]

Array = NDArray[np.float64]

_SMOOTH = 10.0  # times the squared range of a value and the cubed length of an edge, see _threshold
_MOST_STEPS = 1e6  # from one frame to the next: beyond, waves have become infinitely fast


@dataclass(frozen=True, eq=False)
class Basin:
    """Dual cells with their ground. A state is depth and momentum per area, [N, 3].

    Args:
        dual: the cells.
        bed: height of the ground at the vertices, [N].
        gravity: g.
    """

    dual: MedianDual
    bed: Array
    gravity: float

    def rate(self, state: Array) -> Array:
        """Time derivative of a state, [N, 3].

        Raises:
            SolverError: if the depth is not positive at the middle of an edge.
        """
        dual, (i, j) = self.dual, self.dual.ends
        depth, u = state[:, 0], velocity(state)
        values = np.column_stack([depth + self.bed, u])
        slope, jump = dual.slope(values), values[j] - values[i]
        threshold = self._threshold(values)
        middle = (self.bed[i] + self.bed[j]) / 2
        sides, pushes = [], []
        for end, sign in ((i, 0.5), (j, -0.5)):
            behind = 2 * np.einsum("ecd,ed->ec", slope[end], dual.along) - jump
            side = values[end] + sign * limited(jump, behind, threshold)
            side[:, 0] -= middle
            _check_depth(side[:, 0])
            sides.append(side)
            rise = middle - self.bed[end]
            pushes.append(self._push((depth[end] + side[:, 0]) / 2, rise, dual.normal))
        flux = _flux(sides[0], sides[1], dual.normal, self.gravity)
        return dual.gathered(pushes[0] - flux, flux - pushes[1], self._wall(depth, u))

    def _threshold(self, values: Array) -> Array:
        """Squares of differences along the edges that count as smooth, [E, 3].

        They fall more slowly than those of smooth waves, of which even crests keep their slopes on
        a fine mesh, and faster than those of bores, which do not fall.
        """
        surface, u = values[:, 0], values[:, 1:]
        scale = np.array([np.ptp(surface), *[np.abs(u).max()] * 2]) ** 2
        length = np.hypot(*self.dual.along.T) / np.sqrt(self.dual.area.sum())
        result: Array = _SMOOTH * length[:, None] ** 3 * scale + np.finfo(np.float64).tiny
        return result

    def _push(self, depth: Array, rise: Array, normal: Array) -> Array:
        """What a cell gains over ground that rises by so much towards a face, [F, 3]."""
        force = (self.gravity * depth * rise)[:, None] * normal
        return np.column_stack([np.zeros(len(depth)), -force])

    def _wall(self, depth: Array, u: Array) -> Array:
        """What cells gain through the walls, which mirror the flow, [B, 3]."""
        near, far = self.dual.rim_ends
        out = self.dual.rim_normal
        unit = out / np.hypot(*out.T)[:, None]
        flux = np.zeros((len(out), 3))
        for end, share in ((near, 1 - FAR), (far, FAR)):
            against = np.einsum("bd,bd->b", u[end], unit)[:, None] * unit
            before = np.column_stack([depth[end], u[end]])
            behind = np.column_stack([depth[end], u[end] - 2 * against])
            flux += share * _flux(before, behind, out, self.gravity)
        flux[:, 0] = 0.0  # is so but for rounding
        rise = FAR * (self.bed[far] - self.bed[near])
        return self._push((depth[near] + depth[far]) / 2, rise, out) - flux

    def frequency(self, state: Array) -> float:
        """One over the largest time step of the scheme without slopes."""
        speed = np.hypot(*velocity(state).T) + np.sqrt(self.gravity * state[:, 0])
        across, rim = (
            (speed[ends].max(axis=0) * np.hypot(*normal.T))[:, None]
            for ends, normal in (
                (self.dual.ends, self.dual.normal),
                (self.dual.rim_ends, self.dual.rim_normal),
            )
        )
        return float(self.dual.gathered(across, across, rim).max() / 2)

    def energy(self, state: Array) -> float:
        """Kinetic energy, and potential energy over that of a level surface."""
        area, surface = self.dual.area, state[:, 0] + self.bed
        swell = surface - (area @ surface) / area.sum()
        moving = state[:, 0] * (velocity(state) ** 2).sum(axis=1)
        return float(area @ (moving + self.gravity * swell**2) / 2)


def velocity(state: Array) -> Array:
    """Momentum by depth, [N, 2]."""
    result: Array = state[:, 1:] / state[:, :1]
    return result


def _flux(left: Array, right: Array, normal: Array, gravity: float) -> Array:
    """HLLC flux between depths and velocities on both sides of faces, [F, 3] each."""
    length = np.hypot(*normal.T)
    unit = normal / length[:, None]
    depth = np.stack([left[:, 0], right[:, 0]])
    u = np.stack([left[:, 1:], right[:, 1:]])
    across = np.einsum("sfd,fd->sf", u, unit)
    wave = np.sqrt(gravity * depth)
    middle_speed = across.mean(axis=0) + wave[0] - wave[1]
    middle_wave = wave.mean(axis=0) + (across[0] - across[1]) / 4
    first = np.minimum(np.minimum(across[0] - wave[0], middle_speed - middle_wave), 0.0)
    last = np.maximum(np.maximum(across[1] + wave[1], middle_speed + middle_wave), 0.0)
    carried = np.stack([depth, depth * across])
    flux = np.stack([depth * across, depth * across**2 + gravity * depth**2 / 2])
    mean = last * flux[:, 0] - first * flux[:, 1] + first * last * (carried[:, 1] - carried[:, 0])
    mass, push = mean / (last - first)
    sliding = u - across[..., None] * unit
    slide = np.where((mass > 0)[:, None], sliding[0], sliding[1])
    momentum = push[:, None] * unit + mass[:, None] * slide
    return np.column_stack([mass, momentum]) * length[:, None]


def _check_depth(depth: Array) -> None:
    if not depth.min() > 0:  # nor if it is not a number
        raise SolverError(
            f"the depth falls to {depth.min():g}; this scheme needs water everywhere, so lower the "
            "bed or the waves, or use a smaller h"
        )


def integrate_water(basin: Basin, start: Array, times: Array, cfl: float) -> tuple[Array, int]:
    """SSP-RK2 (Heun's method) from frame to frame, the step chosen anew every time.

    Args:
        basin: where.
        start: state at the first time, [N, 3].
        times: of the frames, [T].
        cfl: the step times :meth:`Basin.frequency`, at the most.

    Returns:
        States, [T, N, 3], and the number of steps.

    Raises:
        SolverError: if ground falls dry or the solution is not finite.
    """
    _check_depth(start[:, 0])
    frames, steps = [start], 0
    with np.errstate(all="ignore"):  # what is not finite is found
        for interval in np.diff(times):
            state, count = _advance(basin, frames[-1], float(interval), cfl)
            frames.append(state)
            steps += count
    return np.stack(frames), steps


def _advance(basin: Basin, state: Array, duration: float, cfl: float) -> tuple[Array, int]:
    """The state after a while, and the number of steps."""
    steps, count = 0, np.inf
    while count > 1:
        count = np.ceil(duration * basin.frequency(state) / cfl - 1e-9)
        if not count < _MOST_STEPS:
            raise SolverError("the solution is not finite")
        step = duration / max(count, 1)
        once = state + step * basin.rate(state)
        _check_depth(once[:, 0])
        state = (state + once + step * basin.rate(once)) / 2
        _check_depth(state[:, 0])
        duration -= step
        steps += 1
    return state, steps
