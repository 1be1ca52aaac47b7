"""One layer of the transformer."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import silu

from cst_operator.nn.attention import Attention
from cst_operator.nn.norm import TokenNorm
from cst_operator.nn.transforms import in_transform

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
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        gate, value = self.gate(h), self.value(h)
        # The derivative of torch's silu has no forward mode, so it would have no second derivative.
        gate = gate * gate.sigmoid() if in_transform() else silu(gate)
        out: Tensor = self.out(value * gate)
        return out


class Block(nn.Module):
    """Attention and a pointwise network, each normalized before and added to its input.

    Args:
        attention: how tokens read a memory.
        width: channels of a token.
        hidden: channels inside the pointwise network.
    """

    def __init__(self, attention: Attention, *, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = TokenNorm(width)
        self.attention = attention
        self.pointwise = nn.Sequential(TokenNorm(width), GatedLinear(width, hidden))

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Any:
        """What other tokens read of ``h``; see :meth:`Attention.memory`."""
        return self.attention.memory(self.norm(h), coordinates, log_weights)

    def forward(self, h: Tensor, coordinates: Tensor, memory: Any) -> Tensor:
        """Update the tokens ``h`` [B, M, width] from the memory."""
        h = h + self.attention(self.norm(h), coordinates, memory)
        out: Tensor = h + self.pointwise(h)
        return out
