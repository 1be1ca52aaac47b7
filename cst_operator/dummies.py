"""Dummy points: where derivatives of the answer are asked for without knowing those of the data."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cst_operator._draws import choose, names_of, per_sample, uniform
from cst_operator._nearby import repeated, values_nearby
from cst_operator._ragged import Ragged
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import PointField

__all__ = ["Dummies"]


@dataclass(frozen=True, kw_only=True)
class Dummies:
    r"""Random points between those of a target, in space and, where it varies, in time.

    A point of the target is drawn and moved within the volume that its weight stands for; its time
    is uniform between the first and the last. With a density :math:`\rho` relative to the uniform
    one, the mean of f over the domain is estimated by the mean of :math:`f / \rho` over n points:
    without bias, of the variance :math:`\bigl( \frac{1}{|\Omega|} \int f^2 / \rho - \bar f^2
    \bigr) / n`. So more points near a boundary estimate better what is large there.

    Args:
        density: "volume": uniform over the domain. "points": every point of the target is equally
            likely, so most dummy points are where the mesh is fine.
        near: name of a channel of the source that is a distance, e.g. "distance" to the boundary;
            the density is multiplied by :math:`1 / (1 + 10\, r / \bar r)` with the distance r and
            its mean over the domain.

    Raises:
        ConfigError: if the density is not one of the two.
    """

    density: Literal["volume", "points"] = "volume"
    near: str = ""

    def __post_init__(self) -> None:
        if self.density not in ("volume", "points"):
            raise ConfigError(f"density is {self.density!r}; expected 'volume' or 'points'")

    def draw(
        self,
        source: PointField,
        target: PointField,
        count: int,
        generator: torch.Generator | None = None,
    ) -> PointField:
        """``count`` points of every sample, with weights that integrate over the target.

        Args:
            source: where the distance is known.
            target: the points between which they are drawn, with weights; or a PyG batch.
            count: how many of every sample.
            generator: draws them; the global one if omitted.

        Raises:
            FieldError: if the source has no such channel.
        """
        points, _ = choose(target, count, generator, self._chance(source, target))
        layout = Ragged.of(target)
        time = layout.pad(target.time)
        first, last = time.amin(1, keepdim=True), time.amax(1, keepdim=True)
        d = target.pos.shape[1]
        # A point's weight is about the volume that is nearest to it times a part of the time, which
        # it shares with the others of its place.
        span = torch.where(last > first, last - first, torch.ones_like(first))
        shared = span / _points_per_place(layout, target)
        frames = torch.where(last > first, shared, torch.ones_like(first))
        width = (points.spacing.view(len(first), -1) / frames).flatten().pow(1 / d)
        shift = uniform(points.pos, d, generator) - 0.5
        points.pos = points.pos + width[:, None] * shift
        points.time = (first + uniform(first, count, generator) * (last - first)).flatten()
        return points

    def _chance(self, source: PointField, target: PointField) -> Tensor:
        """Relative chance of every point of the target to be drawn, [M]."""
        weights: Tensor = target.weights
        chance = weights if self.density == "volume" else torch.ones_like(weights)
        if not self.near:
            return chance
        names = names_of(source)
        if self.near not in names:
            raise FieldError(
                f"dummy points are to be drawn near {self.near!r}, which the source does not have, "
                f"only {', '.join(names) or 'no channels'}; add it to the inputs of the task"
            )
        distance = values_nearby(source, target)[:, names.index(self.near)].clamp_min(0)
        mean = per_sample(weights * distance, target) / per_sample(weights, target)
        mean = mean[target.batch] if "batch" in target else mean
        return chance / (1 + 10 * distance / mean.clamp_min(torch.finfo(mean.dtype).tiny))


def _points_per_place(layout: Ragged, field: PointField) -> Tensor:
    """Points of every sample over its different places, [B, 1]."""
    alone = ~(repeated(layout.pad(field.pos)) | layout.padding)
    return (~layout.padding).sum(1, keepdim=True) / alone.sum(1, keepdim=True)
