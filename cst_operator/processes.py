"""The processes and the device that a training runs on.

Started by ``torchrun``, a training runs in several processes, on one machine or many: each does its
part of every step. Otherwise there is one process, and nothing here costs anything.
"""

import atexit
import os
import signal
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cst_operator.errors import ConfigError, InputError

__all__ = ["Processes", "autocast", "choose_device", "connect", "stop_on_signal"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together.

    Args:
        rank: number of this one.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads, writes and shows things for all."""
        return self.rank == 0

    def on_first(self, function: Callable[[], _T]) -> _T:
        """The result of a function that only the first process calls; its error is everyone's."""
        if self.size == 1:
            return function()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = function()
            except InputError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        result: _T = answer[0]
        return result

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        value = torch.tensor(int(flag), device=_common_device())
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value)

    def gather(self, value: _T) -> list[_T]:
        """Every process's value, in their order, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def add(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums of scalars over the processes, in all of them."""
        if self.size == 1 or not tensors:
            return tensors
        joined = torch.stack([value.double().to(_common_device()) for value in tensors.values()])
        dist.all_reduce(joined)
        return {
            key: new.to(old)
            for (key, old), new in zip(tensors.items(), joined.unbind(), strict=True)
        }

    def copy_from_first(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(_real(tensor.data), src=0)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make the gradients of all processes their sum.

        One exchange after the backward pass, of all gradients at once; a loss may use other
        parameters in one process than in another.
        """
        if self.size == 1:
            return
        known = torch.tensor([p.grad is not None for p in parameters], device=_common_device())
        known = known.to(torch.uint8)
        dist.all_reduce(known, op=dist.ReduceOp.MAX)
        used = [p for p, anywhere in zip(parameters, known.tolist(), strict=True) if anywhere]
        if not used:
            return
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [_real(parameter.grad) for parameter in used if parameter.grad is not None]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(joined)
        pieces = joined.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def connect() -> Processes:
    """The processes that ``torchrun`` started, connected until they end; else this one alone.

    Where ``torch.distributed`` was set up by the caller, that group is used.
    :func:`~cst_operator.fit` calls this itself.
    """
    started = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    if not dist.is_available() or not (dist.is_initialized() or started):
        return Processes()
    if not dist.is_initialized():
        if _local_rank() < torch.cuda.device_count():  # else choose_device says so, if it matters
            torch.cuda.set_device(_local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # Once only: a second group would find the addresses of the first, which are gone.
        atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), dist.get_world_size())


def choose_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "auto" for a GPU if there is one.

    Under ``torchrun`` every process of a machine takes a GPU of its own.

    Raises:
        ConfigError: if "cuda" is asked for and torch sees no GPU, or too few.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cuda":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ConfigError(
            'device is "cuda" but torch sees no GPU; use device "auto" or "cpu", '
            "or install a CUDA build of torch"
        )
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    if _local_rank() >= torch.cuda.device_count():
        raise ConfigError(
            f"process {_local_rank()} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; start as many processes as GPUs"
        )
    return torch.device("cuda", _local_rank())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Within it, passes through a model are in "float32", "bfloat16" or "float16"."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")


@contextmanager
def stop_on_signal(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Turn signals into a ``stop`` for :func:`~cst_operator.fit`: within it, they set a flag.

    After a SIGINT (Ctrl-C), which is answered on standard error, a second one interrupts at once.
    A signal that is ignored, as SIGINT is in the background, stays ignored.

    Args:
        signals: SIGTERM if none is named.

    Yields:
        A function that says whether a signal came.
    """
    came = False
    process = os.getpid()

    def note(number: int, frame: types.FrameType | None) -> None:
        nonlocal came
        came = True
        if number == signal.SIGINT and os.getpid() == process:  # not in workers that load data
            signal.signal(number, before[signal.SIGINT])
            os.write(2, b"\nstopping after this step, which is saved; Ctrl-C again: at once\n")

    before = {
        number: signal.signal(number, note)
        for number in signals or (signal.SIGTERM,)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _real(tensor: Tensor) -> Tensor:
    """The same memory as real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _common_device() -> torch.device:
    """Where the group exchanges small numbers: the CPU unless it knows GPUs alone."""
    if "cpu" in str(dist.get_backend_config()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
