"""Pictures of fields on triangles, quadrilaterals and points, made without global state."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.tri import Triangulation
from numpy.typing import NDArray
from torch import Tensor

from cst_operator._atomic import write_atomically
from cst_operator.errors import FieldError
from cst_operator.fields import PointField

__all__ = [
    "figure_png",
    "plot_comparison",
    "plot_fields",
    "plot_history",
    "save_figure",
]

Array = NDArray[np.float64]

_FIELD, _SIGNED, _ERROR = "viridis", "RdBu_r", "PuOr_r"
_INK, _PAPER = "#24292f", "white"
_PANEL = 2.7  # inches
_LINES = ("#0b63a5", "#d1495b", "#3a7d44", "#8e5ba6", "#b07400", "#4b5563")


def plot_fields(
    fields: Mapping[str, PointField], channel: str | None = None, *, shared: bool = True
) -> Figure:
    """Several fields in a row.

    Args:
        fields: two-dimensional fields by title.
        channel: the channel that is shown; the first of each field if omitted.
        shared: one colour scale for all, or one for each.

    Raises:
        FieldError: if a field is not two-dimensional or lacks the channel.
    """
    if not fields:
        raise FieldError("there is nothing to plot; give at least one field")
    values = {title: _channel(field, channel) for title, field in fields.items()}
    figure = _figure(len(fields), 1, _aspect(list(fields.values())))
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    common = _scale(*values.values()) if shared else None
    last = None
    for axis, (title, field) in zip(axes, fields.items(), strict=True):
        last = _draw(axis, field, values[title], common or _scale(values[title]))
        _title(axis, title)
        if not shared:
            _colour_bar(figure, last, [axis], _label(field, channel))
    if shared:
        _colour_bar(figure, last, list(axes), _label(next(iter(fields.values())), channel))
    return figure


def plot_comparison(
    source: PointField,
    truth: PointField,
    predictions: Mapping[str, PointField | Tensor],
    *,
    channel: str | None = None,
    source_channel: str | None = None,
) -> Figure:
    r"""Input, truth and every model's answer; below each answer its error.

    Truth and answers share a colour scale, and so do the errors, whose relative norm
    :math:`\|\hat u - u\|_{L^2} / \|u\|_{L^2}` stands in the title. Below the input are its points,
    below the truth its mesh.

    Args:
        source: what the models read.
        truth: the wanted field.
        predictions: answers at the truth's points by model name; fields, or samples [M, c] in the
            truth's channels.
        channel: the channel of truth and answers that is shown; the first if omitted.
        source_channel: the channel of the source that is shown; ``channel`` if the source has it,
            else its first.

    Raises:
        FieldError: if a field is not two-dimensional, lacks a channel, or an answer has another
            number of points than the truth.
    """
    channel = truth.channels[0] if channel is None and truth.channels else channel
    if source_channel is None and channel in source.channels:
        source_channel = channel
    wanted, read = _channel(truth, channel), _channel(source, source_channel)
    answers = {name: _answer(name, p, truth, channel) for name, p in predictions.items()}
    columns = 2 + len(answers)
    figure = _figure(columns, 2, _aspect([truth, source]))
    axes = figure.subplots(2, columns, squeeze=False)

    picture = _draw(axes[0, 0], source, read, _scale(read))
    _title(axes[0, 0], f"input {_label(source, source_channel)}")
    _colour_bar(figure, picture, [axes[0, 0]])
    _points(axes[1, 0], source)
    _title(axes[1, 0], f"{source.num_points:,} points read")

    scale = _scale(wanted)  # the truth's: an answer that leaves it saturates, as it should
    picture = _draw(axes[0, 1], truth, wanted, scale)
    _title(axes[0, 1], f"truth {_label(truth, channel)}")
    _mesh(axes[1, 1], truth)
    _title(axes[1, 1], f"{truth.num_points:,} points asked")

    errors = {name: answer - wanted for name, answer in answers.items()}
    error_scale = _error_scale(*errors.values())
    error_picture = None
    for column, (name, answer) in enumerate(answers.items(), start=2):
        _draw(axes[0, column], truth, answer, scale)
        _title(axes[0, column], name)
        error_picture = _draw(axes[1, column], truth, errors[name], error_scale)
        _title(axes[1, column], f"error {_relative(errors[name], wanted, truth):.2%}")
    _colour_bar(figure, picture, list(axes[0, 1:]))
    if error_picture is not None:
        _colour_bar(figure, error_picture, list(axes[1, 1:]))
    return figure


def plot_history(
    history: Sequence[Mapping[str, Any]],
    *,
    x: str = "step",
    leave_out: Sequence[str] = ("lr", "gradient_norm", "steps_per_second"),
) -> Figure:
    """Training curves on a logarithmic axis.

    Args:
        history: one mapping a logged step, as :class:`~cst_operator.training.Run` keeps them; keys
            may differ from step to step, and mappings inside add their name to their keys'.
        x: the key of the horizontal axis.
        leave_out: keys that are not errors.
    """
    rows = [_flat(record, leave_out) for record in history]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name != x]
    if sum(name.startswith("terms ") for name in names) == 1:  # it is the loss once more
        names = [name for name in names if not name.startswith("terms ")]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor=_PAPER)
    axis = figure.subplots()
    drawn = False
    for i, name in enumerate(names):
        known = np.array([(r[x], r[name]) for r in rows if x in r and r.get(name, 0) > 0])
        if not len(known):
            continue
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(known) < 40 else {}
        axis.plot(*known.T, color=_LINES[i % len(_LINES)], linewidth=1.6, label=name, **style)
        drawn = True
    if drawn:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        low, high = axis.get_ylim()
        few = high / low < 300  # decades alone would leave the axis almost bare
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if few else "auto"))
        axis.yaxis.set_minor_formatter(
            FuncFormatter(lambda y, _: f"{y:g}") if few else NullFormatter()
        )
        axis.legend(frameon=False, fontsize=8, labelcolor=_INK)
    axis.set_xlabel(x, color=_INK, fontsize=9)
    axis.tick_params(labelsize=8, colors=_INK, which="both")
    axis.grid(True, which="major", color="#d8dee4", linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


def _flat(record: Mapping[str, Any], leave_out: Sequence[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in record.items():
        if key in leave_out:
            continue
        if isinstance(value, Mapping):
            numbers |= {f"{key} {name}": number for name, number in _flat(value, leave_out).items()}
        elif isinstance(value, int | float):
            numbers[key] = float(value)
    return numbers


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as a PNG file's bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Write a PNG; a reader sees the old file or the whole new one."""
    return write_atomically(path, figure_png(figure, dpi=dpi))


def _figure(columns: int, rows: int, aspect: float) -> Figure:
    height = min(max(_PANEL / aspect, 0.8), 2 * _PANEL)
    width = _PANEL if height < 2 * _PANEL else 2 * _PANEL * aspect
    size = (columns * (width + 0.1) + 0.7, rows * (height + 0.35))
    return Figure(figsize=size, layout="constrained", facecolor=_PAPER)


def _aspect(fields: Sequence[PointField]) -> float:
    for field in fields:
        if field.dim != 2:
            raise FieldError(
                f"pictures are two-dimensional but the field has {field.dim} dimensions; "
                "write it with write_mesh and open it in ParaView"
            )
    extent = np.ptp(np.concatenate([_numpy(field.pos) for field in fields]), axis=0)
    return float(np.clip(extent[0] / max(extent[1], 1e-300), 0.1, 10))


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array


def _channel(field: PointField, channel: str | None) -> Array:
    if not field.channels:
        raise FieldError("the field has no channels to plot; give it values")
    return _numpy(field.select(channel or field.channels[0]).u[:, 0])


def _answer(
    name: str, prediction: PointField | Tensor, truth: PointField, channel: str | None
) -> Array:
    u = prediction.u if isinstance(prediction, PointField) else prediction
    if len(u) != truth.num_points:
        raise FieldError(
            f"{name} has {len(u)} rows but the truth has {truth.num_points} points; "
            "predict at the truth's points"
        )
    if isinstance(prediction, PointField) and channel in prediction.channels:
        return _channel(prediction, channel)
    if u.shape[1] != len(truth.channels):
        raise FieldError(
            f"{name} has {u.shape[1]} channels but the truth has {len(truth.channels)}; "
            f"name the channel {channel!r} in the answer"
        )
    return _numpy(u[:, truth.channels.index(channel or truth.channels[0])])


def _relative(error: Array, wanted: Array, truth: PointField) -> float:
    weights = _numpy(truth.weights) if "weights" in truth else np.ones(len(wanted))
    size = float(weights @ wanted**2)
    return float(np.sqrt((weights @ error**2) / size)) if size > 0 else float("nan")


def _label(field: PointField, channel: str | None) -> str:
    name = channel or field.channels[0]
    unit = field.units[field.channels.index(name)]
    return f"{name} [{unit}]" if unit else name


def _scale(*values: Array) -> tuple[str, Normalize]:
    """Colour map and limits: diverging about zero if both signs matter."""
    low = min(float(v.min(initial=np.inf)) for v in values)
    high = max(float(v.max(initial=-np.inf)) for v in values)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        bound = max(-low, high)
        return _SIGNED, Normalize(-bound, bound)
    return _FIELD, Normalize(low, high)


def _error_scale(*errors: Array) -> tuple[str, Normalize]:
    # A few outliers at corners must not turn everything else white.
    bound = max((float(np.quantile(np.abs(e), 0.995)) for e in errors), default=1.0) or 1.0
    return _ERROR, Normalize(-bound, bound)


def _triangulation(field: PointField) -> Triangulation | None:
    cells = field.get("cells") or {}
    parts = [cells["triangle"]] if "triangle" in cells else []
    if "quad" in cells:
        parts += [cells["quad"][:, [0, 1, 2]], cells["quad"][:, [0, 2, 3]]]
    if not parts or not sum(map(len, parts)):
        return None
    x, y = _numpy(field.pos).T
    return Triangulation(x, y, triangles=torch.cat(parts).cpu().numpy())


def _draw(axis: Axes, field: PointField, values: Array, scale: tuple[str, Normalize]) -> Any:
    colours, limits = scale
    triangles = _triangulation(field)
    _blank(axis)
    if triangles is not None:
        _outline(axis, triangles)
        return axis.tripcolor(
            triangles, values, shading="gouraud", cmap=colours, norm=limits, rasterized=True
        )
    x, y = _numpy(field.pos).T
    return axis.scatter(x, y, c=values, s=_dot(field), cmap=colours, norm=limits, linewidths=0)


def _outline(axis: Axes, triangles: Triangulation) -> None:
    """Edges of one triangle only, so that a domain shows where its values are white."""
    corners = triangles.triangles
    edges = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]))
    edges, times = np.unique(edges, axis=0, return_counts=True)
    points = np.stack([triangles.x, triangles.y], axis=1)
    lines = LineCollection(points[edges[times == 1]], colors="#9aa4af", linewidths=0.6)
    axis.add_collection(lines)


def _dot(field: PointField) -> float:
    """Area of a dot such that the dots about fill the panel's domain, in points squared."""
    return float(np.clip(0.6 * (72 * _PANEL) ** 2 / max(field.num_points, 1), 1.5, 60))


def _points(axis: Axes, field: PointField) -> None:
    _blank(axis)
    size = float(np.clip(1500 / max(field.num_points, 1), 0.3, 12))
    x, y = _numpy(field.pos).T
    axis.scatter(x, y, s=size, color=_INK, linewidths=0)


def _mesh(axis: Axes, field: PointField) -> None:
    triangles = _triangulation(field)
    if triangles is None:
        _points(axis, field)
        return
    _blank(axis)
    width = float(np.clip(12 / np.sqrt(len(triangles.triangles)), 0.1, 0.6))
    axis.triplot(triangles, color=_INK, linewidth=width)


def _blank(axis: Axes) -> None:
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.margins(0.02)


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, fontsize=10, color=_INK, parse_math=False)


def _colour_bar(
    figure: Figure, picture: Any, axes: Sequence[Axes], label: str | None = None
) -> None:
    bar = figure.colorbar(picture, ax=list(axes), shrink=0.85, aspect=22, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=_INK, length=2)
    bar.locator = MaxNLocator(nbins=5)
    bar.update_ticks()
    bar.outline.set_visible(False)
    if label:
        bar.set_label(label, fontsize=9, color=_INK)
