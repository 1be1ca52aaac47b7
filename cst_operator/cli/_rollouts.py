"""Rollouts of a lead-time model: their errors on a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from cst_operator.autoregression import errors_over_time, rollout
from cst_operator.evaluation import Model
from cst_operator.fields import Trajectory
from cst_operator.task_config import TaskConfig

__all__ = ["RolloutErrors", "rollout_errors"]

_LINES = 10


@dataclass(frozen=True)
class RolloutErrors:
    """Mean errors of rollouts by step.

    Args:
        times: mean time of every step after the last frame that was read, [T].
        errors: mean relative L2 error over the trajectories, [T, c].
        channels: names of the channels.
    """

    times: Tensor
    errors: Tensor
    channels: tuple[str, ...]

    def table(self, title: str) -> Table:
        """At most ten evenly spaced times, the first and the last among them."""
        table = Table(title=title)
        for name in ("time", *self.channels):
            table.add_column(name, justify="right")
        count = min(len(self.times), _LINES)
        for i in torch.linspace(0, len(self.times) - 1, count).round().long().tolist():
            row = (self.times[i], *self.errors[i])
            table.add_row(*(f"{float(value):.4g}" for value in row))
        return table


def rollout_errors(
    model: Model, task: TaskConfig, trajectories: Sequence[Trajectory]
) -> RolloutErrors:
    """Roll out from the first frames of every trajectory, in steps of the shortest learned lead.

    Trajectories of different lengths count as long as the shortest of them.

    Args:
        model: the trained model.
        task: its resolved task, of kind "lead_time".
        trajectories: the truth.

    Raises:
        FieldError: if a trajectory has too few frames.
    """
    step = task.lead_time()
    first, every = step.history - 1, min(step.leads)
    last = min(trajectory.num_frames for trajectory in trajectories)
    wanted = slice(first + every, last, every)
    found, waits = [], []
    for trajectory in trajectories:
        times = trajectory.times[wanted]
        waits.append(times - trajectory.times[first])
        found.append(errors_over_time(rollout(model, step, trajectory, times), trajectory))
    return RolloutErrors(torch.stack(waits).mean(0), torch.stack(found).mean(0), task.outputs)
