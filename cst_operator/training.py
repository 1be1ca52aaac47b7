"""Training: a page of plain functions.

Every random number of a training is drawn from a seed that depends on (seed, step) or
(seed, epoch) alone, so a run that was stopped and resumed makes the same numbers as one that was
not, bit for bit on a CPU.
"""

import dataclasses
import signal
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from cst_operator import checkpoint
from cst_operator._progress import Display, Log
from cst_operator._seeds import mix
from cst_operator._training_state import (
    LOG_FILE,
    State,
    new_state,
    open_run,
    restore_state,
    save_step,
    saved_state,
)
from cst_operator.errors import ConfigError, InputError, TrainingError
from cst_operator.evaluation import Examples, Scores, evaluate
from cst_operator.fields import Example
from cst_operator.fit_config import FitConfig, learning_rate
from cst_operator.metrics import relative_l2
from cst_operator.sobolev import SobolevLoss

__all__ = ["FitConfig", "Loss", "Run", "choose_device", "fit", "learning_rate", "stop_on_signal"]


class LossTerms(Protocol):
    """What a loss returns."""

    @property
    def total(self) -> Tensor:
        """What is minimized, a scalar: the mean over the samples of the batch."""
        ...

    @property
    def terms(self) -> Mapping[str, Tensor]:
        """Its parts, scalars, for the log."""
        ...


class Loss(Protocol):
    """``loss(model, batch, generator=generator)``; see :class:`~cst_operator.SobolevLoss`."""

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Loss of a batch; random points are drawn from the generator."""
        ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """What :func:`fit` leaves."""

    model: nn.Module
    """The trained model: averaged weights, eval mode, on the device it was trained on."""
    out: Path | None
    """Run folder, if any; :func:`~cst_operator.load` takes it."""
    step: int
    """Steps done."""
    history: list[dict[str, Any]]
    """Records of the log."""
    scores: Scores | None = None
    """Scores of the final averaged weights on the validation examples."""
    best: dict[str, float] | None = None
    """Step and mean relative L2 error of the best evaluation."""
    interrupted: bool = False
    """Whether it was asked to stop before the last step."""


def fit(
    model: nn.Module,
    train: Examples,
    validation: Examples | None = None,
    *,
    loss: Loss | None = None,
    config: FitConfig | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> Run:
    """Train a model in place: AdamW, linear warm-up and cosine, clipping, averaged weights.

    A model with ``fit_normalization`` whose normalization was never fitted is fitted to ``train``
    first. What is validated, saved as the model and returned are the averaged weights.

    Args:
        model: any module; if ``out`` is given, one of a registered kind
            (:func:`~cst_operator.checkpoint.register`).
        train: map-style examples; their ``set_epoch(epoch)`` is called if there is one. An epoch
            is one random order of them, cut into whole batches. Examples may draw from a generator
            of their own seeded by epoch and index or, without workers, from torch's.
        validation: examples to evaluate on.
        loss: what to minimize; :class:`~cst_operator.SobolevLoss` of order 0 if omitted.
        config: see :class:`FitConfig`.
        out: run folder for checkpoints and ``log.jsonl``.
        resume: go on from the newest valid checkpoint in ``out``.
        stop: asked after every step; once it says True, the state is saved and the run returned.
        progress: whether progress is shown, on standard error.

    Raises:
        InputError: if there are no examples, or ``out`` holds a run and ``resume`` is False.
        ConfigError: if the device asked for is not there.
        CheckpointError: if there is nothing to resume, or it was another training.
        TrainingError: if the loss or gradient is not finite; nothing of it is saved.
    """
    config = FitConfig() if config is None else config
    loss = SobolevLoss(order=0) if loss is None else loss
    out = None if out is None else Path(out)
    if not len(train):
        raise InputError("there are no examples to train on; give at least one")
    device = choose_device(config.device)
    identity = {
        **dataclasses.asdict(config),
        "loss": repr(loss) if dataclasses.is_dataclass(loss) else _qualified_name(loss),
        "examples": len(train),
    }
    previous = open_run(model, out, resume, identity)
    if previous is None:
        _fit_normalization(model, train, config)
    else:
        checkpoint.restore(model, previous)
    state = new_state(model.to(device), config, device)
    if previous is not None:
        restore_state(state, model, previous)
    records = [] if previous is None else saved_state(previous).values["history"]
    with (
        closing(Log(None if out is None else out / LOG_FILE, records)) as log,
        Display(config.steps, start=state.step, shown=progress) as display,
        _seeded(config.seed),
    ):
        scores = None
        interrupted = False
        generator = torch.Generator(device)
        clock = time.monotonic()
        model.train()
        for batch in _batches(train, config, state.step, device):
            _optimize(model, batch, loss, generator, state, config)
            display.advance()
            last = state.step == config.steps
            interrupted = not last and stop is not None and stop()

            def due(every: int, last: bool = last) -> bool:
                return last or state.step % every == 0

            if due(config.log_every):
                _check_finite(state, config)
                now = time.monotonic()
                log.write(_record(state, config, now - clock))
                display.show(log.records[-1])
                clock = now
            if validation is not None and due(config.eval_every):
                _check_finite(state, config)
                with state.averaging.applied():
                    scores = _validate(model, validation, config)
                log.write({"step": state.step, "validation": _by_channel(scores)})
                display.show(log.records[-1])
            if out is not None and (due(config.save_every) or interrupted):
                _check_finite(state, config)
                save_step(model, out, state, identity, log.records)
                checkpoint.prune(out, keep=config.keep)
            if interrupted:
                break
    _check_finite(state, config)
    state.averaging.finish()
    if validation is not None and scores is None and not interrupted:  # resumed after the end
        scores = _validate(model, validation, config)
    return Run(
        model=model.eval(),
        out=out,
        step=state.step,
        history=log.records,
        scores=None if interrupted else scores,
        best=_best(log.records),
        interrupted=interrupted,
    )


def choose_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "auto" for a GPU if there is one.

    Raises:
        ConfigError: if "cuda" is asked for and torch sees no GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'device is "cuda" but torch sees no GPU; use device "auto" or "cpu", '
            "or install a CUDA build of torch"
        )
    return torch.device(name)


@contextmanager
def stop_on_signal(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Turn signals into a ``stop`` for :func:`fit`: within it, they only set a flag.

    Args:
        signals: SIGTERM if none is named.

    Yields:
        A function that says whether a signal came.
    """
    came = False

    def note(number: int, frame: types.FrameType | None) -> None:
        nonlocal came
        came = True

    before = {number: signal.signal(number, note) for number in signals or (signal.SIGTERM,)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _optimize(
    model: nn.Module,
    batch: Example,
    loss: Loss,
    generator: torch.Generator,
    state: State,
    config: FitConfig,
) -> None:
    """One step, without waiting for a GPU."""
    generator.manual_seed(mix(config.seed, state.step, 0))
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    device = state.first_bad.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
        result = loss(model, batch, generator=generator)
    result.total.backward()
    groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if config.clip:
        nn.utils.clip_grads_with_norm_(parameters, config.clip, norm)
    total = result.total.detach()
    bad = ~(torch.isfinite(total) & torch.isfinite(norm)) & (state.first_bad < 0)
    state.first_bad = torch.where(bad, state.step, state.first_bad)
    if device.type == "cpu":  # nothing to wait for, so the weights are spared as well
        _check_finite(state, config)
    for group in groups:
        group["lr"] = group["initial_lr"] * learning_rate(state.step, config) / config.lr
    for optimizer in state.optimizers:
        optimizer.step()
    state.averaging.update(state.step)
    for key, value in {"": total, "gradient_norm": norm, **_prefixed(result.terms)}.items():
        value = value.detach()
        state.sums[key] = state.sums[key] + value if key in state.sums else value.clone()
    state.num_summed += 1
    state.step += 1


def _prefixed(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"terms.{key}": value for key, value in terms.items()}


def _check_finite(state: State, config: FitConfig) -> None:
    bad = int(state.first_bad)
    if bad >= 0:
        raise TrainingError(
            f"the loss or gradient of step {bad} is not finite and nothing of it was saved; "
            f"check the data of that step, lower lr (it is {config.lr:g}), or resume from the "
            "last checkpoint"
        )


def _record(state: State, config: FitConfig, seconds: float) -> dict[str, Any]:
    """Means since the last record, and a new beginning."""
    means = {key: float(value) / state.num_summed for key, value in state.sums.items()}
    record = {
        "step": state.step,
        "loss": means.pop(""),
        "gradient_norm": means.pop("gradient_norm"),
        "terms": {key.removeprefix("terms."): value for key, value in means.items()},
        "lr": learning_rate(state.step - 1, config),
        "steps_per_second": round(state.num_summed / max(seconds, 1e-9), 4),
    }
    state.sums, state.num_summed = {}, 0
    return record


def _validate(model: nn.Module, validation: Examples, config: FitConfig) -> Scores:
    with _seeded(config.seed, 0, 3):  # the same examples every time, should they draw
        return evaluate(model, validation, batch_size=config.batch_size, metrics=(relative_l2,))


def _by_channel(scores: Scores) -> dict[str, float]:
    rows = scores.rows(model="", split="")
    return {row["metric"]: row["value"] for row in rows}


def _best(records: list[dict[str, Any]]) -> dict[str, float] | None:
    found = [
        {"step": record["step"], "relative_l2": record["validation"]["relative_l2"]}
        for record in records
        if "validation" in record
    ]
    return min(found, key=lambda entry: entry["relative_l2"], default=None)


def _batches(
    train: Examples, config: FitConfig, step: int, device: torch.device
) -> Iterator[Example]:
    """The batches of step number ``step`` to the last."""
    size = min(config.batch_size, len(train))
    per_epoch = len(train) // size
    while step < config.steps:
        epoch, place = divmod(step, per_epoch)
        _set_epoch(train, epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(train)).tolist()
        chunks = [order[i * size : (i + 1) * size] for i in range(place, per_epoch)]
        loader = DataLoader(
            train,
            batch_sampler=chunks,
            num_workers=config.num_workers,
            pin_memory=device.type == "cuda",
        )
        batches = iter(loader)
        for _ in chunks[: config.steps - step]:
            # For examples and models that draw; not the seed of the loss's own generator.
            torch.manual_seed(mix(config.seed, step, 1))
            batch = next(batches)
            yield Example(*(part.to(device, non_blocking=True) for part in batch))
            step += 1


def _set_epoch(train: Examples, epoch: int) -> None:
    set_epoch = getattr(train, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)


def _fit_normalization(model: nn.Module, train: Examples, config: FitConfig) -> None:
    measure = getattr(model, "fit_normalization", None)
    normalization = getattr(model, "normalization", None)
    if measure is None or not isinstance(normalization, nn.Module):
        return
    untouched = all(bool(((b == 0) | (b == 1)).all()) for b in normalization.buffers())
    if untouched:  # else a trained model is trained further, in its own units
        _set_epoch(train, 0)
        with _seeded(config.seed, 0, 2):
            measure(train[i] for i in range(len(train)))


def _qualified_name(loss: object) -> str:
    kind = loss if isinstance(loss, (type, types.FunctionType)) else type(loss)
    return f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Within it torch's random numbers are those of a seed; then the caller's go on."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mix(*numbers))
        yield
