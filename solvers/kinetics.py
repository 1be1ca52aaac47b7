r"""Reactions of well-known models, the same for periodic boxes and for meshes.

What diffuses obeys :math:`\partial_t u_i = D_i \Delta u_i - r_i u_i + R_i(u)`; here are the
:math:`R_i`. They take and return one tensor, array or number for each component.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["allen_cahn", "fitzhugh_nagumo", "gray_scott"]

_Component = TypeVar("_Component", Tensor, NDArray[np.float64])


def gray_scott(
    u: _Component, v: _Component, feed: float | _Component
) -> tuple[_Component, _Component]:
    """F - u v^2 and u v^2; the decay r is F and F + k (Gray and Scott 1984, Pearson 1993)."""
    product = u * v**2
    return feed - product, product


def fitzhugh_nagumo(u: _Component, v: _Component, k: float) -> tuple[_Component, _Component]:
    """-u^3 - k - v and u; the decay r is -1 and 1 (Takamoto et al., PDEBench, 2022)."""
    return -(u**3) - k - v, u


def allen_cahn(u: _Component) -> _Component:
    """-u^3; the decay r is -1 (Allen and Cahn 1979)."""
    return -(u**3)
