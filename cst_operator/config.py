"""Configuration of an experiment: typed dataclasses, a TOML file, and what a run keeps.

The same dataclasses are the flags of ``cst train``, the tables of its TOML file and what is
written to the run folder as ``experiment.toml``, from which the run can be repeated.
"""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cst_operator._atomic import write_atomically
from cst_operator.config_json import config_to_json
from cst_operator.cst_config import Architecture
from cst_operator.errors import ConfigError
from cst_operator.sobolev import SobolevLoss
from cst_operator.task_config import TaskConfig
from cst_operator.training import FitConfig

__all__ = [
    "EXPERIMENT_FILE",
    "ExperimentConfig",
    "from_mapping",
    "load_config",
    "to_toml",
    "write_config",
]

EXPERIMENT_FILE = "experiment.toml"
"""What a run folder calls its resolved configuration."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that makes a training, apart from the folder it writes to."""

    data: str = ""
    """Data set folder, as cst generate writes it."""
    validation: int = 0
    """Trajectories at the end of the data set that are kept for validation; a tenth if 0."""
    task: TaskConfig = field(default_factory=TaskConfig)
    """What the model reads and what it is asked."""
    model: Architecture = field(default_factory=Architecture)
    """Sizes of the model."""
    loss: SobolevLoss = field(default_factory=SobolevLoss)
    """What is minimized: the error of the values, which all data have; with order = 1 that of the
    gradients as well, where the data know them."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How it is trained."""
    writers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    """Where the log goes beside log.jsonl, in the run folder; wandb stays offline unless
    WANDB_MODE=online is set."""


def load_config(path: str | Path) -> ExperimentConfig:
    """Read a TOML file.

    Raises:
        ConfigError: if it is missing or no TOML, or a key is unknown or has a wrong type or value.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct that line") from error
    config: ExperimentConfig = from_mapping(ExperimentConfig, values, str(path))
    return config


def from_mapping(kind: type, values: Mapping[str, Any], place: str) -> Any:
    """A dataclass from nested mappings, every key and type checked.

    Args:
        kind: the dataclass.
        values: what TOML or JSON gives.
        place: where the values come from, for messages.

    Raises:
        ConfigError: naming the key, and the nearest right one if it is unknown.
    """
    return _build(kind, values, place, "", list(_keys(kind)))


def to_toml(config: Any) -> str:
    """A dataclass as TOML, which :func:`load_config` reads back as the same."""
    return "\n".join(_lines(config_to_json(config), "")) + "\n"


def write_config(path: str | Path, config: Any) -> Path:
    """Write a dataclass as a TOML file, old or whole."""
    return write_atomically(path, to_toml(config))


def _keys(kind: type, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        yield prefix + item.name
        hint = hints[item.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _keys(hint, f"{prefix}{item.name}.")


def _build(kind: type, values: Mapping[str, Any], place: str, prefix: str, known: list[str]) -> Any:
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind) if item.init]
    given = {}
    for key, value in values.items():
        full = prefix + key
        if key not in names:
            raise ConfigError(
                f"{place}: unknown key {full!r}; nearest: {_nearest(full, key, known)!r}"
            )
        hint = hints[key]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{place}: {full} is {value!r}; expected a table [{full}]")
            given[key] = _build(hint, value, place, f"{full}.", known)
        else:
            given[key] = _typed(hint, value, f"{place}: {full}")
    try:
        return kind(**given)
    except ConfigError as error:
        table = f"[{prefix.rstrip('.')}] " if prefix else ""
        raise ConfigError(f"{place}: {table}{error}") from error


def _nearest(full: str, key: str, known: list[str]) -> str:
    """The known key most like a wrong one; a right name in a wrong table counts most."""

    def likeness(candidate: str) -> float:
        last = difflib.SequenceMatcher(None, key, candidate.rpartition(".")[2]).ratio()
        return last + 0.5 * difflib.SequenceMatcher(None, full, candidate).ratio()

    return max(known, key=likeness)


def _typed(hint: Any, value: Any, where: str) -> Any:
    """A TOML value as the annotation has it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(repr(a) for a in arguments)
            raise ConfigError(f"{where} is {value!r}; expected one of {choices}")
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _typed(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} is {value!r}; expected {hint}")
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r}; expected a list in square brackets")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(value) != len(arguments):
            raise ConfigError(f"{where} has {len(value)} entries; expected {len(arguments)}")
        return tuple(_typed(a, v, where) for a, v in zip(arguments, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not right:
        words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise ConfigError(f"{where} is {value!r}; expected {words.get(hint, hint)}")
    return value


def _lines(values: Mapping[str, Any], table: str) -> Iterator[str]:
    for key, value in values.items():
        if not isinstance(value, Mapping) and value is not None:
            yield f"{key} = {_toml(value)}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"\n[{table}{key}]"
            yield from _lines(value, f"{table}{key}.")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' if value < 0 else ''}inf"
    if isinstance(value, list):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
