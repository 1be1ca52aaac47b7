"""Data that are wrong in themselves; the numbers are the rows of the list of faults.

7 values that are not finite, 9 bad cells, 12 mixed sets, 13 times out of order.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cst_operator import TaskDataset
from cst_operator.datasets import (
    readers,
)
from cst_operator.errors import FieldError
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_repair import repair_mesh
from cst_operator.mesh_report import mesh_report
from cst_operator.solvers import Heat, Poisson
from cst_operator.tasks import Forecast
from tests.fault_samples import same
from tests.reader_samples import FORMATS, trajectories

# 7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_at_their_place(bad: float) -> None:
    good = Heat(h=0.25, num_frames=3, dt=0.05).sample(0, 0)
    for name in ("u", "gradient", "time_derivative"):
        value = getattr(good, name).clone()
        value[2, 4, 0] = bad
        with pytest.raises(FieldError, match=rf"{name} has .*frame 2 at point 4 in channel 'u'"):
            replace(good, **{name: value})
    times = good.times.clone()
    times[-1] = bad
    with pytest.raises(FieldError, match="times has 1 .*frame 2"):
        replace(good, times=times)
    for name in ("pos", "weights", "time", "u"):
        value = good.mesh[name].clone()
        value[3] = bad
        with pytest.raises(FieldError, match=rf"{name} has \d+ values .*first at point 3"):
            good.mesh._with(**{name: value})


def test_a_reader_names_the_sample_and_dropping_is_a_request(tmp_path: Path) -> None:
    u = np.zeros((4, 3, 5, 2))
    u[2, 1, 3, 1] = np.nan
    np.save(tmp_path / "a.npy", u)
    pos = np.random.default_rng(0).random((5, 2))
    found = readers.read_numpy(
        tmp_path / "a.npy", "ntpc", pos=pos, weights=np.ones(5), channels=("p", "q")
    )
    with pytest.raises(FieldError, match=r"a.npy: sample 2: .*frame 1 at point 3 in channel 'q'"):
        list(found)


# 9


@pytest.mark.parametrize("index", range(6))
def test_planted_defects_of_generated_meshes_are_all_found(
    index: int, rng: np.random.Generator
) -> None:
    mesh = Poisson(h=0.12).sample(3, index).mesh
    clean = mesh_report(mesh)
    assert clean.problems == clean.notes == ()  # no false alarm
    triangles = mesh.cells["triangle"]
    number = int(rng.integers(1, 6))
    chosen = torch.from_numpy(rng.choice(len(triangles), number, replace=False))
    flat = triangles.clone()
    flat[chosen, 2] = flat[chosen, 1]
    assert mesh_report(mesh._with(cells={"triangle": flat})).degenerate == number
    turned = triangles.clone()
    turned[chosen] = turned[chosen].flip(1)
    assert mesh_report(mesh._with(cells={"triangle": turned})).inverted == number
    twice = torch.cat([triangles, triangles[chosen]])
    assert mesh_report(mesh._with(cells={"triangle": twice})).duplicate_cells == number
    points = torch.from_numpy(rng.choice(mesh.num_points, number, replace=False))
    copied = PointField(torch.cat([mesh.pos, mesh.pos[points]]), cells={"triangle": triangles})
    report = mesh_report(copied)
    assert report.duplicates == number and report.unused == number
    outside = triangles.clone()
    outside[chosen[0], 1] = mesh.num_points
    with pytest.raises(FieldError, match=f"name point {mesh.num_points}"):
        mesh._with(cells={"triangle": outside})
    repaired, done = repair_mesh(mesh._with(cells={"triangle": torch.cat([turned, flat[chosen]])}))
    assert (done.inverted, done.degenerate) == (number, number)
    assert torch.equal(repaired.cells["triangle"].sort(dim=1).values, triangles.sort(dim=1).values)


# 12


def plain(**changes: Any) -> Trajectory:
    dim = changes.pop("dim", 2)
    dtype = changes.pop("dtype", torch.float64)
    mesh = PointField(torch.rand(6, dim, dtype=dtype), weights=torch.ones(6, dtype=dtype))
    options: dict[str, Any] = {"channels": ("u",), "units": ("K",), **changes}
    u = torch.rand(3, 6, 1, dtype=dtype)
    return Trajectory(mesh=mesh, times=torch.arange(3, dtype=dtype), u=u, **options)


def _example_set(other: Trajectory) -> TaskDataset:
    return TaskDataset([plain(), other], Forecast(inputs=(), outputs=("u",)))


def test_one_kind_of_trajectories_is_accepted() -> None:
    data = _example_set(plain())
    assert data[0].source.units == data[1].source.units


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dim": 3}, "dimensions of the source 3, those before 2"),
        ({"units": ("degC",)}, r"units of the source \('degC',\), those before \('K',\)"),
        ({"dtype": torch.float32}, "precision of the source torch.float32"),
    ],
)
def test_mixed_sets_are_refused(changes: dict[str, Any], words: str) -> None:
    data = _example_set(plain(**changes))
    assert data[0].source.num_points == 6
    with pytest.raises(FieldError, match=f"trajectory 1 has {words}"):
        data[1]


def test_readers_give_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    for name, (suffix, write, _) in FORMATS.items():
        if name not in ("pdebench", "mat5", "comsol", "netcdf"):
            continue
        path = write(tmp_path / f"{name}{suffix}")
        read = getattr(readers, f"read_{name.removesuffix('5')}")
        for dtype in (torch.float32, torch.float64):
            for one in trajectories(read(path, dtype=dtype)):
                kinds = {one.u.dtype, one.mesh.pos.dtype, one.mesh.weights.dtype, one.times.dtype}
                assert kinds == {dtype}, name


# 13


def test_frames_out_of_order_are_the_same_trajectory(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, pos, times = rng.random((5, 6, 1)), rng.random((6, 2)), np.arange(5.0)
    order = rng.permutation(5)
    options: dict[str, Any] = {"pos": pos, "weights": np.ones(6), "dtype": torch.float64}
    found = []
    for name, kept in (("a", np.arange(5)), ("b", order)):
        np.save(tmp_path / f"{name}.npy", u[kept])
        path = tmp_path / f"{name}.npy"
        found.append(readers.read_numpy(path, "tpc", times=times[kept], **options)[0])
    assert same(*found)
    np.save(tmp_path / "c.npy", u)
    with pytest.raises(FieldError, match="remove repeated ones"):
        readers.read_numpy(tmp_path / "c.npy", "tpc", times=np.array([0.0, 1, 1, 2, 3]), **options)[
            0
        ]


def test_the_order_of_points_in_time_changes_neither_answer_nor_gradient(seed: int) -> None:
    from cst_operator import CSTConfig, CSTOperator

    torch.manual_seed(seed)
    config = CSTConfig(dim=2, in_channels=1, out_channels=1, width=16, depth=1, heads=2)
    model = CSTOperator(config).double().eval()
    source = plain().space_time([0, 1, 2])
    query = plain().frame(0)
    answers = []
    for order in (torch.arange(18), torch.randperm(18)):
        moved = PointField(
            source.pos[order], source.u[order], source.weights[order], time=source.time[order]
        )
        model.zero_grad()
        answer = model(moved, query)
        answer.square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        answers.append((answer.detach(), gradient))
    # sums in another order: a few roundings of float64
    for one, two in zip(*answers, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)
