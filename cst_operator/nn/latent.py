"""Attention through learned latent tokens."""

import torch
from torch import Tensor, nn

from cst_operator.nn.attention import Attention, Memory, QuadratureAttention
from cst_operator.nn.norm import TokenNorm

__all__ = ["LatentAttention"]


class LatentAttention(Attention):
    """A few learned tokens at learned places read the points; every token reads them, O(N A).

    The quadrature is on the reading side: the latents carry no weights of their own.

    Args:
        width: channels of a token.
        heads: number of heads.
        dim: number of coordinates D.
        count: number of latents A.
        max_turns: see :class:`~cst_operator.nn.RotaryCoordinates`.
        radii: see :class:`~cst_operator.nn.QuadratureAttention`.

    Source: Jaegle et al., Perceiver, 2021; places of latents are ours.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dim: int,
        *,
        count: int,
        max_turns: float,
        radii: tuple[float, float],
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(count, width))
        self.places = nn.Parameter(2 * torch.rand(count, dim) - 1)
        self.gather = QuadratureAttention(width, heads, dim, max_turns=max_turns, radii=radii)
        self.norm = TokenNorm(width)
        self.spread = QuadratureAttention(width, heads, dim, max_turns=max_turns, radii=radii)

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Memory:
        """Keys and values of the latents after they have read the points."""
        latents = self.latents.to(h).expand(len(h), -1, -1)
        places = self.places.to(coordinates).expand(len(h), -1, -1)
        read = self.gather(latents, places, self.gather.memory(h, coordinates, log_weights))
        tokens = self.norm(latents + read)
        return self.spread.memory(tokens, places, torch.zeros_like(places[..., 0]))

    def forward(self, h: Tensor, coordinates: Tensor, memory: Memory) -> Tensor:
        """Read the latents."""
        out: Tensor = self.spread(h, coordinates, memory)
        return out
