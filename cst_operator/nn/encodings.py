"""Encodings of continuous coordinates."""

import math

import torch
from torch import Tensor, nn

from cst_operator._precision import full_precision

__all__ = ["FourierFeatures", "RotaryCoordinates"]


class FourierFeatures(nn.Module):
    r"""Random Fourier features :math:`[\sin 2\pi Bs, \cos 2\pi Bs]` of a coordinate.

    ``B`` is drawn once, Gaussian, and kept with the weights of the model.

    Args:
        dim: number of coordinates D.
        features: number of outputs, even.
        scale: standard deviation of the frequencies, in periods per unit of the coordinate.

    Source: Tancik et al., Fourier features let networks learn high frequency functions, 2020.
    """

    frequencies: Tensor

    def __init__(self, dim: int, features: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(dim, features // 2))

    def forward(self, coordinates: Tensor) -> Tensor:
        """[..., D] -> [..., features]."""
        with full_precision(coordinates):
            angle = 2 * math.pi * coordinates @ self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class RotaryCoordinates(nn.Module):
    r"""Rotary position encoding with continuous coordinates.

    Pair j of a head's channels turns by the angle :math:`\omega_j \cdot s`, so the score of a query
    and a key depends on their places through :math:`\omega_j \cdot (s - s')` alone. The
    frequencies are learned; they start in random directions with magnitudes spread
    logarithmically between half a turn and ``max_turns`` turns per unit.

    Args:
        dim: number of coordinates D.
        heads: number of heads h.
        width: channels of a head that turn, even.
        max_turns: largest initial magnitude, in turns per unit of the coordinate.

    Source: Su et al., RoFormer, 2021, extended from positions to coordinates.
    """

    def __init__(self, dim: int, heads: int, width: int, max_turns: float) -> None:
        super().__init__()
        pairs = width // 2
        direction = nn.functional.normalize(torch.randn(heads, pairs, dim), dim=-1)
        magnitude = torch.logspace(math.log10(0.5), math.log10(max_turns), pairs)
        self.frequencies = nn.Parameter(math.pi * magnitude[:, None] * direction)

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """Turn ``x`` [B, h, N, width] at ``coordinates`` [B, N, D]."""
        with full_precision(coordinates):
            angle = torch.einsum("bnd,hpd->bhnp", coordinates, self.frequencies)
        cos, sin = angle.cos(), angle.sin()
        even, odd = x.chunk(2, dim=-1)
        return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
