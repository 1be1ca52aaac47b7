"""Several models of one task: their mean, and how far they spread."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, InputError
from cst_operator.evaluation import Examples
from cst_operator.fields import PointField
from cst_operator.model import CSTOperator

__all__ = ["Calibration", "Ensemble", "EnsembleConfig"]


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """What makes an :class:`Ensemble`, apart from its weights."""

    members: tuple[CSTConfig, ...]
    """Configurations of the members, at least two."""

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(
                f"an ensemble of {len(self.members)} has no spread; give two models or more"
            )
        first = self.members[0]
        for other in self.members[1:]:
            if (other.in_names, other.out_names, other.out_channels) != (
                *(first.in_names, first.out_names, first.out_channels),
            ):
                raise ConfigError(
                    "the members answer different questions "
                    f"({_question(first)} and {_question(other)}); train them on one task"
                )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well the spread of an ensemble tells its error, on one set of examples."""

    ratio: float
    """Root mean square of the error over that of the spread; 1 is calibrated."""
    coverage: dict[float, float]
    """Share of the domain, by quadrature, where the error is within so many times the spread."""
    correlation: float
    """Correlation of the logarithms of error and spread over the samples: whether it knows which of
    them are hard."""


class Ensemble(nn.Module):
    """Independently trained members, asked together.

    The answer is the members' mean, its uncertainty their standard deviation times ``scale``, which
    :meth:`calibrate` measures on examples that were not trained on. Members differ by their seed:
    of the weights, of the order of examples, of what is drawn in training.

    Args:
        members: models of one task, or the configuration from which untrained ones are made.

    Raises:
        ConfigError: if there are fewer than two, or they answer different questions.

    Source: Lakshminarayanan, Pritzel, Blundell, Simple and scalable predictive uncertainty
    estimation using deep ensembles, 2017.
    """

    scale: Tensor

    def __init__(self, members: Sequence[CSTOperator] | EnsembleConfig) -> None:
        super().__init__()
        if isinstance(members, EnsembleConfig):
            members = [CSTOperator(config) for config in members.members]
        self.config = EnsembleConfig(members=tuple(model.config for model in members))
        self.members = nn.ModuleList(members)
        self.training = any(member.training for member in members)  # as they are, not as new
        self.register_buffer("scale", torch.ones(self.config.members[0].out_channels))

    def forward(self, source: PointField, target: PointField) -> Tensor:
        """Mean of the members' answers at the target's points, [M, c]."""
        return self.answers(source, target).mean(0)

    def spread(self, source: PointField, target: PointField) -> Tensor:
        """Standard deviation of the answer at the target's points, [M, c], in the user's units."""
        return self.answers(source, target).std(0) * self.scale

    def answers(self, source: PointField, target: PointField) -> Tensor:
        """Every member's answer, [members, M, c]."""
        return torch.stack([member(source, target) for member in self.members])

    @torch.no_grad()
    def predict(
        self,
        source: PointField,
        target: PointField,
        *,
        chunk: int = 16384,
        memory_limit: int = 0,
    ) -> PointField:
        """Answer with uncertainty at one field's points, in chunks of bounded memory.

        Args:
            source: one known field.
            target: the query points; cells and facets are kept.
            chunk: query points at a time.
            memory_limit: see :meth:`CSTOperator.predict <cst_operator.CSTOperator.predict>`; for
                one member at a time, beside the answers of the others.

        Returns:
            The target with the mean of every channel and, named ``CHANNEL_std``, its spread.
        """
        members = cast(Sequence[CSTOperator], self.members)
        answers = [
            member.predict(source, target, chunk=chunk, memory_limit=memory_limit)
            for member in members
        ]
        u = torch.stack([answer.u for answer in answers])
        names = list(answers[0].channels)
        return target.with_values(
            torch.cat([u.mean(0), u.std(0) * self.scale], dim=1),
            channels=[*names, *(f"{name}_std" for name in names)],
        )

    @torch.no_grad()
    def calibrate(self, examples: Examples) -> "Ensemble":
        """Measure the scale of the spread, by channel, on examples that were not trained on.

        As in :meth:`calibration`, members answer in evaluation mode, on their own device.

        Raises:
            InputError: if there are no examples, or the members agree in a channel everywhere.
        """
        sums = sum(
            torch.stack([weight @ error.square(), weight @ spread.square()])
            for weight, error, spread in self._errors(examples)
        )
        error, spread = cast(Tensor, sums)
        _check_spread(spread)
        self.scale *= (error / spread).sqrt().to(self.scale)
        return self

    @torch.no_grad()
    def calibration(self, examples: Examples) -> Calibration:
        """How well the spread tells the error on examples, over all channels.

        So that each counts whatever its unit, they are taken at the scale of the training data.

        Raises:
            InputError: if there are no examples, or the members agree in all channels everywhere.
        """
        inside = {times: 0.0 for times in (1.0, 2.0, 3.0)}
        norms, total = [], 0.0
        unit = cast(Sequence[CSTOperator], self.members)[0].normalization.out_std.double()
        for weight, error, spread in self._errors(examples):
            norms.append([(weight @ (v / unit).square()).sum() for v in (error, spread)])
            total += float(weight.sum()) * error.shape[1]
            for times in inside:
                inside[times] += float((weight @ (error.abs() <= times * spread).double()).sum())
        squares = torch.tensor(norms, dtype=torch.float64)
        _check_spread(squares.sum(0)[1:])
        error, spread = squares.sum(0).tolist()
        return Calibration(
            ratio=math.sqrt(error / spread),
            coverage={times: value / total for times, value in inside.items()},
            correlation=float(torch.corrcoef(squares.log().T)[0, 1]),
        )

    def _errors(self, examples: Examples) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Shares of the domain [M], errors and spreads [M, c] of every example, in float64."""
        if not len(examples):
            raise InputError("there are no examples to calibrate on; give at least one")
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            for i in range(len(examples)):
                source, target = examples[i].to(self.scale.device)
                answers = self.answers(source, target).double()
                weight = target.weights.double()
                yield (
                    weight / weight.sum(),
                    answers.mean(0) - target.u.double(),
                    answers.std(0) * self.scale.double(),
                )
        finally:
            for module, mode in modes:
                module.training = mode


checkpoint.register("ensemble", EnsembleConfig, Ensemble)


def _check_spread(squares: Tensor) -> None:
    if not bool((squares > 0).all()):
        raise InputError(
            "the members give the same answers, so their spread tells nothing; "
            "train them from different seeds"
        )


def _question(config: CSTConfig) -> str:
    answer = ", ".join(config.out_names) or f"{config.out_channels} channels"
    return f"{', '.join(config.in_names) or config.in_channels} to {answer}"
