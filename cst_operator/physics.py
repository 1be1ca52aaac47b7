"""Differential equations as terms of a loss."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from cst_operator._draws import choose, names_of, per_sample
from cst_operator._nearby import values_nearby
from cst_operator._ragged import Ragged
from cst_operator.derivatives import Derivatives
from cst_operator.differentiation import gradient_operator
from cst_operator.dummies import Dummies
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.sobolev import LossTerms, SobolevLoss, read_once

__all__ = ["PhysicsLoss", "State"]


class State:
    """A model's answer and the known fields at the same points, as a residual reads them.

    Everything is in the user's coordinates and units, one row per point.

    Args:
        answer: values and derivatives at the points.
        channels: names of the answer's channels.
        points: where, with ``pos`` [M, d] and ``time`` [M].
        source: the known fields.
    """

    def __init__(
        self,
        answer: Derivatives,
        channels: tuple[str, ...],
        points: PointField,
        source: PointField,
    ) -> None:
        self._answer = answer
        self._channels = channels
        self._points = points
        self._source = source

    @property
    def pos(self) -> Tensor:
        """Coordinates, [M, d]."""
        pos: Tensor = self._points.pos
        return pos

    @property
    def time(self) -> Tensor:
        """Time of every point, [M]."""
        time: Tensor = self._points.time
        return time

    def u(self, name: str) -> Tensor:
        """Values of a channel of the answer, [M]."""
        return self._answer.u[:, self._channel(name)]

    def gradient(self, name: str) -> Tensor:
        """Derivatives of a channel in space, [M, d]."""
        return self._answer.gradient[:, self._channel(name)]

    def hessian(self, name: str) -> Tensor:
        """Second derivatives of a channel in space, [M, d, d]."""
        return self._answer.hessian[:, self._channel(name)]

    def laplacian(self, name: str) -> Tensor:
        """Sum of the second derivatives of a channel in space, [M]."""
        return self._answer.laplacian[:, self._channel(name)]

    def divergence(self, *names: str) -> Tensor:
        """Divergence of a vector, given by one channel for each dimension, [M].

        Raises:
            FieldError: if there are more or fewer channels than dimensions.
        """
        d = self.pos.shape[1]
        if len(names) != d:
            raise FieldError(
                f"a divergence in {d} dimensions needs {d} channels, got {', '.join(names)}"
            )
        return torch.stack([self.gradient(name)[:, i] for i, name in enumerate(names)]).sum(0)

    def time_derivative(self, name: str, order: int = 1) -> Tensor:
        """Derivative of a channel in time, of the first order or a higher one, [M]."""
        if order == 1:
            return self._answer.time_derivative[:, self._channel(name)]
        found = self._answer.order(order)[:, self._channel(name)]
        d = self.pos.shape[1]
        if found.shape[-1] == d:
            raise ValueError(
                "this model has no time coordinate; make it with CSTConfig(transient=True)"
            )
        for _ in range(order):
            found = found[..., d]
        return found

    def field(self, name: str) -> Tensor:
        """A channel of the source that does not change in time, [M].

        Its sample where a point is one of the source's, else interpolated: exact for linear fields,
        of second order in the spacing of the source.
        """
        known = names_of(self._source)
        if name not in known:
            raise FieldError(
                f"the source has no channel {name!r}, only {', '.join(known) or 'none'}; "
                "add it to the inputs of the task"
            )
        return self._fields[:, known.index(name)]

    @cached_property
    def _fields(self) -> Tensor:
        return values_nearby(self._source, self._points)

    def _channel(self, name: str) -> int:
        if name not in self._channels:
            raise FieldError(
                f"the answer has no channel {name!r}, only {', '.join(self._channels)}"
            )
        return self._channels.index(name)


@dataclass(frozen=True, kw_only=True, repr=False)
class PhysicsLoss:
    r"""A loss of data plus the residual of a differential equation.

    With the residual r of the answer, zero where the equation holds, the *residual term* is

    .. math::

        \mu \left( \frac{1}{|\Omega|} \int_\Omega |r|^p \right)^{1/p}

    in the units of the residual. The integral is a Monte-Carlo estimate at dummy points drawn anew
    in every step, between those of the target, with the density of its weights; its variance is
    that of :math:`|r|^p` over the domain divided by ``num_points``. Or it is the quadrature of the
    target. For Poisson's equation :math:`-\Delta u = f`,

    >>> PhysicsLoss(residual=lambda state: state.laplacian("u") + state.field("f"), weight=0.01)
    PhysicsLoss(residual=cst_operator.physics.<lambda>, order=2, weight=0.01, ...)

    A model with a ``derivatives`` method is differentiated exactly, any other through its values at
    the target's points, by the gradient operator of the target's mesh.

    Args:
        residual: from a :class:`State` to one number for every point, [M], or several, [M, r].
        order: highest order of the derivatives that the residual reads.
        weight: :math:`\mu`.
        at: dummy points, or the points of the target.
        num_points: dummy points of every sample, or so many random ones of the target's points; all
            of the target's if zero.
        dummies: where dummy points are drawn.
        p: exponent p >= 1.
        data: what else is minimized; its terms come first.

    Raises:
        ConfigError: if a value is out of range.

    Source: Raissi, Perdikaris, Karniadakis, Physics-informed neural networks, 2019; for operators
    Li et al., Physics-informed neural operator for learning partial differential equations, 2021.
    """

    residual: Callable[[State], Tensor]
    order: int = 2
    weight: float = 1.0
    at: Literal["dummies", "target"] = "dummies"
    num_points: int = 64
    dummies: Dummies = Dummies()
    p: float = 2.0
    data: SobolevLoss = SobolevLoss()

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ConfigError(f"order is {self.order}; expected zero or more")
        if self.p < 1:
            raise ConfigError(f"p is {self.p}; a norm needs at least 1")
        if self.weight < 0:
            raise ConfigError(f"weight is {self.weight}; weights of a loss must not be negative")
        if self.at not in ("dummies", "target"):
            raise ConfigError(f"at is {self.at!r}; expected 'dummies' or 'target'")
        if self.num_points < (1 if self.at == "dummies" else 0):
            raise ConfigError(
                f"num_points is {self.num_points}; expected at least one dummy point, or zero for "
                "all points of the target"
            )

    def __repr__(self) -> str:
        """Without the address of the residual, which differs from run to run."""
        function = self.residual
        kind = function if hasattr(function, "__qualname__") else type(function)
        settings = [f"residual={kind.__module__}.{kind.__qualname__}"]
        settings += [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[1:]]
        return f"PhysicsLoss({', '.join(settings)})"

    def __call__(
        self, model: nn.Module, batch: Example, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Evaluate on a batch.

        Args:
            model: called as ``model(source, target)``.
            batch: an example, or a PyG batch of examples; the target needs weights and names its
                channels.
            generator: draws the points; the global one if omitted.

        Raises:
            FieldError: if the residual asks for what is not known.
        """
        source, target = batch
        exact = callable(getattr(model, "derivatives", None))
        read = read_once(model, source, target) if exact else source
        found = self.data(model, batch, generator, encoded=read if exact else None)
        points = self._points(source, target, generator)
        if exact:
            answer = model.derivatives(read, points, self.order)  # type: ignore[operator]
        else:
            answer = self._nodal(model(source, target), target)
        residual = self.residual(State(answer, names_of(target), points, source))
        if residual.shape[:1] != points.pos.shape[:1]:
            raise FieldError(
                f"the residual has shape {tuple(residual.shape)}; expected one row for each of the "
                f"{len(points.pos)} points"
            )
        size = residual.reshape(len(residual), -1).abs().pow(self.p).sum(1)
        volume = per_sample(points.weights, points)
        mean = per_sample(points.weights * size, points) / volume
        # The root has no slope at zero, where there is nothing left to learn.
        term = mean.clamp_min(torch.finfo(mean.dtype).tiny).pow(1 / self.p).mean()
        return LossTerms(
            found.total + self.weight * term,
            {**found.terms, "residual": term},
            {**found.weights, "residual": self.weight},
        )

    def check(self, example: Example) -> None:
        """Refuse an example that the loss of the data is not defined for.

        Raises:
            FieldError: as :meth:`SobolevLoss.check <cst_operator.SobolevLoss.check>`.
        """
        self.data.check(example)

    def _points(
        self, source: PointField, target: PointField, generator: torch.Generator | None
    ) -> PointField:
        if self.at == "dummies":
            return self.dummies.draw(source, target, self.num_points, generator)
        return choose(target, self.num_points, generator)[0] if self.num_points else target

    def _nodal(self, u: Tensor, target: PointField) -> Derivatives:
        """Derivatives of a model that only has values at the nodes."""
        time = Ragged.of(target).pad(target.time)
        several = bool((time != time[:, :1]).any())
        if self.at != "target" or self.num_points or several:
            raise FieldError(
                "this model has values at the target's points alone and no derivatives in time; "
                'take the residual there, in one frame, with at="target" and num_points=0'
            )
        operator, tensors = gradient_operator(target), [u]
        for _ in range(self.order):
            finer = operator.nodal(tensors[-1].flatten(1))
            tensors.append(finer.reshape(*tensors[-1].shape, -1))
        return Derivatives(tensors, dim=target.pos.shape[1])
