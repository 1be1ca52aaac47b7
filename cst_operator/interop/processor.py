"""Normalization of padded point batches in neuraloperator's Trainer."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator.errors import FieldError
from cst_operator.fields import Example
from cst_operator.normalization import Normalization

with warnings.catch_warnings():  # importing it changes the filters of the whole process
    from neuralop.data.transforms.data_processors import DataProcessor

__all__ = ["PointDataProcessor"]


class PointDataProcessor(DataProcessor):
    """A data processor for batches of points, [B, N, c] with masks, of any sizes.

    Sources and answers are at unit scale for the model, by means and spreads in the quadrature
    weights. As with neuraloperator's own processor, the loss in training is that of answers at
    unit scale, the loss in evaluation that of answers in the units of the data. Padding is zero
    again after either. A batch that comes in is not changed.

    In autoregressive evaluation, ``y`` holds frames, [B, T, M, c_out]; every answer takes the
    place of the last c_out channels of ``x``, which needs queries at the points of the source.

    What was fitted is in the ``state_dict``: tensors only, which ``torch.save`` and ``torch.load``
    bring to disk and back.

    Args:
        dim: space dimensions d.
        in_channels: channels of ``x``.
        out_channels: channels of ``y``.
    """

    def __init__(self, dim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.normalization = Normalization(dim, in_channels, out_channels)
        self.device: str | torch.device = "cpu"
        self.model: nn.Module | None = None

    def fit(self, examples: Iterable[Example]) -> "PointDataProcessor":
        """Measure training examples; see :class:`~cst_operator.Normalization`."""
        self.normalization.fit(examples)
        return self

    def to(self, device: str | torch.device) -> "PointDataProcessor":
        """Move what was fitted; batches are moved there by :meth:`preprocess`."""
        self.normalization.to(device)
        self.device = device
        return self

    def train(self, mode: bool = True) -> "PointDataProcessor":
        """Scale ``y`` for the loss or not; a wrapped model takes the mode too."""
        nn.Module.train(self, mode)
        return self

    def eval(self) -> "PointDataProcessor":
        """Leave ``y`` in its units; a wrapped model takes the mode too."""
        return self.train(False)

    def preprocess(
        self, data_dict: dict[str, Any], batched: bool = True, *, step: int | None = None
    ) -> dict[str, Any] | None:
        """A batch at unit scale, on the device.

        Args:
            data_dict: the batch, or in later steps what :meth:`postprocess` returned.
            batched: accepted for the common interface.
            step: frame to predict in autoregressive evaluation.

        Returns:
            Another dictionary; None if there is no such frame.

        Raises:
            FieldError: if the frames of ``y``, or the points of an autoregression, do not fit.
        """
        sample = {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in data_dict.items()}
        if step is not None:
            if "frames" not in sample:
                _check_frames(sample)
                sample["frames"] = sample["y"]
            if step >= sample["frames"].shape[1]:
                return None
            sample["y"] = sample["frames"][:, step]
        # Kept for the next step of an autoregression.
        sample["x_in_units"] = x = sample.get("x_in_units", sample["x"])
        sample["x"] = _masked(self.normalization.encode(x), sample.get("mask"))
        if self.training:
            y = (sample["y"] - self.normalization.out_mean) / self.normalization.out_std
            sample["y"] = _masked(y, _query_mask(sample))
        return sample

    def postprocess(
        self, output: Tensor, data_dict: dict[str, Any], *, step: int | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """An answer as the loss wants it, and the batch.

        Args:
            output: what the model answered, [B, M, c_out].
            data_dict: what :meth:`preprocess` returned.
            step: frame that was predicted in autoregressive evaluation.
        """
        if self.training:
            return output, data_dict
        output = _masked(self.normalization.decode(output), _query_mask(data_dict))
        if step is None:
            return output, data_dict
        known = data_dict["x_in_units"]
        static = known[..., : known.shape[-1] - output.shape[-1]]
        return output, {**data_dict, "x_in_units": torch.cat([static, output], dim=-1)}

    def forward(self, **data_dict: Any) -> tuple[Tensor, dict[str, Any]]:
        """Preprocess, ask the model given to ``wrap``, postprocess.

        Raises:
            FieldError: if no model was wrapped.
        """
        if self.model is None:
            raise FieldError("the processor wraps no model; call processor.wrap(model) first")
        sample = self.preprocess(data_dict)
        return self.postprocess(self.model(**sample), sample)  # type: ignore[arg-type]


def _query_mask(sample: dict[str, Any]) -> Tensor | None:
    key = "query_mask" if sample.get("query_pos") is not None else "mask"
    found: Tensor | None = sample.get(key)
    return found


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask[..., None]


def _check_frames(sample: dict[str, Any]) -> None:
    x, y = sample["x"], sample["y"]
    if y.dim() != 4 or y.shape[2] != x.shape[1] or y.shape[3] > x.shape[2]:
        raise FieldError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; an autoregression needs y of "
            "[batch, frames, points, channels] at the points of x, and its channels last in x"
        )
