"""What lies near a place: averages over a neighbourhood of compact support."""

import torch
from torch import Tensor, nn

from cst_operator._precision import full_precision

__all__ = ["LocalAverage", "bump"]

# 2^(-1 / x) of a smaller x is zero in every precision in use, with all its derivatives.
_RIM = 5e-4
# Relative to the share of a cube of side R.
_LITTLE = 0.04


def bump(squared: Tensor) -> Tensor:
    r"""The bump function :math:`\phi(r) = 2^{-1 / (1 - r^2)}` for r < 1, zero from there on.

    Infinitely differentiable, also at 0 and at 1. It is a function of the square of the distance,
    because the distance itself has no derivative at 0; a power of 2, because those of e that are
    too small for single precision take ten times as long.

    Args:
        squared: :math:`r^2`, of any shape; rounding may have made it negative.

    Source: Evans, Partial differential equations, appendix C.4, the standard mollifier (base e).
    """
    return (squared - 1).clamp_max(-_RIM).reciprocal().exp2()


class LocalAverage(nn.Module):
    r"""Adds to tokens what the average token in their neighbourhood says.

    .. math::

        h(q) + V \frac{\sum_i w_i\, \phi(\lvert q - s_i \rvert / R)\, h_i}
        {\epsilon + \sum_i w_i\, \phi(\lvert q - s_i \rvert / R)},
        \qquad \epsilon = \frac{1}{25} \left(\frac{R}{2}\right)^D,

    with :func:`bump` as :math:`\phi`, the shares :math:`w_i` of the points in the domain and a
    learned linear map V. Points further away than the radius R have no part in it. R is a length of
    the domain, not of the mesh, so it converges when the mesh is refined. Coordinates are at unit
    scale, in a box of side 2. Where little of the domain lies near, the average fades, and where
    nothing does it is zero: it is defined and infinitely differentiable in q everywhere.

    Args:
        width: channels of a token.
        radius: the radius R.
    """

    def __init__(self, width: int, radius: float) -> None:
        super().__init__()
        self.radius = radius
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, h: Tensor, at: Tensor, tokens: Tensor, coordinates: Tensor, log_weights: Tensor
    ) -> Tensor:
        """Update tokens by the points near them.

        Args:
            h: tokens, [B, M, width].
            at: their places, [B, M, D].
            tokens: those of the points, [B, N, width].
            coordinates: places of the points, [B, N, D].
            log_weights: logarithms of their shares of the domain, [B, N].

        Returns:
            [B, M, width].
        """
        with full_precision(coordinates):
            x, s = at / self.radius, coordinates / self.radius
            lengths = x.square().sum(-1)[..., None] + s.square().sum(-1)[:, None]
            near = bump(torch.baddbmm(lengths, x, s.transpose(1, 2), alpha=-2))  # [B, M, N]
            share = log_weights.to(s).exp()[..., None]
            sums = near @ torch.cat([tokens.to(s) * share, share], dim=-1)
            little = _LITTLE * (self.radius / 2) ** at.shape[-1]
            average = sums[..., :-1] / (sums[..., -1:] + little)
        out: Tensor = h + self.out(average.to(h))
        return out
