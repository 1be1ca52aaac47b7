"""Padding of ragged batches to dense tensors and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cst_operator.fields import PointField

__all__ = ["Ragged"]

# exp of it is exactly zero in every precision in use, while its gradient stays finite.
_LOG_OF_NOTHING = -1e4


@dataclass(frozen=True)
class Ragged:
    """Where the points of a batch stand in a dense tensor [B, N, ...] of the longest sample.

    Built from numbers that PyG keeps on the host, so no device is waited for.
    """

    gather: Tensor
    """Row of the batch for every dense place, [B, N]; padding points at the sample's first row."""
    padding: Tensor
    """True where a dense place stands for no point, [B, N]."""
    keep: Tensor
    """Dense places (flattened) of the batch's rows, [rows]."""
    fewest: int
    """Points of the smallest sample."""

    @classmethod
    def of(cls, field: PointField) -> "Ragged":
        """The layout of a field, or of a batch of fields."""
        slices = getattr(field, "_slice_dict", None)
        if slices is None and "ptr" not in field:
            # Without a value that depends on the data, so that a single field can be traced.
            place = torch.arange(field.pos.shape[0], device=field.pos.device)
            padding = torch.zeros_like(place, dtype=torch.bool)[None]
            return cls(place[None], padding, place, field.pos.shape[0])
        bounds = (field.ptr if slices is None else slices["pos"]).cpu()
        start, lengths = bounds[:-1], bounds.diff()
        place = torch.arange(int(lengths.max()))
        padding = place >= lengths[:, None]
        gather = start[:, None] + torch.where(padding, 0, place)
        gather = gather.clamp_max(int(bounds[-1]) - 1)  # a last sample without points has no row
        keep = (~padding).flatten().nonzero()[:, 0]
        device = field.pos.device
        return cls(
            gather.to(device, non_blocking=True),
            padding.to(device, non_blocking=True),
            keep.to(device, non_blocking=True),
            int(lengths.min()),
        )

    def pad(self, rows: Tensor) -> Tensor:
        """[rows, ...] -> [B, N, ...]."""
        return rows[self.gather]

    def unpad(self, dense: Tensor) -> Tensor:
        """[B, N, ...] -> [rows, ...]."""
        return dense.flatten(0, 1)[self.keep]

    def log_share(self, weights: Tensor) -> Tensor:
        """Logarithm of each point's share of its sample's weights, [rows] -> [B, N].

        Padding has that of nothing: its exponential is exactly zero.
        """
        dense = self.pad(weights).masked_fill(self.padding, 0)
        tiny = torch.finfo(dense.dtype).tiny
        share = (dense / dense.sum(1, keepdim=True)).clamp_min(tiny).log()
        return share.masked_fill(self.padding, _LOG_OF_NOTHING)
