"""Attention whose exponential is replaced by positive random features."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cst_operator._precision import full_precision
from cst_operator.nn.attention import Attention, join_heads, split_heads
from cst_operator.nn.encodings import RotaryCoordinates

__all__ = ["KernelAttention", "KernelMemory"]


class KernelMemory(NamedTuple):
    """Integrals of the features over the points."""

    moments: Tensor
    """Features times values and times one, [B, h, features, k + 1]."""


class KernelAttention(Attention):
    r"""Attention of linear cost: :math:`e^{\langle x, y\rangle} = E\,\phi(x)^T \phi(y)`.

    With orthogonal Gaussian directions :math:`\omega_j`, the features
    :math:`\phi_j(x) = \exp(\langle \omega_j, x\rangle - |x|^2/2)` are positive, so the average
    over the points is a true average:
    :math:`A[h](q) = \phi(q)^T \sum_i w_i \phi(k_i) v_i^T / \phi(q)^T \sum_i w_i \phi(k_i)`.

    Args:
        width: channels of a token.
        heads: number of heads h.
        dim: number of coordinates D.
        count: number of features.
        max_turns: see :class:`~cst_operator.nn.RotaryCoordinates`.

    Source: Choromanski et al., Rethinking attention with Performers, 2021.
    """

    directions: Tensor

    def __init__(self, width: int, heads: int, dim: int, *, count: int, max_turns: float) -> None:
        super().__init__()
        self.heads = heads
        head_width = width // heads
        self.turning = head_width // 2 * 2
        self.query = nn.Linear(width, heads * self.turning)
        self.key = nn.Linear(width, heads * self.turning)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.rotary = RotaryCoordinates(dim, heads, self.turning, max_turns)
        self.register_buffer("directions", _orthogonal(heads, count, self.turning))

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> KernelMemory:
        """Integrals of the keys' features."""
        key = self.rotary(split_heads(self.key(h), self.heads), coordinates)
        value = split_heads(self.value(h), self.heads).to(key)
        # Sums over many points exceed the range of float16, logarithms the digits of bfloat16.
        with full_precision(coordinates):
            exponent = self._exponent(key) + log_weights.to(key)[:, None, :, None]
            # A factor common to all keys of a head cancels in the average.
            features = torch.exp(exponent - exponent.detach().amax((2, 3), keepdim=True))
            value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
            return KernelMemory(features.transpose(2, 3) @ value)

    def forward(self, h: Tensor, coordinates: Tensor, memory: KernelMemory) -> Tensor:
        """Average the values with the weights of the features."""
        query = self.rotary(split_heads(self.query(h), self.heads), coordinates)
        with full_precision(coordinates):
            exponent = self._exponent(query)
            features = torch.exp(exponent - exponent.detach().amax(3, keepdim=True))
            sums = features @ memory.moments.to(features)
            # Where no feature of a query meets one of a key the average is zero, not undefined.
            average = sums[..., :-1] / (sums[..., -1:] + torch.finfo(sums.dtype).tiny)
        return self.out(join_heads(average))

    def _exponent(self, x: Tensor) -> Tensor:
        """Logarithms of the features, [B, h, N, features]."""
        x = x / self.turning**0.25
        return x @ self.directions.to(x).transpose(1, 2) - x.square().sum(-1, keepdim=True) / 2


def _orthogonal(heads: int, count: int, width: int) -> Tensor:
    """Gaussian directions, orthogonal in groups of ``width``, [heads, count, width]."""
    groups = math.ceil(count / width)
    basis = torch.linalg.qr(torch.randn(heads, groups, width, width)).Q
    length = torch.randn(heads, groups, width, width).norm(dim=-1, keepdim=True)
    return (basis * length).flatten(1, 2)[:, :count]
