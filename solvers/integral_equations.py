r"""Integral and integro-differential equations in time, by fixed-point iteration.

.. math:: y(t) = c(t) + \int_a^b K(t, s)\,F(y(s))\,ds, \qquad
          \dot y(t) = g\Bigl(t, y(t), \int_a^b K(t, s)\,F(y(s))\,ds\Bigr),\ y(a) = y_0.

Collocation at the Gauss-Legendre nodes (spectral accuracy; between the nodes the equation itself
interpolates, Nystrom's method), damped fixed-point iteration as in Zappala et al. (Neural
integro-differential equations, 2023). The iteration converges where the right-hand side contracts;
where it does not, that is an error. So is a solution that the nodes do not resolve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from cst_operator.errors import InputError, SolverError

__all__ = [
    "FixedPoint",
    "FunctionOfTime",
    "solve_integral_equation",
    "solve_integro_differential",
]

_MAX_RESIDUAL = 1e-8  # relative, with twice the nodes


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Damped fixed-point iteration :math:`y <- (1 - damping) y + damping G(y)`.

    Args:
        damping: in (0, 1]; 1 takes G(y).
        tolerance: largest change G(y) - y that is accepted, relative to the larger of 1 and the
            largest value.
        max_iterations: iterations after which a member of the batch is given up.
    """

    damping: float = 0.5
    tolerance: float = 1e-12
    max_iterations: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.damping <= 1 or not self.tolerance > 0 or self.max_iterations < 1:
            raise InputError(
                f"damping is {self.damping}, tolerance {self.tolerance}, max_iterations "
                f"{self.max_iterations}; expected a number in (0, 1], a positive one, at least 1"
            )

    def solve(self, function: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """Find y = G(y) for a batch, [B, ...].

        Raises:
            SolverError: naming the members of the batch that did not converge.
        """
        y = start
        done = torch.zeros(len(start), dtype=torch.bool)
        for _ in range(self.max_iterations):
            change = function(y) - y
            done = _relative(change, y) <= self.tolerance  # false where it is not a number
            if bool(done.all()):
                return y
            y = y + self.damping * change
        rows = (~done).nonzero()[:, 0].tolist()
        raise SolverError(
            f"the fixed-point iteration of member {', '.join(map(str, rows[:8]))} of the batch did "
            f"not converge to {self.tolerance:g} in {self.max_iterations} iterations; "
            "a smaller kernel contracts better"
        )


@dataclass(frozen=True, eq=False)
class FunctionOfTime:
    """A batch of solutions, to be asked for at any time of their interval.

    Args:
        at: values at times, [T] -> [B, T, n].
    """

    at: Callable[[Tensor], Tensor]

    def __call__(self, times: Tensor) -> Tensor:
        """Values, [T] -> [B, T, n]."""
        return self.at(times)

    def derivative(self, times: Tensor) -> Tensor:
        """Derivatives, [T] -> [B, T, n]."""
        slope: Tensor = torch.func.jvp(self.at, (times,), (torch.ones_like(times),))[1]
        return slope


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Gauss-Legendre nodes of an interval, their weights and the kernel with its function F."""

    interval: tuple[float, float]
    times: Tensor
    weights: Tensor

    @classmethod
    def of(cls, interval: tuple[float, float], count: int, like: Tensor) -> "_Nodes":
        a, b = interval
        if not b > a or count < 2:
            raise InputError(
                f"interval is {interval} and num_nodes {count}; expected (start, end) and 2 or more"
            )
        x, w = legendre.leggauss(count)
        half = (b - a) / 2
        return cls(interval, like.new_tensor(a + half * (x + 1)), like.new_tensor(half * w))

    def integral(
        self, kernel: Callable[[Tensor, Tensor], Tensor], f: Tensor, times: Tensor
    ) -> Tensor:
        """Integrals of K(t, s) f(s) ds, [B, T, n], of f at the nodes, [B, m, n]."""
        return torch.einsum("tmij,m,bmj->bti", kernel(times, self.times), self.weights, f)

    def antiderivative(self, rate: Tensor, times: Tensor) -> Tensor:
        """Integrals from the start to times, [B, T, n], of a rate at the nodes, [B, m, n]."""
        a, b = self.interval
        half = (b - a) / 2
        x, t = (self.times - a) / half - 1, (times - a) / half - 1
        count = len(x)
        odd = 2 * torch.arange(count, dtype=x.dtype, device=x.device) + 1
        coefficients = torch.einsum(
            "mj,m,bmi->bji", _legendre(x, count) * odd / 2, self.weights / half, rate
        )
        p = _legendre(t, count + 1)
        # the integral of P_j from -1 on is (P_{j+1} - P_{j-1}) / (2j + 1), with P_{-1} = -1
        before = torch.cat([-torch.ones_like(p[:, :1]), p[:, : count - 1]], dim=1)
        return half * torch.einsum("tj,bji->bti", (p[:, 1:] - before) / odd, coefficients)


def _legendre(x: Tensor, count: int) -> Tensor:
    """Legendre polynomials of degree 0 to count - 1, [T, count]."""
    values = [torch.ones_like(x), x]
    for j in range(1, count - 1):
        values.append(((2 * j + 1) * x * values[j] - j * values[j - 1]) / (j + 1))
    return torch.stack(values[:count], dim=1)


def solve_integral_equation(
    forcing: Callable[[Tensor], Tensor],
    kernel: Callable[[Tensor, Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
    *,
    like: Tensor,
    interval: tuple[float, float] = (0.0, 1.0),
    num_nodes: int = 32,
    iteration: FixedPoint = FixedPoint(),
) -> FunctionOfTime:
    """Solve Fredholm equations of the second kind for a batch of forcings.

    Args:
        forcing: c, of every time by itself, [T] -> [B, T, n].
        kernel: K, [T] and [m] -> [T, m, n, n].
        activation: F, [B, m, n] to the same.
        like: any tensor of the wanted device and precision.
        interval: a and b.
        num_nodes: number m of collocation nodes.
        iteration: how the fixed point is found.

    Returns:
        The solutions.

    Raises:
        InputError: if a number does not fit.
        SolverError: naming the members that did not converge or that the nodes do not resolve.
    """
    nodes = _Nodes.of(interval, num_nodes, like)
    constant = forcing(nodes.times)

    def right(y: Tensor, times: Tensor) -> Tensor:
        return forcing(times) + nodes.integral(kernel, activation(y), times)

    y = iteration.solve(
        lambda y: constant + nodes.integral(kernel, activation(y), nodes.times), constant
    )
    solution = FunctionOfTime(partial(right, y))
    fine = _Nodes.of(interval, 2 * num_nodes, like)
    there = solution(fine.times)
    again = forcing(fine.times) + fine.integral(kernel, activation(there), fine.times)
    _check_resolved(again - there, there, num_nodes)
    return solution


def solve_integro_differential(
    y0: Tensor,
    rate: Callable[[Tensor, Tensor, Tensor], Tensor],
    kernel: Callable[[Tensor, Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    num_nodes: int = 32,
    iteration: FixedPoint = FixedPoint(),
) -> FunctionOfTime:
    """Solve integro-differential equations for a batch of initial values.

    Args:
        y0: values at the start, [B, n]; device and precision are kept.
        rate: g of times, values and integrals, [T], [B, T, n] and [B, T, n] -> [B, T, n].
        kernel: K, [T] and [m] -> [T, m, n, n].
        activation: F, [B, m, n] to the same.
        interval: a and b.
        num_nodes: number m of collocation nodes.
        iteration: how the fixed point is found.

    Returns:
        The solutions.

    Raises:
        InputError: if a number does not fit.
        SolverError: naming the members that did not converge or that the nodes do not resolve.
    """
    nodes = _Nodes.of(interval, num_nodes, y0)

    def slope(at: _Nodes, y: Tensor) -> Tensor:
        return rate(at.times, y, at.integral(kernel, activation(y), at.times))

    def picard(y: Tensor) -> Tensor:
        return y0[:, None] + nodes.antiderivative(slope(nodes, y), nodes.times)

    y = iteration.solve(picard, y0[:, None].expand(-1, num_nodes, -1).clone())
    found = slope(nodes, y)
    solution = FunctionOfTime(lambda t: y0[:, None] + nodes.antiderivative(found, t))
    fine = _Nodes.of(interval, 2 * num_nodes, y0)
    there = solution(fine.times)
    again = y0[:, None] + fine.antiderivative(slope(fine, there), fine.times)
    _check_resolved(again - there, there, num_nodes)
    return solution


def _relative(change: Tensor, y: Tensor) -> Tensor:
    """Largest change of every member relative to the larger of 1 and its largest value, [B]."""
    return change.flatten(1).abs().amax(1) / y.flatten(1).abs().amax(1).clamp_min(1.0)


def _check_resolved(residual: Tensor, y: Tensor, num_nodes: int) -> None:
    size = _relative(residual, y)
    least = max(_MAX_RESIDUAL, 1e3 * torch.finfo(y.dtype).eps)
    rows = (~(size <= least)).nonzero()[:, 0].tolist()
    if rows:
        raise SolverError(
            f"member {', '.join(map(str, rows[:8]))} of the batch is not resolved by {num_nodes} "
            f"nodes: with twice as many the residual is {float(np.max(size.tolist())):.1e}; "
            "use more nodes"
        )
