"""Scores of a model on examples: per sample, per channel, and their mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from cst_operator.errors import FieldError, InputError
from cst_operator.fields import Example, PointField
from cst_operator.metrics import Metric, max_error, relative_h1, relative_l2, rms_error

__all__ = ["Examples", "Scores", "answer", "evaluate"]

Model = Callable[[PointField, PointField], Tensor]


class Examples(Protocol):
    """A map-style collection of examples: a list, or a torch ``Dataset`` with a length."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Example:
        """Example number ``index``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Errors of one model on one set of examples.

    Relative errors are taken sample by sample; what is reported is their mean over the samples,
    not the error of all samples taken together.
    """

    per_sample: Mapping[str, Tensor]
    """For every metric the error of every sample and channel, [samples, c]."""
    channels: tuple[str, ...]
    """Name of every channel."""
    units: Mapping[str, tuple[str, ...]]
    """For every metric the unit of every channel; empty strings for relative errors."""

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.per_sample.values())))

    def mean(self, metric: str, channel: str | None = None) -> float:
        """Mean over the samples, of one channel or over the channels as well.

        Raises:
            InputError: if there is no such metric or channel, or if the channels have different
                units.
        """
        if metric not in self.per_sample:
            raise InputError(
                f"there is no metric {metric!r}; the scores have {', '.join(self.per_sample)}"
            )
        if channel is None:
            if len(set(self.units[metric])) > 1:
                raise InputError(
                    f"{metric} has units {', '.join(self.units[metric])}; name one channel"
                )
            return float(self.per_sample[metric].mean())
        if channel not in self.channels:
            raise InputError(
                f"there is no channel {channel!r}; the scores have {', '.join(self.channels)}"
            )
        return float(self.per_sample[metric][:, self.channels.index(channel)].mean())

    def rows(self, *, model: str, split: str, seed: int = 0) -> list[dict[str, Any]]:
        """Means in long form: one row per metric, and one per channel if there are several.

        A row has the keys model, split, metric, value, unit, seed. A single channel's metric is
        written ``relative_l2[u_x]``.

        Args:
            model: name of the model.
            split: name of the examples.
            seed: seed of the training.
        """
        rows = []
        for metric, units in self.units.items():
            entries: list[tuple[str, float, str]] = []
            if len(set(units)) == 1:
                entries.append((metric, self.mean(metric), units[0]))
            if len(self.channels) > 1:
                entries += [
                    (f"{metric}[{channel}]", self.mean(metric, channel), unit)
                    for channel, unit in zip(self.channels, units, strict=True)
                ]
            for name, value, unit in entries:
                rows.append(
                    {
                        "model": model,
                        "split": split,
                        "metric": name,
                        "value": value,
                        "unit": unit,
                        "seed": seed,
                    }
                )
        return rows

    def table(self, title: str = "") -> Table:
        """Mean, median and worst sample of every metric and channel, to print with rich."""
        table = Table(title=title or None, caption=f"per-sample errors, {self.num_samples} samples")
        table.add_column("metric")
        table.add_column("channel")
        for name in ("mean", "median", "worst"):
            table.add_column(name, justify="right")
        for metric, errors in self.per_sample.items():
            for i, channel in enumerate(self.channels):
                column, unit = errors[:, i], self.units[metric][i]
                numbers = (column.mean(), column.quantile(0.5), column.max())
                cells = [f"{float(x):.4g} {unit}".strip() for x in numbers]
                table.add_row(metric, channel, *cells)
        return table


def evaluate(
    model: Model,
    examples: Examples,
    *,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    metrics: Sequence[Metric] = (relative_l2, relative_h1, max_error),
) -> Scores:
    """Score a model sample by sample; the mean over samples of relative errors is the result.

    A module is evaluated on PyG batches, without gradients and in eval mode, and is left in the
    mode and on the device it was found. Any other callable gets one example at a time.

    Args:
        model: ``model(source, target) -> [M, c]``.
        examples: unbatched examples whose targets carry samples and weights.
        batch_size: examples at a time; changes memory, not scores.
        device: where a module runs; where it is, if omitted.
        metrics: functions of :mod:`cst_operator.metrics` or alike; their names label the scores.

    Raises:
        InputError: if there are no examples or metrics, their channels differ, the batch size is
            not positive, or a metric is undefined for a sample, which is named.
    """
    if not len(examples):
        raise InputError("there are no examples to evaluate; give at least one")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected at least 1")
    names = [getattr(metric, "__name__", str(metric)) for metric in metrics]
    if not names or len(set(names)) != len(names):
        raise InputError(f"expected metrics with different names, got {', '.join(names) or 'none'}")
    if not isinstance(model, nn.Module):
        return _score(
            lambda group: [model(e.source, e.target) for e in group], examples, 1, metrics
        )
    before = _device_of(model)
    place = before if device is None else torch.device(device)
    training = model.training
    model.eval()
    try:
        if place != before:
            model.to(place)
        return _score(
            lambda group: _predict_batch(model, group, place), examples, batch_size, metrics
        )
    finally:
        model.train(training)
        if place != before:
            model.to(before)


def answer(model: Model, source: PointField, target: PointField) -> PointField:
    """What a model answers to one field, without gradients, as a field with the target's cells.

    A module answers on its own device, in the mode it is in; the fields stay where they are.

    Args:
        model: ``model(source, target) -> [M, c]``; if there is a method ``predict``, which names
            the channels and may bound the memory, that is asked.
        source: one known field.
        target: the points that are asked.
    """
    home = target.pos.device
    place = _device_of(model) if isinstance(model, nn.Module) else home
    source, asked = Example(source, target).to(place)
    predict = getattr(model, "predict", None)
    with torch.no_grad():
        if callable(predict):
            field: PointField = predict(source, asked)
            return target.with_values(field.u.to(home), channels=field.channels)
        return target.with_values(model(source, asked).to(home), channels=target.channels or None)


def _score(
    predict: Callable[[list[Example]], list[Tensor]],
    examples: Examples,
    batch_size: int,
    metrics: Sequence[Metric],
) -> Scores:
    table: dict[str, list[Tensor]] = {_name(metric): [] for metric in metrics}
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    for start in range(0, len(examples), batch_size):
        group = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
        with torch.no_grad():
            predictions = predict(group)
        for i, (example, prediction) in enumerate(zip(group, predictions, strict=True), start):
            target = example.target
            if i == 0:
                channels, units = tuple(target.channels), tuple(target.units)
            elif tuple(target.channels) != channels:
                raise InputError(
                    f"sample {i} has channels {', '.join(target.channels)} but sample 0 has "
                    f"{', '.join(channels)}; evaluate examples of one task at a time"
                )
            for metric in metrics:
                try:
                    table[_name(metric)].append(metric(prediction, target).cpu())
                except FieldError as error:
                    raise FieldError(f"sample {i}: {error}") from error
    return Scores(
        per_sample={name: torch.stack(errors) for name, errors in table.items()},
        channels=channels,
        units={_name(m): units if m is rms_error else ("",) * len(channels) for m in metrics},
    )


def _predict_batch(model: nn.Module, group: list[Example], device: torch.device) -> list[Tensor]:
    """One answer per example, on the CPU, from one call on their batch."""
    (batch,) = DataLoader(group, batch_size=len(group))
    sizes = [example.target.num_points for example in group]
    answer = model(*batch.to(device))
    if len(answer) != sum(sizes):
        raise InputError(
            f"the model answered {len(answer)} rows for {sum(sizes)} query points; "
            "it must answer one row for each"
        )
    return list(answer.detach().cpu().split(sizes))


def _device_of(model: nn.Module) -> torch.device:
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _name(metric: Metric) -> str:
    return str(getattr(metric, "__name__", metric))
