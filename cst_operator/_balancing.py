"""Weights of a loss's terms that bring them to one size."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cst_operator.errors import ConfigError
from cst_operator.processes import Processes

__all__ = ["Balancing"]

_LARGEST = 1e4  # of a term that training has nearly made vanish, only so much is made


class Balancing:
    r"""Factors :math:`m_1 / m_i` of the terms, with :math:`m_i` running means of their values.

    With weights :math:`\lambda_i`, :math:`\sum_i \lambda_i (m_1 / m_i) L_i` is minimized: the first
    term that has a weight keeps its size, and all of them count as their weights say. The means are
    over steps that are done, so all parts of a step and all processes use the same, and
    a step is the gradient of fixed weights; in the first step the factors are 1.

    Args:
        decay: decay of the running means; 0 leaves the weights as they are.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.means: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}

    def total(self, total: Tensor, terms: Mapping[str, Tensor], weights: object) -> Tensor:
        """What is minimized, of the parts of a loss.

        Raises:
            ConfigError: if the loss does not say the weights of its terms.
        """
        if not self.decay:
            return total
        if not isinstance(weights, Mapping) or not weights:
            raise ConfigError(
                f"balance is {self.decay} but the loss does not say the weights of its terms; "
                "use a loss whose result has weights, such as SobolevLoss, or set it to 0"
            )
        used = {name: weight for name, weight in weights.items() if weight}
        if not self.means or not used:
            return total
        first = self.means[next(iter(used))]
        parts = [
            weight * (first / self.means[name]).clamp_max(_LARGEST) * terms[name]
            for name, weight in used.items()
        ]
        return torch.stack(parts).sum()

    def add(self, terms: Mapping[str, Tensor], share: float) -> None:
        """Take in the terms of a part of a step."""
        for name, value in terms.items() if self.decay else ():
            part = value.detach() * share
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def update(self, processes: Processes) -> None:
        """After a step, move the means towards its terms."""
        for name, value in processes.add(self._sums).items():
            mean = self.means.get(name, value)
            moved = torch.lerp(value, mean, self.decay)
            # A step that overflowed in half precision is no step.
            self.means[name] = torch.where(moved.isfinite(), moved, mean)
        self._sums = {}
