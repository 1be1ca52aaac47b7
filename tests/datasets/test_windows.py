"""Windows are parts of trajectories, and only they are read."""

import pickle

import h5py
import pytest
import torch

from cst_operator._batches import parts
from cst_operator.datasets import TrajectoryDataset, Windows, generate, pack
from cst_operator.errors import InputError
from cst_operator.fit_config import FitConfig
from cst_operator.masking import Masking, RandomFrames
from cst_operator.processes import connect
from cst_operator.solvers import Heat
from cst_operator.tasks import TaskDataset


@pytest.fixture(scope="module")
def heat(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryDataset:
    folder = tmp_path_factory.mktemp("heat")
    return generate(Heat(h=0.15, num_frames=7), 2, out=folder, progress=False)


@pytest.mark.parametrize(
    "length, stride, starts", [(3, 2, (0, 2, 4)), (7, 1, (0,)), (2, 4, (0, 4))]
)
@pytest.mark.parametrize("kind", ["folder", "packed", "memory"])
def test_windows_are_frames_of_trajectories(kind, length, stride, starts, heat, tmp_path):
    data = {"folder": lambda: heat, "packed": lambda: pack(heat.path, tmp_path / "heat.h5")}
    trajectories = data.get(kind, lambda: list(heat))()
    windows = Windows(trajectories, length, stride=stride)
    assert len(windows) == 2 * len(starts)
    for i, window in enumerate(windows):
        whole, start = heat[i // len(starts)], starts[i % len(starts)]
        frames = slice(start, start + length)
        assert torch.equal(window.times, whole.times[frames])
        assert torch.equal(window.u, whole.u[frames])
        assert torch.equal(window.gradient, whole.gradient[frames])
        assert torch.equal(window.time_derivative, whole.time_derivative[frames])
        assert torch.equal(window.mesh.pos, whole.mesh.pos)
        assert window.parameters == whole.parameters
    part = pickle.loads(pickle.dumps(windows[1:]))  # loaders send it to workers
    assert len(part) == len(windows) - 1
    assert torch.equal(part[-1].u, windows[len(windows) - 1].u)


def test_frames_outside_of_the_window_are_not_read(heat, tmp_path):
    copy = pack(heat.path, tmp_path / "heat.h5")
    with h5py.File(copy.path) as file:
        frames = file["trajectories/000000/u"].id
        places = [frames.get_chunk_info(i) for i in range(frames.get_num_chunks())]
    content = bytearray(copy.path.read_bytes())
    content[places[5].byte_offset + 8] ^= 1  # of frame 5
    copy.path.write_bytes(content)
    windows = Windows(copy, 2, stride=1)
    assert torch.equal(windows[3].u, heat[0].u[3:5])
    with pytest.raises(InputError, match="damaged"):
        windows[4]


def test_windows_that_do_not_fit_are_refused(heat):
    with pytest.raises(InputError, match="trajectory 0 has 7 frames, fewer than a window of 8"):
        Windows(heat, 8)
    for numbers in ({"length": 0}, {"length": 1, "stride": 0}):
        with pytest.raises(InputError, match="expected at least 1"):
            Windows(heat, **numbers)
    with pytest.raises(IndexError):
        Windows(heat, 7)[2]


def test_worker_processes_deliver_the_same_batches_of_a_set_on_the_disk(heat):
    task = Masking(channels=("u",), frames=RandomFrames(hidden=1), points=0.5, num_queries=9)
    train = TaskDataset(Windows(heat, 3), task, seed=1)
    batches = []
    for workers in (0, 2):
        config = FitConfig(steps=6, batch_size=3, num_workers=workers)  # two epochs of ten windows
        found = parts(train, config, 0, torch.device("cpu"), connect())
        batches.append([part.batch for part in found])
    assert len(batches[0]) == 6
    for one, other in zip(*batches, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.u, b.u) and torch.equal(a.pos, b.pos)
            assert torch.equal(a.weights, b.weights)
    assert not torch.equal(batches[0][0].target.u, batches[0][3].target.u)
