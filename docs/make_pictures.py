"""The pictures of docs/solvers.rst: one sample of every system, drawn by its default numbers.

PYTHONPATH=. python docs/make_pictures.py [SYSTEM ...]
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from PIL import Image

from cst_operator._atomic import write_atomically
from cst_operator.boundary import boundary_facets
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
    "helmholtz_open": "f",
    "elasticity": "body_x",
    "poisson_solid": "a",
    "elasticity_solid": "traction_x",
}
"""Static field that stands beside a steady solution."""

CHANNELS = {
    "elasticity": "von_mises",
    "gray_scott": "v",
    "elasticity_solid": "von_mises",
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
    if sample.mesh.dim == 3:
        return in_space(name, sample)
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


def in_space(name: str, sample: Trajectory) -> Figure:
    """As :func:`fields`, seen from above: surfaces whole, solids cut through the middle."""
    channel = CHANNELS.get(name, sample.channels[0])
    frames = (0, (sample.num_frames - 1) // 4, sample.num_frames - 1)
    shown = {f"{channel}, t = {sample.times[k]:g}": sample.frame(k) for k in frames}
    if sample.num_frames == 1:
        shown = {INPUTS[name]: sample.mesh, channel: sample.frame(0)}
    figure = Figure(figsize=(2.8 * len(shown), 2.4), layout="constrained", facecolor="white")
    triangles = seen(sample.mesh)
    corners = sample.mesh.pos[triangles].numpy()
    for place, (title, field) in enumerate(shown.items(), start=1):
        u = field.select(title.split(",")[0]).u[:, 0]
        values = u[triangles].mean(dim=1).numpy()
        scale = ScalarMappable(Normalize(float(u.min()), float(u.max())), "viridis")
        axis = figure.add_subplot(1, len(shown), place, projection="3d", azim=-60, elev=30)
        axis.add_collection3d(Poly3DCollection(corners, facecolors=scale.to_rgba(values)))
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        axis.set_box_aspect(high - low, zoom=1.1)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        figure.colorbar(scale, ax=axis, shrink=0.7, pad=0.0).ax.tick_params(labelsize=7)
    return figure


def seen(mesh: PointField) -> torch.Tensor:
    """Triangles of a surface, or around the half of a solid that lies behind, [n, 3]."""
    if "triangle" in mesh.cells:
        return mesh.cells["triangle"]
    cells = mesh.cells["tetra"]
    y = mesh.pos[cells].mean(dim=1)[:, 1]
    behind = y > (mesh.pos[:, 1].min() + mesh.pos[:, 1].max()) / 2
    return boundary_facets({"tetra": cells[behind]})["triangle"]


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
