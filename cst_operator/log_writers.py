"""Further places for the log of a training, beside ``log.jsonl`` in the run folder.

Hand any of them to :func:`~cst_operator.fit` as ``writers``. TensorBoard and Weights & Biases come
with the extras ``tensorboard`` and ``wandb``.
"""

import csv
import importlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from cst_operator._atomic import write_atomically
from cst_operator.errors import ConfigError

__all__ = ["CsvWriter", "LogWriter", "TensorBoardWriter", "WandbWriter"]

Record = Mapping[str, Any]


class LogWriter(Protocol):
    """Where records go."""

    def open(self, records: Sequence[Record]) -> None:
        """Begin; a resumed run has records already, and what was written later is void."""
        ...

    def write(self, record: Record) -> None:
        """Take one record: ``step``, and numbers or mappings of numbers."""
        ...

    def close(self) -> None:
        """End."""
        ...


class CsvWriter:
    """A table with one row a step, for spreadsheets: ``loss``, ``validation.relative_l2``, ...

    The file is written anew at every record, so that it is whole at all times.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: dict[int, dict[str, float]] = {}

    def open(self, records: Sequence[Record]) -> None:
        """Write the rows there are."""
        self._rows = {}
        for record in records:
            self._take(record)
        self._save()

    def write(self, record: Record) -> None:
        """Fill in a row."""
        self._take(record)
        self._save()

    def close(self) -> None:
        """Nothing is left to do."""

    def _take(self, record: Record) -> None:
        self._rows.setdefault(record["step"], {"step": record["step"]}).update(_flat(record))

    def _save(self) -> None:
        columns = dict.fromkeys(key for row in self._rows.values() for key in row)
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows.values())
        write_atomically(self.path, text.getvalue())


class TensorBoardWriter:
    """Curves for TensorBoard.

    Args:
        folder: where its event files go; ``tensorboard --logdir FOLDER`` shows them.

    Raises:
        ConfigError: if TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        _module("tensorboard", "tensorboard")
        self.folder = Path(folder)
        self._writer: Any = None

    def open(self, records: Sequence[Record]) -> None:
        """Begin an event file; curves go on after the last record."""
        module = _module("torch.utils.tensorboard", "tensorboard")
        after = records[-1]["step"] + 1 if records else None
        self._writer = module.SummaryWriter(str(self.folder), purge_step=after)

    def write(self, record: Record) -> None:
        """Add a point to every curve."""
        for key, value in _flat(record).items():
            self._writer.add_scalar(key.replace(".", "/"), value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class WandbWriter:
    """A run for Weights & Biases, kept on the disk: ``wandb sync`` uploads it.

    Nothing leaves the machine unless ``WANDB_MODE=online`` is set in the environment. A resumed
    training makes a new run that begins with the old records.

    Args:
        folder: where its files go.
        project: name of the project.

    Raises:
        ConfigError: if wandb is not installed.
    """

    def __init__(self, folder: str | Path, project: str = "cst_operator") -> None:
        self._wandb = _module("wandb", "wandb")
        self.folder = Path(folder)
        self.project = project
        self._run: Any = None

    def open(self, records: Sequence[Record]) -> None:
        """Begin a run with the records there are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = self._wandb.init(project=self.project, dir=str(self.folder), mode=mode)
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Add a point to every curve."""
        self._run.log({key.replace(".", "/"): v for key, v in _flat(record).items()})

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()


def _flat(record: Record) -> dict[str, float]:
    """Numbers of a record by dotted names."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": number for name, number in value.items()}
        else:
            flat[key] = value
    return flat


def _module(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} is not installed; install it with pip install 'cst-operator[{extra}]'"
        ) from error
