from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.loader import DataLoader

from cst_operator.errors import FieldError
from cst_operator.fields import Example, PointField, Trajectory, trapezoid_weights
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box


def sample(kind: str = "mixed2", n: int = 4) -> PointField:
    pos, cells = box(kind, n)
    u = torch.stack([pos[:, 0], pos[:, 1] ** 2, pos.sum(dim=1)], dim=1)
    return PointField(
        pos, u, node_weights(pos, cells),
        channels=("a", "b", "c"), units=("m", "", "K"),
        gradient=torch.zeros(*u.shape, pos.shape[1]).double(),
        time_derivative=u * 2, cells=cells,
    )  # fmt: skip


NAN = torch.tensor([[0.0], [1.0], [torch.nan]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pos": torch.zeros(3)}, r"pos has shape \(3,\); expected \[points, dimensions\]"),
        ({"u": torch.zeros(3)}, r"write u\[:, None\]"),
        ({"u": torch.zeros(2, 1)}, "u has 2 rows but pos has 3 points"),
        ({"weights": torch.zeros(4)}, "weights has 4 rows but pos has 3 points"),
        ({"time": torch.zeros(1)}, "time has 1 rows"),
        ({"u": torch.zeros(3, 1), "gradient": torch.zeros(3, 1, 3)}, r"expected \(3, 1, 2\)"),
        ({"u": torch.zeros(3, 2), "channels": ["a"]}, "1 channels were named but u has 2"),
        ({"u": torch.zeros(3, 2), "channels": ["a", "a"]}, "names must differ"),
        ({"u": torch.zeros(3, 1), "units": ["m", "s"]}, "2 units were named but u has 1"),
        ({"u": NAN, "channels": ["p"]}, "first at point 2 in channel 'p'"),
        ({"weights": torch.tensor([1.0, torch.inf, 1])}, "weights has 1 values .* point 1"),
        ({"cells": {"triangle": torch.tensor([[0, 1, 3]])}}, "name point 3 but there are 3"),
        ({"facets": {"line": torch.tensor([[-1, 1]])}}, "name point -1 but there are 3 points"),
        (
            {
                "facets": {"line": torch.tensor([[0, 1]])},
                "facet_markers": {"line": torch.tensor([1, 2])},
            },
            "2 facet_markers of type line but 1 facets",
        ),
        ({"facet_markers": {"line": torch.tensor([1])}}, "1 facet_markers .* but 0 facets"),
    ],
)
def test_inconsistent_fields_are_refused(arguments: dict[str, Any], message: str) -> None:
    pos = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    with pytest.raises(FieldError, match=message):
        PointField(**{"pos": pos, **arguments})


def test_missing_parts_have_defaults() -> None:
    field = PointField(torch.rand(4, 2), torch.rand(4, 2))
    assert field.channels == ("u0", "u1")
    assert field.units == ("", "")
    assert field.time.tolist() == [0] * 4
    assert PointField(torch.rand(4, 3)).u.shape == (4, 0)
    assert (field.num_points, field.dim) == (4, 2)


def test_select_takes_channels_with_their_derivatives() -> None:
    field = sample()
    chosen = field.select("c", "a")
    assert (chosen.channels, chosen.units) == (("c", "a"), ("K", "m"))
    assert torch.equal(chosen.u, field.u[:, [2, 0]])
    assert torch.equal(chosen.time_derivative, field.time_derivative[:, [2, 0]])
    assert chosen.gradient.shape[1] == 2
    assert chosen.cells is not None
    assert field.channels == ("a", "b", "c")
    with pytest.raises(FieldError, match="no channel 'd'; the field has a, b, c"):
        field.select("d")
    assert field.select().u.shape == (field.num_points, 0)


def test_with_channels_appends() -> None:
    field = sample()
    more = field.with_channels(field.u[:, :1] * 3, ["d"], ["s"])
    assert (more.channels, more.units) == (("a", "b", "c", "d"), ("m", "", "K", "s"))
    assert torch.equal(more.u[:, 3], field.u[:, 0] * 3)
    assert "gradient" not in more
    assert field.u.shape[1] == 3
    with pytest.raises(FieldError, match="names must differ"):
        field.with_channels(field.u[:, :1], ["a"])


def test_with_values_keeps_points_weights_and_cells() -> None:
    field = sample()
    other = field.with_values(field.u[:, :1], ["z"])
    assert other.channels == ("z",)
    assert torch.equal(other.weights, field.weights)
    assert other.cells.keys() == field.cells.keys()


@pytest.mark.parametrize("as_mask", [False, True])
def test_subset_keeps_the_sum_of_weights(as_mask: bool) -> None:
    field = sample()
    index = torch.tensor([2, 3, 11])
    chosen: Tensor = index
    if as_mask:
        chosen = torch.zeros(field.num_points, dtype=torch.bool)
        chosen[index] = True
    part = field.subset(chosen)
    assert torch.equal(part.u, field.u[index])
    assert torch.equal(part.pos, field.pos[index])
    assert part.weights.sum().item() == pytest.approx(1, rel=1e-12)
    ratio = part.weights / field.weights[index]
    torch.testing.assert_close(ratio, ratio[:1].expand(3))
    assert "cells" not in part
    assert (part.channels, part.units) == (field.channels, field.units)


def test_examples_of_different_sizes_are_collated() -> None:
    fields = [sample("mixed2", 4), sample("mixed2", 2), sample("triangle", 3)]
    examples = [
        Example(f, PointField(f.pos[: 5 + i], f.u[: 5 + i, :1])) for i, f in enumerate(fields)
    ]
    batch = next(iter(DataLoader(examples[:2], batch_size=2)))
    assert isinstance(batch, Example)
    assert batch.source.num_graphs == 2
    assert len(batch.source.pos) == fields[0].num_points + fields[1].num_points
    assert batch.target.batch.tolist() == [0] * 5 + [1] * 6
    # Vertex numbers of the second mesh start after the points of the first: the two unit squares
    # together have area 2, point by point as before.
    torch.testing.assert_close(
        node_weights(batch.source.pos, batch.source.cells), batch.source.weights
    )
    back = batch.source.to_data_list()
    for kind, index in fields[1].cells.items():
        assert torch.equal(back[1].cells[kind], index)
    assert tuple(back[1].channels) == fields[1].channels


def trajectory() -> Trajectory:
    mesh = sample().select("a")
    times = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    u = times[:, None, None] * torch.ones(3, mesh.num_points, 2, dtype=torch.float64)
    return Trajectory(
        mesh=mesh, times=times, u=u, channels=("p", "q"),
        time_derivative=torch.ones_like(u), parameters={"seed": 1.0},
    )  # fmt: skip


def test_an_example_is_copied_to_a_device_with_all_it_knows() -> None:
    one = Example(sample(), sample("triangle"))
    (batch,) = DataLoader([one, one], batch_size=2)
    for example in (one, batch):
        moved = example.to("meta", non_blocking=True)
        assert type(moved) is Example
        for here, there in zip(example, moved, strict=True):
            assert type(there) is type(here) and there.num_points == here.num_points
            assert there.channels == here.channels and there.units == here.units
            for key in ("pos", "u", "weights", "time", "gradient", "time_derivative"):
                assert (here[key].device.type, there[key].device.type) == ("cpu", "meta")
            for cells, device in ((here.cells, "cpu"), (there.cells, "meta")):
                assert {index.device.type for index in cells.values()} == {device}


def test_a_frame_is_a_field_at_its_time() -> None:
    frame = trajectory().frame(1)
    assert frame.channels == ("p", "q")
    assert frame.units == ("", "")
    assert frame.time.unique().tolist() == [0.5]
    assert frame.u.unique().tolist() == [0.5]
    assert frame.weights.sum().item() == pytest.approx(1)
    assert frame.cells.keys() == trajectory().mesh.cells.keys()
    assert frame.time_derivative.shape == frame.u.shape


def test_space_time_weights_integrate_over_space_and_time() -> None:
    series = trajectory()
    points = series.space_time([0, 1, 2])
    assert points.num_points == 3 * series.mesh.num_points
    # The integral of t over the unit square and [0, 2], linear in t and so exact.
    assert (points.weights @ points.u[:, 0]).item() == pytest.approx(2)
    pair = series.space_time(torch.tensor([1, 2]))
    assert pair.weights.sum().item() == pytest.approx(1.5)
    assert series.space_time([2]).weights.sum().item() == pytest.approx(1)
    assert series.num_frames == 3


def test_a_field_as_the_only_frame_comes_back_as_it_was() -> None:
    pos = torch.rand(5, 2)
    field = PointField(
        pos, torch.rand(5, 1), torch.rand(5), channels=["T"], units=["K"],
        gradient=torch.rand(5, 1, 2), time_derivative=torch.rand(5, 1),
    )  # fmt: skip
    frame = Trajectory.of(field, 0.5).frame(0)
    assert frame.channels == field.channels and frame.units == field.units
    for key in ("pos", "u", "weights", "gradient", "time_derivative"):
        assert torch.equal(frame[key], field[key])
    assert frame.time.eq(0.5).all()


def test_inconsistent_trajectories_are_refused() -> None:
    series = trajectory()
    with pytest.raises(FieldError, match=r"expected \[frames, points, channels\]"):
        Trajectory(mesh=series.mesh, times=series.times, u=series.u, channels=("p",))
    words = r"increase strictly, but frames 0 and 1 are at 2 and 0.5 \(in float64\); sort"
    with pytest.raises(FieldError, match=words):
        Trajectory(mesh=series.mesh, times=series.times.flip(0), u=series.u, channels=("p", "q"))


@pytest.mark.parametrize("frame", [3, -4])
def test_a_frame_that_is_not_there_is_refused(frame: int) -> None:
    words = f"there is no frame {frame}; the trajectory has 3"
    with pytest.raises(FieldError, match=words):
        trajectory().frame(frame)
    with pytest.raises(FieldError, match=words):
        trajectory().space_time([frame])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": torch.zeros(0), "u": torch.zeros(0, 3, 2)}, r"times has shape \(0,\); expected"),
        ({"times": torch.zeros(1, 1)}, r"times has shape \(1, 1\)"),
        ({"units": ("m",)}, "1 units were named but there are 2 channels"),
        ({"channels": ("p", "p")}, "names must differ, got p, p"),
        ({"gradient": torch.zeros(1, 3, 2)}, r"gradient .* = \(1, 3, 2, 2\)"),
        ({"time_derivative": torch.zeros(1, 2, 2)}, r"time_derivative .* = \(1, 3, 2\)"),
    ],
)
def test_parts_of_a_trajectory_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    parts: dict[str, Any] = {
        "mesh": PointField(torch.rand(3, 2)),
        "times": torch.zeros(1),
        "u": torch.zeros(1, 3, 2),
        "channels": ("p", "q"),
    }
    Trajectory(**parts)
    with pytest.raises(FieldError, match=message):
        Trajectory(**{**parts, **changes})


def test_trapezoid_weights_are_exact_for_linear_functions() -> None:
    times = torch.tensor([1.0, 2.0, 4.0, 4.5], dtype=torch.float64)
    assert (trapezoid_weights(times) @ times).item() == pytest.approx((4.5**2 - 1) / 2)


def test_a_trajectory_changes_its_precision_everywhere() -> None:
    u = torch.rand(2, 3, 1, dtype=torch.float64)
    one = Trajectory(
        mesh=PointField(
            torch.rand(3, 2).double(), torch.rand(3, 1).double(), torch.rand(3).double()
        ),
        times=torch.tensor([0.0, 1.0]).double(),
        u=u,
        channels=("u",),
        units=("K",),
        gradient=torch.rand(2, 3, 1, 2).double(),
    )
    single = one.to(torch.float32)
    tensors = [single.times, single.u, single.gradient]
    tensors += [single.mesh[key] for key in ("pos", "time", "u", "weights")]
    assert all(tensor.dtype == torch.float32 for tensor in tensors)
    assert single.time_derivative is None
    assert (single.channels, single.units) == (("u",), ("K",))
    assert torch.equal(single.u, u.float())
    assert one.mesh.pos.dtype == torch.float64
