"""What a training sees of its examples: their order, batches, parts of batches, fingerprint."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.loader import DataLoader

from cst_operator._seeds import mix
from cst_operator.errors import ConfigError, InputError
from cst_operator.evaluation import Examples
from cst_operator.fields import Example
from cst_operator.fit_config import FitConfig
from cst_operator.processes import Processes

__all__ = [
    "Part",
    "epoch_batches",
    "fingerprint",
    "numbers_of_points",
    "parts",
    "seed_of",
    "set_epoch",
]

_NUM_FINGERPRINTED = 64


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a process sees of a step at a time: all of its batch, if not told otherwise."""

    batch: Example
    """Some of the step's examples, on the device."""
    number: int
    """Number of the part in its step, over all processes."""
    share: float
    """Its share of the step's examples; the shares of a step add up to 1."""
    last: bool
    """Whether the step is complete with it in this process."""
    num_points: int
    """Points of the part."""
    num_places: int
    """Points of its dense tensors, padding included."""


def parts(
    train: Examples,
    config: FitConfig,
    step: int,
    device: torch.device,
    processes: Processes,
    sizes: NDArray[np.int64] | None = None,
) -> Iterator[Part]:
    """This process's parts of step number ``step`` to the last.

    Args:
        train: the examples.
        config: says how they are put together.
        step: step to begin with.
        device: where the parts go.
        processes: who shares a step.
        sizes: see :func:`epoch_batches`.

    Raises:
        ConfigError: if a batch has fewer examples than parts.
    """
    count = processes.size * config.accumulate
    size = min(config.batch_size, len(train))
    if size < count:
        raise ConfigError(
            f"a batch of {size} examples cannot be cut into {config.accumulate} parts for each of "
            f"{processes.size} processes; raise batch_size to at least {count}"
        )
    cuts = [size * i // count for i in range(count + 1)]
    own = range(processes.rank, count, processes.size)
    while step < config.steps:
        epoch = step // (len(train) // size)
        place = step % (len(train) // size)
        set_epoch(train, epoch)
        batches = epoch_batches(len(train), config, epoch, sizes)[place:]
        loader = DataLoader(
            train,
            batch_sampler=[batch[cuts[i] : cuts[i + 1]] for batch in batches for i in own],
            num_workers=config.num_workers,
            pin_memory=device.type == "cuda",
        )
        loaded = iter(loader)
        for _ in batches[: config.steps - step]:
            for i in own:
                # For examples and models that draw; not the seed of the loss's own generator.
                torch.manual_seed(seed_of(config, step, 1, i))
                batch = _made(loaded, config.num_workers)
                lengths = [side.ptr.diff() for side in batch]
                yield Part(
                    batch=Example(*batch).to(device, non_blocking=True),
                    number=i,
                    share=(cuts[i + 1] - cuts[i]) / size,
                    last=i == own[-1],
                    num_points=sum(int(n.sum()) for n in lengths),
                    num_places=sum(len(n) * int(n.max()) for n in lengths),
                )
            step += 1


def _made(loaded: Iterator[Any], num_workers: int) -> Any:
    """The next batch; an error of a worker without the traceback that torch puts before it."""
    try:
        return next(loaded)
    except (InputError, OSError) as error:
        if not num_workers:
            raise
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.partition(": ")[2]) from error


def epoch_batches(
    count: int, config: FitConfig, epoch: int, sizes: NDArray[np.int64] | None = None
) -> list[list[int]]:
    """The batches of an epoch, which depend on the seed and its number alone.

    With ``sizes``, the numbers of points of every example, pools of ``config.bucket`` batches are
    sorted by size before they are cut, and the batches then come in a random order.
    """
    size = min(config.batch_size, count)
    random = np.random.default_rng((config.seed, epoch))
    order = random.permutation(count)[: count // size * size]
    if sizes is None:
        return _listed(order.reshape(-1, size))
    pool = config.bucket * size
    pools = [order[start : start + pool] for start in range(0, len(order), pool)]
    alike = [chunk[np.argsort(sizes[chunk], kind="stable")] for chunk in pools]
    batches = np.concatenate(alike).reshape(-1, size)
    return _listed(batches[random.permutation(len(batches))])


def _listed(batches: NDArray[np.int64]) -> list[list[int]]:
    listed: list[list[int]] = batches.tolist()
    return listed


def numbers_of_points(train: Examples) -> NDArray[np.int64]:
    """Sizes of the examples: what they say themselves, else their points in epoch 0."""
    tell = getattr(train, "numbers_of_points", None)
    if tell is not None:
        return np.array(tell())
    set_epoch(train, 0)
    return np.array([sum(len(side.pos) for side in train[i]) for i in range(len(train))])


def seed_of(config: FitConfig, step: int, purpose: int, part: int) -> int:
    """Seed of what a part of a step draws for one purpose."""
    numbers = (config.seed, step, purpose)
    return mix(*numbers, part) if part else mix(*numbers)


def set_epoch(train: Examples, epoch: int) -> None:
    """Tell the examples the epoch, if they want to know."""
    tell = getattr(train, "set_epoch", None)
    if tell is not None:
        tell(epoch)


def fingerprint(examples: Examples) -> str:
    """SHA-256 of names, points and samples of up to 64 evenly spaced examples of epoch 0.

    Weights and derivatives, which are computed, and cells have no part in it.
    """
    set_epoch(examples, 0)
    count = min(len(examples), _NUM_FINGERPRINTED)
    digest = hashlib.sha256()
    for i in np.linspace(0, len(examples) - 1, count).round().astype(int).tolist():
        for side in examples[i]:
            for value in (side.get("channels"), side.pos, side.get("time"), side.get("u")):
                _digest(digest, value)
    return digest.hexdigest()


def _digest(digest: Any, value: torch.Tensor | Sequence[str] | None) -> None:
    if not torch.is_tensor(value):
        digest.update(repr(value).encode())
        return
    value = value.detach().cpu().contiguous()
    digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
    digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
