"""A small model of a registered kind, with a setting and a tensor of every sort."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from cst_operator.checkpoint import TrainingState, register, save, step_folder
from cst_operator.errors import ConfigError

__all__ = ["Tiny", "TinyConfig", "save_step"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A configuration within a configuration."""

    radii: tuple[float, ...] = (0.5,)


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """One field of every kind that a configuration may have."""

    width: int = 4
    names: tuple[str, ...] = ("a", "b")
    pairs: tuple[tuple[int, float], ...] = ((1, 0.1), (2, 1e-30))
    part: Part = Part(radii=(0.1, 1 / 3))
    table: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (1, 2)})
    choice: tuple[int, int] | None = (3, 4)
    nothing: str | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width is {self.width}; expected at least 1")


class Tiny(nn.Module):
    """Real, complex, integer, tied and buffered tensors."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.width, config.width)
        self.tied = nn.Linear(config.width, config.width)
        self.tied.weight = self.linear.weight
        self.spectrum = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


register("tiny", TinyConfig, Tiny)


def save_step(run: Path, step: int) -> None:
    model = Tiny(TinyConfig())
    nn.init.constant_(model.linear.bias, float(step))
    state = TrainingState(tensors={"step": torch.tensor(step)}, values={"step": step})
    save(model, step_folder(run, step), training=state)
