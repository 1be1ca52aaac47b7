import numpy as np
import pytest
import torch

from cst_operator.datasets import cylinder_wake
from cst_operator.errors import InputError


def test_the_wake_is_read_with_sound_quadrilaterals(shared_data):
    wake = cylinder_wake(shared_data)
    assert wake.u.shape == (71, 3944, 3) and wake.channels == ("u_x", "u_y", "p")
    assert wake.times[0] == 30.0 and torch.equal(wake.times.diff(), torch.ones(70).double())
    corners = wake.mesh.pos[wake.mesh.cells["quad"]]  # [cells, 4, 2]
    edges = corners.roll(-1, dims=1) - corners
    before = edges.roll(1, dims=1)
    turn = before[..., 0] * edges[..., 1] - before[..., 1] * edges[..., 0]
    assert float(turn.min()) > 0  # convex and counter-clockwise
    # the area between the rectangle's edges, by an independent shoelace sum
    x, y = corners.unbind(-1)
    area = 0.5 * (x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum()
    assert float(wake.mesh.weights.sum()) == pytest.approx(float(area), rel=1e-12)


def test_the_folder_can_come_from_the_environment(shared_data, monkeypatch):
    monkeypatch.setenv("CST_DATA", str(shared_data))
    assert cylinder_wake().num_frames == 71
    assert cylinder_wake(shared_data / "cylinder_wake").num_frames == 71


def test_an_absent_or_damaged_file_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="set CST_DATA"):
        cylinder_wake(tmp_path)
    monkeypatch.setenv("CST_DATA", str(tmp_path))
    with pytest.raises(InputError, match="set CST_DATA"):
        cylinder_wake()
    np.savez(tmp_path / "cylinder_wake_crop.npz", xy=np.zeros((2, 2)))
    with pytest.raises(InputError, match="damaged"):
        cylinder_wake(tmp_path)
    (tmp_path / "cylinder_wake_crop.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        cylinder_wake(tmp_path)
