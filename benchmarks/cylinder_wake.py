"""Cylinder wake: hidden frames and hidden points of an OpenFOAM solution, from what was kept.

Of the first 50 frames of the wake (:func:`cst_operator.datasets.cylinder_wake`) every second one is
kept. Everything is fitted to the kept frames alone.

* ``hidden_frames``: the 24 frames between them, at every node. The flow sheds a vortex pair in 5.6
  frames, so the kept frames are hardly two a period apart and interpolation in time must fail.
  CST is trained by masking: random kept frames are asked for, given points of the others. It sees
  time as a phase, at the frequency that least squares find in the kept frames.
* ``hidden_points``: of every hidden frame a random 10 % of the nodes is known, the others are asked
  for. CST is trained on such draws from the kept frames.

CST and the peers named "fluctuation" work on the fluctuation about the time mean of the kept
frames. Metrics, each over all hidden frames together and of velocity, u_x, u_y and p:

* ``fluctuation_l2``: relative L2 error of the fluctuation, every node counting the same;
* ``fluctuation_l2_weighted``: the same with quadrature weights;
* ``relative_l2``: error relative to the field minus its mean in space, every node the same.

Run ``python -m benchmarks.cylinder_wake`` (about 8 minutes on one core), with ``--quick`` for a
trial of two minutes that writes to ``benchmarks/results/quick``. Pictures and ``.vtu`` files go to
``benchmarks/out/cylinder_wake``.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cst_operator.comparison import benchmark_record, num_parameters
from cst_operator.datasets import cylinder_wake
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.mesh_files import write_series
from cst_operator.model import CSTConfig, CSTOperator
from cst_operator.peers import CubicSplineInTime, LinearInterpolation, ThinPlateSpline
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.spectrum import (
    dominant_frequency,
    harmonic_basis,
    phase_coordinates,
    phase_weights,
)
from cst_operator.tasks import TaskDataset
from cst_operator.training import FitConfig, fit

HERE = Path(__file__).parent
OUT = HERE / "out" / "cylinder_wake"
KEPT = tuple(range(0, 50, 2))
HIDDEN = tuple(range(1, 48, 2))
CHANNELS = ("u_x", "u_y", "p")
FRACTION = 0.1
SEED = 0

FRAMES = CSTConfig(
    dim=4,
    in_channels=3,
    out_channels=3,
    out_names=CHANNELS,
    fourier_features=64,
    fourier_scale=2.0,
    interpolant_radius=0.2,
)
POINTS = CSTConfig(
    dim=2, in_channels=3, out_channels=3, out_names=CHANNELS, fourier_scale=2.0
)


@dataclass(frozen=True, kw_only=True)
class Wake:
    """The first 50 frames, and their fluctuation at unit scale."""

    truth: Trajectory
    fluctuation: Trajectory
    """Minus the mean of the kept frames, over the root mean square of what is left of them."""
    mean: Tensor
    """Mean of the kept frames, [N, c]."""
    scale: Tensor
    """Root mean square of the kept fluctuation, [c]."""
    frequency: float
    """Shedding frequency of the kept frames, per frame."""

    def restore(self, fluctuation: Tensor) -> Tensor:
        """A fluctuation at unit scale on the whole mesh, [..., N, c], in the units of the data."""
        return fluctuation.to(self.mean) * self.scale + self.mean


def load(folder: str | Path | None = None) -> Wake:
    """Read the wake; mean, scale and frequency are those of the kept frames."""
    wake = cylinder_wake(folder)
    truth = replace(wake, times=wake.times[:50], u=wake.u[:50])
    kept = truth.u[list(KEPT)]
    mean = kept.mean(0)
    weights = truth.mesh.weights / truth.mesh.weights.sum()
    scale = ((kept - mean).square().mean(0) * weights[:, None]).sum(0).sqrt()
    mesh = PointField(truth.mesh.pos.float(), weights=truth.mesh.weights.float())
    return Wake(
        truth=truth,
        fluctuation=replace(
            truth, mesh=mesh, times=truth.times.float(), u=((truth.u - mean) / scale).float()
        ),
        mean=mean,
        scale=scale,
        frequency=dominant_frequency((kept - mean) / scale, truth.times[list(KEPT)]),
    )


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Random points of some kept frames in, random points of the other kept frames out.

    Space-time points have the coordinates x, y and those of the phase on a circle.

    Args:
        frequency: periods per unit of time.
        num_sources: points of each source frame, drawn anew for each.
        num_queries: points asked for in all.
        radius: radius of the circle, in units of length.
        hidden: least and largest share of the kept frames that are masked.
    """

    frequency: float
    num_sources: int
    num_queries: int
    radius: float = 5.0
    hidden: tuple[float, float] = (0.1, 0.5)

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example."""
        order = torch.tensor(KEPT)[torch.randperm(len(KEPT), generator=generator)]
        low, high = (max(1, round(share * len(KEPT))) for share in self.hidden)
        masked = int(torch.randint(low, high + 1, (1,), generator=generator))
        source = self.source(trajectory, order[masked:], generator)
        frames = order[:masked][torch.randint(masked, (self.num_queries,), generator=generator)]
        points = torch.randint(trajectory.mesh.num_points, frames.shape, generator=generator)
        return Example(source, self.points(trajectory, frames, points))

    def source(
        self, trajectory: Trajectory, frames: Tensor, generator: torch.Generator
    ) -> PointField:
        """Random points of every frame, weighted by space and by each frame's share of a period."""
        n = trajectory.mesh.num_points
        points = torch.stack(
            [torch.randperm(n, generator=generator)[: self.num_sources] for _ in frames]
        )
        share = phase_weights(trajectory.times[frames], self.frequency)
        field = self.points(
            trajectory, frames.repeat_interleave(self.num_sources), points.flatten()
        )
        field.weights = field.weights * share.repeat_interleave(self.num_sources)
        return field

    def points(self, trajectory: Trajectory, frames: Tensor, points: Tensor) -> PointField:
        """Points of space-time by frame and node."""
        circle = phase_coordinates(trajectory.times[frames], self.frequency, self.radius)
        return PointField(
            pos=torch.cat([trajectory.mesh.pos[points], circle], dim=1),
            u=trajectory.u[frames, points],
            weights=trajectory.mesh.weights[points],
            channels=trajectory.channels,
        )


@dataclass(frozen=True, kw_only=True)
class Observing:
    """A random part of the nodes of a random mixture of kept frames in, other nodes out.

    Args:
        num_queries: nodes asked for.
        mixing: probability that a second frame is mixed in, with random coefficients.
    """

    num_queries: int
    mixing: float = 0.0

    def __call__(self, trajectory: Trajectory, generator: torch.Generator) -> Example:
        """Make an example."""
        first, second = torch.tensor(KEPT)[torch.randperm(len(KEPT), generator=generator)[:2]]
        u = trajectory.u[first]
        if float(torch.rand(1, generator=generator)) < self.mixing:
            angle = 2 * math.pi * float(torch.rand(1, generator=generator))
            u = math.cos(angle) * u + math.sin(angle) * trajectory.u[second]
        known, asked = split_points(trajectory.mesh.num_points, generator)
        field = trajectory.mesh.with_values(u, trajectory.channels)
        return Example(field.subset(known), field.subset(asked[: self.num_queries]))


def split_points(num_points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random known nodes and the others."""
    order = torch.randperm(num_points, generator=generator)
    known = round(FRACTION * num_points)
    return order[:known], order[known:]
