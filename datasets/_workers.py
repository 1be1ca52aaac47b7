"""Work in several processes that survives the death of some of them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Protocol, TypeVar

import torch

from cst_operator.errors import SolverError

__all__ = ["Spawned", "Workers", "map_unordered", "one_thread_each"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_R = TypeVar("_R")


class Workers(Protocol):
    """Who does the work."""

    def attempt(
        self, function: Callable[[int], _R], items: Sequence[int]
    ) -> Iterator[tuple[int, _R]]:
        """Items and results as they come; what died with its worker is left out."""
        ...


def map_unordered(
    function: Callable[[int], _R], items: Sequence[int], workers: Workers
) -> Iterator[_R]:
    """Results as they come.

    If a worker dies (out of memory, killed), what was not finished is done again.

    Raises:
        SolverError: if workers die twice with nothing finished in between.
    """
    waiting, fruitless = list(items), 0
    while waiting:
        left = list(waiting)
        for item, result in workers.attempt(function, waiting):
            left.remove(item)
            yield result
        fruitless = fruitless + 1 if len(left) == len(waiting) else 0
        if fruitless == 2:
            raise SolverError(
                f"workers died twice and made none of the {len(left)} missing samples "
                f"(the first is {left[0]}), perhaps for lack of memory or time; call again with "
                "fewer workers, or more for each, to continue (a script that takes several workers "
                "must call this under if __name__ == '__main__':)"
            )
        waiting = left


@dataclass(frozen=True)
class Spawned:
    """Processes of this machine with one thread each; one worker is this process itself.

    They end when this process does.
    """

    number: int

    def attempt(
        self, function: Callable[[int], _R], items: Sequence[int]
    ) -> Iterator[tuple[int, _R]]:
        """What is finished before a worker dies."""
        number = min(self.number, len(items))
        if self.number == 1:
            yield from ((item, function(item)) for item in items)
            return
        with (
            one_thread_each(),
            ProcessPoolExecutor(number, get_context("spawn"), _start) as pool,
        ):
            futures: dict[Future[_R], int] = {}
            try:
                with _uninterrupted():  # processes are started here
                    for item in items:
                        futures[pool.submit(function, item)] = item
            except BrokenProcessPool:
                pass  # died while the work was handed out; what was is looked at below
            try:
                for future in as_completed(futures):
                    if isinstance(future.exception(), BrokenProcessPool):
                        continue
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back interruptions from the keyboard, here and in processes that are started within."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> None:
    torch.set_num_threads(1)
    # An interruption goes to all processes: the caller's tells of it, once, these end silently.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Numerical libraries read these when they are imported, so they are set before a spawn."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
