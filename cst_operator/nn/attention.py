"""Attention as a quadrature over the source points."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cst_operator.nn.encodings import RotaryCoordinates

__all__ = ["Memory", "QuadratureAttention"]


class Memory(NamedTuple):
    """What a layer keeps of the points that are attended to."""

    key: Tensor
    """Keys with their place and log-weight channels, [B, h, N, k]."""
    value: Tensor
    """Values, [B, h, N, k]."""


class QuadratureAttention(nn.Module):
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
        """Keys and values of the points that are attended to.

        Args:
            h: tokens, [B, N, width].
            coordinates: their places, [B, N, D].
            log_weights: logarithms of their quadrature weights, [B, N].
        """
        key = self.rotary(self._split(self.key(h)), coordinates)
        place = self._scaled(coordinates, key)
        measure = log_weights.to(key)[:, None] - place.square().sum(-1) / 2
        return Memory(
            self._pad(torch.cat([key, place, measure[..., None]], dim=-1)),
            self._split(self.value(h)),
        )

    def forward(self, h: Tensor, coordinates: Tensor, memory: Memory) -> Tensor:
        """Read the memory at the tokens ``h`` [B, M, width] placed at ``coordinates`` [B, M, D]."""
        query = self.rotary(self._split(self.query(h)), coordinates) / math.sqrt(self.turning)
        place = self._scaled(coordinates, query)
        query = self._pad(torch.cat([query, place, torch.ones_like(query[..., :1])], dim=-1))
        read = scaled_dot_product_attention(query, memory.key, memory.value, scale=1.0)
        return self.out(read.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, N, k]

    def _scaled(self, coordinates: Tensor, like: Tensor) -> Tensor:
        inverse = torch.exp(-self.log_radius)[None, :, None, :]
        return (coordinates[:, None] * inverse).to(like)

    def _pad(self, x: Tensor) -> Tensor:
        missing = self.head_width - x.shape[-1]
        return nn.functional.pad(x, (0, missing)) if missing else x
