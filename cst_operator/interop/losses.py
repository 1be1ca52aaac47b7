"""Losses of this library in neuraloperator's Trainer, and neuraloperator's in this library's loop.

Neuraloperator calls a loss as ``loss(prediction, **batch)`` and divides the sum of what it returns
by the number of samples, so losses add up over the batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator._precision import full_precision
from cst_operator.differentiation import GradientOperator, gradient_operator
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.interop.grids import batch_layout, grid_field, to_grid
from cst_operator.interop.samples import target_fields
from cst_operator.sobolev import LossTerms, SobolevLoss
from cst_operator.training import Loss

__all__ = ["GridLoss", "RelativeSobolev", "TrainerLoss"]


@dataclass(frozen=True, kw_only=True)
class RelativeSobolev:
    r"""Relative error in the whole norm of :math:`W^{k,p}`, a loss and metric for the Trainer.

    With :math:`e = \hat u - u`, summed over the samples of the batch,

    .. math::

        \left( \frac{\sum_{j \le k} \int |D^j e|^p}{\sum_{j \le k} \int |D^j u|^p} \right)^{1/p}

    by quadrature weights, with the derivatives of nodal values
    (:func:`~cst_operator.gradient_operator`), so that it is defined for every model, on every set
    of points, and without automatic differentiation. On a regular grid, order 0 is
    neuraloperator's ``LpLoss(d)``, and order 1 tends to its ``H1Loss(d)`` under refinement, at
    second order for smooth fields; both have one channel there, here :math:`|\cdot|^p` sums over
    channels.

    Args:
        order: k; 0 is the relative :math:`L^p` error.
        p: exponent, at least 1.
        periodic: whether a grid is differentiated across its ends; points never are.

    Raises:
        ConfigError: if a value is out of range.
    """

    order: int = 0
    p: float = 2.0
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ConfigError(f"order is {self.order}; expected zero or more")
        if self.p < 1:
            raise ConfigError(f"p is {self.p}; a norm needs at least 1")

    def __call__(self, prediction: Tensor, y: Tensor, **sample: Any) -> Tensor:
        """Evaluate on a batch.

        Args:
            prediction: [B, c, n1, ..., nd] on a grid, or [B, M, c] at points.
            y: what it should be.
            **sample: the batch; at points its ``pos`` or ``query_pos``, mask, weights and cells.

        Raises:
            FieldError: if shapes do not fit.
        """
        _check_shapes(prediction, y)
        total = prediction.new_zeros(())
        for error, u, where, operator in self._parts(prediction - y, y, sample):
            with full_precision(u):
                size = self._power(error, where, operator) / self._power(u, where, operator)
            # The root has no slope at zero error, where there is nothing left to learn.
            tiny = torch.finfo(size.dtype).tiny
            total = total + size.clamp_min(tiny).pow(1 / self.p).sum()
        return total

    def _parts(
        self, error: Tensor, y: Tensor, sample: dict[str, Any]
    ) -> Iterator[tuple[Tensor, Tensor, PointField, GradientOperator | None]]:
        """Error and truth, [N, c, b], of b samples that share their points."""
        if on_grid(sample):
            where = _grid_field(y, self.periodic)
            operator = (
                _grid_operator(tuple(y.shape[2:]), self.periodic).to(y) if self.order else None
            )
            rows = [_grid_rows(v, self.periodic).permute(1, 2, 0) for v in (error, y)]
            yield rows[0], rows[1], where, operator
            return
        errors = target_fields(error, sample)
        for wrong, truth in zip(errors, target_fields(y, sample), strict=True):
            operator = gradient_operator(truth) if self.order else None
            yield wrong.u[..., None], truth.u[..., None], truth, operator

    def _power(self, v: Tensor, where: PointField, operator: GradientOperator | None) -> Tensor:
        """The norm to the power p, [N, c, b] -> [b]."""
        total: Tensor = where.weights @ v.abs().pow(self.p).sum(1)
        if operator is None:
            return total
        for j in range(1, self.order + 1):
            gradient = operator.apply(v.flatten(1)).unflatten(1, v.shape[1:])  # [Q, c, b, d]
            total = total + operator.weights @ gradient.abs().pow(self.p).sum((1, 3))
            if j < self.order:
                nodal = operator.nodal(v.flatten(1)).unflatten(1, v.shape[1:])
                v = nodal.transpose(2, 3).flatten(1, 2)  # [N, c d, b]
        return total


@dataclass(frozen=True)
class TrainerLoss:
    """Any loss of this library as a loss for neuraloperator's Trainer.

    The Trainer hands a loss the answer, not the model, so derivatives are those of nodal values
    and smoothing terms, which need derivatives at other points, are refused.

    Args:
        loss: e.g. :class:`~cst_operator.SobolevLoss`.
        periodic: whether a grid is differentiated across its ends; points never are.
    """

    loss: Loss = field(default_factory=SobolevLoss)
    periodic: bool = False

    def __call__(self, prediction: Tensor, y: Tensor, **sample: Any) -> Tensor:
        """The sum over the samples of a batch; arguments as :class:`RelativeSobolev`'s.

        Raises:
            FieldError: if shapes do not fit, or the loss needs more than nodal values.
        """
        _check_shapes(prediction, y)
        total = prediction.new_zeros(())
        if on_grid(sample):
            where = _grid_field(y, self.periodic)
            rows = zip(*(_grid_rows(v, self.periodic) for v in (prediction, y)), strict=True)
            pairs = [(got, where.with_values(truth)) for got, truth in rows]
        else:
            answers = target_fields(prediction, sample)
            fields = target_fields(y, sample)
            pairs = [(got.u, truth) for got, truth in zip(answers, fields, strict=True)]
        # One at a time: neighbours of a point are not sought in another sample.
        for got, truth in pairs:
            total = total + self.loss(_Answer(got), Example(truth, truth)).total
        return total


@dataclass(frozen=True)
class GridLoss:
    """A loss of neuraloperator, on grids, as a loss of this library's :func:`~cst_operator.fit`.

    Args:
        loss: called as ``loss(prediction, y)`` with [B, c, n1, ..., nd]; the sum over the batch,
            as ``neuralop.losses.H1Loss(d=2)`` and ``LpLoss(d=2)`` are.
    """

    loss: Callable[..., Tensor]

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> LossTerms:
        """The mean over the samples.

        Raises:
            FieldError: if the targets are no regular grids of one shape.
        """
        source, target = batch
        shape, place = batch_layout(target)
        prediction, y = (to_grid(u, shape, place) for u in (model(source, target), target.u))
        total = self.loss(prediction, y) / len(y)
        return LossTerms(total, {type(self.loss).__name__: total})


class _Answer(nn.Module):
    """A model that has answered already."""

    def __init__(self, u: Tensor) -> None:
        super().__init__()
        self.u = u

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return self.u


def on_grid(sample: dict[str, Any]) -> bool:
    """Whether a batch is on a grid rather than at points."""
    return sample.get("pos") is None and sample.get("query_pos") is None


def _check_shapes(prediction: Tensor, y: Tensor) -> None:
    if prediction.shape != y.shape:
        raise FieldError(
            f"the prediction has shape {tuple(prediction.shape)} and y {tuple(y.shape)}; "
            "expected the same"
        )


def _grid_field(y: Tensor, periodic: bool) -> PointField:
    where = grid_field(tuple(y.shape[2:]), periodic=periodic)
    return PointField(where.pos.to(y), weights=where.weights.to(y), cells=where.cells)


@lru_cache(maxsize=32)
def _grid_operator(shape: tuple[int, ...], periodic: bool) -> GradientOperator:
    return gradient_operator(grid_field(shape, periodic=periodic))


def _grid_rows(values: Tensor, periodic: bool) -> Tensor:
    """[B, c, n1, ..., nd] -> [B, N, c], with the repeated points of a periodic grid."""
    if periodic:
        for axis in range(2, values.dim()):
            values = torch.cat([values, values.narrow(axis, 0, 1)], dim=axis)
    return values.flatten(2).transpose(1, 2)
