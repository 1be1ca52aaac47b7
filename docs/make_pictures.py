"""The pictures of docs/solvers.rst: one sample of every system, drawn by its default numbers.

PYTHONPATH=. python docs/make_pictures.py [SYSTEM ...]
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from cst_operator._atomic import write_atomically
from cst_operator.fields import PointField, Trajectory
from cst_operator.plots import figure_png, plot_fields
from cst_operator.solvers import SYSTEMS

FOLDER = Path(__file__).parent / "pictures" / "solvers"
SEED, INDEX = 0, 1
INDICES = {"wakes": 3}  # it sheds vortices
DPI, COLOURS = 64, 144  # small files

INPUTS = {
    "poisson": "f",
    "darcy": "a",
    "darcy_inclusions": "a",
    "poisson_mixed": "distance_neumann",
    "heat": "f",
    "helmholtz": "index",
    "elasticity": "body_x",
}
"""Static field that stands beside a steady solution."""

CHANNELS = {
    "elasticity": "von_mises",
    "gray_scott": "v",
    "gray_scott_periodic": "v",
    "wakes": "u_y",
}
"""Channel to show where it is not the first."""


def main() -> None:
    """Draw the systems that were named, or all."""
    for name in sys.argv[1:] or SYSTEMS:
        figure = draw(name, SYSTEMS[name].sample(SEED, INDICES.get(name, INDEX)))
        print(write_atomically(FOLDER / f"{name}.png", small_png(figure)))


def small_png(figure: Figure) -> bytes:
    """A PNG file with a palette."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(figure_png(figure, dpi=DPI))) as picture:
        palette = picture.convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
        palette.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def draw(name: str, sample: Trajectory) -> Figure:
    """The picture that suits the number of dimensions."""
    if sample.mesh.dim == 2:
        return fields(name, sample)
    if sample.mesh.num_points > 1:
        return space_time(sample)
    return lines(name, sample)


def fields(name: str, sample: Trajectory) -> Figure:
    """A steady solution beside what it was solved for, or three frames (a flow begins at rest)."""
    channel = CHANNELS.get(name, sample.channels[0])
    if name in ("navier_stokes", "stokes"):
        flow = sample.frame(0)
        return plot_fields({"u_x": flow, "p": flow.select("p")}, shared=False)
    if sample.num_frames == 1:
        given = INPUTS[name]
        solution = sample.frame(0).select(channel)
        return plot_fields({given: sample.mesh.select(given), channel: solution}, shared=False)
    last = sample.num_frames - 1
    frames = (last // 6, last // 3, last) if name == "wakes" else (0, last // 4, last)
    shown = {f"{channel}, t = {sample.times[k]:g}": triangles(sample, k, channel) for k in frames}
    return plot_fields(shown)


def triangles(sample: Trajectory, frame: int, channel: str) -> PointField:
    """One channel of a frame; the points of a periodic box become a mesh."""
    field = sample.frame(frame).select(channel)
    if field.get("cells"):
        return field
    n = round(field.num_points**0.5)
    first = torch.arange(n * n).reshape(n, n)[:-1, :-1].reshape(-1, 1)
    quads = first + torch.tensor([0, n, n + 1, 1])
    return PointField(pos=field.pos, u=field.u, channels=[channel], cells={"quad": quads})


def space_time(sample: Trajectory) -> Figure:
    """A solution on an interval: space to the right, time upwards."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained", facecolor="white")
    axis = figure.subplots()
    u = sample.u[:, :, 0].numpy()
    bound = float(np.abs(u).max())
    picture = axis.pcolormesh(
        sample.mesh.pos[:, 0].numpy(),
        sample.times.numpy(),
        u,
        shading="gouraud",
        cmap="RdBu_r",
        vmin=-bound,
        vmax=bound,
        rasterized=True,
    )
    axis.set_xlabel("x")
    axis.set_ylabel("t")
    figure.colorbar(picture, ax=axis, label=sample.channels[0])
    return figure


def lines(name: str, sample: Trajectory) -> Figure:
    """A problem in time alone: its first unknowns, or its path in the plane."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained", facecolor="white")
    axis = figure.subplots()
    u, t = sample.u[:, 0].numpy(), sample.times.numpy()
    for i, channel in enumerate(sample.channels[:3]):
        axis.plot(t, u[:, i], label=channel, linewidth=1.6)
    axis.set_xlabel("t")
    axis.legend(frameon=False, ncols=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
