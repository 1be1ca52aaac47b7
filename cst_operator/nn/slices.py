"""Attention among learned slices of the domain."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cst_operator._precision import full_precision
from cst_operator.nn.attention import Attention, join_heads, split_heads

__all__ = ["SliceAttention", "SliceMemory"]


class SliceMemory(NamedTuple):
    """What the slices know after they have read one another."""

    value: Tensor
    """[B, h, G, k]."""


class SliceAttention(Attention):
    r"""Points belong softly to learned slices; the slices attend to one another, O(N G).

    With memberships :math:`p_g(h)`, a softmax over the slices, a slice's token is the average
    :math:`\sum_i w_i p_g(h_i) V h_i / \sum_i w_i p_g(h_i)`, and a reader gets
    :math:`\sum_g p_g(h) z_g`. Places enter through the tokens alone.

    Args:
        width: channels of a token.
        heads: number of heads h.
        count: number of slices G.

    Source: Wu et al., Transolver, 2024; the quadrature weights are ours.
    """

    def __init__(self, width: int, heads: int, *, count: int) -> None:
        super().__init__()
        self.heads = heads
        head_width = width // heads
        self.value = nn.Linear(width, width)
        self.member = nn.Linear(width, width)
        self.slices = nn.Parameter(torch.randn(heads, head_width, count) / head_width**0.5)
        self.among = nn.Linear(head_width, 3 * head_width)
        self.out = nn.Linear(width, width)

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> SliceMemory:
        """Tokens of the slices."""
        value, members = split_heads(self.value(h), self.heads), self._members(h)
        with full_precision(log_weights):  # half precision has no numbers for shares of many points
            share = log_weights.exp()[:, None, :, None]
            weighted = members.to(share) * share
            measure = weighted.sum(2)[..., None]
            average = weighted.transpose(2, 3) @ value.to(share)
            tokens = (average / (measure + torch.finfo(share.dtype).tiny)).to(value)
        query, key, value = self.among(tokens).chunk(3, dim=-1)
        return SliceMemory(tokens + scaled_dot_product_attention(query, key, value))

    def forward(self, h: Tensor, coordinates: Tensor, memory: SliceMemory) -> Tensor:
        """Read the slices by membership."""
        return self.out(join_heads(self._members(h) @ memory.value))

    def _members(self, h: Tensor) -> Tensor:
        """Memberships, [B, h, N, G]."""
        return torch.softmax(split_heads(self.member(h), self.heads) @ self.slices, dim=-1)
