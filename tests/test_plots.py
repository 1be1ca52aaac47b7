"""Pictures of fields."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection, TriMesh
from matplotlib.colors import to_rgba

from cst_operator.errors import FieldError
from cst_operator.fields import PointField
from cst_operator.plots import (
    figure_png,
    plot_comparison,
    plot_fields,
    plot_history,
    save_figure,
)


def square(n: int, kind: str | None = "triangle", unit: str = "") -> PointField:
    """n x n points of the unit square with u = x - .3 and v = 2 + y."""
    side = torch.linspace(0, 1, n, dtype=torch.float64)
    pos = torch.cartesian_prod(side, side)
    i, j = torch.meshgrid(torch.arange(n - 1), torch.arange(n - 1), indexing="ij")
    a = (n * i + j).flatten()
    quads = torch.stack([a, a + n, a + n + 1, a + 1], dim=1)
    cells = {
        "quad": {"quad": quads},
        "triangle": {"triangle": torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])},
        None: None,
    }[kind]
    u = torch.stack([pos[:, 0] - 0.3, 2 + pos[:, 1]], dim=1)
    weights = torch.full((n * n,), 1 / n**2, dtype=torch.float64)
    return PointField(pos, u, weights, channels=["u", "v"], units=["m/s", unit], cells=cells)


def test_quads_look_like_the_triangles_they_split_into() -> None:
    pictures = [figure_png(plot_fields({"t": square(5, kind)})) for kind in ("quad", "triangle")]
    assert pictures[0] == pictures[1]


def test_points_without_cells_are_scattered() -> None:
    (axis, _) = plot_fields({"t": square(5, None)}).axes
    (dots,) = [c for c in axis.collections if isinstance(c, PathCollection)]
    assert len(dots.get_offsets()) == 25


def pictures_of(axis: object) -> list[TriMesh]:
    return [c for c in axis.collections if isinstance(c, TriMesh)]  # type: ignore[attr-defined]


def test_truth_and_answers_share_a_scale_and_errors_another() -> None:
    truth = square(6)
    answers = {"a": truth.u * 1.5, "b": truth.with_values(truth.u + 0.01, truth.channels)}
    figure = plot_comparison(square(4), truth, answers, channel="v", source_channel="v")
    axes = {axis.get_title(): axis for axis in figure.axes}
    limits = [pictures_of(axes[t])[0].get_clim() for t in ("truth v", "a", "b")]
    assert limits == [(2, 3)] * 3
    errors = [axes[t] for t in axes if t.startswith("error")]
    bounds = [pictures_of(axis)[0].get_clim() for axis in errors]
    assert bounds[0] == bounds[1]
    assert bounds[0][0] == -bounds[0][1]


def test_the_title_has_the_weighted_relative_error() -> None:
    truth = square(6)
    truth.weights = torch.linspace(1, 2, 36).double()
    figure = plot_comparison(square(4), truth, {"a": truth.u * 1.25}, channel="v")
    # The error is a quarter of the field everywhere, so any weights give .25.
    assert "error 25.00%" in [axis.get_title() for axis in figure.axes]
    truth.weights[1:] = 0
    answer = truth.u.clone()
    answer[1:] += 7
    figure = plot_comparison(square(4), truth, {"a": answer}, channel="v")
    assert "error 0.00%" in [axis.get_title() for axis in figure.axes]


def test_colours_diverge_about_zero_only_where_both_signs_matter() -> None:
    field = square(5)
    maps = {}
    for channel in ("u", "v"):
        picture = pictures_of(plot_fields({"t": field}, channel).axes[0])[0]
        maps[channel] = picture.get_cmap().name
        low, high = picture.get_clim()
        assert (low, high) == ((-0.7, 0.7) if channel == "u" else (2, 3))
    assert maps == {"u": "RdBu_r", "v": "viridis"}


def test_a_constant_field_has_a_picture() -> None:
    field = square(4)
    flat = field.with_values(torch.full((16, 1), 3.0).double(), ["p"])
    figure = plot_comparison(flat, flat, {"same": flat})
    assert len(figure_png(figure)) > 1000
    low, high = pictures_of(figure.axes[1])[0].get_clim()
    assert low <= 3 < high


def test_units_and_names_are_shown_as_they_are() -> None:
    figure = plot_fields({"a $x^{$": square(4)}, "u")
    assert figure.axes[0].get_title() == "a $x^{$"
    assert figure.axes[-1].get_ylabel() == "u [m/s]"
    figure_png(figure, dpi=30)


def test_history_draws_errors_and_leaves_out_the_rest() -> None:
    history: list[dict[str, object]] = [
        {"step": i, "loss": 1 / (i + 1), "terms": {"value": 1.0}, "lr": 0.1} for i in range(50)
    ]
    history.append({"step": 50, "validation": {"relative_l2": 0.5}})
    (axis,) = plot_history(history).axes
    assert [line.get_label() for line in axis.lines] == ["loss", "validation relative_l2"]
    assert axis.get_yscale() == "log"
    history.append({"step": 50, "terms": {"gradient": 0.1}})
    (axis,) = plot_history(history).axes
    assert "terms gradient" in [line.get_label() for line in axis.lines]
    assert len(figure_png(plot_history([]))) > 1000


def test_pictures_repeat_exactly_and_are_white_paged(tmp_path: Path) -> None:
    figures = [plot_fields({"t": square(5)}) for _ in range(2)]
    paths = [save_figure(f, tmp_path / "new" / f"{i}.png") for i, f in enumerate(figures)]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", first[16:24])
    assert width > 300 and height > 300
    assert to_rgba(figures[0].get_facecolor()) == (1, 1, 1, 1)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["0.png", "1.png"]


def test_what_cannot_be_drawn_is_refused() -> None:
    solid = PointField(torch.rand(5, 3), torch.rand(5, 1))
    with pytest.raises(FieldError, match="ParaView"):
        plot_fields({"solid": solid})
    with pytest.raises(FieldError, match="no channel 'w'"):
        plot_fields({"t": square(4)}, "w")
    with pytest.raises(FieldError, match="no channels"):
        plot_fields({"t": PointField(torch.rand(5, 2))})
    with pytest.raises(FieldError, match="at least one"):
        plot_fields({})
    with pytest.raises(FieldError, match="4 rows but the truth has 16 points"):
        plot_comparison(square(4), square(4), {"a": torch.zeros(4, 2)})
    with pytest.raises(FieldError, match="3 channels"):
        plot_comparison(square(4), square(4), {"a": torch.zeros(16, 3)})


def test_long_domains_keep_their_shape() -> None:
    field = square(5)
    field.pos = field.pos * torch.tensor([8.0, 1.0]).double()
    figure = plot_fields({"a": field, "b": field})
    figure.draw_without_rendering()
    for axis in figure.axes[:2]:
        box = axis.get_window_extent()
        # The data's box is 8 by 1 with margins of 2 % on each side, rounded to pixels.
        assert np.isclose(box.width / box.height, 8, rtol=0.05)
