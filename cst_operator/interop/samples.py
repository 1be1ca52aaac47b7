"""Examples of this library as the batches of dictionaries that neuraloperator's Trainer takes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cst_operator.errors import FieldError
from cst_operator.evaluation import Examples
from cst_operator.fields import PointField

__all__ = ["TrainerDataset", "collate"]

_PADDING = -1
"""Vertex number of a cell that pads a batch."""


class TrainerDataset(Dataset[dict[str, Tensor]]):
    """Examples as dictionaries of tensors, for neuraloperator's Trainer.

    An item has, from the source, ``x`` [N, c], ``pos`` [N, d], ``weights`` [N] and ``time`` [N];
    from the target, ``y`` [M, c_out], ``query_pos``, ``query_weights``, ``query_time``, and
    ``cells`` [n, v] where its cells are of one kind. :class:`~cst_operator.interop.CST`, the
    losses and the data processor of this package read these keys.

    With torch's own collation a loader gives one example at a time; with :func:`collate`, any
    number of them.

    Args:
        examples: examples whose sources and targets have quadrature weights.

    Raises:
        FieldError: on reading an example without quadrature weights.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Example number ``index``."""
        source, target = self.examples[index]
        for side, field in (("source", source), ("target", target)):
            if "weights" not in field:
                raise FieldError(
                    f"the {side} of example {index} has no quadrature weights; "
                    "set them with cst_operator.with_weights(field)"
                )
        item = {
            "x": source.u,
            "pos": source.pos,
            "weights": source.weights,
            "time": source.time,
            "y": target.u,
            "query_pos": target.pos,
            "query_weights": target.weights,
            "query_time": target.time,
        }
        cells = target.get("cells") or {}
        if len(cells) == 1:
            (item["cells"],) = cells.values()
        return item


def collate(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join items of different sizes by padding, with masks; for ``DataLoader(collate_fn=...)``.

    Args:
        items: items of a :class:`TrainerDataset`.

    Returns:
        Every tensor with a batch dimension in front, padded with zeros (``cells`` with -1), and
        ``mask`` [B, N] and ``query_mask`` [B, M], true at points.

    Raises:
        FieldError: if the items have different keys.
    """
    keys = set(items[0])
    if any(set(item) ^ keys for item in items):
        # Cells are worth having for the whole batch only.
        keys = set.intersection(*(set(item) for item in items))
        if any(set(item) - keys - {"cells"} for item in items):
            raise FieldError("the items of a batch have different keys; batch items of one kind")
    batch = {}
    for key in items[0]:
        if key in keys:
            rows: list[Any] = [item[key] for item in items]
            batch[key] = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=_PADDING if key == "cells" else 0
            )
    for name, key in (("mask", "pos"), ("query_mask", "query_pos")):
        lengths = torch.tensor([len(item[key]) for item in items])
        batch[name] = torch.arange(int(lengths.max())) < lengths[:, None]
    return batch


def _cell_kind(dim: int, corners: int) -> str:
    kinds = {
        (1, 2): "line",
        (2, 3): "triangle",
        (2, 4): "quad",
        (3, 4): "tetra",
        (3, 5): "pyramid",
        (3, 6): "wedge",
        (3, 8): "hexahedron",
    }
    if (dim, corners) not in kinds:
        raise FieldError(
            f"cells with {corners} corners in {dim} dimensions are of no known kind; "
            "leave out the key cells"
        )
    return kinds[dim, corners]


def target_fields(y: Tensor, sample: dict[str, Any]) -> list[PointField]:
    """The targets of a batch of points, sample by sample, without padding.

    Args:
        y: samples, [B, M, c].
        sample: the batch; ``query_pos``, ``query_mask``, ``query_weights``, ``query_time`` (of the
            source where omitted) and ``cells`` are read.

    Raises:
        FieldError: if the batch has no coordinates.
    """
    prefix = "query_" if sample.get("query_pos") is not None else ""
    pos, mask, weights, time = (
        sample.get(f"{prefix}{key}") for key in ("pos", "mask", "weights", "time")
    )
    if pos is None or y.dim() != 3 or pos.shape[-2] != y.shape[1]:
        raise FieldError(
            f"y has shape {tuple(y.shape)} and the batch pos of "
            f"{None if pos is None else tuple(pos.shape)}; expected [batch, points, channels] and "
            "[batch, points, dimensions]"
        )
    cells = sample.get("cells")
    fields = []
    for i, u in enumerate(y):
        keep = slice(None) if mask is None else mask[i]
        places = _of(pos, i, 2)[keep]
        equal = places.new_ones(len(places)) / len(places)
        kinds = None
        if cells is not None:
            index = _of(cells, i, 2)
            index = index[index[:, 0] != _PADDING]
            kinds = {_cell_kind(places.shape[1], index.shape[1]): index}
        fields.append(
            PointField(
                places,
                u[keep],
                equal if weights is None else _of(weights, i, 1)[keep],
                time=None if time is None else _of(time, i, 1)[keep],
                cells=kinds,
            )
        )
    return fields


def _of(value: Tensor, index: int, dims: int) -> Tensor:
    """One sample's part of a batch, or what all share."""
    return value if value.dim() == dims else value[index if len(value) > 1 else 0]
