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
frames. Not only interpolation is measured: ``harmonics_4`` fits that many harmonics of the same
frequency at every node, ``gappy_pod_12`` the first 12 principal components of the kept frames.

Metrics, each over all hidden frames together, of the velocity and, in brackets, of every channel:

* ``fluctuation_l2``: relative L2 error of the fluctuation, every node counting the same;
* ``fluctuation_l2_weighted``: the same with quadrature weights;
* ``relative_l2``: error relative to the field minus its mean in space, every node the same.

Run ``python -m benchmarks.cylinder_wake`` (about 6 minutes on one core), with ``--quick`` for a
trial below two minutes that writes to ``benchmarks/results/quick``. Pictures, ``.vtu`` files and
checkpoints go to ``benchmarks/out/cylinder_wake``.
"""

import argparse
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cst_operator import checkpoint
from cst_operator.comparison import benchmark_record, num_parameters
from cst_operator.cst_config import CSTConfig
from cst_operator.datasets import cylinder_wake
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.mesh_files import write_series
from cst_operator.model import CSTOperator
from cst_operator.peers import CubicSplineInTime, LinearInterpolation, ThinPlateSpline
from cst_operator.plots import plot_comparison, save_figure
from cst_operator.spectrum import (
    dominant_frequency,
    harmonic_basis,
    phase_coordinates,
    phase_weights,
)
from cst_operator.tasks import PointUpsampling, Task, TaskDataset
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
    fourier_scale=0.7,
    interpolant_radius=0.2,
)
POINTS = CSTConfig(dim=2, in_channels=3, out_channels=3, out_names=CHANNELS, fourier_scale=0.8)


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
    radius: float = 2.5
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


def split_points(num_points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random known nodes and the others."""
    order = torch.randperm(num_points, generator=generator)
    known = round(FRACTION * num_points)
    return order[:known], order[known:]


# The peers and CST on the hidden frames: predictions [24, N, c] in the units of the data


def interpolate_frames(wake: Wake) -> dict[str, Tensor]:
    """Interpolation in time at every node, and harmonics of the shedding frequency."""
    truth = wake.truth
    source = truth.space_time(KEPT)
    hidden = truth.space_time(HIDDEN)
    shape = (len(HIDDEN), *truth.u.shape[1:])
    kept = truth.u[list(KEPT)].flatten(1)
    answers = {
        "linear": LinearInterpolation()(source, hidden).view(shape),
        "cubic_spline": CubicSplineInTime()(source, hidden).view(shape),
    }
    for harmonics in (4, 6):
        known, asked = (
            harmonic_basis(truth.times[list(frames)], wake.frequency, harmonics)
            for frames in (KEPT, HIDDEN)
        )
        answer = asked @ torch.linalg.lstsq(known, kept).solution
        answers[f"harmonics_{harmonics}"] = answer.view(shape)
    return answers


def predict_frames(model: CSTOperator, task: Masking, wake: Wake, seed: int = SEED) -> Tensor:
    """CST at every node of the hidden frames, from random points of all kept frames.

    It reads twice the points of a frame that it read in training; the weights say how many.
    """
    generator = torch.Generator().manual_seed(seed)
    trajectory = wake.fluctuation
    task = replace(task, num_sources=2 * task.num_sources)
    source = task.source(trajectory, torch.tensor(KEPT), generator)
    nodes = torch.arange(trajectory.mesh.num_points)
    answers = []
    for frame in HIDDEN:
        query = task.points(trajectory, torch.full_like(nodes, frame), nodes)
        answers.append(model.predict(source, query, chunk=1024).u)
    return wake.restore(torch.stack(answers))


# The same on hidden points; the mask says which nodes were asked for, the others are as known


def upsample(
    model: CSTOperator | None, wake: Wake, seed: int = SEED
) -> tuple[dict[str, Tensor], Tensor]:
    """Every hidden frame from a random 10 % of its nodes.

    Args:
        model: trained CST; the peers alone if None.
        wake: the data.
        seed: seed of the known nodes.

    Returns:
        Predictions [24, N, c] by model, and whether a node was asked for, [24, N].
    """
    generator = torch.Generator().manual_seed(seed)
    spline = ThinPlateSpline()
    truth = wake.truth.u[list(HIDDEN)]
    names = ["time_mean", "thin_plate_spline", "thin_plate_spline_fluctuation", "gappy_pod_12"]
    answers = {name: truth.clone() for name in (*names, *(["cst"] if model else []))}
    modes = torch.linalg.svd(wake.fluctuation.u[list(KEPT)].flatten(1), full_matrices=False).Vh
    modes = modes[:12].unflatten(1, truth.shape[1:])
    mask = torch.zeros(truth.shape[:2], dtype=torch.bool)
    for i, frame in enumerate(HIDDEN):
        known, asked = split_points(truth.shape[1], generator)
        mask[i, asked] = True
        field = wake.truth.frame(frame)
        rest = wake.fluctuation.frame(frame)
        scale, mean = wake.scale, wake.mean[asked]
        answers["time_mean"][i, asked] = mean
        answers["thin_plate_spline"][i, asked] = spline(field.subset(known), field.subset(asked))
        answer = spline(rest.subset(known), rest.subset(asked))
        answers["thin_plate_spline_fluctuation"][i, asked] = answer.double() * scale + mean
        fit_to = modes[:, known].flatten(1).T, rest.u[known].flatten()[:, None]
        amplitudes = torch.linalg.lstsq(*fit_to).solution[:, 0]
        answer = torch.einsum("k,knc->nc", amplitudes, modes[:, asked])
        answers["gappy_pod_12"][i, asked] = answer.double() * scale + mean
        if model is not None:
            answer = model.predict(rest.subset(known), rest.subset(asked)).u
            answers["cst"][i, asked] = answer.double() * scale + mean
    return answers, mask


def score(wake: Wake, answer: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """Metrics of predictions of the hidden frames, [24, N, c]; see the module's docstring."""
    truth = wake.truth.u[list(HIDDEN)]
    asked = torch.ones(truth.shape[:2], dtype=torch.bool) if mask is None else mask
    error = answer - truth
    found = {}
    weights = wake.truth.mesh.weights
    for metric, reference, measure in (
        ("fluctuation_l2", truth - wake.mean, torch.ones_like(weights)),
        ("fluctuation_l2_weighted", truth - wake.mean, weights),
        ("relative_l2", truth - truth.mean(1, keepdim=True), torch.ones_like(weights)),
    ):
        measured = (asked * measure)[..., None]
        above, below = ((measured * x.square()).sum((0, 1)) for x in (error, reference))
        found[metric] = float((above[:2].sum() / below[:2].sum()).sqrt())
        for channel, value in zip(CHANNELS, (above / below).sqrt().tolist(), strict=True):
            found[f"{metric}[{channel}]"] = value
    return found


def train(wake: Wake, config: CSTConfig, task: Task, settings: FitConfig) -> tuple[Any, float]:
    """A CST trained on a task of the kept frames, and the seconds it took."""
    torch.manual_seed(settings.seed)
    examples = TaskDataset([wake.fluctuation], task, repeats=100, seed=settings.seed)
    start = time.perf_counter()
    run = fit(CSTOperator(config), examples, config=settings)
    return run.model, time.perf_counter() - start


# What is left behind


def write_files(
    wake: Wake, split: str, answers: Mapping[str, Tensor], mask: Tensor | None, folder: Path
) -> None:
    """A ``.pvd`` series of truth, CST's prediction and error, and pictures of three frames."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = list(HIDDEN)
    truth = wake.truth.u[hidden]
    parts = {"truth": truth, "prediction": answers["cst"], "error": answers["cst"] - truth}
    series = replace(
        wake.truth,
        times=wake.truth.times[hidden],
        u=torch.cat(list(parts.values()), dim=2),
        channels=tuple(f"{part}_{channel}" for part in parts for channel in CHANNELS),
        units=(),
    )
    write_series(folder / f"{split}.pvd", series)
    for i in (4, 12, 20):
        frame = wake.truth.frame(hidden[i])
        read = wake.truth.frame(hidden[i] - 1) if mask is None else frame.subset(~mask[i])
        figure = plot_comparison(
            read, frame, {name: u[i] for name, u in answers.items()}, channel="u_y"
        )
        save_figure(figure, folder / f"{split}_{hidden[i]:02d}.png")


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """One table for each split."""
    short = {
        "fluctuation_l2": "velocity",
        **{f"fluctuation_l2[{channel}]": channel for channel in CHANNELS},
        "fluctuation_l2_weighted": "weighted",
        "relative_l2": "whole",
    }
    values = {(r["split"], r["model"], r["metric"]): r["value"] for r in rows}
    for split in dict.fromkeys(r["split"] for r in rows):
        table = Table("model", title=f"relative L2 error of {split}")
        for column in short.values():
            table.add_column(column, justify="right", min_width=max(5, len(column)))
        for model in dict.fromkeys(r["model"] for r in rows if r["split"] == split):
            table.add_row(model, *(f"{values[split, model, name]:.3f}" for name in short))
        console.print(table)


def main() -> None:
    """Train on the kept frames, measure on what was hidden."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a trial of two minutes")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training")
    parser.add_argument("--data", type=Path, help="folder of third-party data")
    arguments = parser.parse_args()
    console = Console()
    out = OUT / "quick" if arguments.quick else OUT
    wake = load(arguments.data)
    console.print(f"shedding frequency of the kept frames: {wake.frequency:.4f} per frame")

    steps = arguments.steps or (80 if arguments.quick else 550)
    settings = FitConfig(steps=steps, batch_size=4, lr=3e-3, ema=0.99, seed=SEED, device="cpu")
    masking = Masking(frequency=wake.frequency, num_sources=40, num_queries=400)
    in_time, seconds = train(wake, FRAMES, masking, replace(settings, batch_size=2))
    observing = PointUpsampling(channels=CHANNELS, frames=KEPT, fraction=FRACTION, num_queries=256)
    in_space, more = train(wake, POINTS, observing, settings)
    for split, model in (("hidden_frames", in_time), ("hidden_points", in_space)):
        shutil.rmtree(out / f"{split}_model", ignore_errors=True)
        checkpoint.save(model, out / f"{split}_model")
    console.print(f"trained for {seconds:.0f} s and {more:.0f} s")

    frames = interpolate_frames(wake)
    frames["cst"] = predict_frames(in_time, masking, wake)
    points, mask = upsample(in_space, wake)
    scores = {("hidden_frames", name): score(wake, u) for name, u in frames.items()}
    scores |= {("hidden_points", name): score(wake, u, mask) for name, u in points.items()}
    rows = [
        {"model": model, "split": split, "metric": metric, "value": value, "unit": "", "seed": SEED}
        for (split, model), found in scores.items()
        for metric, value in found.items()
    ]
    show(rows, console)
    path = benchmark_record(
        "cylinder_wake",
        rows,
        data="OpenFOAM cylinder wake (at-aaims/DataSiftML), frames 0 to 49: even ones kept, odd "
        f"ones hidden; 10 % of the nodes of each hidden frame drawn with seed {SEED}",
        folder=HERE / "results" / "quick" if arguments.quick else HERE / "results",
        configuration={
            "hidden_frames": {**asdict(FRAMES), **asdict(masking)},
            "hidden_points": {**asdict(POINTS), **asdict(observing)},
            "training": asdict(settings),
            "frequency": wake.frequency,
            "parameters": [num_parameters(in_time), num_parameters(in_space)],
            "training_seconds": [seconds, more],
        },
    )
    shown = {name: frames[name] for name in ("linear", "cubic_spline", "cst")}
    write_files(wake, "hidden_frames", shown, None, out)
    shown = {name: points[name] for name in ("thin_plate_spline_fluctuation", "cst")}
    write_files(wake, "hidden_points", shown, mask, out)
    console.print(f"rows: {path}\npictures and .vtu files: {out}", soft_wrap=True)


if __name__ == "__main__":
    main()
