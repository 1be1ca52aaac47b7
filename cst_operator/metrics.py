r"""Errors of a prediction against a field, one number per channel, weighted by quadrature.

With :math:`e = \hat u - u` and weights :math:`w_i`, sums :math:`\sum_i w_i |e(x_i)|^2` estimate
integrals, so an error belongs to the field and not to where the mesher put its points.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cst_operator.differentiation import gradient_operator
from cst_operator.errors import FieldError
from cst_operator.fields import PointField

__all__ = ["Metric", "max_error", "relative_h1", "relative_l2", "rms_error"]

Metric = Callable[[Tensor, PointField], Tensor]
"""From a prediction [M, c] and the field it should be to one number per channel, [c]."""


def relative_l2(prediction: Tensor, target: PointField) -> Tensor:
    r"""Relative error in :math:`L^2`, :math:`(\sum_i w_i |e_i|^2 / \sum_i w_i |u_i|^2)^{1/2}`.

    Args:
        prediction: predicted samples, [M, c].
        target: one field (not a batch) with its samples and quadrature weights.

    Returns:
        One error per channel, [c], float64.

    Raises:
        FieldError: if weights are missing, shapes differ, the target is a batch, or a channel of
            the target is zero everywhere, which leaves a relative error undefined.
    """
    error, u, weights = _checked(prediction, target)
    w = _required(weights, "relative_l2")
    return _ratio((w @ error**2).sqrt(), (w @ u**2).sqrt(), target, "zero everywhere")


def relative_h1(prediction: Tensor, target: PointField) -> Tensor:
    r"""Relative error in the semi-norm of :math:`H^1`, :math:`|e|_{H^1} / |u|_{H^1}`.

    Both gradients are those of the nodal samples by
    :func:`~cst_operator.differentiation.gradient_operator` of the target (cell gradients where it
    has cells, weighted least squares else), so that the same number is defined for every model.
    Points of several times without cells are differentiated in space, time by time.

    Args:
        prediction: predicted samples, [M, c].
        target: one field (not a batch) with its samples, and cells or quadrature weights.

    Returns:
        One error per channel, [c], float64.

    Raises:
        FieldError: as :func:`relative_l2`, and if a channel of the target is constant.
    """
    error, u, weights = _checked(prediction, target)
    if "cells" not in target:
        _required(weights, "relative_h1")
    numerator, denominator, volume = (error.new_zeros(error.shape[1]) for _ in range(3))
    for part, index in _at_each_time(target, weights):
        operator = gradient_operator(part)
        w = operator.weights.to(error)
        numerator = numerator + _energy(operator.apply(error[index]), w)
        denominator = denominator + _energy(operator.apply(u[index]), w)
        volume = volume + w.sum()
    # Differences of a constant leave rounding, about 1e-16 of it over the cell size.
    rounding = 1e-12 * u.abs().amax(0) / _extent(target) * volume.sqrt()
    denominator = torch.where(denominator.sqrt() <= rounding, 0, denominator.sqrt())
    return _ratio(numerator.sqrt(), denominator, target, "constant")


def max_error(prediction: Tensor, target: PointField) -> Tensor:
    r"""Largest error over the points relative to the largest sample, :math:`\max|e| / \max|u|`.

    Args:
        prediction: predicted samples, [M, c].
        target: one field (not a batch) with its samples; weights are not needed.

    Returns:
        One error per channel, [c], float64.

    Raises:
        FieldError: if shapes differ, the target is a batch, or a channel is zero everywhere.
    """
    error, u, _ = _checked(prediction, target)
    return _ratio(error.abs().amax(0), u.abs().amax(0), target, "zero everywhere")


def rms_error(prediction: Tensor, target: PointField) -> Tensor:
    r"""Root mean square error in the unit of the channel, defined for zero targets as well.

    :math:`(\sum_i w_i |e_i|^2 / \sum_i w_i)^{1/2}`

    Args:
        prediction: predicted samples, [M, c].
        target: one field (not a batch) with its samples and quadrature weights.

    Returns:
        One error per channel, [c], float64.

    Raises:
        FieldError: if weights are missing, shapes differ or the target is a batch.
    """
    error, _, weights = _checked(prediction, target)
    w = _required(weights, "rms_error")
    return (w @ error**2 / w.sum()).sqrt()


def _checked(prediction: Tensor, target: PointField) -> tuple[Tensor, Tensor, Tensor | None]:
    """Error and target samples in float64, and the weights if there are any."""
    if getattr(target, "num_graphs", 1) > 1:
        raise FieldError(
            f"the target is a batch of {target.num_graphs} fields, and one norm over all of them "
            "is not a mean of norms; score one field at a time, as cst_operator.evaluate does"
        )
    if prediction.shape != target.u.shape:
        raise FieldError(
            f"the prediction has shape {tuple(prediction.shape)} but the target's samples have "
            f"{tuple(target.u.shape)}; predict every channel at every point of the target"
        )
    if not len(prediction):
        raise FieldError("the target has no points; score fields with at least one")
    u = target.u.detach().to(prediction.device, torch.float64)
    weights = target.get("weights")
    if weights is not None:
        weights = weights.to(u)
    return prediction.detach().to(torch.float64) - u, u, weights


def _required(weights: Tensor | None, name: str) -> Tensor:
    if weights is None:
        raise FieldError(
            f"{name} needs the target's quadrature weights; "
            "set them with cst_operator.with_weights(field)"
        )
    return weights


def _ratio(numerator: Tensor, denominator: Tensor, target: PointField, state: str) -> Tensor:
    if bool((denominator == 0).any()):
        names = target.channels
        which = names[int((denominator == 0).nonzero()[0])]
        raise FieldError(
            f"channel {which!r} of the target is {state}, so a relative error is undefined; "
            "use rms_error or leave the channel out"
        )
    return numerator / denominator


def _at_each_time(
    target: PointField, weights: Tensor | None
) -> Iterator[tuple[PointField, Tensor]]:
    """The target in float64, cut into one field per time where it has no cells."""
    pos = target.pos.to(torch.float64)
    if weights is not None:
        pos = pos.to(weights.device)
    everything = torch.arange(len(pos), device=pos.device)
    if "cells" in target:
        yield PointField(pos, weights=weights, cells=target.cells), everything
        return
    time = target.time.to(pos.device)
    for t in time.unique():
        index = everything[time == t]
        yield PointField(pos[index], weights=None if weights is None else weights[index]), index


def _energy(gradient: Tensor, weights: Tensor) -> Tensor:
    """Integral of the squared gradient, [Q, c, d] -> [c]."""
    return weights @ gradient.square().sum(-1)


def _extent(target: PointField) -> Tensor:
    """Longest side of the target's box, [1]; one for a single point."""
    side = (target.pos.amax(0) - target.pos.amin(0)).amax().double()
    return torch.where(side > 0, side, torch.ones_like(side))
