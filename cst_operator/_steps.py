"""A step of a training: the gradient of a loss, and what is done with it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cst_operator._batches import Part, epoch_batches, seed_of, set_epoch
from cst_operator._training_state import State
from cst_operator.errors import FieldError, TrainingError
from cst_operator.evaluation import Examples
from cst_operator.fields import Example
from cst_operator.fit_config import FitConfig, learning_rate
from cst_operator.processes import Processes, autocast

__all__ = [
    "Loss",
    "LossTerms",
    "add_gradient",
    "check_finite",
    "checked",
    "naming_the_example",
    "optimize",
]


class LossTerms(Protocol):
    """What a loss returns."""

    @property
    def total(self) -> Tensor:
        """What is minimized, a scalar: the mean over the samples of the batch."""
        ...

    @property
    def terms(self) -> Mapping[str, Tensor]:
        """Its parts, scalars, for the log.

        A result that also has ``weights`` of the terms, by the same names, can be balanced.
        """
        ...


class Loss(Protocol):
    """``loss(model, batch, generator=generator)``; see :class:`~cst_operator.SobolevLoss`.

    A loss may have a method ``check(example)`` that raises a
    :class:`~cst_operator.errors.FieldError` for an example that it is not defined for.
    """

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Loss of a batch; random points are drawn from the generator."""
        ...


def add_gradient(model: nn.Module, loss: Loss, part: Part, state: State, config: FitConfig) -> None:
    """Gradient of a part of a step, added to those before it."""
    device = state.first_bad.device
    generator = torch.Generator(device)
    generator.manual_seed(seed_of(config, state.step, 0, part.number))
    with autocast(device, config.precision):
        result = loss(model, part.batch, generator=generator)
    total = state.balancing.total(result.total, result.terms, getattr(result, "weights", None))
    state.balancing.add(result.terms, part.share)
    state.scaler.scale(total * part.share).backward()
    state.note_if_bad(total)
    for key, value in {"": total, **{f"terms.{k}": v for k, v in result.terms.items()}}.items():
        state.add(key, value.detach() * part.share)
    state.add("num_points", part.num_points)
    state.add("num_places", part.num_places)


def optimize(state: State, config: FitConfig, processes: Processes) -> None:
    """One step along the gradient, without waiting for a GPU."""
    groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    processes.add_gradients(parameters)
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if config.clip:
        nn.utils.clip_grads_with_norm_(parameters, config.clip, norm)
    if not state.scaler.is_enabled() or state.scaler.get_scale() < 1:
        state.note_if_bad(norm)
    if state.first_bad.device.type == "cpu":  # nothing to wait for, so the weights are spared
        check_finite(state, config)
    for group in groups:
        group["lr"] = group["initial_lr"] * learning_rate(state.step, config) / config.lr
    for optimizer in state.optimizers:
        state.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    state.balancing.update(processes)
    state.averaging.update(state.step)
    if state.scaler.is_enabled():
        norm = norm.nan_to_num(0.0, 0.0)
    state.add("gradient_norm", norm if processes.is_first else torch.zeros_like(norm))
    state.num_summed += 1
    state.step += 1


def check_finite(state: State, config: FitConfig) -> None:
    """Wait for the device and stop if a loss or gradient was not finite.

    Raises:
        TrainingError: naming the step.
    """
    bad = int(state.first_bad)
    if bad >= 0:
        raise TrainingError(
            f"the loss or gradient of step {bad} is not finite and nothing of it was saved; "
            f"check the data of that step, lower lr (it is {config.lr:g}), or resume from the "
            "last checkpoint"
        )


def checked(train: Examples, loss: Loss, indices: Iterable[int]) -> Iterator[Example]:
    """Examples that the loss is defined for, as far as it can say.

    Raises:
        FieldError: naming the first that it is not defined for.
    """
    check = getattr(loss, "check", None)
    for i in indices:
        example = train[i]
        try:
            if check is not None:
                check(example)
        except FieldError as error:
            raise FieldError(f"training example {i}: {error}") from error
        yield example


@contextmanager
def naming_the_example(
    train: Examples,
    loss: Loss,
    state: State,
    config: FitConfig,
    sizes: NDArray[np.int64] | None,
) -> Iterator[None]:
    """If a loss was not finite, look for an example of that step that it is not defined for.

    Raises:
        TrainingError: the one that was raised within, with the example if there is one.
    """
    try:
        yield
    except TrainingError as error:
        steps_per_epoch = len(train) // min(config.batch_size, len(train))
        epoch, place = divmod(int(state.first_bad), steps_per_epoch)
        set_epoch(train, epoch)
        batch = epoch_batches(len(train), config, epoch, sizes)[place]
        try:
            for _ in checked(train, loss, batch):
                pass
        except FieldError as reason:
            raise TrainingError(f"{error}; {reason}") from error
        raise
