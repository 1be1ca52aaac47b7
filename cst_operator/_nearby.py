"""Samples at places between points."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from cst_operator._precision import full_precision
from cst_operator._ragged import Ragged
from cst_operator.fields import PointField

__all__ = ["repeated", "values_nearby"]


@torch.no_grad()
def values_nearby(source: PointField, points: PointField) -> Tensor:
    """Samples of a field that does not change in time, at other points of the same samples.

    Those of the nearest known point, and from there along the plane that fits its neighbours best:
    exact at the known points and for linear fields, of second order in their spacing. A place that
    is known in several frames counts once.

    Args:
        source: known field, or a PyG batch of fields.
        points: as many samples, M points in all.

    Returns:
        One row per point, [M, c].
    """
    known, asked = Ragged.of(source), Ragged.of(points)
    places, samples, query = known.pad(source.pos), known.pad(source.u), asked.pad(points.pos)
    batch = torch.arange(len(places), device=places.device)[:, None]
    far = torch.finfo(places.dtype).max
    distance = torch.cdist(query, places).masked_fill(known.padding[:, None], far)
    nearest = distance.argmin(-1)  # [B, M]
    x, u = places[batch, nearest], samples[batch, nearest]

    count = min(2 * query.shape[-1] + 6, places.shape[1])
    idle = known.padding | repeated(places)
    distance = torch.cdist(x, places).masked_fill(idle[:, None], far)
    distance, index = distance.topk(count, largest=False)
    real = distance < far
    radius = torch.where(real, distance, 0).amax(-1, keepdim=True)[..., None]
    radius = torch.where(radius > 0, radius, 1)
    offset = (places[batch[..., None], index] - x[..., None, :]) / radius  # [B, M, k, d]
    change = samples[batch[..., None], index] - u[..., None, :]
    weight = torch.where(real, (-2 * offset.square().sum(-1)).exp(), 0)[..., None]
    turned = (weight * offset).transpose(-1, -2)
    step = ((query - x) / radius[..., 0])[..., None, :]
    with full_precision(places):
        # On a line or in one point neighbours determine no plane; of those that fit, the flattest.
        inverse = torch.linalg.pinv(turned @ offset, hermitian=True, rtol=1e-5)
        slope = inverse @ (turned @ change)  # [B, M, d, c]
        change = (step @ slope)[..., 0, :]
    return asked.unpad(u + change)


def repeated(places: Tensor) -> Tensor:
    """Whether an earlier point has the same place, [B, N, d] -> [B, N]."""
    order = torch.arange(places.shape[1], device=places.device).expand(len(places), -1)
    for coordinate in reversed(places.unbind(-1)):
        order = order.gather(1, coordinate.gather(1, order).argsort(dim=1, stable=True))
    sorted_places = places.gather(1, order[..., None].expand_as(places))
    same = (sorted_places[:, 1:] == sorted_places[:, :-1]).all(-1)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, pad(same, (1, 0)))
