"""Training is a function of its seed, and goes on after a stop as if there had been none."""

import json
import math
import os
import signal
import weakref
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator._progress import Display
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import CheckpointError, ConfigError, InputError, TrainingError
from cst_operator.fields import Example, PointField
from cst_operator.model import CSTOperator
from cst_operator.sobolev import SobolevLoss
from cst_operator.training import FitConfig, Run, choose_device, fit, stop_on_signal
from tests.training_samples import (
    CONFIG,
    Doubles,
    Exact,
    MeanSquare,
    Net,
    NetConfig,
    Samples,
    Terms,
    plain_net,
    same,
    stop_after,
    train,
    untimed,
    weights,
)

# --- determinism and resume ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was never stopped."""
    return train(tmp_path_factory.mktemp("straight") / "run")


@pytest.mark.parametrize("steps", (1, 3, 5, 8, 11))
def test_resume_equals_not_stopping_bit_for_bit(tmp_path: Path, straight: Run, steps: int) -> None:
    first = train(tmp_path / "run", stop=stop_after(steps))
    assert first.interrupted and first.step == steps
    torch.manual_seed(steps)  # the caller's random numbers have no part in it
    second = train(tmp_path / "run", seed=99, resume=True)
    assert not second.interrupted and second.step == CONFIG.steps
    assert same(weights(second), weights(straight))
    assert untimed(second.history) == untimed(straight.history)
    assert second.best == straight.best
    assert straight.out is not None
    for run in (straight, second):
        assert run.out is not None
        lines = (run.out / "log.jsonl").read_text().splitlines()
        assert untimed([json.loads(line) for line in lines]) == untimed(straight.history)
    # The states themselves are equal too, moments of the optimizer included.
    a, b = (checkpoint.read(r.out).training for r in (straight, second) if r.out)
    assert a is not None and b is not None
    assert any(key.endswith("exp_avg_sq") for key in a.tensors)
    assert same(dict(a.tensors), dict(b.tensors))


def test_resume_after_a_kill_forgets_what_was_logged_since(tmp_path: Path, straight: Run) -> None:
    train(tmp_path / "run", stop=stop_after(3))
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 5, "loss": 1.0}\n{"step": 1')  # the rest never reached the disk
    second = train(tmp_path / "run", resume=True)
    assert untimed(second.history) == untimed(straight.history)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == second.history


def test_resume_passes_over_a_damaged_checkpoint(tmp_path: Path, straight: Run) -> None:
    train(tmp_path / "run", stop=stop_after(6))
    newest = checkpoint.step_folder(tmp_path / "run", 6)
    (newest / "training.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="going on with step-00000004"):
        second = train(tmp_path / "run", resume=True)
    assert same(weights(second), weights(straight))  # and step 6 could be written again
    assert [step for step, _ in checkpoint.steps(tmp_path / "run")] == [10, 12]


def test_resuming_a_finished_run_returns_it(tmp_path: Path, straight: Run) -> None:
    train(tmp_path / "run")
    again = train(tmp_path / "run", seed=99, resume=True)
    assert same(weights(again), weights(straight))
    assert again.scores is not None and straight.scores is not None
    assert again.scores.mean("relative_l2") == straight.scores.mean("relative_l2")


def test_the_seed_decides_everything(straight: Run) -> None:
    torch.manual_seed(5)
    assert same(weights(train()), weights(straight))
    other = train(config=replace(CONFIG, seed=1))
    assert not same(weights(other), weights(straight))


def test_the_callers_random_numbers_are_left_alone(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(3)
    torch.manual_seed(seed)
    train()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", (1, 2))
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    class Quiet(Samples):
        def __getitem__(self, index: int) -> Example:
            pos = torch.rand(5, 2, generator=torch.Generator().manual_seed(10 * self.epoch + index))
            field = PointField(pos, pos[:, :1], torch.full((5,), 0.2))
            return Example(field, field)

    short = replace(CONFIG, steps=5)
    alone = train(config=short, train=Quiet())
    together = train(config=replace(short, num_workers=workers), train=Quiet())
    assert same(weights(alone), weights(together))


def test_an_epoch_shows_every_example_at_most_once_in_a_new_order() -> None:
    samples = Samples(7)
    train(train=samples, validation=None, config=replace(CONFIG, steps=6))
    seen = samples.seen[7:]  # after the normalization was measured
    epochs = [[i for e, i in seen if e == epoch] for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [6, 6, 6]  # two batches of three out of seven
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


# --- what a run refuses -------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_started_again(tmp_path: Path) -> None:
    train(tmp_path / "run", stop=stop_after(2))
    with pytest.raises(InputError, match="holds a run already; resume it"):
        train(tmp_path / "run")


def test_resume_from_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume at .*typo; check the path"):
        train(tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        train(tmp_path / "empty", resume=True)
    with pytest.raises(InputError, match="give it as out"):
        train(resume=True)


def test_resume_with_other_settings_lists_both_values(tmp_path: Path) -> None:
    train(tmp_path / "run", stop=stop_after(2))
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    for arguments, message in (
        ({"config": replace(CONFIG, lr=0.5, steps=20)}, "steps is 12 there and 20 here, lr is 0.0"),
        ({"loss": MeanSquare(2.0)}, "loss is .*weight=1.0.* there and .*weight=2.0"),
        ({"train": Samples(11)}, "examples is 10 there and 11 here"),
        ({"model": Net(NetConfig(width=9))}, "width is 8 there and 9 here"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(tmp_path / "run", resume=True, **arguments)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before
    # Neither of these changes a weight.
    train(tmp_path / "run", resume=True, config=replace(CONFIG, keep=3, num_workers=1))


def test_a_model_without_its_training_cannot_be_resumed(tmp_path: Path) -> None:
    checkpoint.save(Net(NetConfig()), checkpoint.step_folder(tmp_path, 5))
    with pytest.raises(CheckpointError, match="without the state of its training"):
        train(tmp_path, resume=True)


def test_an_unregistered_model_is_refused_before_the_first_step(tmp_path: Path) -> None:
    class Other(Net):
        pass

    samples = Samples()
    with pytest.raises(CheckpointError, match="Other is not a registered kind"):
        train(tmp_path / "run", model=Other(NetConfig()), train=samples)
    assert not samples.seen
    assert train(model=Other(NetConfig())).step == CONFIG.steps  # in memory, any module trains


def test_no_examples_or_parameters_are_errors() -> None:
    with pytest.raises(InputError, match="no examples"):
        train(train=Samples(0))
    with pytest.raises(InputError, match="no trainable parameters"):
        train(model=nn.Identity())


@pytest.mark.parametrize("poison", range(3))
def test_a_loss_that_is_not_finite_stops_and_is_never_saved(tmp_path: Path, poison: int) -> None:
    samples = Samples(poison=poison)
    model = Net(NetConfig())
    model.normalization.in_mean += 0.5  # fitted already: the poison shows in training
    with pytest.raises(TrainingError, match=r"loss or gradient of step \d+ is not finite.*lower"):
        train(tmp_path / "run", train=samples, model=model, config=replace(CONFIG, save_every=1))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    for _, folder in checkpoint.steps(tmp_path / "run"):
        loaded = checkpoint.load(folder)
        assert all(bool(torch.isfinite(p).all()) for p in loaded.parameters())


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    @dataclass(frozen=True)
    class Cusp:
        def __call__(self, model: nn.Module, batch: Example, **_: Any) -> Terms:
            error = model(batch.source, batch.target) * 0
            return Terms(error.abs().sum().sqrt(), {})

    with pytest.raises(TrainingError, match="step 0"):
        train(loss=Cusp())


# --- what a run leaves --------------------------------------------------------------------------


def test_the_saved_the_validated_and_the_returned_model_are_the_averaged_one(
    straight: Run,
) -> None:
    assert straight.out is not None and straight.scores is not None
    assert not straight.model.training
    assert same(checkpoint.load(straight.out).state_dict(), weights(straight))
    state = checkpoint.read(straight.out).training
    assert state is not None
    raw = state.tensors["parameters.layers.0.weight"]
    assert not torch.equal(raw, straight.model.layers[0].weight)
    assert straight.history[-1]["validation"]["relative_l2"] == straight.scores.mean("relative_l2")


def test_the_average_is_a_recursion_with_a_rising_decay(tmp_path: Path) -> None:
    config = replace(CONFIG, ema=0.3, steps=5, save_every=1, keep=9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        average = Net(NetConfig()).layers[0].weight.detach()
    train(tmp_path / "run", config=config)
    for step, folder in checkpoint.steps(tmp_path / "run"):
        found = checkpoint.read(folder)
        assert found.training is not None
        decay = min(0.3, step / (9 + step))
        raw = found.training.tensors["parameters.layers.0.weight"]
        average = decay * average + (1 - decay) * raw
        # float32 rounding of a few steps
        assert torch.allclose(found.weights["layers.0.weight"], average, atol=1e-6, rtol=0)


def test_without_averaging_the_weights_are_the_last_ones(tmp_path: Path) -> None:
    run = train(tmp_path / "run", config=replace(CONFIG, ema=0.0))
    assert run.out is not None
    state = checkpoint.read(run.out).training
    assert state is not None
    raw = state.tensors["parameters.layers.0.weight"]
    assert torch.equal(raw, run.model.layers[0].weight)


def test_checkpoints_come_at_their_steps_and_two_are_kept(straight: Run) -> None:
    assert straight.out is not None
    assert [step for step, _ in checkpoint.steps(straight.out)] == [10, 12]
    kinds = [(r["step"], "validation" in r) for r in straight.history]
    assert kinds == [
        (4, True),
        (5, False),
        (8, True),
        (10, False),
        (12, False),
        (12, True),
    ]


def test_a_record_is_the_mean_since_the_last_one() -> None:
    every = train(config=replace(CONFIG, log_every=1), validation=None).history
    some = train(config=replace(CONFIG, log_every=5), validation=None).history
    assert [r["step"] for r in some] == [5, 10, 12]
    for record, part in zip(some, (every[:5], every[5:10], every[10:]), strict=True):
        # float32 sums
        assert record["loss"] == pytest.approx(sum(r["loss"] for r in part) / len(part), rel=1e-5)
        terms = record["terms"]
        assert record["loss"] == pytest.approx(terms["plain"] + terms["drawn"], rel=1e-5)


def test_best_is_the_smallest_validation_error(straight: Run) -> None:
    errors = {
        r["step"]: r["validation"]["relative_l2"] for r in straight.history if "validation" in r
    }
    step = min(errors, key=errors.__getitem__)
    assert straight.best == {"step": step, "relative_l2": errors[step]}


def test_training_learns() -> None:
    model = Net(NetConfig(noise=0.0, width=32))
    config = replace(CONFIG, steps=300, lr=0.02, eval_every=300, precision="bfloat16")
    run = fit(model, Samples(), Samples(4), loss=MeanSquare(), config=config, progress=False)
    assert run.model is model
    assert run.scores is not None
    # The samples' noise is .01 of values of about .8; an untrained model has errors near 1.
    assert run.scores.mean("relative_l2") < 0.15


@pytest.mark.parametrize(
    "precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_is_that_of_the_forward_pass(precision: str, dtype: torch.dtype) -> None:
    seen = set()
    model = Net(NetConfig())
    model.layers[0].register_forward_hook(
        lambda layer, given, out: seen.add(out.dtype) if layer.training else None
    )
    config = replace(CONFIG, steps=1, precision=precision)  # type: ignore[arg-type]
    train(model=model, config=config, validation=None)
    assert seen == {dtype}
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_normalization_is_fitted_once() -> None:
    model = Net(NetConfig())
    train(model=model)
    fitted = {k: v.clone() for k, v in model.normalization.state_dict().items()}
    assert float(fitted["pos_scale"]) != 1
    train(model=model, train=Samples(3))  # training further keeps the model's units
    assert same(model.normalization.state_dict(), fitted)


def test_normalization_is_of_the_training_examples_alone_one_at_a_time() -> None:
    class Far(Doubles):
        def __getitem__(self, index: int) -> Example:
            source, target = super().__getitem__(index)
            source.pos += 100
            return Example(source, target)

    class Tracked(Doubles):
        made: list[weakref.ref[PointField]] = []
        most = 0

        def __getitem__(self, index: int) -> Example:
            example = super().__getitem__(index)
            self.made.append(weakref.ref(example.source))
            if len(self.made) <= len(self):  # the first pass over all is that of normalization
                type(self).most = max(self.most, sum(ref() is not None for ref in self.made))
            return example

    model = plain_net()
    train(model=model, train=Tracked(), validation=Far(4))
    alone = plain_net()
    train(model=alone, train=Doubles(), validation=None)
    assert same(model.normalization.state_dict(), alone.normalization.state_dict())
    assert 0 < Tracked.most <= 2  # the one that is measured, and the next


def test_biases_and_norms_do_not_decay() -> None:
    @dataclass(frozen=True)
    class Flat:
        def __call__(self, model: nn.Module, batch: Example, **_: Any) -> Terms:
            total = sum((p * 0).sum() for p in model.parameters())
            return Terms(total, {})  # type: ignore[arg-type]

    model = Net(NetConfig())
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    train(model=model, loss=Flat(), config=replace(CONFIG, weight_decay=0.5, ema=0.0))
    for key, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[key])
        assert moved == (parameter.dim() > 1)


def test_the_gradient_is_clipped() -> None:
    @dataclass(frozen=True)
    class Steep:
        def __call__(self, model: nn.Module, batch: Example, **_: Any) -> Terms:
            total = 1e6 * sum(p.sum() for p in model.parameters())
            return Terms(total, {"seen": _norm(model)})  # type: ignore[arg-type]

    # AdamW hides the size of a gradient, so look at its first moment.
    moments = {}
    for clip in (0.0, 0.5):
        with pytest.MonkeyPatch.context() as patched:
            made: list[torch.optim.Optimizer] = []
            create = torch.optim.AdamW

            def record(*args: Any, _create: Any = create, _made: Any = made, **kwargs: Any) -> Any:
                _made.append(_create(*args, **kwargs))
                return _made[-1]

            patched.setattr(torch.optim, "AdamW", record)
            train(loss=Steep(), config=replace(CONFIG, steps=1, clip=clip))
        state = made[0].state
        moments[clip] = float(torch.cat([s["exp_avg"].flatten() for s in state.values()]).norm())
    assert moments[0.5] == pytest.approx(0.1 * 0.5, rel=1e-4)  # (1 - beta_1) times the limit
    assert moments[0.0] > 1e5


def _norm(model: nn.Module) -> Tensor:
    return torch.stack([p.detach().norm() for p in model.parameters()]).norm()


# --- settings, devices, signals -------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("steps", 0),
        ("steps", 1.5),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", "fast"),
        ("weight_decay", -1.0),
        ("warmup", 1.0),
        ("schedule", "polynomial"),
        ("cooldown", 0.0),
        ("floor", 2.0),
        ("clip", -1.0),
        ("ema", 1.0),
        ("balance", 1.0),
        ("seed", -1),
        ("precision", "float8"),
        ("accumulate", 0),
        ("bucket", -1),
        ("patience", -1),
        ("device", "gpu"),
        ("eval_every", 0),
        ("save_every", 0),
        ("log_every", 0),
        ("keep", 1),
        ("num_workers", -1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*; expected") as caught:
        FitConfig(**{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_every_setting_is_checked() -> None:
    for field in fields(FitConfig):
        with pytest.raises(ConfigError, match=f"^{field.name} is"):
            FitConfig(**{field.name: object()})


def test_a_missing_gpu_is_an_error_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match='device is "cuda" but torch sees no GPU; use'):
        train(config=replace(CONFIG, device="cuda"))


def test_sigterm_stops_after_the_step_and_saves(tmp_path: Path, straight: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)

    class Samples5(Samples):
        def __getitem__(self, index: int) -> Example:
            # In the middle of making step 5's batch, after fingerprint and normalization.
            if len(self.seen) == 10 + 10 + 3 * 4 + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    with stop_on_signal() as stop:
        run = train(tmp_path / "run", train=Samples5(), stop=stop)
    assert signal.getsignal(signal.SIGTERM) == before
    assert run.interrupted and run.step == 5
    assert same(weights(train(tmp_path / "run", resume=True)), weights(straight))


def test_a_second_interruption_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal(signal.SIGINT) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert "Ctrl-C again" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the shell does in the background
    try:
        with stop_on_signal(signal.SIGINT) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_progress_is_plain_lines_off_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fit(Net(NetConfig()), Samples(), Samples(4), loss=MeanSquare(), config=CONFIG)
    out, error = capfd.readouterr()
    assert out == ""
    lines = error.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("step 4/12  validation relative_l2 0.")
    assert lines[1].startswith("step 5/12  loss 0.") and "steps/s" in lines[1]
    assert lines[1].endswith("left") and "\x1b" not in error


def test_progress_is_plain_lines_where_no_line_can_be_redrawn(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "dumb")  # of an editor, say
    with Display(3) as display:
        display.show({"step": 1, "loss": 0.5, "steps_per_second": 2.0})
    assert capfd.readouterr().err == "step 1/3  loss 0.5  2 steps/s  0:00:01 left\n"


# --- parts of a step, early stopping, float16 ----------------------------------------------------


@pytest.mark.parametrize("accumulate", (2, 3, 5))  # 3 is no divisor of the batch
def test_the_parts_of_a_step_add_up_to_it(accumulate: int) -> None:
    config = replace(CONFIG, batch_size=5)
    runs = [
        train(
            model=plain_net(),
            train=Doubles(),
            validation=None,
            loss=Exact(),
            config=replace(config, accumulate=parts),
        )
        for parts in (1, accumulate)
    ]
    whole, cut = (run.model.layers[0].weight for run in runs)
    # Sums in another order: double rounding, 1e-16, and AdamW divides by gradients of 1e-3.
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-11)
    for a, b in zip(*(run.history for run in runs), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-12)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-10)


def test_parts_draw_different_numbers_and_the_run_resumes(tmp_path: Path) -> None:
    config = replace(CONFIG, accumulate=3)
    drawn = []

    @dataclass(frozen=True)
    class Drawing(MeanSquare):
        def __call__(
            self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
        ) -> Terms:
            assert generator is not None
            drawn.append(generator.initial_seed())
            return super().__call__(model, batch, generator=generator)

    straight = train(tmp_path / "straight", config=config, loss=Drawing())
    assert len(set(drawn)) == len(drawn) == 3 * CONFIG.steps
    train(tmp_path / "run", config=config, loss=Drawing(), stop=stop_after(5))
    resumed = train(tmp_path / "run", config=config, loss=Drawing(), resume=True)
    assert same(weights(resumed), weights(straight))


def test_more_parts_than_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch of 3 examples cannot be cut into 4 parts"):
        train(config=replace(CONFIG, accumulate=4))


def scripted(monkeypatch: pytest.MonkeyPatch, errors: list[float]) -> None:
    """Make evaluations say so, one after the other."""
    import cst_operator.training as module

    left = iter(errors)
    real = module.validate

    def validate(*arguments: Any) -> Any:
        scores = real(*arguments)
        worst = torch.full_like(scores.per_sample["relative_l2"], next(left, 9.0))
        return replace(scores, per_sample={"relative_l2": worst})

    monkeypatch.setattr(module, "validate", validate)


STOPPING = replace(CONFIG, patience=2, eval_every=2, save_every=1, keep=20)


def test_training_stops_early_and_gives_back_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, 0.3, 0.4, 0.3, 0.1])
    run = train(tmp_path / "run", config=STOPPING)
    assert run.stopped_early and not run.interrupted
    assert run.step == 8  # the best at 4, two evaluations no better
    assert run.best == {"step": 4, "relative_l2": pytest.approx(0.3)}
    best = checkpoint.load(checkpoint.step_folder(tmp_path / "run", 4))
    for key, value in best.named_parameters():
        assert torch.equal(run.model.get_parameter(key), value)
        assert torch.equal(checkpoint.load(tmp_path / "run").get_parameter(key), value)
    third = checkpoint.load(checkpoint.step_folder(tmp_path / "run", 6)).layers[0].weight
    assert not torch.equal(third, run.model.layers[0].weight)


def test_early_stopping_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [0.5, 0.3, 0.4, 0.3]
    scripted(monkeypatch, errors)
    straight = train(config=STOPPING)
    monkeypatch.undo()
    scripted(monkeypatch, errors[:2])
    train(tmp_path / "run", config=STOPPING, stop=stop_after(5))
    monkeypatch.undo()
    scripted(monkeypatch, errors[2:])
    resumed = train(tmp_path / "run", config=STOPPING, resume=True)
    assert resumed.stopped_early and resumed.step == 8
    parameters = dict(straight.model.named_parameters())
    for key, value in resumed.model.named_parameters():
        assert torch.equal(parameters[key], value)
    again = train(tmp_path / "run", config=STOPPING, resume=True)  # it stays stopped
    assert again.stopped_early and again.step == 8
    assert torch.equal(again.model.layers[0].weight, resumed.model.layers[0].weight)


def test_patience_needs_something_to_evaluate_on() -> None:
    with pytest.raises(ConfigError, match="patience is 2 but there is nothing to evaluate on"):
        train(config=STOPPING, validation=None)


@dataclass(frozen=True)
class Scaled(MeanSquare):
    """A loss so large that its float16 gradient overflows at the first scale."""

    factor: float = 1.0

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> Terms:
        result = super().__call__(model, batch, generator=generator)
        return Terms(self.factor * result.total, result.terms)


def test_float16_leaves_out_steps_that_overflow_and_lowers_the_scale(tmp_path: Path) -> None:
    config = replace(CONFIG, precision="float16", ema=0.0, log_every=1)
    model = Net(NetConfig())
    weight = model.layers[0].weight
    seen = []

    def stop() -> bool:
        seen.append(weight.detach().clone())
        return False

    run = train(tmp_path / "run", model=model, config=config, loss=Scaled(factor=1e3), stop=stop)
    assert torch.equal(seen[0], seen[1])  # overflowed: not a step
    assert not torch.equal(seen[-2], seen[-1])
    assert all(math.isfinite(r["gradient_norm"]) for r in run.history if "loss" in r)
    state = checkpoint.read(tmp_path / "run").training
    assert state is not None and 1 <= state.values["scaler"]["scale"] < 65536


def test_float16_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = replace(CONFIG, precision="float16")
    straight = train(tmp_path / "straight", config=config, loss=Scaled(factor=1e2))
    train(tmp_path / "run", config=config, loss=Scaled(factor=1e2), stop=stop_after(3))
    resumed = train(tmp_path / "run", config=config, loss=Scaled(factor=1e2), resume=True)
    assert same(weights(resumed), weights(straight))


def test_a_gradient_that_overflows_at_every_scale_stops(tmp_path: Path) -> None:
    config = replace(CONFIG, precision="float16", steps=40)
    with pytest.raises(TrainingError, match="not finite"):
        train(tmp_path / "run", config=config, loss=Scaled(factor=1e30))


# --- the library's own model and loss -------------------------------------------------------------


def test_the_transformer_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = CSTConfig(dim=2, in_channels=1, out_channels=1, width=32, depth=2, noise=0.1)

    def run(out: Path, **arguments: Any) -> Run:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = CSTOperator(settings)
        return train(out, model=model, config=replace(CONFIG, steps=6), **arguments)

    straight = run(tmp_path / "straight")
    run(tmp_path / "run", stop=stop_after(3))
    resumed = run(tmp_path / "run", resume=True)
    assert same(weights(resumed), weights(straight))
    assert untimed(resumed.history) == untimed(straight.history)
    assert float(resumed.model.normalization.pos_scale) != 1


def test_layers_that_are_computed_again_train_to_the_same_weights() -> None:
    runs = []
    for recompute in (False, True):
        settings = CSTConfig(
            dim=2, in_channels=1, out_channels=1, width=32, depth=2, noise=0.1, recompute=recompute
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = CSTOperator(settings)
        loss = SobolevLoss(smoothing=(0.1,), num_dummies=4)
        runs.append(train(model=model, loss=loss, config=replace(CONFIG, steps=3)))
    assert same(weights(runs[0]), weights(runs[1]))
