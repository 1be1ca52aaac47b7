"""The upsampling of ``cst demo``: read on coarse meshes, asked on fine ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cst_operator.cli._demo_plan import TASK
from cst_operator.cli._shared import reading
from cst_operator.cli.comparing import Asked
from cst_operator.comparison import Comparison, compare, join
from cst_operator.evaluation import Model
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.metrics import relative_l2
from cst_operator.peers import LinearInterpolation

__all__ = ["sides", "upsample"]

_SPLIT = "coarse to fine"


def sides(trajectory: Trajectory) -> tuple[PointField, PointField]:
    """Source and truth of one solution, both with cells."""
    return trajectory.mesh.select(*TASK.inputs), trajectory.frame(0).select(*TASK.outputs)


def upsample(
    asked: Mapping[str, Asked], coarse: Sequence[Trajectory], fine: Sequence[Trajectory]
) -> Comparison:
    """Sources on coarse meshes, answers asked at the points of fine ones.

    Beside the models: the transformer's answer at the coarse points, and the exact one there, both
    interpolated linearly.
    """
    # Only solutions that both sets have: a failed sample is missing in its own set alone.
    others = {_number(t): t for t in fine}
    pairs = [(sides(t), sides(others[_number(t)])[1]) for t in coarse if _number(t) in others]
    found = []
    for name, (model, task) in asked.items():
        examples, known = [], {}
        for (source, solution), wanted in pairs:
            given = reading(source, task)
            examples.append(Example(given, wanted))
            known[id(given)] = solution
        models: dict[str, Model] = {name: model}
        if name == "CST":
            models[f"{name} at coarse points, then linear"] = _OverCoarsePoints(model, known)
        found.append(compare(models, {_SPLIT: examples}, metrics=(relative_l2,)))
    examples = [Example(solution, wanted) for (_, solution), wanted in pairs]
    exact: dict[str, Model] = {"exact at coarse points, then linear": LinearInterpolation()}
    found.append(compare(exact, {_SPLIT: examples}, metrics=(relative_l2,)))
    return join(*found)


@dataclass(frozen=True)
class _OverCoarsePoints:
    """A model's answer at the coarse points, interpolated from there.

    Args:
        model: the model.
        coarse: field at the coarse points by the identity of what the model is given.
    """

    model: Model
    coarse: dict[int, PointField]

    def __call__(self, source: PointField, target: PointField) -> Tensor:
        at = self.coarse[id(source)]
        with torch.no_grad():
            known = at.with_values(self.model(source, at), target.channels)
        return LinearInterpolation()(known, target)


def _number(trajectory: Any) -> int:
    return int(trajectory.parameters["index"])
