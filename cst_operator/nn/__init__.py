"""Layers: encodings of coordinates, quadrature attention, the smooth interpolant."""

from cst_operator.nn.attention import Memory, QuadratureAttention
from cst_operator.nn.block import Block
from cst_operator.nn.encodings import FourierFeatures, RotaryCoordinates
from cst_operator.nn.interpolant import SmoothInterpolant
from cst_operator.nn.norm import TokenNorm

__all__ = [
    "Block",
    "FourierFeatures",
    "Memory",
    "QuadratureAttention",
    "RotaryCoordinates",
    "SmoothInterpolant",
    "TokenNorm",
]
