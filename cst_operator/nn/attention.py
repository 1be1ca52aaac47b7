"""Attention as a quadrature over the source points."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cst_operator._precision import full_precision
from cst_operator.nn.encodings import RotaryCoordinates
from cst_operator.nn.transforms import in_transform

__all__ = [
    "Attention",
    "Memory",
    "QuadratureAttention",
    "attend",
    "join_heads",
    "split_heads",
]


class Attention(nn.Module, ABC):
    """How tokens read other tokens: these are made a memory once, which any number may read.

    What a token reads must not depend on which others read, and must depend on the points of the
    memory through their measure: splitting a point into two of half the weight changes nothing.
    """

    @abstractmethod
    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Any:
        """What is kept of the points that are attended to.

        Args:
            h: tokens, [B, N, width].
            coordinates: their places, [B, N, D].
            log_weights: logarithms of their quadrature weights, [B, N].

        Returns:
            Tensors, as a named tuple.
        """

    @abstractmethod
    def forward(self, h: Tensor, coordinates: Tensor, memory: Any) -> Tensor:
        """Read the memory at the tokens ``h`` [B, M, width] placed at ``coordinates`` [B, M, D]."""


class Memory(NamedTuple):
    """What a fused attention kernel needs of the points that are attended to."""

    key: Tensor
    """Keys with their place and log-weight channels, [B, h, N, k]."""
    value: Tensor
    """Values, [B, h, N, k]."""


class QuadratureAttention(Attention):
    r"""Multi-head attention that approximates an integral over the domain.

    With quadrature weights :math:`w_i` of the source points,

    .. math::

        A[h](q) = \frac{\sum_i w_i \exp(\sigma(q, i))\, V h_i}{\sum_i w_i \exp(\sigma(q, i))},
        \qquad
        \sigma(q, i) = \frac{\langle R_q Q h(q), R_i K h_i\rangle}{\sqrt k}
        - \sum_j \frac{(s_j(q) - s_j(i))^2}{2 r_j^2},

    where R turns the k channels of a query or key by the coordinates (rotary encoding) and every
    head has learned radii r, one for each coordinate: heads with small radii aggregate a smooth
    neighbourhood of fixed physical size, heads with large ones see the whole domain. Both the
    log-weight and the Gaussian window are inner products of a few further channels, so that a fused
    attention kernel evaluates the score as it is; these channels are taken out of the head's width.

    Args:
        width: channels of a token.
        heads: number of heads h; divides ``width``.
        dim: number of coordinates D.
        max_turns: see :class:`~cst_operator.nn.RotaryCoordinates`.
        radii: initial radii of the first and last head, spread logarithmically between.
    """

    def __init__(
        self, width: int, heads: int, dim: int, *, max_turns: float, radii: tuple[float, float]
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.turning = (self.head_width - dim - 1) // 2 * 2
        self.query = nn.Linear(width, heads * self.turning)
        self.key = nn.Linear(width, heads * self.turning)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.rotary = RotaryCoordinates(dim, heads, self.turning, max_turns)
        start = torch.logspace(math.log10(radii[0]), math.log10(radii[1]), heads)
        self.log_radius = nn.Parameter(start.log()[:, None].repeat(1, dim))

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Memory:
        """Keys and values of the points."""
        return Memory(
            self.keys(h, coordinates, log_weights), split_heads(self.value(h), self.heads)
        )

    def forward(self, h: Tensor, coordinates: Tensor, memory: Memory) -> Tensor:
        """Average the values with the weights of the scores."""
        read = attend(self.queries(h, coordinates), memory)
        return self.out(join_heads(read))

    def keys(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Tensor:
        """Keys whose inner products with queries are the scores and log-weights, [B, h, N, k]."""
        key = split_heads(self.key(h), self.heads).to(coordinates)
        key = self.rotary(key, coordinates)
        place = self._scaled(coordinates, key)
        measure = log_weights.to(key)[:, None] - place.square().sum(-1) / 2
        return self._pad(torch.cat([key, place, measure[..., None]], dim=-1))

    def queries(self, h: Tensor, coordinates: Tensor) -> Tensor:
        """Queries to these keys, [B, h, M, k]."""
        query = split_heads(self.query(h), self.heads).to(coordinates)
        query = self.rotary(query, coordinates)
        query = query / math.sqrt(self.turning)
        place = self._scaled(coordinates, query)
        return self._pad(torch.cat([query, place, torch.ones_like(query[..., :1])], dim=-1))

    def _scaled(self, coordinates: Tensor, like: Tensor) -> Tensor:
        inverse = torch.exp(-self.log_radius)[None, :, None, :]
        return (coordinates[:, None] * inverse).to(like)

    def _pad(self, x: Tensor) -> Tensor:
        missing = self.head_width - x.shape[-1]
        return nn.functional.pad(x, (0, missing)) if missing else x


def attend(query: Tensor, memory: Memory) -> Tensor:
    """Softmax of the scores times the values, [B, h, M, k].

    Always in the precision of the scores: their place channels are differences of large numbers,
    of which half precision leaves nothing.
    """
    with full_precision(query):
        key, value = memory.key.to(query), memory.value.to(query)
        if in_transform():
            return _attend_by_sums(query, key, value)
        return scaled_dot_product_attention(query, key, value, scale=1.0)


def _attend_by_sums(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same from elementary operations, with derivatives of every order.

    Fused kernels have no forward mode. Of a quotient of sums each direction takes one product with
    the matrix of scores, of a softmax four.
    """
    score = query @ key.transpose(-1, -2)
    # A factor common to all keys cancels in the quotient.
    weight = (score - score.detach().amax(-1, keepdim=True)).exp()
    sums = weight @ torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
    return sums[..., :-1] / sums[..., -1:]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, h k] -> [B, h, N, k]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, h, N, k] -> [B, N, h k]."""
    return x.transpose(1, 2).flatten(2)
