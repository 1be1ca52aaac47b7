"""One layer of the transformer."""

from torch import Tensor, nn

from cst_operator.nn.attention import Memory, QuadratureAttention
from cst_operator.nn.norm import TokenNorm

__all__ = ["Block", "GatedLinear"]


class GatedLinear(nn.Module):
    """Pointwise network whose hidden channels are products, so that coefficients multiply fields.

    Args:
        width: channels of a token.
        hidden: channels inside.

    Source: Shazeer, GLU variants improve transformer, 2020.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        value, gate = self.into(h).chunk(2, dim=-1)
        # Not torch's silu, whose own derivative has no forward mode: no second derivatives.
        out: Tensor = self.out(value * gate * gate.sigmoid())
        return out


class Block(nn.Module):
    """Attention and a pointwise network, each normalized before and added to its input.

    Args:
        attention: how tokens read a memory.
        width: channels of a token.
        hidden: channels inside the pointwise network.
    """

    def __init__(self, attention: QuadratureAttention, *, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = TokenNorm(width)
        self.attention = attention
        self.pointwise = nn.Sequential(TokenNorm(width), GatedLinear(width, hidden))

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Memory:
        """What other tokens read of ``h``; see :meth:`QuadratureAttention.memory`."""
        return self.attention.memory(self.norm(h), coordinates, log_weights)

    def forward(self, h: Tensor, coordinates: Tensor, memory: Memory) -> Tensor:
        """Update the tokens ``h`` [B, M, width] from the memory."""
        h = h + self.attention(self.norm(h), coordinates, memory)
        out: Tensor = h + self.pointwise(h)
        return out
