"""What peers share: taking a batch of fields apart again, answering in evaluation mode."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cst_operator.errors import FieldError
from cst_operator.fields import PointField

__all__ = ["Sample", "channel_names", "predict", "samples", "starts"]


class Sample(NamedTuple):
    """One sample of a batch."""

    pos: Tensor
    """Coordinates, [N, d]."""
    time: Tensor
    """Times, [N]."""
    u: Tensor
    """Values, [N, c]."""
    cells: dict[str, Tensor]
    """Vertex numbers by cell type, counted from this sample's first point; may be empty."""


def starts(field: PointField) -> list[int]:
    """Number of the first point of every sample, and the number of points at the end, [B + 1]."""
    ptr = field.get("ptr")
    return [0, int(field.pos.shape[0])] if ptr is None else [int(i) for i in ptr.tolist()]


def samples(field: PointField) -> list[Sample]:
    """The samples of a field or of a PyG batch of fields, in order."""
    bounds = starts(field)
    cells: Mapping[str, Tensor] = field.get("cells") or {}
    found = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        mine = {kind: _between(index, low, high) for kind, index in cells.items()}
        found.append(
            Sample(
                field.pos[low:high],
                field.time[low:high],
                field.u[low:high],
                {kind: index - low for kind, index in mine.items() if len(index)},
            )
        )
    return found


def _between(index: Tensor, low: int, high: int) -> Tensor:
    first = index[:, 0]
    return index[(first >= low) & (first < high)]


def channel_names(field: PointField) -> tuple[str, ...]:
    """Channel names of a field, or of a batch whose samples share them.

    Raises:
        FieldError: if the samples of a batch have different channels.
    """
    names: Any = field.get("channels", ())
    if not names or isinstance(names[0], str):
        return tuple(names)
    if any(tuple(other) != tuple(names[0]) for other in names):
        raise FieldError("the samples of a batch have different channels; select the same in all")
    return tuple(names[0])


@torch.no_grad()
def predict(
    model: nn.Module, source: PointField, target: PointField, out_names: tuple[str, ...]
) -> PointField:
    """Answer in evaluation mode, as a field that keeps the target's cells."""
    training = model.training
    model.eval()
    try:
        u = model(source, target)
    finally:
        model.train(training)
    return target.with_values(u, channels=out_names or None)
