r"""The Gray-Scott model on a periodic box of two or any number of dimensions.

.. math:: \partial_t u = D_u \Delta u - u v^2 + F(1 - u),\quad
          \partial_t v = D_v \Delta v + u v^2 - (F + k) v.

Fourier series with the two-thirds rule in space (spectral accuracy), ETDRK4 in time (order 4).
For F = k = 0, :math:`\int u + v` is conserved.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.errors import InputError
from cst_operator.fields import Trajectory
from cst_operator.solvers.etdrk4 import CheckedStep, TimeStep
from cst_operator.solvers.kinetics import gray_scott
from cst_operator.solvers.periodic import frame_times, per_member, periodic_sample
from cst_operator.solvers.reaction_diffusion import reaction_diffusion, solve_reaction_diffusion
from cst_operator.solvers.spectral import PeriodicBox
from cst_operator.solvers.system import INITIAL, PARTS, stream

__all__ = ["FEED_KILL", "PeriodicGrayScott", "solve_periodic_gray_scott"]

_STEP = CheckedStep(dt=2.0, tolerance=1e-5)
_DIFFUSION = (2e-5, 1e-5)

FEED_KILL = ((0.014, 0.054), (0.029, 0.057), (0.018, 0.051), (0.03, 0.062), (0.058, 0.065))
"""Gliders, mazes, spirals, spots and worms of Ohana et al. (The Well, 2024)."""


def solve_periodic_gray_scott(
    u0: Tensor,
    times: Tensor,
    *,
    feed: float | Tensor,
    kill: float | Tensor,
    diffusion: tuple[float, float] = _DIFFUSION,
    lengths: tuple[float, ...] = (1.0, 1.0),
    step: TimeStep = _STEP,
) -> Tensor:
    """Solve the Gray-Scott model for a batch of initial values.

    Args:
        u0: u and v at ``times[0]`` at equidistant points from the origin on, [B, 2, shape]; device
            and precision are kept.
        times: frames to return, increasing, [T].
        feed: F, one number or one for every member, [B].
        kill: k, one number or one for every member, [B].
        diffusion: D of u and v.
        lengths: lengths of the box.
        step: what chooses the time step.

    Returns:
        Values of u and v, [B, T, 2, shape].

    Raises:
        InputError: if a shape or number does not fit.
        SolverError: if a member of the batch diverges or is not accurate enough in time.
    """
    f, k = (
        per_member(name, value, u0[:, 0]).expand(len(u0), *[1] * len(lengths))
        for name, value in (("feed", feed), ("kill", kill))
    )
    return solve_reaction_diffusion(
        u0,
        times,
        diffusion=diffusion,
        decay=torch.stack([f.flatten(), (f + k).flatten()], dim=1),
        reaction=_reaction(f),
        lengths=lengths,
        step=step,
    )


def _reaction(feed: Tensor) -> Callable[[Tensor], Tensor]:
    """Of F that broadcasts to [B, shape]."""

    def reaction(u: Tensor) -> Tensor:
        axis = 1 - feed.dim()
        first, second = u.unbind(axis - 1)
        return torch.stack(gray_scott(first, second, feed.to(u.dtype)), dim=axis - 1)

    return reaction


@dataclass(frozen=True, kw_only=True)
class PeriodicGrayScott:
    r"""The Gray-Scott model from random blobs on a square.

    One of the pairs (F, k) is drawn; as it is, from the gliders, mazes, spirals, spots and worms of
    Ohana et al. (The Well, 2024), whose diffusion this is too. With n uniform in ``num_blobs`` and
    centres uniform, :math:`v = (1 - e^{-s})/2`, :math:`s = \sum_{i \le n}
    e^{-|x - x_i|^2 / 2 \ell^2}`, :math:`u = 1 - v`.

    Args:
        feed_kill: pairs (F, k) to draw from.
        diffusion: D of u and v.
        length: side of the box.
        num_points: number of points along each axis.
        num_blobs: smallest and largest number of blobs.
        blob_radius: the length l.
        final_time: time of the last frame.
        num_frames: number of frames, the first at time 0.
        step: what chooses the time step.
        name: name of the system.
    """

    feed_kill: tuple[tuple[float, float], ...] = FEED_KILL
    diffusion: tuple[float, float] = _DIFFUSION
    length: float = 0.5
    num_points: int = 96
    num_blobs: tuple[int, int] = (3, 9)
    blob_radius: float = 0.02
    final_time: float = 1000.0
    num_frames: int = 21
    step: TimeStep = _STEP
    name: str = "gray_scott_periodic"

    def __post_init__(self) -> None:
        frame_times(self.final_time, self.num_frames)
        if not 1 <= self.num_blobs[0] <= self.num_blobs[1] or not self.blob_radius > 0:
            raise InputError(
                f"num_blobs is {self.num_blobs} and blob_radius {self.blob_radius}; "
                "expected (smallest, largest) of at least 1 and a positive length"
            )
        if not self.feed_kill or min(self.diffusion) < 0:
            raise InputError("expected at least one pair of feed_kill and diffusion not below 0")

    @property
    def version(self) -> str:
        """Changes when the numbers change."""
        return "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Draw and solve one problem; see :class:`~cst_operator.solvers.system.System`."""
        box = PeriodicBox((self.num_points,) * 2, (self.length,) * 2).refined(refine)
        parts = stream(seed, index, 0, PARTS)
        feed, kill = self.feed_kill[int(parts.integers(len(self.feed_kill)))]
        rng = stream(seed, index, 0, INITIAL)
        count = int(rng.integers(self.num_blobs[0], self.num_blobs[1] + 1))
        v = self._blobs(box, torch.from_numpy(rng.random((count, 2))) * self.length)
        f = torch.tensor(feed, dtype=torch.float64).reshape(1, 1, 1)
        equation = reaction_diffusion(
            box,
            torch.tensor(self.diffusion, dtype=torch.float64),
            torch.tensor([feed, feed + kill], dtype=torch.float64),
            _reaction(f),
            degree=2,
        )
        return periodic_sample(
            equation,
            box,
            torch.stack([1.0 - v, v]),
            frame_times(self.final_time, self.num_frames),
            self.step,
            seed=seed,
            index=index,
            refine=refine,
            channels=("u", "v"),
            degree=2,
            parameters={"feed": feed, "kill": kill, "num_blobs": float(count)},
        )

    def _blobs(self, box: PeriodicBox, centres: Tensor) -> Tensor:
        away = box.points()[:, None] - centres
        away = away - self.length * torch.round(away / self.length)  # to the nearest copy
        total = torch.exp(-(away**2).sum(dim=2) / (2 * self.blob_radius**2)).sum(dim=1)
        return (0.5 * (1.0 - torch.exp(-total))).reshape(box.shape)
