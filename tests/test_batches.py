"""Batches depend on the seed and the epoch alone, and may be made of examples of similar size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from cst_operator._batches import epoch_batches, fingerprint, numbers_of_points, parts, seed_of
from cst_operator._seeds import mix
from cst_operator.errors import InputError
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.processes import Processes
from cst_operator.tasks import PointUpsampling, TaskDataset
from tests.training_samples import CONFIG, MeanSquare, Samples, same, stop_after, train, weights

CPU = torch.device("cpu")


def padded(batches: list[list[int]], sizes: np.ndarray) -> float:
    """Share of the places that stand for no point."""
    places = sum(len(batch) * sizes[batch].max() for batch in batches)
    return float(1 - sum(sizes[batch].sum() for batch in batches) / places)


def test_buckets_hold_every_example_once_and_waste_little(rng: np.random.Generator) -> None:
    sizes = rng.integers(100, 1000, 202)
    config = replace(CONFIG, batch_size=10, bucket=5)
    batches = epoch_batches(202, config, 3, sizes)
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) == 200 and all(len(batch) == 10 for batch in batches)
    # Uniform sizes from 100 to 1,000 have a mean of 55 % of the largest; sorted in pools of five
    # batches, a batch spans a fifth of the range.
    assert padded(epoch_batches(202, config, 3), sizes) > 0.35
    assert padded(batches, sizes) < 0.2
    means = [sizes[batch].mean() for batch in batches]
    assert means != sorted(means)  # small ones do not come first


def test_buckets_depend_on_seed_and_epoch_alone(rng: np.random.Generator) -> None:
    sizes = rng.integers(100, 1000, 50)
    config = replace(CONFIG, bucket=4)
    first = epoch_batches(50, config, 0, sizes)
    assert first == epoch_batches(50, config, 0, sizes)
    assert first != epoch_batches(50, config, 1, sizes)
    assert first != epoch_batches(50, replace(config, seed=1), 0, sizes)


def test_without_buckets_an_epoch_is_a_permutation_cut_into_batches() -> None:
    order = np.random.default_rng((CONFIG.seed, 2)).permutation(10)
    assert epoch_batches(10, CONFIG, 2) == order[:9].reshape(3, 3).tolist()


def test_a_bucketed_training_resumes_and_reports_its_padding(tmp_path: Path) -> None:
    config = replace(CONFIG, bucket=3)
    straight = train(tmp_path / "straight", config=config)
    train(tmp_path / "run", config=config, stop=stop_after(5))
    resumed = train(tmp_path / "run", config=config, resume=True)
    assert same(weights(resumed), weights(straight))
    random = train()
    wasted = [
        np.mean([r["padding"] for r in run.history if "loss" in r]) for run in (straight, random)
    ]
    assert wasted[0] < 0.8 * wasted[1]
    # Sizes 3 to 12 in pools of nine: batches of about (3, 4, 5), (6, 7, 8), (9, 10, 11).
    assert wasted[0] == pytest.approx(1 - 63 / (3 * (5 + 8 + 11)), abs=0.03)


def test_padding_is_what_dense_tensors_would_hold_beside_points() -> None:
    run = train(config=replace(CONFIG, steps=1, log_every=1), train=Samples(3))
    # Samples of 3, 4 and 5 points on both sides: 12 of 15.
    assert run.history[0]["padding"] == pytest.approx(0.2)


def test_sizes_count_source_and_target() -> None:
    assert numbers_of_points(Samples(4)).tolist() == [6, 8, 10, 12]


class Unread(list[Trajectory]):
    """Trajectories that say their sizes and must not be read for them."""

    def numbers_of_points(self) -> list[int]:
        return [5, 40, 7]

    def __getitem__(self, index: object) -> Trajectory:
        raise AssertionError("was read")


def test_sizes_of_a_task_are_those_of_its_trajectories_without_reading_them() -> None:
    solutions = [
        Trajectory(
            mesh=PointField(torch.rand(n, 2)),
            times=torch.arange(float(t)),
            u=torch.zeros(t, n, 1),
            channels=("u",),
        )
        for n, t in ((3, 1), (4, 2))
    ]
    task = PointUpsampling(channels=("u",), frames=(0,), fraction=0.5)
    assert numbers_of_points(TaskDataset(solutions, task, repeats=2)).tolist() == [3, 8, 3, 8]
    unread = TaskDataset(Unread(solutions), task)
    assert numbers_of_points(unread).tolist() == [5, 40, 7]


@pytest.mark.parametrize("processes, accumulate", [(1, 4), (2, 2), (4, 1), (3, 1)])
def test_a_step_is_shared_without_gaps_or_overlaps(processes: int, accumulate: int) -> None:
    config = replace(CONFIG, batch_size=6, steps=2, accumulate=accumulate)
    uncut = parts(Samples(), replace(config, accumulate=1), 0, CPU, Processes())
    whole = [part.batch.target.pos for part in uncut]
    found = [
        list(parts(Samples(), config, 0, CPU, Processes(rank, processes)))
        for rank in range(processes)
    ]
    for step in range(2):
        own = [part for each in found for part in each[step * accumulate : (step + 1) * accumulate]]
        assert sorted(part.number for part in own) == list(range(processes * accumulate))
        assert sum(part.share for part in own) == pytest.approx(1)
        assert all(part.last for part in own[accumulate - 1 :: accumulate])
        joined = torch.cat([p.batch.target.pos for p in sorted(own, key=lambda p: p.number)])
        assert torch.equal(joined, whole[step])


def test_seeds_of_parts_differ_and_the_first_is_that_of_the_step() -> None:
    seeds = {seed_of(CONFIG, step, 0, part) for step in range(5) for part in range(5)}
    assert len(seeds) == 25
    assert seed_of(CONFIG, 4, 1, 0) == mix(CONFIG.seed, 4, 1)


class Fixed:
    """One example, changed by a function."""

    def __init__(self, **changes: object) -> None:
        self.changes = changes

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        pos = torch.arange(6.0).view(3, 2)
        field = PointField(pos, pos[:, :1].clone(), channels=["a"])
        for key, value in self.changes.items():
            field[key] = value
        return Example(field, field)


def test_a_fingerprint_shows_every_change_of_points_samples_and_names() -> None:
    original = fingerprint(Fixed())
    assert original == fingerprint(Fixed())
    changes: tuple[dict[str, object], ...] = (
        {"pos": torch.arange(6.0).view(3, 2).nextafter(torch.tensor(9.0))},
        {"u": torch.tensor([[0.0], [2.0], [4.5]])},
        {"u": torch.tensor([[0.0], [2.0], [4.0]], dtype=torch.float64)},
        {"time": torch.ones(3)},
        {"channels": ("b",)},
    )
    found = {fingerprint(Fixed(**change)) for change in changes}
    assert len(found | {original}) == 6


def test_buckets_change_the_training() -> None:
    runs = [train(config=replace(CONFIG, bucket=b), loss=MeanSquare()) for b in (0, 3)]
    assert not same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize(
    "error", [InputError("a.h5 is damaged; restore it"), OSError("a.h5: gone")]
)
def test_an_error_of_a_worker_is_told_without_its_traceback(error: Exception) -> None:
    class Torn(Samples):
        def __getitem__(self, index: int) -> Example:
            if get_worker_info() is not None:
                raise error
            return super().__getitem__(index)

    with pytest.raises(type(error)) as caught:
        train(train=Torn(), config=replace(CONFIG, num_workers=1))
    assert str(caught.value) == str(error)
