"""A small picture of what ``cst inspect`` looked at, in one, two or three dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from cst_operator._cells import cells_dim
from cst_operator.boundary import boundary_facets
from cst_operator.fields import PointField
from cst_operator.plots import plot_fields

__all__ = ["thumbnail"]

Array = NDArray[np.float64]

_COLOURS = "viridis"
_INK = "#24292f"
_PLAIN = "#cfd8e3"


def thumbnail(fields: Mapping[str, PointField]) -> Figure:
    """The first channel of every field, or the mesh of fields without channels.

    Args:
        fields: at least one field by title, all of one dimension: in one they become lines, in two
            colours, in three the colours of the surface.
    """
    first = next(iter(fields.values()))
    if first.dim == 2 and first.channels:
        return plot_fields(fields)
    figure = Figure(figsize=(2.8 * len(fields), 2.6), layout="constrained", facecolor="white")
    values = [_values(field) for field in fields.values()]
    limits = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    for number, (title, field) in enumerate(fields.items(), start=1):
        shape = {"projection": "3d"} if field.dim == 3 else {}
        axis: Any = figure.add_subplot(1, len(fields), number, **shape)
        axis.set_title(title, fontsize=9, color=_INK, parse_math=False)
        if field.dim == 1:
            _line(axis, field, limits)
        elif field.dim == 2:
            _mesh(axis, field)
        else:
            _surface(axis, field, limits)
    return figure


def _numpy(tensor: Any) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array


def _values(field: PointField) -> Array:
    return _numpy(field.u[:, 0]) if field.channels else np.zeros(field.num_points)


def _line(axis: Any, field: PointField, limits: tuple[float, float]) -> None:
    x, u = _numpy(field.pos[:, 0]), _values(field)
    order = np.argsort(x)
    marker = "." if len(x) <= 30 else ""
    axis.plot(x[order], u[order], color=_INK, linewidth=1.2, marker=marker)
    axis.tick_params(labelsize=7)
    low, high = limits
    if low < high:
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
    if field.channels:
        axis.set_ylabel(field.channels[0], fontsize=8)


def _mesh(axis: Any, field: PointField) -> None:
    pos = _numpy(field.pos)
    axis.set_aspect("equal")
    axis.set_axis_off()
    cells = [index.cpu().numpy() for index in (field.get("cells") or {}).values()]
    if not cells:
        axis.scatter(*pos.T, s=2, color=_INK, linewidths=0)
        return
    sides = [np.stack([index, np.roll(index, -1, axis=1)], 2).reshape(-1, 2) for index in cells]
    edges = np.unique(np.sort(np.concatenate(sides), axis=1), axis=0)
    width = float(np.clip(12 / np.sqrt(len(edges)), 0.1, 0.6))
    axis.add_collection(LineCollection(pos[edges], colors=_INK, linewidths=width))
    axis.autoscale_view()


def _surface(axis: Any, field: PointField, limits: tuple[float, float]) -> None:
    pos, values = _numpy(field.pos), _values(field)
    colours, scale = colormaps[_COLOURS], Normalize(*limits)
    axis.set_axis_off()
    cells = {kind: index for kind, index in (field.get("cells") or {}).items() if len(index)}
    faces = cells
    if cells and cells_dim(cells) == 3:
        faces = boundary_facets(cells)
    if not faces or cells_dim(cells) == 1:
        axis.scatter(*pos.T, c=values, cmap=colours, norm=scale, s=3, linewidths=0)
    else:
        for index in faces.values():
            corners = index.cpu().numpy()
            colour = colours(scale(values[corners].mean(1))) if field.channels else _PLAIN
            edges = "none" if field.channels else _INK
            polygons = Poly3DCollection(
                pos[corners], facecolors=colour, edgecolors=edges, linewidths=0.2
            )
            axis.add_collection3d(polygons)
    low, high = pos.min(0), pos.max(0)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axis.set_box_aspect(np.maximum(high - low, 1e-3 * (high - low).max()))
