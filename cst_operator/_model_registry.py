"""The kinds of models that checkpoints know, by name."""

import dataclasses
from types import MappingProxyType

from torch import nn

from cst_operator.errors import CheckpointError, ConfigError

__all__ = ["KINDS", "name_of", "register"]

_kinds: dict[str, tuple[type, type[nn.Module]]] = {}
KINDS = MappingProxyType(_kinds)
"""Classes of the configuration and the model, by name."""


def register(name: str, config_class: type, model_class: type[nn.Module]) -> None:
    """Make a kind of model known to :func:`~cst_operator.save` and :func:`~cst_operator.load`.

    Args:
        name: what ``config.json`` calls it.
        config_class: a dataclass of numbers, strings, booleans, tuples, mappings and dataclasses.
        model_class: ``model_class(config)`` builds the model and keeps ``config`` as an attribute.

    Raises:
        ConfigError: if the name belongs to another class, or the configuration is no dataclass.
    """
    if not dataclasses.is_dataclass(config_class):
        raise ConfigError(f"{config_class.__name__} is not a dataclass; configure models by one")
    known = _kinds.get(name)
    if known is not None and known != (config_class, model_class):
        raise ConfigError(
            f"the name {name!r} is taken by {known[1].__name__}; register under another name"
        )
    _kinds[name] = (config_class, model_class)


def name_of(model: nn.Module) -> str:
    """The registered name of a model's class.

    Raises:
        CheckpointError: if the class is not registered or the model does not keep its config.
    """
    for name, (config_class, model_class) in _kinds.items():
        if type(model) is model_class:
            if not isinstance(getattr(model, "config", None), config_class):
                raise CheckpointError(
                    f"a {model_class.__name__} to be saved keeps its {config_class.__name__} as "
                    "the attribute config"
                )
            return name
    raise CheckpointError(
        f"{type(model).__name__} is not a registered kind of model (known: "
        f"{', '.join(_kinds)}); call cst_operator.checkpoint.register first"
    )
