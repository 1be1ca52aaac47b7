"""Making data sets on many machines: SLURM through submitit, Dask through distributed.

``generate(..., on=Slurm())`` and ``generate(..., on=Dask(...))`` write what ``generate(...)`` does,
bit for bit. The folder of the set must be the same for all machines, which must have the library in
the same version. The process that calls stays: it waits for the samples and writes the manifest.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from cst_operator.datasets._workers import one_thread_each
from cst_operator.errors import ConfigError, InputError, SolverError

__all__ = ["Dask", "Slurm"]

_R = TypeVar("_R")
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Jobs of SLURM, submitted by submitit (needs the extra ``slurm``).

    Further options of sbatch come from its environment variables, e.g. ``SBATCH_ACCOUNT``.
    """

    jobs: int = 8
    """Jobs at a time."""
    samples_per_job: int = 10
    """Samples that a job makes, one after the other; a job that dies is submitted again."""
    minutes: int = 60
    """Time limit of a job."""
    memory_gb: float = 4.0
    """Memory of a job."""
    partition: str = ""
    """Partition to submit to; SLURM's default if empty."""
    logs: str = "slurm_logs"
    """Folder for the jobs' scripts, results and logs, the same for all machines."""
    executor: Literal["slurm", "local"] = "slurm"
    """"local" runs the same jobs as processes of this machine, all at once, to try them."""

    def __post_init__(self) -> None:
        for name in ("jobs", "samples_per_job", "minutes", "memory_gb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a positive number")

    def attempt(
        self, function: Callable[[int], _R], items: Sequence[int]
    ) -> Iterator[tuple[int, _R]]:
        """Items and results as jobs end; those of jobs that died are left out.

        Raises:
            InputError: if submitit or SLURM is not there, or SLURM refuses the jobs.
            SolverError: if a job met an error that is not its sample's.
        """
        try:
            import submitit
        except ImportError as error:
            raise _needs("submitit", "slurm") from error
        try:
            executor = submitit.AutoExecutor(folder=Path(self.logs), cluster=self.executor)
        except RuntimeError as error:
            raise InputError(
                f"there is no SLURM here ({error}); call this on a node that has sbatch"
            ) from error
        executor.update_parameters(
            name="cst-generate",
            timeout_min=self.minutes,
            mem_gb=self.memory_gb,
            cpus_per_task=1,
            slurm_array_parallelism=self.jobs,
            **({"slurm_partition": self.partition} if self.partition else {}),
        )
        cuts = range(0, len(items), self.samples_per_job)
        batches = [list(items[start : start + self.samples_per_job]) for start in cuts]
        try:
            with one_thread_each():  # sbatch and processes take the environment along
                submitted = executor.map_array(_make_each, [function] * len(batches), batches)
        except submitit.core.utils.FailedSubmissionError as error:
            raise InputError(
                f"SLURM refused {len(batches)} jobs ({' '.join(str(error).split())}); check the "
                "partition and the limits, or raise samples_per_job"
            ) from error
        running = dict(zip(submitted, batches, strict=True))
        try:
            for job in submitit.helpers.as_completed(submitted, poll_frequency=1):
                batch = running.pop(job)
                try:
                    results = job.result()
                except submitit.core.utils.FailedJobError as error:
                    raise SolverError(
                        f"job {job.job_id} with sample {batch[0]} failed ({_cause(error)}); "
                        f"see {job.paths.stderr}"
                    ) from error
                except submitit.core.utils.UncompletedJobError:
                    continue
                yield from zip(batch, results, strict=True)
        finally:
            for job in running:
                with suppress(Exception):
                    job.cancel()


@dataclass(frozen=True, kw_only=True)
class Dask:
    """The workers of an existing Dask cluster (needs the extra ``dask``).

    Dask itself does a sample again whose worker died; as long as the cluster has no worker, it
    waits for one.
    """

    scheduler: str = ""
    """Address of the scheduler, e.g. tcp://10.0.0.1:8786, or its scheduler file; Dask's own
    configuration (DASK_SCHEDULER_ADDRESS) if empty."""

    def attempt(
        self, function: Callable[[int], _R], items: Sequence[int]
    ) -> Iterator[tuple[int, _R]]:
        """Items and results as they come; those that killed workers are left out.

        Raises:
            InputError: if distributed is not there, or no scheduler answers.
        """
        try:
            import distributed
        except ImportError as error:
            raise _needs("distributed", "dask") from error
        with self._client(distributed) as client:
            futures = {client.submit(_make_one, function, item, pure=False): item for item in items}
            try:
                for future in distributed.as_completed(list(futures), loop=client.loop):
                    item = futures.pop(future)
                    if future.cancelled() or isinstance(
                        future.exception(), distributed.KilledWorker
                    ):
                        continue
                    yield item, future.result()
            finally:
                with suppress(Exception):
                    client.cancel(list(futures))

    def _client(self, distributed: Any) -> Any:
        import dask

        where = self.scheduler or dask.config.get("scheduler-address", None)
        if not where:
            raise InputError(
                "no Dask scheduler is named; give its address, e.g. tcp://10.0.0.1:8786, or set "
                "DASK_SCHEDULER_ADDRESS"
            )
        place = {"scheduler_file": where} if Path(where).is_file() else {"address": where}
        try:
            return distributed.Client(**place, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {where} ({error}); start one with dask scheduler "
                "and name its address"
            ) from error


def _make_each(function: Callable[[int], _R], items: Sequence[int]) -> list[_R]:
    return [_make_one(function, item) for item in items]


def _make_one(function: Callable[[int], _R], item: int) -> _R:
    """One sample of this process at a time, with one thread, so that its bits are the same."""
    with _ONE_AT_A_TIME:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(item)
        finally:
            torch.set_num_threads(threads)


def _cause(error: Exception) -> str:
    """What stands below the frames in the trace that submitit puts between two rules."""
    trace = str(error).split("-" * 22)
    if len(trace) == 1:
        return type(error).__name__
    lines = trace[1].strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return "; ".join(lines[frames[-1] + 1 if frames else 0 :])


def _needs(package: str, extra: str) -> InputError:
    return InputError(
        f"this needs {package}, which is not installed; pip install 'cst-operator[{extra}]'"
    )
