from dataclasses import replace

import numpy as np
import pytest
import torch

from cst_operator.datasets.inspection import inspect_trajectories
from cst_operator.errors import FieldError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers import Heat, Poisson


@pytest.fixture(scope="module")
def clean():
    return [Heat(h=0.15, num_frames=4, dt=0.01).sample(0, index) for index in range(3)]


def _with_value(trajectory, frame, point, value):
    u = trajectory.u.clone()
    u[frame, point] = value
    return replace(trajectory, u=u)


def test_clean_sets_have_nothing_to_report(clean):
    report = inspect_trajectories(clean)
    assert report.ok and report.warnings == () and report.num_readable == 3
    assert report.num_frames == (4, 4)
    values = torch.cat([one.u.flatten() for one in clean])
    assert report.channels[0].maximum == float(values.max())
    steady = [Poisson(h=0.15).sample(0, index) for index in range(3)]
    assert inspect_trajectories(steady).warnings == ()


def test_outliers_and_frames_that_repeat_are_found_at_their_place(clean):
    wild = _with_value(clean[1], 2, 7, 1e6)
    stuck = replace(clean[2], u=clean[2].u[[0, 1, 1, 3]])
    flat = replace(clean[0], u=torch.ones_like(clean[0].u))
    report = inspect_trajectories([clean[0], wild, stuck, flat])
    assert report.ok
    text = "\n".join(report.warnings)
    assert "sample 1: 1 outliers in 'u', the first in frame 2 at point 7" in text
    assert "sample 2: 1 frames of 'u' equal the one before, the first is frame 2" in text
    assert "sample 3: 'u' is 1 everywhere" in text


def test_defects_of_the_mesh_and_of_what_is_mixed_are_problems(clean):
    mesh = clean[0].mesh
    triangles = mesh.cells["triangle"].clone()
    triangles[3, 1] = triangles[3, 0]
    bad = replace(clean[0], mesh=mesh._with(cells={"triangle": triangles}))
    report = inspect_trajectories([clean[0], bad])
    assert any(w.startswith("sample 1: 1 degenerate cells") for w in report.problems)
    flipped = mesh.cells["triangle"].clone()
    flipped[:2] = flipped[:2].flip(1)
    bad = replace(clean[0], mesh=mesh._with(cells={"triangle": flipped}))
    turned = inspect_trajectories([bad])
    assert turned.ok and "2 inverted cells" in turned.warnings[0]
    twice = PointField(torch.cat([mesh.pos, mesh.pos[:1]]))
    more = Trajectory(
        mesh=twice, times=torch.zeros(1), u=torch.rand(1, len(twice.pos), 1), channels=("u",)
    )
    assert any("1 repeated points" in words for words in inspect_trajectories([more]).warnings)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"channels": ("T",)}, "channels 'T' differ from the first sample's 'u'"),
        ({"units": ("K",)}, "units 'K' differ"),
    ],
)
def test_mixed_names_and_units_are_problems(clean, change, words):
    report = inspect_trajectories([clean[0], replace(clean[1], **change)])
    assert any(words in line for line in report.problems)


def test_mixed_precision_and_dimensions_are_problems(clean):
    assert (
        "precision torch.float32"
        in inspect_trajectories([clean[0], clean[1].to(torch.float32)]).problems[0]
    )
    line = Trajectory(
        mesh=PointField(torch.rand(4, 1, dtype=torch.float64)),
        times=torch.zeros(1),
        u=torch.rand(1, 4, 1, dtype=torch.float64),
        channels=("u",),
    )
    assert any("dimensions 1" in words for words in inspect_trajectories([clean[0], line]).problems)


def test_what_cannot_be_read_is_reported_and_the_rest_inspected(clean):
    class Damaged(list):
        def __getitem__(self, index):
            if index == 1:
                raise FieldError("000001.h5 is damaged")
            return super().__getitem__(index)

    report = inspect_trajectories(Damaged(clean))
    assert report.problems == ("sample 1: 000001.h5 is damaged",)
    assert report.num_readable == 2 and report.num_trajectories == 3


def test_peaks_are_no_outliers():
    x = np.linspace(-1, 1, 2000)
    bump = np.exp(-((x / 0.05) ** 2)) + 0.2 * np.sin(3 * x)  # a narrow pulse on a wave
    one = Trajectory(
        mesh=PointField(torch.tensor(x)[:, None]),
        times=torch.zeros(1),
        u=torch.tensor(bump)[None, :, None],
        channels=("u",),
    )
    assert inspect_trajectories([one]).warnings == ()
