"""Layers: encodings of coordinates, kinds of attention, flows, the smooth interpolant."""

from cst_operator.nn.anchors import HilbertCurve, choose_anchors
from cst_operator.nn.attention import Attention, Memory, QuadratureAttention
from cst_operator.nn.block import Block
from cst_operator.nn.encodings import FourierFeatures, RotaryCoordinates
from cst_operator.nn.flowing import FlowingAttention, HiddenFlow
from cst_operator.nn.flows import (
    FLOWS,
    LINEAR_FLOWS,
    AdvectionDiffusion,
    Diffusion,
    Flow,
    ImplicitDiffusion,
    ReactionDiffusion,
    Wave,
    make_flow,
)
from cst_operator.nn.interpolant import SmoothInterpolant
from cst_operator.nn.kernel import KernelAttention
from cst_operator.nn.kinds import ATTENTION, make_attention
from cst_operator.nn.laplacian import CellLaplacian, Laplacian, PathLaplacian, PointLaplacian
from cst_operator.nn.latent import LatentAttention
from cst_operator.nn.modulation import Modulation, modulate
from cst_operator.nn.neighbourhood import LocalAverage, bump
from cst_operator.nn.norm import TokenNorm
from cst_operator.nn.nystrom import NystromAttention
from cst_operator.nn.slices import SliceAttention

__all__ = [
    "ATTENTION",
    "FLOWS",
    "LINEAR_FLOWS",
    "AdvectionDiffusion",
    "Attention",
    "Block",
    "CellLaplacian",
    "Diffusion",
    "Flow",
    "FlowingAttention",
    "FourierFeatures",
    "HiddenFlow",
    "HilbertCurve",
    "ImplicitDiffusion",
    "KernelAttention",
    "Laplacian",
    "LatentAttention",
    "LocalAverage",
    "Memory",
    "Modulation",
    "NystromAttention",
    "PathLaplacian",
    "PointLaplacian",
    "QuadratureAttention",
    "ReactionDiffusion",
    "RotaryCoordinates",
    "SliceAttention",
    "SmoothInterpolant",
    "TokenNorm",
    "Wave",
    "bump",
    "choose_anchors",
    "make_attention",
    "make_flow",
    "modulate",
]
