"""Layers: encodings of coordinates, kinds of attention, the smooth interpolant."""

from cst_operator.nn.anchors import choose_anchors, hilbert_index
from cst_operator.nn.attention import Attention, Memory, QuadratureAttention
from cst_operator.nn.block import Block
from cst_operator.nn.encodings import FourierFeatures, RotaryCoordinates
from cst_operator.nn.interpolant import SmoothInterpolant
from cst_operator.nn.kernel import KernelAttention
from cst_operator.nn.kinds import ATTENTION, make_attention
from cst_operator.nn.latent import LatentAttention
from cst_operator.nn.norm import TokenNorm
from cst_operator.nn.nystrom import NystromAttention
from cst_operator.nn.slices import SliceAttention

__all__ = [
    "ATTENTION",
    "Attention",
    "Block",
    "FourierFeatures",
    "KernelAttention",
    "LatentAttention",
    "Memory",
    "NystromAttention",
    "QuadratureAttention",
    "RotaryCoordinates",
    "SliceAttention",
    "SmoothInterpolant",
    "TokenNorm",
    "choose_anchors",
    "hilbert_index",
    "make_attention",
]
