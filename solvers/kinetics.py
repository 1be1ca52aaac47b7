r"""Reactions of well-known models, the same for periodic boxes and for meshes.

What diffuses obeys :math:`\partial_t u_i = D_i \Delta u_i - r_i u_i + R_i(u)`; here are the
:math:`R_i`. They take and return one tensor, array or number for each component.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["allen_cahn", "fitzhugh_nagumo", "gray_scott"]

Component = TypeVar("Component", Tensor, NDArray[np.float64])


def gray_scott(u: Component, v: Component, feed: float | Component) -> tuple[Component, Component]:
    """F - u v^2 and u v^2; the decay r is F and F + k (Gray and Scott 1984, Pearson 1993)."""
    product = u * v**2
    return feed - product, product


def fitzhugh_nagumo(u: Component, v: Component, k: float) -> tuple[Component, Component]:
    """-u^3 - k - v and u; the decay r is -1 and 1 (Takamoto et al., PDEBench, 2022)."""
    return -(u**3) - k - v, u


def allen_cahn(u: Component) -> Component:
    """-u^3; the decay r is -1 (Allen and Cahn 1979)."""
    return -(u**3)
