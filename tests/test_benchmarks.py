from dataclasses import dataclass
from functools import partial

import pytest
import torch

from benchmarks import cylinder_wake, datasets, scaling, solvers, training
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import SolverError
from cst_operator.solvers import PeriodicBurgers


@pytest.fixture
def wake(shared_data):
    return cylinder_wake.load(shared_data)


def test_interpolation_in_time_fails_on_the_wake_as_published(wake):
    answers = cylinder_wake.interpolate_frames(wake)
    errors = {name: cylinder_wake.score(wake, u) for name, u in answers.items()}
    assert errors["linear"]["fluctuation_l2"] == pytest.approx(0.88, abs=0.01)
    assert errors["cubic_spline"]["fluctuation_l2"] == pytest.approx(0.85, abs=0.01)
    assert errors["harmonics_4"]["fluctuation_l2"] == pytest.approx(0.137, abs=0.001)


def test_what_is_hidden_has_no_part_in_what_is_fitted(wake, generator):
    hidden = list(cylinder_wake.HIDDEN)
    masking = cylinder_wake.Masking(frequency=wake.frequency, num_sources=5, num_queries=7)
    fluctuation = wake.fluctuation
    fluctuation.u[hidden] = torch.nan  # a field with NaN is refused
    for _ in range(5):
        source, target = masking(fluctuation, generator)
        assert len(target.u) == 7 and len(source.u) % 5 == 0
        assert not (source.pos[:, None, 2:] == target.pos[None, :, 2:]).all(-1).any()  # masked


def test_the_known_and_the_asked_points_are_all_points(generator):
    known, asked = cylinder_wake.split_points(3944, generator)
    assert len(known) == 394
    assert torch.cat([known, asked]).sort().values.tolist() == list(range(3944))


def test_a_perfect_answer_has_no_error_and_the_mean_all_of_it(wake):
    truth = wake.truth.u[list(cylinder_wake.HIDDEN)]
    assert set(cylinder_wake.score(wake, truth).values()) == {0.0}
    mean = wake.mean.expand_as(truth)
    assert cylinder_wake.score(wake, mean)["fluctuation_l2[u_y]"] == pytest.approx(1.0)


@dataclass(frozen=True)
class _Unreliable:
    """Fails for every second index."""

    name: str = "unreliable"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0):
        if index % 2:
            raise SolverError(f"sample {index} of seed {seed}: out of luck")
        return PeriodicBurgers().sample(seed, index, refine=refine)


def test_samples_that_fail_are_counted_and_not_timed():
    rows = {r["metric"]: r for r in solvers.cost_of_samples(_Unreliable(), 3, 0)}
    assert rows["failures"]["value"] == 2.0
    assert rows["points"]["value"] == 128.0
    assert rows["cpu_time_median"]["value"] == rows["cpu_time_max"]["value"] > 0


@pytest.mark.parametrize("case", solvers.cases(True), ids=lambda case: case.name)
def test_a_trajectory_costs_its_steps(case):
    step, trajectory = solvers.cost_of_steps(case, 2, torch.device("cpu"), 2, 0)
    steps = case.final_time / case.dt
    assert trajectory["value"] == pytest.approx(step["value"] * steps / 2)
    assert step["model"] == case.name in solvers.SYSTEMS


def test_the_slope_of_a_linear_cost_is_one():
    rows = [
        {"model": "cst", "split": f"{n}", "metric": "forward_backward", "value": 2e-5 * n}
        for n in (1024, 4096, 65536)
    ]
    (slope,) = scaling.slopes(rows)
    assert slope["value"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ("cst", "fno"))
def test_the_scaling_benchmark_measures_a_model_of_about_a_million_parameters(name, monkeypatch):
    calls = []
    monkeypatch.setattr(scaling, "_median", lambda step: float(calls.append(step()) is None))
    found = scaling.measure(name, 256)
    assert 0.8e6 < found["parameters"] < 1.3e6
    assert found["forward"] == found["forward_backward"] == 1.0
    assert calls[0].numel() == 256  # an answer for every point; then a backward pass


@pytest.mark.parametrize("what", ("plain", "fit"))
def test_the_training_benchmark_times_the_steps_after_the_first_ones(what, monkeypatch):
    small = CSTConfig(dim=2, in_channels=1, out_channels=1, width=16, depth=1, heads=2)
    monkeypatch.setattr(training, "MODEL", small)
    monkeypatch.setattr(training, "NUM_EXAMPLES", 16)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    clock = iter(range(1000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: 0.5 * next(clock))
    found = training.measure(what, training.WARM_UP + 4)
    assert found["steps_per_second"] == pytest.approx(2.0)  # two ticks of the clock a second
    assert found["cpu_ms_per_step"] > 0 and found["peak_memory"] > 50


@pytest.mark.parametrize("what", ("raw_arrays", "in_memory", "no_workers"))
def test_the_reading_benchmark_times_the_examples_after_the_first_batch(
    what, tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets, "Ripples", partial(datasets.Ripples, side=8, frames=32))
    monkeypatch.setattr(datasets, "FRAMES", 32)
    monkeypatch.setattr(datasets, "BATCH_SIZE", 2)
    clock = iter(range(100))
    monkeypatch.setattr(datasets.time, "perf_counter", lambda: 0.5 * next(clock))
    found = datasets.reading(what, datasets.QUICK, tmp_path)
    # two sets of four windows, all of them within one tick of the clock
    assert found == {"samples_per_second": 8 / 0.5}


def test_the_training_of_the_data_sets_benchmark_says_what_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "BATCH_SIZE", 2)
    monkeypatch.setattr(datasets, "WORKERS", 0)
    ripples = datasets.Ripples(side=8, frames=32)
    datasets.generate(ripples, 1, out=tmp_path / "large", dtype="float32", progress=False)
    found = datasets.training(datasets.QUICK, tmp_path)
    size = (tmp_path / "large" / "000000.h5").stat().st_size
    assert found["set_size"] == pytest.approx(size / 1e9)
    assert found["peak_memory"] > 50 and found["samples_per_second"] > 0
