"""Where flows act: on an attention, through its values, or on hidden states."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cst_operator.nn.attention import (
    Attention,
    Memory,
    QuadratureAttention,
    join_heads,
    split_heads,
)
from cst_operator.nn.flows import Flow
from cst_operator.nn.laplacian import Laplacian, PointLaplacian

__all__ = ["FlowMemory", "FlowingAttention", "HiddenFlow"]


class FlowingAttention(Attention):
    r"""Attention that flows over the points it reads, before it reads them.

    A linear flow multiplies the attention matrix from the right by a polynomial or rational
    function of the Laplacian: :math:`A(s)\, V = A(0)\, (p(L)\, V)`. So the values flow instead,
    once for all readers, and the fused attention kernel is kept. Only a linear flow may be given:
    a reaction term needs the matrix itself.

    Args:
        attention: the attention that flows.
        flow: a linear flow; a group of channels is a head, or several.
        laplacian: of points at coordinates, [B, N, D], with the logarithms of weights, [B, N].

    Source: Zhang and Zhou, arXiv 2505.20666.
    """

    def __init__(
        self,
        attention: QuadratureAttention,
        flow: Flow,
        laplacian: Callable[[Tensor, Tensor], Laplacian],
    ) -> None:
        super().__init__()
        self.attention = attention
        self.flow = flow
        self.laplacian = laplacian

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Memory:
        """Keys, and the values that have flowed."""
        key, value = self.attention.memory(h, coordinates, log_weights)
        value = self.flow(join_heads(value), self.laplacian(coordinates, log_weights))
        return Memory(key, split_heads(value, self.attention.heads))

    def forward(self, h: Tensor, coordinates: Tensor, memory: Memory) -> Tensor:
        """Average the values with the weights of the scores."""
        out: Tensor = self.attention(h, coordinates, memory)
        return out


class FlowMemory(NamedTuple):
    """What readers need to flow with the points."""

    states: Tensor
    """Tokens of the points on their way, [states, B, N, width]."""
    coordinates: Tensor
    """Places of the points, [B, N, D]."""
    log_weights: Tensor
    """Logarithms of their quadrature weights, [B, N]."""


class HiddenFlow(nn.Module):
    """A layer in which hidden states flow over the points.

    Tokens of queries flow with those of the points and do not act on them or on one another.

    Args:
        flow: any flow.
        radius: see :class:`~cst_operator.nn.PointLaplacian`.

    Source: the code of Zhang and Zhou, arXiv 2505.20666.
    """

    def __init__(self, flow: Flow, radius: float) -> None:
        super().__init__()
        self.flow = flow
        self.radius = radius

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> FlowMemory:
        """States of the tokens ``h`` [B, N, width] on their way."""
        laplacian = self._laplacian(coordinates, log_weights)
        return FlowMemory(torch.stack(self.flow.states(h, laplacian)), coordinates, log_weights)

    def forward(self, h: Tensor, coordinates: Tensor, memory: FlowMemory) -> Tensor:
        """Let the tokens ``h`` [B, M, width] flow with the points."""
        laplacian = self._laplacian(memory.coordinates, memory.log_weights).at(coordinates)
        return self.flow.read(h, laplacian, list(memory.states))

    def _laplacian(self, coordinates: Tensor, log_weights: Tensor) -> PointLaplacian:
        return PointLaplacian(coordinates, log_weights, self.radius)
