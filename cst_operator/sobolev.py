"""Sobolev losses: the error, its derivatives, and the smoothness of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator._draws import choose, draw_dummies, per_sample
from cst_operator.differentiation import GradientOperator, gradient_operator
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField

__all__ = ["LossTerms", "SobolevLoss"]


@dataclass(frozen=True)
class LossTerms:
    """What a loss returns."""

    total: Tensor
    """Weighted sum of the terms, the mean over the samples, a scalar."""
    terms: Mapping[str, Tensor]
    """Every term before its weight, by name, scalars."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of every term, by the same names."""


@dataclass(frozen=True, kw_only=True)
class SobolevLoss:
    r"""Norm of the error in :math:`W^{k,p}`, and of the answer's derivatives.

    For every order j up to k, with :math:`e = \hat u - u`, the *target term*

    .. math::

        \lambda_j \left( \frac{\int |D^j e|^p}{\int |D^j u|^p} \right)^{1/p}

    by the quadrature weights of the target; without ``relative`` the numerator alone. For every
    order q >= 1 with a smoothing weight :math:`\mu_q`, the *smoothing term*, with the means
    estimated at dummy points drawn anew in every step with the density of the weights,

    .. math::

        \mu_q \left( \frac{\operatorname{mean} |D^q \hat u|^p}{\operatorname{mean} |u|^p}
        \right)^{1/p},

    which asks for a smooth answer and needs no derivative of the data. :math:`|D^j e|^p` sums over
    channels and all derivatives of order j in the user's coordinates, time included where the
    target knows it; mixed derivatives count once for each of their orderings.

    A model with a ``derivatives`` method is differentiated exactly, by forward mode; any other
    through its nodal values, by the gradient operator of the target's mesh.

    Args:
        order: highest order k of the target terms.
        p: exponent p >= 1.
        weights: :math:`\lambda_0, \ldots, \lambda_k`; all 1 if empty.
        smoothing: :math:`\mu_1, \mu_2, \ldots`; no smoothing if empty.
        relative: divide by the norm of the data.
        num_points: evaluate derivatives in target terms at that many random query points of every
            sample, a Monte-Carlo estimate of the integral; at all of them if zero.
        num_dummies: dummy points of every sample.

    Raises:
        ConfigError: if a value is out of range.

    Source: the smoothing term is that of de Oliveira Fonseca et al., Continuous Spatiotemporal
    Transformers, ICML 2023; the target term of Czarnecki et al., Sobolev training for neural
    networks, 2017.
    """

    order: int = 0
    p: float = 2.0
    weights: tuple[float, ...] = ()
    smoothing: tuple[float, ...] = ()
    relative: bool = True
    num_points: int = 0
    num_dummies: int = 64

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ConfigError(f"order is {self.order}; expected zero or more")
        if self.p < 1:
            raise ConfigError(f"p is {self.p}; a norm needs at least 1")
        if self.weights and len(self.weights) != self.order + 1:
            raise ConfigError(
                f"{len(self.weights)} weights were given; order {self.order} needs {self.order + 1}"
            )
        if min((*self.weights, *self.smoothing, 0.0)) < 0:
            raise ConfigError("weights of a loss must not be negative")
        if self.num_points < 0 or self.num_dummies < 1:
            raise ConfigError("num_points must be zero or more and num_dummies at least one")

    def __call__(
        self, model: nn.Module, batch: Example, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Evaluate on a batch.

        Args:
            model: called as ``model(source, target)``.
            batch: an example, or a PyG batch of examples; the target needs weights. The source may
                be what the model's ``encode`` made of it.
            generator: draws the dummy points; the global one if omitted.

        Raises:
            FieldError: if the target has no weights, or no derivatives that a term needs.
        """
        source, target = batch
        if "weights" not in target:
            raise FieldError(
                "the loss integrates over the target, which has no quadrature weights; "
                "set them with cst_operator.with_weights(field)"
            )
        exact = callable(getattr(model, "derivatives", None))
        if exact and isinstance(source, PointField) and (self.order or self.smoothing):
            source = model.encode(source, target)  # type: ignore[operator]
        terms: dict[str, Tensor] = {}
        if self.order and exact and not self.num_points:
            answer = model.derivatives(source, target, self.order)  # type: ignore[operator]
            u = answer.u
        else:
            answer, u = None, model(source, target)
        terms["order0"] = self._norm(u - target.u, target.u, target, target.weights)
        if self.order and exact:
            points, row = target, torch.arange(len(u), device=u.device)
            if answer is None:
                points, row = choose(target, self.num_points, generator)
                answer = model.derivatives(source, points, self.order)  # type: ignore[operator]
            for j in range(1, self.order + 1):
                wanted = _known(target, j)[row]
                got = answer.order(j)[(..., *(slice(wanted.shape[-1]),) * j)]
                terms[f"order{j}"] = self._norm(got - wanted, wanted, points, points.weights)
        elif self.order:
            terms.update(self._nodal(u, target))
        if self.smoothing:
            terms.update(self._smooth(model, source, target, generator, exact))
        weights = self._weights()
        total = sum(weight * terms[name] for name, weight in weights.items())
        return LossTerms(torch.as_tensor(total), terms, weights)

    def _weights(self) -> dict[str, float]:
        weights = self.weights or (1.0,) * (self.order + 1)
        return {
            **{f"order{j}": weight for j, weight in enumerate(weights)},
            **{f"smoothing{q}": weight for q, weight in enumerate(self.smoothing, start=1)},
        }

    def _norm(
        self, error: Tensor, reference: Tensor, points: PointField, weights: Tensor
    ) -> Tensor:
        """Mean over the samples of the norm of ``error``, relative to ``reference``."""
        size = self._integral(error, points, weights)
        if self.relative:
            size = size / self._integral(reference, points, weights)
        # The root has no slope at zero error, where there is nothing left to learn.
        return size.clamp_min(torch.finfo(size.dtype).tiny).pow(1 / self.p).mean()

    def _integral(self, value: Tensor, points: PointField, weights: Tensor) -> Tensor:
        """Integral of ``|value|^p`` for every sample, [B]."""
        density = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
        return per_sample(weights * density.abs().pow(self.p).flatten(1).sum(1), points)

    def _nodal(self, u: Tensor, target: PointField) -> dict[str, Tensor]:
        """Target terms of a model that only has values at the nodes."""
        operator = gradient_operator(target)
        error, reference, terms = u - target.u, target.u, {}
        for j in range(1, self.order + 1):
            places = _evaluation_points(operator, target)
            terms[f"order{j}"] = self._norm(
                operator.apply(error).flatten(1),
                operator.apply(reference).flatten(1),
                places,
                operator.weights.to(u),
            )
            error, reference = (operator.nodal(v).flatten(1) for v in (error, reference))
        return terms

    def _smooth(
        self,
        model: nn.Module,
        source: Any,
        target: PointField,
        generator: torch.Generator | None,
        exact: bool,
    ) -> dict[str, Tensor]:
        if not exact:
            raise FieldError(
                "smoothing terms need a model that is a function of the coordinate, with a "
                "derivatives method; use target terms (order=1) for this model"
            )
        dummies = draw_dummies(target, self.num_dummies, generator)
        answer = model.derivatives(source, dummies, len(self.smoothing))  # type: ignore[operator]
        volume = per_sample(target.weights, target)
        scale = self._integral(target.u, target, target.weights) / volume
        terms = {}
        for q in range(1, len(self.smoothing) + 1):
            size = self._integral(answer.order(q), dummies, dummies.weights) / volume
            size = size / scale if self.relative else size
            terms[f"smoothing{q}"] = (
                size.clamp_min(torch.finfo(size.dtype).tiny).pow(1 / self.p).mean()
            )
        return terms


def _known(target: PointField, order: int) -> Tensor:
    """The data's derivatives of one order, [M, c, d, ...]; with time, [M, c, d + 1].

    The solver's where the target carries them, else those of the mesh.
    """
    if order == 1 and "gradient" in target:
        space: Tensor = target.gradient
        if "time_derivative" in target:
            return torch.cat([space, target.time_derivative[..., None]], dim=-1)
        return space
    # Neighbours are not sought across samples or frames.
    times = target.time
    if "cells" not in target and ("batch" in target or bool((times != times[0]).any())):
        raise FieldError(
            f"the target knows no derivatives of order {order} and has no cells to take them from; "
            "give targets with cells or a gradient, lower the order, or use a smoothing term"
        )
    operator = gradient_operator(target)
    known = target.gradient if "gradient" in target else operator.nodal(target.u)
    for _ in range(order - 1):
        known = operator.nodal(known.flatten(1)).reshape(*known.shape, -1)
    return known


def _evaluation_points(operator: GradientOperator, target: PointField) -> PointField:
    """The samples of a batch that the operator's evaluation points lie in."""
    places = PointField()
    if "batch" in target:
        row, node = operator.matrix.indices()  # sorted by row
        d = target.pos.shape[1]
        first = torch.arange(len(operator.weights), device=row.device) * d
        places.ptr, places.batch = target.ptr, target.batch[node[torch.searchsorted(row, first)]]
    return places
