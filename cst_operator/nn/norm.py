"""Normalization of tokens that can be differentiated as often as one likes."""

import torch
from torch import Tensor, nn

from cst_operator.nn.transforms import in_transform

__all__ = ["TokenNorm"]


class TokenNorm(nn.LayerNorm):
    """Layer normalization, within transforms from elementary operations.

    The forward-mode rule of torch's fused kernel takes the mean and the spread as constants when it
    is itself differentiated: gradients of a loss in first derivatives, and second derivatives, come
    out wrong without an error.

    Args:
        width: channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)

    def forward(self, h: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        if not in_transform():
            return super().forward(h)
        centred = h - h.mean(-1, keepdim=True)
        spread = torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        return centred * spread * self.weight + self.bias
