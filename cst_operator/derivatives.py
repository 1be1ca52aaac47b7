"""Derivatives of a function of coordinates by forward-mode differentiation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cst_operator._jets import Jet

__all__ = ["Derivatives", "differentiate"]


def differentiate(
    function: Callable[[Tensor], Tensor], s: Tensor, order: int
) -> tuple[Tensor, ...]:
    r"""All partial derivatives of a pointwise function up to an order.

    Every row of the result must depend on the same row of ``s`` alone; then one forward-mode pass
    differentiates every row at once, in all coordinate directions. Orders are nested, the first in
    the rules of the operations themselves, and reverse mode may run through the result, once.

    Args:
        function: maps [..., D] to [..., c].
        s: coordinates, [..., D].
        order: highest order k >= 0.

    Returns:
        Values [..., c], gradients [..., c, D], second derivatives [..., c, D, D], up to order k.

    Raises:
        ValueError: if ``order`` is negative.
    """
    if order < 0:
        raise ValueError(f"order is {order}; expected zero or more")
    return _up_to(function, s, order)


def _up_to(function: Callable[[Tensor], Tensor], s: Tensor, order: int) -> tuple[Tensor, ...]:
    directions = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    if order == 0:
        return (function(s),)
    if order == 1:
        # The coordinates as a jet: what passes for a tensor in the function's operations.
        start: Any = Jet(s, list(directions))
        found: Any = function(start)
        if not isinstance(found, Jet):  # a constant
            return found, torch.zeros_like(found[..., None].expand(*found.shape, s.shape[-1]))
        return found.value, torch.stack(found.slopes, dim=-1)

    def lower(x: Tensor) -> tuple[Tensor, ...]:
        return _up_to(function, x, order - 1)

    def along(direction: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        pair: Any = torch.func.jvp(lower, (s,), (direction.expand_as(s),))
        values, tangents = pair
        return values, tangents[-1]

    apart: Any = (None, 0)  # values do not depend on the direction
    values, top = torch.vmap(along, out_dims=apart)(directions)
    return (*values, top.movedim(0, -1))


class Derivatives:
    """Values and derivatives at query points, in the user's coordinates and units.

    Args:
        tensors: values [M, c], then derivatives of order k, [M, c, D, ..., D] with k axes of D.
        dim: number of space dimensions d; a further coordinate is time.
    """

    def __init__(self, tensors: Sequence[Tensor], *, dim: int) -> None:
        self._tensors = tuple(tensors)
        self._dim = dim

    def order(self, k: int) -> Tensor:
        """All derivatives of order k, time included, [M, c, D, ..., D].

        Raises:
            ValueError: if they were not asked for.
        """
        if not 0 <= k < len(self._tensors):
            raise ValueError(
                f"derivatives of order {k} were not computed; ask for derivatives(..., order={k})"
            )
        return self._tensors[k]

    @property
    def u(self) -> Tensor:
        """Values, [M, c]."""
        return self.order(0)

    @property
    def gradient(self) -> Tensor:
        """Derivatives in space, [M, c, d]."""
        return self.order(1)[..., : self._dim]

    @property
    def time_derivative(self) -> Tensor:
        """Derivative in time, [M, c].

        Raises:
            ValueError: if the model has no time coordinate.
        """
        if self.order(1).shape[-1] == self._dim:
            raise ValueError(
                "this model has no time coordinate; make it with CSTConfig(transient=True)"
            )
        return self.order(1)[..., self._dim]

    @property
    def divergence(self) -> Tensor:
        """Divergence of the first d channels as a vector, [M].

        Raises:
            ValueError: if there are fewer channels than space dimensions.
        """
        return self._vector("divergence").diagonal(dim1=1, dim2=2).sum(-1)

    @property
    def curl(self) -> Tensor:
        """Curl of the first d channels as a vector: [M] in the plane, [M, 3] in space.

        Raises:
            ValueError: if there are fewer channels than space dimensions, or only one dimension.
        """
        if self._dim < 2:
            raise ValueError("the curl needs two or three space dimensions, the field has one")
        slope = self._vector("curl")
        turn = slope - slope.transpose(1, 2)  # of d_j u_i the antisymmetric part, twice
        if self._dim == 2:
            return turn[:, 1, 0]
        return torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], dim=1)

    def _vector(self, name: str) -> Tensor:
        """Gradient of the first d channels, [M, d, d]."""
        if self.u.shape[1] < self._dim:
            raise ValueError(
                f"the {name} needs {self._dim} channels, the field has {self.u.shape[1]}"
            )
        return self.gradient[:, : self._dim]

    @property
    def hessian(self) -> Tensor:
        """Second derivatives in space, [M, c, d, d]."""
        return self.order(2)[..., : self._dim, : self._dim]

    @property
    def laplacian(self) -> Tensor:
        """Sum of the second derivatives in space, [M, c]."""
        return self.hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
