"""What losses ask of samples: random points, sums over their rows, names of channels."""

import torch
from torch import Tensor

from cst_operator._ragged import Ragged
from cst_operator.fields import PointField

__all__ = ["choose", "draw_dummies", "names_of", "per_sample"]


def names_of(samples: PointField) -> tuple[str, ...]:
    """Names of the channels, of a batch those of its first sample."""
    given = samples.get("channels", ())
    return tuple(given[0] if isinstance(given, list) else given)


def per_sample(rows: Tensor, field: PointField) -> Tensor:
    """Sum of the rows of every sample, [rows, ...] -> [B, ...]."""
    if "batch" not in field:
        return rows.sum(0, keepdim=True)
    sums = rows.new_zeros(len(field.ptr) - 1, *rows.shape[1:])
    return sums.index_add(0, field.batch, rows)


def choose(
    target: PointField, count: int, generator: torch.Generator | None
) -> tuple[PointField, Tensor]:
    """``count`` points of every sample, drawn with the density of the weights, and their rows.

    Each stands for an equal share of its sample, so a mean over them estimates the mean over the
    domain.
    """
    layout = Ragged.of(target)
    cumulative = layout.pad(target.weights).masked_fill(layout.padding, 0).cumsum(1)
    level = _uniform(cumulative, count, generator) * cumulative[:, -1:]
    # Padding adds nothing, so the last real point is the first to reach the total; the bound is for
    # sums that rounding, in parallel, leaves out of order.
    last = (~layout.padding).sum(1, keepdim=True) - 1
    place = torch.searchsorted(cumulative, level).minimum(last)
    row = layout.gather.gather(1, place).flatten()
    chosen = PointField()
    chosen.pos, chosen.time = target.pos[row], target.time[row]
    samples = len(cumulative)
    chosen.weights = (cumulative[:, -1:] / count).expand(-1, count).flatten()
    chosen.spacing = target.weights[row]
    chosen.batch = torch.arange(samples, device=row.device).repeat_interleave(count)
    chosen.ptr = torch.arange(samples + 1) * count  # on the host, where the layout is made
    return chosen, row


def draw_dummies(target: PointField, count: int, generator: torch.Generator | None) -> PointField:
    """``count`` points between those of the target, in space and, where it varies, in time."""
    points, _ = choose(target, count, generator)
    layout = Ragged.of(target)
    time = layout.pad(target.time)
    first, last = time.amin(1, keepdim=True), time.amax(1, keepdim=True)
    d = target.pos.shape[1]
    # A point's weight is about the volume (times the time) that is nearest to it.
    span = torch.where(last > first, last - first, torch.ones_like(first))
    frames = torch.where(last > first, span / _num_times(time), torch.ones_like(first))
    width = (points.spacing.view(len(first), -1) / frames).flatten().pow(1 / d)
    shift = _uniform(points.pos, d, generator) - 0.5
    points.pos = points.pos + width[:, None] * shift
    points.time = (first + _uniform(first, count, generator) * (last - first)).flatten()
    return points


def _num_times(time: Tensor) -> Tensor:
    """Number of different times of every sample, [B, 1]."""
    return 1 + (time.sort(1).values.diff(dim=1) > 0).sum(1, keepdim=True)


def _uniform(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), [len(like), count]."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(like), count, generator=generator, device=device).to(like)
