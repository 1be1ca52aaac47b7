"""Attention through a low-rank approximation of its kernel."""

import torch
from torch import Tensor

from cst_operator._precision import full_precision
from cst_operator.nn.anchors import NOTHING, HilbertCurve, choose_anchors
from cst_operator.nn.attention import Memory, QuadratureAttention, attend

__all__ = ["NystromAttention"]


class NystromAttention(QuadratureAttention):
    r"""Attention matrix from some of its columns and rows, O(N A).

    With landmarks a among the points, the softmax of queries and points is approximated by
    :math:`S(q, a)\, S(a, a)^+ S(a, i)`, each S a softmax with quadrature weights. The last
    two factors and the values are the memory, so that a query attends to A landmarks alone.

    Args:
        width: channels of a token.
        heads: number of heads h; divides ``width``.
        dim: number of coordinates D.
        count: number of landmarks A.
        max_turns: see :class:`~cst_operator.nn.RotaryCoordinates`.
        radii: see :class:`~cst_operator.nn.QuadratureAttention`.

    Source: Xiong et al., Nystromformer, 2021; landmarks are anchors of the measure instead of means
    of segments.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dim: int,
        *,
        count: int,
        max_turns: float,
        radii: tuple[float, float],
    ) -> None:
        super().__init__(width, heads, dim, max_turns=max_turns, radii=radii)
        self.count = count
        self.curve = HilbertCurve(dim)

    def memory(self, h: Tensor, coordinates: Tensor, log_weights: Tensor) -> Memory:
        """Keys of the landmarks, and the values that stand for all points."""
        points = super().memory(h, coordinates, log_weights)
        index, measure = choose_anchors(self.curve, coordinates, log_weights, self.count)
        index = index[..., None]
        tokens = h.gather(1, index.expand(-1, -1, h.shape[-1]))
        places = coordinates.gather(1, index.expand(-1, -1, coordinates.shape[-1]))
        query = self.queries(tokens, places)
        key = self.keys(tokens, places, measure)
        with full_precision(coordinates):
            core = torch.softmax(query @ key.transpose(2, 3), dim=-1)
            core = core * (measure > NOTHING)[:, None, :, None]  # padding inverts to nothing
            return Memory(key, _pseudo_inverse(core) @ attend(query, points))


def _pseudo_inverse(matrix: Tensor, iterations: int = 6) -> Tensor:
    """Moore-Penrose inverse of stochastic matrices by iteration, [..., A, A].

    Source: Razavi et al., A new iterative method for finding approximate inverses, 2014.
    """
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    size = matrix.sum(-1).amax(-1) * matrix.sum(-2).amax(-1)
    inverse = matrix.transpose(-1, -2) / size[..., None, None]
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = (
            inverse
            @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product)))
            / 4
        )
    return inverse
