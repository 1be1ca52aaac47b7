"""Work in several processes that survives the death of some of them."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

import torch

from cst_operator.errors import SolverError

__all__ = ["map_unordered"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_R = TypeVar("_R")


def map_unordered(
    function: Callable[[int], _R], items: Sequence[int], workers: int
) -> Iterator[_R]:
    """Results as they come, of processes with one thread each; one worker is this process.

    If a process dies (out of memory, killed), what it and the others had not finished is done
    again. Workers end when this process does.

    Raises:
        SolverError: if processes die twice with nothing finished in between.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    waiting, fruitless = list(items), 0
    while waiting:
        left = list(waiting)
        for item, result in _round(function, waiting, workers):
            left.remove(item)
            yield result
        fruitless = fruitless + 1 if len(left) == len(waiting) else 0
        if fruitless == 2:
            raise SolverError(
                f"worker processes died twice and made none of the {len(left)} missing samples "
                f"(the first is {left[0]}), perhaps for lack of memory; call again with fewer "
                "workers to continue"
            )
        waiting = left


def _round(
    function: Callable[[int], _R], items: Sequence[int], workers: int
) -> Iterator[tuple[int, _R]]:
    """What is finished before a worker dies."""
    with (
        _one_thread_each(),
        ProcessPoolExecutor(min(workers, len(items)), get_context("spawn"), _start) as pool,
    ):
        futures: dict[Future[_R], int] = {}
        try:
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


def _start() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
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
