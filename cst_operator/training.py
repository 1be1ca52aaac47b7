"""Training: a page of plain functions.

Every random number of a training is drawn from a seed that depends on (seed, step, part) or
(seed, epoch) alone, so a run that was stopped and resumed makes the same numbers as one that was
not, bit for bit on a CPU; and two processes make the same step as one that cuts it into two parts.
"""

import dataclasses
import time
import types
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cst_operator import checkpoint
from cst_operator._batches import fingerprint, numbers_of_points, parts, set_epoch
from cst_operator._progress import Display, Log
from cst_operator._records import (
    best_of,
    by_channel,
    check_validation,
    gather_sums,
    is_stuck,
    keep_best,
    record_of,
    validate,
)
from cst_operator._run_folder import LOG_FILE, locked, open_run
from cst_operator._seeds import seeded
from cst_operator._steps import (
    Loss,
    add_gradient,
    check_finite,
    checked,
    naming_the_example,
    optimize,
)
from cst_operator._training_state import new_state, restore_state, save_step, saved_state
from cst_operator.errors import ConfigError, InputError
from cst_operator.evaluation import Examples, Scores
from cst_operator.fit_config import FitConfig, learning_rate
from cst_operator.log_writers import LogWriter
from cst_operator.processes import choose_device, connect, stop_on_signal
from cst_operator.sobolev import SobolevLoss

__all__ = ["FitConfig", "Loss", "Run", "choose_device", "fit", "learning_rate", "stop_on_signal"]


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
    stopped_early: bool = False
    """Whether it stopped because validation no longer improved."""


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
    writers: Sequence[LogWriter] = (),
) -> Run:
    """Train a model in place: AdamW, linear warm-up and a schedule, clipping, averaged weights.

    A model with ``fit_normalization`` whose normalization was never fitted is fitted to ``train``
    first; on the way, the loss is asked whether it is defined for every example. What is validated,
    saved as the model and returned are the averaged weights.

    Started by ``torchrun``, every process calls it with the same arguments; each does its part of
    every step, and the first one alone writes.

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
        writers: further places for the records of the log, see :mod:`cst_operator.log_writers`.

    Raises:
        InputError: if there are no examples, ``out`` holds a run and ``resume`` is False, or
            another process is training in ``out``.
        ConfigError: if the device asked for is not there, or a setting does not fit the examples.
        CheckpointError: if there is nothing to resume, or it was another training or other data.
        FieldError: naming the example, if the loss is not defined for it, or the relative error of
            a validation example, e.g. because the target is zero everywhere.
        TrainingError: if the loss or gradient is not finite; nothing of it is saved.
    """
    config = FitConfig() if config is None else config
    loss = SobolevLoss(order=0) if loss is None else loss
    out = None if out is None else Path(out)
    _check(train, validation, config, out, resume)
    processes = connect()
    device = choose_device(config.device)
    with ExitStack() as stack:
        previous, identity = None, {}
        if out is not None:
            checkpoint.name_of(model)
            folder = locked(out, resume=resume)
            processes.on_first(lambda: stack.enter_context(folder))
            identity = processes.on_first(lambda: _identity(train, validation, loss, config))
            previous = processes.on_first(lambda: open_run(model, out, resume, identity))
        if validation is not None:
            processes.on_first(lambda: check_validation(validation, config))
        if previous is None:
            _fit_normalization(model, train, loss, config)
        else:
            checkpoint.restore(model, previous)
        processes.copy_from_first(model.to(device))
        if config.compile:
            # A program for one size, kept beside that for all, would round otherwise on resume.
            model.compile(dynamic=True)
        state = new_state(model, config, device)
        if previous is not None:
            restore_state(state, previous, processes)
        records = [] if previous is None else saved_state(previous).values["history"]
        written = out if processes.is_first else None
        shown = progress and processes.is_first
        log = Log(
            None if written is None else written / LOG_FILE,
            records,
            writers if processes.is_first else (),
        )
        stack.enter_context(closing(log))
        display = stack.enter_context(Display(config.steps, start=state.step, shown=shown))
        stack.enter_context(seeded(config.seed))
        sizes = processes.on_first(lambda: numbers_of_points(train)) if config.bucket else None
        stack.enter_context(naming_the_example(train, loss, state, config, sizes))
        scores = None
        interrupted = False
        stuck = is_stuck(log.records, config)
        clock, counted = time.monotonic(), state.step
        model.train().zero_grad(set_to_none=True)
        remaining = parts(train, config, state.step, device, processes, sizes)
        for part in () if stuck else remaining:
            add_gradient(model, loss, part, state, config)
            if not part.last:
                continue
            optimize(state, config, processes)
            display.advance()
            last = state.step == config.steps
            interrupted = processes.any(not last and stop is not None and stop())

            def due(every: int, last: bool = last) -> bool:
                return last or state.step % every == 0

            if due(config.log_every):
                check_finite(state, config)
                now = time.monotonic()
                rate = (state.step - counted) / max(now - clock, 1e-9)
                log.write(record_of(state, config, processes, rate))
                display.show(log.records[-1])
                clock, counted = now, state.step
            if validation is not None and due(config.eval_every):
                check_finite(state, config)
                with state.averaging.applied():
                    scores = validate(model, validation, config, processes)
                log.write({"step": state.step, "validation": by_channel(scores)})
                display.show(log.records[-1])
                keep_best(state, log.records, config)
                stuck = is_stuck(log.records, config)
                interrupted = interrupted and not stuck
            if last or stuck:
                state.averaging.average |= state.best
            if out is not None and (due(config.save_every) or interrupted or stuck):
                check_finite(state, config)
                gather_sums(state, processes)
                if processes.is_first:
                    save_step(model, out, state, identity, log.records)
                    checkpoint.prune(out, keep=config.keep)
            if interrupted or stuck:
                break
        check_finite(state, config)
        state.averaging.finish()
        if validation is not None and not interrupted and (scores is None or state.best):
            scores = validate(model, validation, config, processes)
    return Run(
        model=model.eval(),
        out=out,
        step=state.step,
        history=log.records,
        scores=None if interrupted else scores,
        best=best_of(log.records),
        interrupted=interrupted,
        stopped_early=stuck and state.step < config.steps,
    )


def _check(
    train: Examples,
    validation: Examples | None,
    config: FitConfig,
    out: Path | None,
    resume: bool,
) -> None:
    if not len(train):
        raise InputError("there are no examples to train on; give at least one")
    if validation is not None and not len(validation):
        raise InputError("there are no examples to validate on; give at least one, or none at all")
    if resume and out is None:
        raise InputError("resume needs the run folder; give it as out")
    if config.patience and validation is None:
        raise ConfigError(
            f"patience is {config.patience} but there is nothing to evaluate on; "
            "give validation examples or set it to 0"
        )


def _identity(
    train: Examples, validation: Examples | None, loss: Loss, config: FitConfig
) -> dict[str, Any]:
    """What makes a training this one and no other."""
    with seeded(config.seed, 0, 4):
        identity = {
            **dataclasses.asdict(config),
            "loss": repr(loss) if dataclasses.is_dataclass(loss) else _qualified_name(loss),
            "examples": len(train),
            "fingerprint of the examples": fingerprint(train),
        }
        if config.patience and validation is not None:  # else it changes no weight
            identity["fingerprint of the validation examples"] = fingerprint(validation)
    return identity


def _fit_normalization(model: nn.Module, train: Examples, loss: Loss, config: FitConfig) -> None:
    measure = getattr(model, "fit_normalization", None)
    normalization = getattr(model, "normalization", None)
    if measure is None or not isinstance(normalization, nn.Module):
        return
    untouched = all(bool(((b == 0) | (b == 1)).all()) for b in normalization.buffers())
    if untouched:  # else a trained model is trained further, in its own units
        set_epoch(train, 0)
        with seeded(config.seed, 0, 2):
            measure(checked(train, loss, range(len(train))))


def _qualified_name(loss: object) -> str:
    kind = loss if isinstance(loss, (type, types.FunctionType)) else type(loss)
    return f"{kind.__module__}.{kind.__qualname__}"
