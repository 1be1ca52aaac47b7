"""What a training shows while it runs, and the log it leaves."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cst_operator.log_writers import LogWriter

__all__ = ["Display", "Log"]


class Display:
    """A live line on a terminal (steps, loss, rate, time left), plain lines elsewhere.

    Args:
        total: number of steps.
        start: step to go on from.
        shown: whether anything is shown.
    """

    def __init__(self, total: int, *, start: int = 0, shown: bool = True) -> None:
        self.total = total
        self.shown = shown
        self._console = Console(stderr=True)
        self._live: Progress | None = None
        self._task = TaskID(0)
        if shown and self._console.is_interactive:
            self._live = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._live.add_task("training", total=total, completed=start, text="")

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self) -> None:
        """One step is done."""
        if self._live is not None:
            self._live.advance(self._task)

    def show(self, record: Mapping[str, Any]) -> None:
        """Show a record of the log."""
        if not self.shown:
            return
        step = record["step"]
        if "validation" in record:
            parts = [f"{k} {v:.4g}" for k, v in record["validation"].items()]
            line = f"step {step}/{self.total}  validation {', '.join(parts)}"
            if self._live is not None:
                self._live.console.print(line, highlight=False)
                return
        else:
            rate = record["steps_per_second"]
            text = f"loss {record['loss']:.4g}  {rate:.3g} steps/s"
            if self._live is not None:
                self._live.update(self._task, text=text)
                return
            line = f"step {step}/{self.total}  {text}  {_duration((self.total - step) / rate)} left"
        print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Log:
    """Records of a run, one JSON object a line, each on its way to the disk when written.

    Args:
        path: the file; None keeps the records in memory only.
        records: records to begin with; the file is rewritten to hold just these.
        writers: further places where records go.
    """

    def __init__(
        self,
        path: Path | None,
        records: Iterable[Mapping[str, Any]] = (),
        writers: Sequence[LogWriter] = (),
    ) -> None:
        self.records: list[dict[str, Any]] = [dict(record) for record in records]
        self._writers = writers
        self._file: TextIO | None = None
        if path is not None:
            # A killed run may have logged steps that its last checkpoint does not know.
            fresh = path.with_name(f".{path.name}.tmp")
            fresh.write_text("".join(json.dumps(record) + "\n" for record in self.records))
            os.replace(fresh, path)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        for writer in writers:
            writer.open(self.records)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record."""
        self.records.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        for writer in self._writers:
            writer.write(record)

    def close(self) -> None:
        """Close the file and the writers."""
        if self._file is not None:
            self._file.close()
        for writer in self._writers:
            writer.close()
