"""Configurations as JSON and back."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from cst_operator.errors import CheckpointError, ConfigError

__all__ = ["config_from_json", "config_to_json"]


def config_to_json(config: Any) -> dict[str, Any]:
    """A configuration as JSON has it: nested mappings, lists, numbers, strings."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def config_from_json(config_class: type, values: Mapping[str, Any], place: str) -> Any:
    """A configuration back from JSON; lists become tuples where the class says so.

    Args:
        config_class: the dataclass.
        values: what :func:`config_to_json` made.
        place: the file, for messages.

    Raises:
        CheckpointError: if a key is unknown or missing, or the class refuses a value.
    """
    hints = typing.get_type_hints(config_class)
    known = [f.name for f in dataclasses.fields(config_class) if f.init]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise CheckpointError(
                f"{place} sets {key!r}, which {config_class.__name__} does not have"
                + (f" (nearest: {near[0]!r})" if near else "")
                + "; load it with the version that wrote it"
            )
    try:
        return config_class(**{k: _typed(hints[k], v, place) for k, v in values.items()})
    except (ConfigError, TypeError) as error:
        raise CheckpointError(
            f"{place} does not make a {config_class.__name__}: {error}; "
            "load it with the version that wrote it"
        ) from error


def _typed(hint: Any, value: Any, place: str) -> Any:
    """A JSON value as the annotation has it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        kinds = [a for a in arguments if a is not type(None)]
        fits = [a for a in kinds if isinstance(value, list) == _is_tuple(a)]
        return _typed((fits or kinds)[0], value, place)
    if origin is typing.Annotated:
        return _typed(arguments[0], value, place)
    if isinstance(value, list) and _is_tuple(hint):
        if not arguments:
            return tuple(value)
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        return tuple(_typed(a, v, place) for a, v in zip(arguments, value, strict=True))
    if isinstance(value, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return config_from_json(hint, value, place)
    if isinstance(value, dict) and len(arguments) == 2:
        return {key: _typed(arguments[1], v, place) for key, v in value.items()}
    return value


def _is_tuple(hint: Any) -> bool:
    return hint is tuple or typing.get_origin(hint) is tuple
