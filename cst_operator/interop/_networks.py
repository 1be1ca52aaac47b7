"""What the two kinds of neuraloperator's models in this library have in common."""

import contextlib
import inspect
import io
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField

__all__ = ["NetworkConfig", "build", "check_config", "check_source", "drop_metadata"]


class NetworkConfig(Protocol):
    """What both configurations hold."""

    @property
    def architecture(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def arguments(self) -> Mapping[str, Any]: ...
    @property
    def out_names(self) -> tuple[str, ...]: ...


def check_config(config: NetworkConfig, known: Mapping[str, Any]) -> None:
    """Refuse values out of range, and make the arguments what JSON gives back."""
    if config.architecture not in known:
        raise ConfigError(
            f"architecture is {config.architecture!r}; expected {' or '.join(map(repr, known))}"
        )
    for name in ("dim", "in_channels", "out_channels"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; expected at least 1")
    if config.out_names and len(config.out_names) != config.out_channels:
        raise ConfigError(
            f"out_names lists {len(config.out_names)} channels; expected {config.out_channels}"
        )
    # What JSON gives back must compare equal.
    object.__setattr__(
        config, "arguments", {key: _plain(key, v) for key, v in config.arguments.items()}
    )


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(key, v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(
        f"the argument {key} is {value!r}; checkpoints hold numbers, strings, booleans and lists "
        "of them only, so leave it out or wrap the network in a module of your own"
    )


def build(network_class: Any, config: NetworkConfig, defaults: Mapping[str, Any]) -> nn.Module:
    """Neuraloperator's network with a configuration's arguments over the defaults."""
    # TFNO hands everything on to FNO.
    signatures = (inspect.signature(base.__init__) for base in network_class.__mro__)
    named = next(s.parameters for s in signatures if "in_channels" in s.parameters)
    known = [key for key in named if key not in ("self", "in_channels", "out_channels")]
    for key in config.arguments:
        if key not in known:
            raise ConfigError(
                f"{config.architecture} takes no argument {key!r}; it has {', '.join(known)}"
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # UNO prints as it is made
            network: nn.Module = network_class(
                in_channels=config.in_channels,
                out_channels=config.out_channels,
                **{**defaults, **config.arguments},
            )
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"neuraloperator refuses the arguments of {config.architecture}: {error}"
        ) from error
    return network


def check_source(source: PointField, config: NetworkConfig) -> None:
    """Refuse a source with other channels or dimensions than the network reads."""
    if source.u.shape[1] != config.in_channels or source.pos.shape[1] != config.dim:
        raise FieldError(
            f"the source has {source.u.shape[1]} channels in {source.pos.shape[1]} dimensions; the "
            f"model reads {config.in_channels} in {config.dim}, so choose channels with "
            "field.select(...) or make another model"
        )


def drop_metadata(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Neuraloperator adds its constructor's arguments to the state, which are not tensors."""
    state.pop("_metadata", None)
