"""Few points that stand for many: equal shares of a measure along a space-filling curve."""

import torch
from torch import Tensor

__all__ = ["NOTHING", "choose_anchors", "hilbert_index"]

# Coordinates at unit scale lie in the box from -1 to 1; shifted or outside ones still have a place.
_BOX = 4.0
NOTHING = -1e3
"""Logarithms of shares below it are those of padding."""


def choose_anchors(
    coordinates: Tensor, log_weights: Tensor, count: int, offset: Tensor | float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""A subset of weighted points of which each stands for the same share of the measure.

    The points are ordered along a Hilbert curve, which visits neighbours one after the other, and
    the measure along the curve is cut into ``count`` equal pieces; the point where
    ``offset`` of a piece is reached stands for it. The choice depends on the places and the measure
    alone: not on the order of the points, and under refinement of the mesh it has a limit (slowly:
    the curve is Hoelder continuous of exponent 1/D in the measure).
    A sample that has no more points than that keeps them all.

    Args:
        coordinates: places at unit scale, [B, N, D].
        log_weights: logarithms of each point's share, [B, N]; padding has none to speak of.
        count: number of anchors A.
        offset: place in every piece, between 0 and 1, a number or one a sample, [B].

    Returns:
        Row of every anchor, [B, min(A, N)], and the logarithm of its share, up to a constant.
    """
    if coordinates.shape[1] <= count:
        index = torch.arange(coordinates.shape[1], device=coordinates.device)
        return index.expand(len(coordinates), -1), log_weights
    order = hilbert_index(coordinates).argsort(dim=1, stable=True)
    passed = log_weights.double().exp().gather(1, order).cumsum(1)
    if isinstance(offset, Tensor):  # a number would have to be copied to a GPU, which waits
        offset = offset.to(passed).reshape(-1, 1)
    piece = torch.arange(count, dtype=passed.dtype, device=passed.device) + offset
    reached = torch.searchsorted(passed, (piece / count * passed[:, -1:]).expand(len(passed), -1))
    chosen = order.gather(1, reached.clamp_max(order.shape[1] - 1))
    padding = log_weights < NOTHING
    everything = padding.long().argsort(dim=1, stable=True)[:, :count]
    fits = (~padding).sum(1, keepdim=True) <= count
    index = torch.where(fits, everything, chosen)
    return index, torch.where(fits, log_weights.gather(1, index), 0)


def hilbert_index(coordinates: Tensor) -> Tensor:
    """Place of points along a Hilbert curve through the box from -4 to 4, [..., D] -> [...].

    Source: Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707, 2004.
    """
    dim = coordinates.shape[-1]
    bits = min(20, 62 // dim)
    unit = (coordinates.double() / (2 * _BOX) + 0.5).clamp(0, 1 - 2.0**-bits)
    x = list((unit * 2**bits).long().unbind(-1))
    for bit in range(bits - 1, 0, -1):
        q = 1 << bit
        for i in range(dim):
            inverted = (x[i] & q) != 0
            swap = torch.where(inverted, 0, (x[0] ^ x[i]) & (q - 1))
            x[0] = torch.where(inverted, x[0] ^ (q - 1), x[0] ^ swap)
            x[i] = x[i] ^ swap if i else x[i]
    for i in range(1, dim):
        x[i] = x[i] ^ x[i - 1]
    carry = torch.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        q = 1 << bit
        carry = torch.where((x[-1] & q) != 0, carry ^ (q - 1), carry)
    index = torch.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):
        for i in range(dim):
            index = (index << 1) | (((x[i] ^ carry) >> bit) & 1)
    return index
