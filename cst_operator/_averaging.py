"""Exponential moving average of a model's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["Averaging"]


class Averaging:
    r"""Average :math:`\bar\theta \leftarrow \beta_s \bar\theta + (1 - \beta_s) \theta`.

    The decay warms up, :math:`\beta_s = \min(\beta, (1 + s) / (10 + s))` at step s, so that the
    average does not remember the initial weights.

    Args:
        model: whose trainable parameters are averaged, from their present values on.
        decay: the decay :math:`\beta`, at least 0 (no averaging) and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model has the averaged parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def finish(self) -> None:
        """Give the model the averaged parameters for good."""
        for key, parameter in self.parameters.items():
            parameter.copy_(self.average[key])

    def _swap(self) -> None:
        for key, parameter in self.parameters.items():
            parameter.data, self.average[key] = self.average[key], parameter.data
