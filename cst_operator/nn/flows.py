"""Flows of values over points in pseudo-time, by partial differential equations."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cst_operator.nn.laplacian import Laplacian, PointLaplacian

__all__ = [
    "FLOWS",
    "LINEAR_FLOWS",
    "AdvectionDiffusion",
    "Diffusion",
    "ExplicitFlow",
    "Flow",
    "FlowState",
    "ImplicitDiffusion",
    "ReactionDiffusion",
    "Wave",
    "make_flow",
]

_AnyLaplacian = TypeVar("_AnyLaplacian", bound=Laplacian)

# Largest implicit step, in explicit ones: single precision still keeps the mean to four digits.
_IMPLICIT = 100.0


class Flow(nn.Module, ABC):
    r"""Values at points move along a differential equation, for a few steps of pseudo-time.

    Coefficients are learned, one for each of g groups of channels, within the range where no step
    amplifies: what is trained are their logits. Where a Laplacian has the bound
    :math:`\lambda`, an explicit diffusion takes the coefficient :math:`\alpha = \theta / \lambda`
    with a rate :math:`\theta` between 0 and 1.

    Source: Zhang and Zhou, arXiv 2505.20666; the range of the coefficients is ours.
    """

    @abstractmethod
    def forward(self, v: Tensor, laplacian: Laplacian) -> Tensor:
        """Values at the end, [B, N, c] -> [B, N, c]; c is a multiple of the groups."""

    @abstractmethod
    def states(self, v: Tensor, laplacian: Laplacian) -> list[Tensor]:
        """What :meth:`read` needs of the points' values on their way, each [B, N, c]."""

    @abstractmethod
    def read(self, v: Tensor, laplacian: PointLaplacian, states: list[Tensor]) -> Tensor:
        """Values of readers, which flow as if they were points and move no point.

        Args:
            v: values of the readers, [B, M, c].
            laplacian: of the points, taken at the readers.
            states: of the points.
        """


class FlowState(NamedTuple):
    """Where a flow is."""

    value: Tensor
    """[B, N, c]."""
    velocity: Tensor | None = None
    """Change of the value in half a step, [B, N, c], of flows that have one."""


class ExplicitFlow(Flow, ABC):
    """A flow of which every step needs the Laplacian of the values before it.

    Args:
        steps: number of steps.
        groups: number of groups g of channels.
        rates: shape of the learned rates.
        rate: initial rate, between 0 and 1.
    """

    def __init__(self, *, steps: int, rates: tuple[int, ...], rate: float) -> None:
        super().__init__()
        self.steps = steps
        self.rate_logit = nn.Parameter(torch.full(rates, rate).logit())

    @abstractmethod
    def step(self, k: int, state: FlowState, change: Tensor) -> FlowState:
        """State after step k.

        Args:
            k: number of the step, from 0.
            state: before it.
            change: the Laplacian of its value over the Laplacian's bound, [B, N, c].
        """

    def _operator(self, laplacian: _AnyLaplacian) -> _AnyLaplacian:
        """The Laplacian that drives the flow."""
        return laplacian

    def forward(self, v: Tensor, laplacian: Laplacian) -> Tensor:
        """All steps."""
        operator, state = self._operator(laplacian), FlowState(v)
        for k in range(self.steps):
            state = self._advance(k, state, operator, operator.apply(state.value))
        return state.value

    def states(self, v: Tensor, laplacian: Laplacian) -> list[Tensor]:
        """Values before every step."""
        operator, state, states = self._operator(laplacian), FlowState(v), [v]
        for k in range(self.steps - 1):
            state = self._advance(k, state, operator, operator.apply(state.value))
            states.append(state.value)
        return states

    def read(self, v: Tensor, laplacian: PointLaplacian, states: list[Tensor]) -> Tensor:
        """All steps, with the Laplacians of the points' values."""
        operator, state = self._operator(laplacian), FlowState(v)
        for k, points in enumerate(states):
            state = self._advance(k, state, operator, operator.apply(points, state.value))
        return state.value

    def _advance(self, k: int, state: FlowState, operator: Laplacian, change: Tensor) -> FlowState:
        after = self.step(k, state, change / operator.bound)
        return after._replace(value=operator.hold(state.value, after.value))


class Diffusion(ExplicitFlow):
    r""":math:`\partial_s v = \alpha \Delta v`.

    Every step replaces values by averages, so that no value leaves the range of the values before.

    Args:
        steps: number of steps; each has rates of its own.
        groups: number of groups g of channels.
        rate: initial rate; the paper's code starts at .4, which on a path is its .1.
    """

    def __init__(self, *, steps: int, groups: int = 1, rate: float = 0.4) -> None:
        super().__init__(steps=steps, rates=(steps, groups), rate=rate)

    def step(self, k: int, state: FlowState, change: Tensor) -> FlowState:
        """One explicit Euler step."""
        return FlowState(state.value + _of(self.rate_logit[k].sigmoid(), change) * change)


class AdvectionDiffusion(ExplicitFlow):
    r""":math:`\partial_s v = \alpha (\Delta v + \frac{2}{\rho}\, t \cdot \nabla v)`.

    The learned drift t, one for each group, has a length below 1: steps are averages, as those of
    :class:`Diffusion`. On a path the advection is the central difference; on points the average is
    taken around a place upstream.

    Args:
        steps: number of steps; each has rates of its own, and all have one drift.
        dim: number of coordinates D.
        groups: number of groups g of channels.
        rate: initial rate.
        drift: initial length of the drift, equal parts along all coordinates.
    """

    def __init__(
        self, *, steps: int, dim: int, groups: int = 1, rate: float = 0.4, drift: float = 0.15
    ) -> None:
        super().__init__(steps=steps, rates=(steps, groups), rate=rate)
        part = drift / (1 - drift**2) ** 0.5 / dim**0.5
        self.slope = nn.Parameter(torch.full((groups, dim), part))

    def _operator(self, laplacian: _AnyLaplacian) -> _AnyLaplacian:
        """With the drift."""
        length = self.slope.square().sum(-1, keepdim=True)
        return laplacian.drifting(self.slope * torch.rsqrt(1 + length))

    def step(self, k: int, state: FlowState, change: Tensor) -> FlowState:
        """One explicit Euler step."""
        return FlowState(state.value + _of(self.rate_logit[k].sigmoid(), change) * change)


class ReactionDiffusion(ExplicitFlow):
    r""":math:`\partial_s v = \alpha \Delta v + \beta\, v\, (1 - \sigma(v))`.

    The reaction of the paper's code drives negative values away from zero, so no positive
    coefficient is free of growth; within :math:`|\beta| < 1 / n` in n steps the largest value
    grows less than e-fold over the whole flow. It is not linear in the values.

    Args:
        steps: number of steps n; each has coefficients of its own.
        groups: number of groups g of channels.
        rate: initial rate of the diffusion.
        reaction: initial coefficient of the reaction, between -1/n and 1/n.
    """

    def __init__(
        self, *, steps: int, groups: int = 1, rate: float = 0.4, reaction: float = 0.02
    ) -> None:
        super().__init__(steps=steps, rates=(steps, groups), rate=rate)
        self.slope = nn.Parameter(torch.full((steps, groups), reaction * steps).atanh())

    def step(self, k: int, state: FlowState, change: Tensor) -> FlowState:
        """One explicit Euler step."""
        v = state.value
        reaction = _of(self.slope[k].tanh() / self.steps, v) * v * torch.sigmoid(-v)
        return FlowState(v + _of(self.rate_logit[k].sigmoid(), change) * change + reaction)


class Wave(ExplicitFlow):
    r""":math:`\partial_s^2 v = c^2 \Delta v`, from rest.

    Steps are those of leapfrog, :math:`v_{n+1} - 2 v_n + v_{n-1} = c^2 L v_n`, stable up to
    :math:`c^2 = 4 / \lambda`: a mode with the eigenvalue :math:`\mu` is multiplied by
    :math:`T_n(1 - c^2 \mu / 2)`, with Chebyshev's polynomial, which does not exceed 1.
    Speeds that change from step to step could amplify by resonance, so all steps have one.

    Args:
        steps: number of steps.
        groups: number of groups g of channels.
        rate: initial :math:`c^2 \lambda / 4`; with .045, one step on a path is that of the paper's
            code, whose wave is of first order in pseudo-time.
    """

    def __init__(self, *, steps: int, groups: int = 1, rate: float = 0.045) -> None:
        super().__init__(steps=steps, rates=(groups,), rate=rate)

    def step(self, k: int, state: FlowState, change: Tensor) -> FlowState:
        """Kick and drift; from rest, half a kick."""
        kick = 4 * _of(self.rate_logit.sigmoid(), change) * change
        velocity = kick / 2 if state.velocity is None else state.velocity + kick
        return FlowState(state.value + velocity, velocity)


class ImplicitDiffusion(Flow):
    r"""Diffusion by implicit Euler steps, :math:`(1 - \alpha L)\, v_{n+1} = v_n`.

    Stable for every coefficient, up to a hundred explicit steps in one. The dense systems are
    solved directly, O(N^3) for each group: for up to some thousand points.

    Args:
        steps: number of steps; each has rates of its own.
        groups: number of groups g of channels.
        rate: initial coefficient times the Laplacian's bound, between 0 and 100.
    """

    def __init__(self, *, steps: int, groups: int = 1, rate: float = 0.4) -> None:
        super().__init__()
        self.steps = steps
        self.rate_logit = nn.Parameter(torch.full((steps, groups), rate / _IMPLICIT).logit())

    def forward(self, v: Tensor, laplacian: Laplacian) -> Tensor:
        """All steps."""
        return self.states(v, laplacian)[-1]

    def states(self, v: Tensor, laplacian: Laplacian) -> list[Tensor]:
        """Values after every step."""
        groups = self.rate_logit.shape[1]
        wide = torch.promote_types(v.dtype, torch.float32)
        identity = torch.eye(v.shape[1], dtype=wide, device=v.device)
        change = laplacian.apply(identity.expand(len(v), -1, -1)) / laplacian.bound
        states, now = [], v.to(wide).unflatten(-1, (groups, -1)).transpose(1, 2)
        for k in range(self.steps):
            matrix = identity - self._rates(k)[:, None, None] * change[:, None]
            now = torch.linalg.solve_ex(matrix, now).result  # which waits for no GPU, as solve does
            states.append(now.transpose(1, 2).flatten(2).to(v))
        return states

    def read(self, v: Tensor, laplacian: PointLaplacian, states: list[Tensor]) -> Tensor:
        """All steps: the equation of a point, with the others' values known."""
        for k, points in enumerate(states):
            rate = _of(self._rates(k), v)
            mean = laplacian.apply(points, torch.zeros_like(v)) / laplacian.bound
            v = (v + rate * mean) / (1 + rate)
        return v

    def _rates(self, k: int) -> Tensor:
        return _IMPLICIT * self.rate_logit[k].sigmoid()


FLOWS: dict[str, Callable[..., Flow]] = {
    "diffusion": Diffusion,
    "implicit_diffusion": ImplicitDiffusion,
    "wave": Wave,
    "reaction_diffusion": ReactionDiffusion,
    "advection_diffusion": AdvectionDiffusion,
}
"""Constructors by the name of the flow."""

LINEAR_FLOWS = ("diffusion", "implicit_diffusion", "wave", "advection_diffusion")
"""Those that are linear in the values, so that they can act on an attention through its values."""


def make_flow(kind: str, *, steps: int, groups: int, dim: int) -> Flow:
    """A flow by its name, with its usual initial coefficients.

    Args:
        kind: key of :data:`FLOWS`.
        steps: number of steps.
        groups: number of groups of channels.
        dim: number of coordinates, of which advection alone has use.
    """
    settings = {"dim": dim} if kind == "advection_diffusion" else {}
    return FLOWS[kind](steps=steps, groups=groups, **settings)


def _of(coefficients: Tensor, v: Tensor) -> Tensor:
    """One coefficient a channel, [g] -> [c]."""
    return coefficients.to(v).repeat_interleave(v.shape[-1] // len(coefficients))
