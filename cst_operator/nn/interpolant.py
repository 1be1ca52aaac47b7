"""A smooth interpolant of scattered samples, the values of query tokens."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cst_operator.nn.attention import Memory, attend

__all__ = ["SmoothInterpolant"]


class SmoothInterpolant(nn.Module):
    r"""Local-linear kernel regression with quadrature weights.

    At a query s, the straight line (plane, ...) that fits the samples best under the weights
    :math:`w_i \exp(-\lvert s - s_i\rvert^2 / 2r^2)`. The fit reproduces linear functions up to its
    ridge, is infinitely differentiable in s, and because the radius r is a length of the domain,
    not of the mesh, it converges when the mesh is refined.

    Args:
        dim: number of coordinates D.
        radius: radius r, about the spacing of the coarsest samples or more.
        ridge: regularization of the slope, relative to :math:`r^2`.

    Source: Fan, Design-adaptive nonparametric regression, 1992.
    """

    radius: Tensor

    def __init__(self, dim: int, radius: float, ridge: float = 1e-2) -> None:
        super().__init__()
        # Learned, it would shrink below the spacing of the training meshes and jump from node to
        # node, which costs accuracy everywhere else.
        self.register_buffer("radius", torch.full((dim,), radius))
        self.ridge = ridge

    def forward(
        self, query: Tensor, coordinates: Tensor, values: Tensor, log_weights: Tensor
    ) -> Tensor:
        """Interpolate.

        Args:
            query: places asked for, [B, M, D].
            coordinates: places of the samples, [B, N, D].
            values: samples, [B, N, c].
            log_weights: logarithms of their quadrature weights, [B, N].

        Returns:
            Values at the queries, [B, M, c].
        """
        x, s = query / self.radius, coordinates / self.radius
        dim, channels = s.shape[-1], values.shape[-1]
        products = (s[..., :, None] * torch.cat([s, values], dim=-1)[..., None, :]).flatten(2)
        # The score of query and sample is an inner product, so a fused kernel takes the averages.
        measure = log_weights.to(s) - s.square().sum(-1) / 2
        key = torch.cat([s, measure[..., None]], dim=-1)
        wanted = torch.cat([s, values.to(s), products], dim=-1)
        size = wanted.shape[-1]
        wide = -(-size // 8) * 8  # what fused kernels ask for on a GPU
        query, key, wanted = (
            pad(part, (0, wide - part.shape[-1]))[:, None]
            for part in (torch.cat([x, torch.ones_like(x[..., :1])], dim=-1), key, wanted)
        )
        moments = attend(query, Memory(key, wanted))[:, 0, :, :size]
        place, mean, second = moments.split([dim, channels, dim * (dim + channels)], dim=-1)
        first = torch.cat([place, mean], dim=-1)
        second = second.unflatten(-1, (dim, dim + channels))
        central = second - place[..., :, None] * first[..., None, :]
        covariance, cross = central.split([dim, channels], dim=-1)
        ridge = self.ridge * torch.eye(dim, dtype=s.dtype, device=s.device)
        slope = _solve(covariance + ridge, cross)  # [B, M, D, c]
        return mean + ((x - place)[..., None] * slope).sum(-2)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Elimination for few unknowns, [..., D, D] and [..., D, c] -> [..., D, c].

    The matrices are positive definite, so no rows change places. torch.linalg.solve would take the
    factors as constants when its forward-mode rule is differentiated, and give wrong second
    derivatives and wrong gradients of first ones.
    """
    top = right[..., :1, :] / matrix[..., :1, :1]
    if matrix.shape[-1] == 1:
        return top
    row = matrix[..., :1, 1:] / matrix[..., :1, :1]
    column = matrix[..., 1:, :1]
    rest = _solve(
        matrix[..., 1:, 1:] - column * row,
        right[..., 1:, :] - column * top,
    )
    # Not a product of matrices: for so small ones the kernel takes longer than the arithmetic.
    above = (row.transpose(-1, -2) * rest).sum(-2, keepdim=True)
    return torch.cat([top - above, rest], dim=-2)
