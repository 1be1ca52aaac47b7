"""Few points that stand for many: equal shares of a measure along a space-filling curve."""

from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["NOTHING", "HilbertCurve", "choose_anchors"]

# Coordinates at unit scale lie in the box from -1 to 1; shifted or outside ones still have a place.
_BOX = 4.0
NOTHING = -1e3
"""Logarithms of shares below it are those of padding."""


class HilbertCurve(nn.Module):
    """Place of points along a Hilbert curve through the box from -4 to 4, [..., D] -> [...].

    A cube is cut into 2^D cells, every cell again, and so on. Which cell comes how late depends on
    how the curve runs through the cube, of which there are few ways: a table says, for each way and
    cell, the cell's rank and the way through it. (A program without the table has hundreds of
    dependent operations on bits, which take minutes to compile.)

    Args:
        dim: number of coordinates D.

    Source: the curve of Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707,
    2004.
    """

    ways: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("ways", torch.tensor(_ways(dim)), persistent=False)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Integers that order the points along the curve."""
        bits = min(20, 62 // self.dim)
        ranks = 2**self.dim - 1
        unit = (coordinates.double() / (2 * _BOX) + 0.5).clamp(0, 1 - 2.0**-bits)
        lattice = (unit * 2**bits).long().unbind(-1)
        index = way = torch.zeros_like(lattice[0])
        for bit in range(bits - 1, -1, -1):
            cell = torch.zeros_like(index)
            for i, x in enumerate(lattice):
                cell = cell | (x >> bit & 1) << i
            way = self.ways[way & ~ranks | cell]
            index = index << self.dim | way & ranks
        return index


@cache  # every model and layer has one
def _ways(dim: int) -> list[int]:
    """For way w and cell c, at w 2^D + c: the way through the cell, times 2^D, plus its rank.

    A way is Skilling's state in front of a bit: which coordinate stands where, which of them are
    inverted, and whether the Gray code of the bits before was odd.
    """
    ways = {(tuple(range(dim)), (0,) * dim, 0): 0}
    table = []
    for axes, inverted, odd in (todo := list(ways)):
        for cell in range(2**dim):
            order, flips, parity, rank = list(axes), list(inverted), 0, 0
            for i in range(dim):
                bit = (cell >> axes[i] & 1) ^ inverted[i]
                if bit:
                    flips[0] ^= 1
                else:
                    order[0], order[i] = order[i], order[0]
                    flips[0], flips[i] = flips[i], flips[0]
                parity ^= bit
                rank = rank << 1 | parity ^ odd
            way = tuple(order), tuple(flips), odd ^ parity
            if way not in ways:
                ways[way] = len(ways)
                todo.append(way)
            table.append(ways[way] << dim | rank)
    return table


def choose_anchors(
    curve: HilbertCurve,
    coordinates: Tensor,
    log_weights: Tensor,
    count: int,
    offset: Tensor | float = 0.5,
) -> tuple[Tensor, Tensor]:
    r"""A subset of weighted points of which each stands for the same share of the measure.

    The points are ordered along a Hilbert curve, which visits neighbours one after the other, and
    the measure along the curve is cut into ``count`` equal pieces; the point where
    ``offset`` of a piece is reached stands for it. The choice depends on the places and the measure
    alone: not on the order of the points, and under refinement of the mesh it has a limit (slowly:
    the curve is Hoelder continuous of exponent 1/D in the measure).
    A sample that has no more points than that keeps them all.

    Args:
        curve: the curve through the space of the coordinates.
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
    order = curve(coordinates).argsort(dim=1, stable=True)
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
