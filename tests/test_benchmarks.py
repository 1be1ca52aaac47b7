from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

import cst_operator as cst
from benchmarks import (
    attention_kinds,
    cylinder_wake,
    datasets,
    scaling,
    sobolev,
    solvers,
    training,
)
from benchmarks.kept import kept_rows
from benchmarks.memory import peak_memory
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import SolverError
from cst_operator.fields import Example, PointField
from cst_operator.peers import LinearInterpolation
from cst_operator.solvers import PeriodicBurgers, Poisson
from cst_operator.tasks import Steady


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
def test_every_spectral_case_is_of_a_system(case):
    step, trajectory = solvers.cost_of_steps(case, 2, torch.device("cpu"), 0.0, 0)
    assert step["model"] == trajectory["model"] == case.name in solvers.SYSTEMS
    steps = case.final_time / case.dt
    assert steps == pytest.approx(round(steps))  # evenly divided, or the step is not dt


@pytest.mark.parametrize("seconds, longest", [(0.0, 5), (70.0, 11), (1e9, 100)])
def test_what_is_prepared_once_is_no_part_of_a_step(seconds, longest, monkeypatch):
    now, runs = [0.0], []

    def solve(start, times, step):
        runs.append(round(float(times[-1]) / step.dt))
        now[0] += 5.0 + 2.0 * runs[-1]

    monkeypatch.setattr(solvers.time, "process_time", lambda: now[0])
    case = replace(solvers.cases(True)[0], solve=solve, dt=0.01, final_time=1.0)
    rows = solvers.cost_of_steps(case, 4, torch.device("cpu"), seconds, 0)
    step, trajectory = (row["value"] for row in rows)
    assert step == pytest.approx(2.0)
    assert trajectory == pytest.approx((5.0 + 2.0 * 100) / 4)  # a quarter of the batch's
    assert max(runs) == longest  # four after the first at least, all at most


def test_the_solvers_benchmark_leaves_out_the_largest_batches_only():
    names = [n for n in solvers.measurements(False, torch.device("cpu"), 0) if "steps" in n]
    assert len(names) == 3 * 7 - 1
    assert not any("256x256, batch 128" in name for name in names)


def test_what_a_benchmark_has_finished_is_measured_again_for_other_options_only(tmp_path):
    calls = []

    def measure():
        calls.append(len(calls))
        return [{"value": 0.1 * len(calls)}]

    path = tmp_path / "out" / "kept.json"
    first = kept_rows(path, {"seed": 0}, measure)
    assert kept_rows(path, {"seed": 0}, measure) == first and len(calls) == 1
    assert kept_rows(path, {"seed": 1}, measure) != first


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


@pytest.mark.parametrize("what", ("plain", "fit", "fit_values"))
def test_the_training_benchmark_takes_the_fastest_epoch_after_the_first(what, monkeypatch):
    small = CSTConfig(dim=2, in_channels=1, out_channels=1, width=16, depth=1, heads=2)
    monkeypatch.setattr(training, "MODEL", small)
    monkeypatch.setattr(training, "NUM_EXAMPLES", 16)
    monkeypatch.setattr(training, "EPOCH", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    # Start, two steps to warm up, an epoch of 1 s a step, one of 0.5 s, and one step more.
    clock = iter((0.0, 3.0, 3.1, 4.1, 5.1, 5.6, 6.1, 6.2))
    monkeypatch.setattr(training, "now", lambda: (0.1 * (wall := next(clock)), wall))
    found = training.measure(what, 2)
    assert found["steps_per_second"] == pytest.approx(2.0)
    assert found["first_step"] == 3.0
    assert found["cpu_ms_per_step"] == pytest.approx(50)
    assert found["peak_memory"] > 50


def test_overhead_is_that_over_the_plain_loop_in_as_many_processes():
    cost = {"plain": 10.0, "fit": 10.5, "plain_2_processes": 6.0, "fit_2_processes": 6.6}
    cost |= {"fit_values": 4.0}
    rounds = [
        {k: {"cpu_ms_per_step": f * v, "steps_per_second": 1 / f} for k, v in cost.items()}
        for f in (2.0, 1.0, 1.5)
    ]
    rounds.append({training.COMPILED: {"cpu_ms_per_step": 2.0, "steps_per_second": 1.0}})
    rows = training.rows_of(training.best_of(rounds))
    found = {(r["model"], r["metric"]): r["value"] for r in rows}
    assert found["fit", "overhead"] == pytest.approx(0.05)
    assert found["fit_2_processes", "overhead"] == pytest.approx(0.1)
    assert found[training.COMPILED, "speedup"] == pytest.approx(2.0)
    assert found["fit", "cpu_ms_per_step"] == 10.5 and found["fit", "steps_per_second"] == 1.0


def test_graded_meshes_are_about_ten_times_as_dense_in_the_corner():
    graded, even = attention_kinds.GradedPoisson(), Poisson()
    ratios = [attention_kinds.density_ratio(graded.sample(1, i)) for i in range(8)]
    assert 7 < sum(ratios) / 8 < 14
    assert attention_kinds.density_ratio(even.sample(1, 0)) == pytest.approx(1, abs=0.2)


def test_graded_problems_are_those_of_the_even_meshes():
    graded, even = (
        system.sample(1, 0).frame(0)
        for system in (attention_kinds.GradedPoisson(), Poisson(h=0.02))
    )
    answer = LinearInterpolation()(even, graded)
    # Linear interpolation is good to 3 % on edges of .043 and 1 % on .02; others differ by all.
    assert (answer - graded.u).abs().max() < 0.02 * graded.u.abs().max()


def test_unweighted_points_all_count_the_same(generator):
    task = Steady(inputs=("f",), outputs=("u",), boundary=True)
    solution = Poisson().sample(1, 0)
    weighted, _ = task(solution, generator)
    plain, _ = attention_kinds.Unweighted(task)(solution, generator)
    assert plain.u.equal(weighted.u)
    assert plain.weights.unique().tolist() == [1 / plain.num_points]
    assert len(weighted.weights.unique()) > 100


def test_the_noise_of_the_sobolev_benchmark_has_the_stated_size_on_the_named_channels():
    pos = torch.rand(4000, 2)
    u = torch.stack([5 * torch.ones(4000), pos[:, 0]], dim=1)
    field = PointField(pos, u, torch.full((4000,), 1 / 4000), channels=["f", "distance"])
    noisy = sobolev.Noisy([Example(field, field)] * 2, ("f",))
    first = noisy[0].source
    assert torch.equal(first.u[:, 1], u[:, 1])
    noise = first.u[:, 0] - 5
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)  # four deviations of 4,000 draws
    assert torch.equal(noisy[0].source.u, first.u)
    assert not torch.equal(noisy[1].source.u, first.u)
    assert torch.equal(field.u, u) and torch.equal(noisy[0].target.u, u)


@pytest.mark.parametrize("name", sobolev.PROBLEMS)
def test_every_loss_of_the_sobolev_benchmark_suits_its_sets(name):
    problem = sobolev.PROBLEMS[name]
    solution = problem.quick.sample(0, 0).to(torch.float32)
    examples = cst.TaskDataset([solution], replace(problem.task, num_queries=8))
    config = replace(problem.config, width=16, depth=1, heads=2, hidden=16, fourier_features=4)
    model = cst.CSTOperator(config).fit_normalization(examples)
    terms = {
        loss: sobolev.loss_of(loss, problem.transient)(model, examples[0]).weights
        for loss in sobolev.LOSSES
    }
    assert list(terms["k0"]) == ["order0"]
    assert ("time1" in terms["k1_target"]) == problem.transient
    assert {"smoothing1"} <= set(terms["k1_smoothing"])
    assert {"order1", "smoothing2"} <= set(terms["k2"])
    assert all(
        weights.get(f"time_smoothing{q}", 0) == 0 for q in (1, 2) for weights in terms.values()
    )
    assert set(problem.noisy) <= set(problem.config.in_names)


def test_the_peak_of_memory_rises_by_what_is_used():
    before = peak_memory()
    size = int(before) + 50  # more than all that may have been given back since the peak
    held = torch.ones(size * 2**20, dtype=torch.uint8)
    assert size - 10 < peak_memory() < before + 2 * size
    assert len(held) == size * 2**20


def test_a_finished_training_of_the_sobolev_benchmark_is_not_repeated(tmp_path, monkeypatch):
    calls = []

    def trained(model, examples, loss, config, seconds, progress):
        calls.append(len(examples))
        return model, 1.5, 20

    monkeypatch.setattr(sobolev, "OUT", tmp_path / "out")
    monkeypatch.setattr(sobolev, "train", trained)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    solution = sobolev.PROBLEMS["poisson"].quick.sample(0, 0).to(torch.float32)
    monkeypatch.setattr(sobolev, "data", lambda name, part, quick: [solution] * 9)
    (tmp_path / "out").mkdir()
    first = sobolev.run("poisson", "k0", "few", 1.0, True, 0)
    assert sobolev.run("poisson", "k0", "few", 1.0, True, 0) == first
    assert calls == [sobolev.sizes(True)["few"]]
    sobolev.run("poisson", "k0", "few", 2.0, True, 0)
    assert len(calls) == 2
    found = {(r["split"], r["metric"]) for r in first}
    assert {("poisson_few", "relative_h1"), ("poisson_few_noise", "relative_l2")} <= found
    assert ("poisson_few_training", "steps") in found
    every = [{**r, "model": loss} for loss in sobolev.LOSSES for r in first]
    assert sobolev.effects(every).row_count == 4  # two splits, two metrics


def test_the_cost_of_terms_is_that_beside_a_plain_step(monkeypatch):
    ticks = iter(range(1000))
    # A plain step takes 1 on this clock, one with terms of order 1 two and three.
    lengths = iter([1, 2, 3] * 2)
    now = [0.0]

    def clock() -> float:
        if next(ticks) % 2:
            now[0] += next(lengths)
        return now[0]

    monkeypatch.setattr(sobolev.time, "process_time", clock)
    model = cst.CSTOperator(
        CSTConfig(dim=2, in_channels=1, out_channels=1, width=16, depth=1, heads=2)
    )
    rows = sobolev.step_costs(model, training.examples()[:2], "step", 2, 0)
    ratios = {r["model"]: r["value"] for r in rows if r["metric"] == "step_ratio"}
    assert ratios == {"k0": 1.0, "k1_target": 2.0, "k1_smoothing": 3.0}


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
