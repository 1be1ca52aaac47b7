"""What losses ask of samples: random points, sums over their rows, names of channels."""

import torch
from torch import Tensor

from cst_operator._ragged import Ragged
from cst_operator.fields import PointField

__all__ = ["choose", "names_of", "per_sample", "uniform"]


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
    target: PointField,
    count: int,
    generator: torch.Generator | None,
    chance: Tensor | None = None,
) -> tuple[PointField, Tensor]:
    """``count`` points of every sample, drawn with the density of the weights, and their rows.

    Each stands for an equal share of its sample, so a mean over them estimates the mean over the
    domain. Where the chance of every point is given instead, [rows], weights make up for it.
    """
    layout = Ragged.of(target)
    chance = target.weights if chance is None else chance
    cumulative = layout.pad(chance).masked_fill(layout.padding, 0).cumsum(1)
    level = uniform(cumulative, count, generator) * cumulative[:, -1:]
    # Padding adds nothing, so the last real point is the first to reach the total; the bound is for
    # sums that rounding, in parallel, leaves out of order.
    last = (~layout.padding).sum(1, keepdim=True) - 1
    place = torch.searchsorted(cumulative, level).minimum(last)
    row = layout.gather.gather(1, place).flatten()
    chosen = PointField()
    chosen.pos, chosen.time = target.pos[row], target.time[row]
    samples = len(cumulative)
    total = (cumulative[:, -1:] / count).expand(-1, count).flatten()
    chosen.weights = total * (target.weights[row] / chance[row])
    chosen.spacing = target.weights[row]
    chosen.batch = torch.arange(samples, device=row.device).repeat_interleave(count)
    chosen.ptr = torch.arange(samples + 1) * count  # on the host, where the layout is made
    return chosen, row


def uniform(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), [len(like), count]."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(like), count, generator=generator, device=device).to(like)
