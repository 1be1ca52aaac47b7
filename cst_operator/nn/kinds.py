"""The kinds of attention by name."""

from collections.abc import Callable

from cst_operator.nn.attention import Attention, QuadratureAttention
from cst_operator.nn.kernel import KernelAttention
from cst_operator.nn.latent import LatentAttention
from cst_operator.nn.nystrom import NystromAttention
from cst_operator.nn.slices import SliceAttention

__all__ = ["ATTENTION", "make_attention"]

ATTENTION: dict[str, Callable[..., Attention]] = {
    "full": QuadratureAttention,
    "latent": LatentAttention,
    "kernel": KernelAttention,
    "nystrom": NystromAttention,
    "slice": SliceAttention,
}
"""Constructors by the name of the kind."""

_SETTINGS: dict[str, tuple[str, ...]] = {
    "full": ("dim", "max_turns", "radii"),
    "latent": ("dim", "max_turns", "radii", "count"),
    "kernel": ("dim", "max_turns", "count"),
    "nystrom": ("dim", "max_turns", "radii", "count"),
    "slice": ("count",),
}


def make_attention(kind: str, width: int, heads: int, **settings: object) -> Attention:
    """Attention of a kind; settings that it has no use for are left out.

    Args:
        kind: key of :data:`ATTENTION`.
        width: channels of a token.
        heads: number of heads.
        settings: ``dim``, ``max_turns``, ``radii`` and ``count`` (of latents, random features,
            landmarks or slices).
    """
    chosen = {name: settings[name] for name in _SETTINGS[kind]}
    return ATTENTION[kind](width, heads, **chosen)
