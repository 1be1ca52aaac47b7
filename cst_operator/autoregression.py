"""Autoregressive prediction: answers become inputs, step after step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cst_operator.errors import FieldError
from cst_operator.evaluation import Model, answer
from cst_operator.fields import PointField, Trajectory
from cst_operator.metrics import Metric, relative_l2
from cst_operator.tasks import LeadTime

__all__ = ["errors_over_time", "rollout"]


@torch.no_grad()
def rollout(
    model: Model,
    task: LeadTime,
    trajectory: Trajectory,
    times: Tensor | Sequence[float] | None = None,
) -> Trajectory:
    """Answer one time after another on the nodes, each from the answers before.

    A module is evaluated in evaluation mode, on its own device, and left as it was.

    Args:
        model: trained on the task.
        task: what it reads and answers.
        trajectory: the sample; of its frames the first ``task.history`` are read.
        times: times to answer at, increasing and later than the frames that are read; by how much
            is the lead time of each step, which is best one of the training. Those of the
            trajectory's other frames if omitted.

    Returns:
        The answers at these times, on the trajectory's mesh.

    Raises:
        FieldError: if the trajectory is too short, or times are not increasing.
    """
    history = task.history
    if trajectory.num_frames < history:
        raise FieldError(
            f"the trajectory has {trajectory.num_frames} frames; the task reads {history}"
        )
    given = trajectory.times
    later = given[history:] if times is None else torch.as_tensor(times, dtype=given.dtype)
    known = given[:history]
    if not len(later):
        raise FieldError("there are no times to answer at; give times later than those read")
    start = trajectory.frame(0).select(*task.outputs)
    frames = [trajectory.frame(i).select(*task.outputs).u for i in range(history)]
    moments = torch.cat([known, later])
    if bool((moments.diff() <= 0).any()):
        raise FieldError(
            f"times must increase and be later than {float(known[-1]):.6g}, the last that is read"
        )
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        for i in range(history, len(moments)):
            past = moments[i - history : i]
            lead = float(moments[i] - past[-1])
            source = task.source(trajectory, torch.stack(frames[-history:]), past, lead)
            target = PointField(pos=trajectory.mesh.pos, time=torch.full_like(source.time, lead))
            frames.append(answer(model, source, target).u[:, : len(task.outputs)])
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    return Trajectory(
        mesh=trajectory.mesh,
        times=later,
        u=torch.stack(frames[history:]),
        channels=start.channels,
        units=start.units,
        parameters=trajectory.parameters,
    )


def errors_over_time(
    prediction: Trajectory, truth: Trajectory, metric: Metric = relative_l2
) -> Tensor:
    """Error of every frame that both have.

    Args:
        prediction: for instance of :func:`rollout`.
        truth: the solution on the same mesh, at the same times or more.
        metric: function of :mod:`cst_operator.metrics` or alike.

    Returns:
        One error per frame of the prediction and channel, [T, c].

    Raises:
        FieldError: if the truth has no frame at a time of the prediction.
    """
    errors = []
    for i, time in enumerate(prediction.times):
        same = (truth.times == time.to(truth.times)).nonzero()[:, 0]
        if not len(same):
            raise FieldError(
                f"the truth has no frame at time {float(time):.6g}; predict at its times"
            )
        target = truth.frame(int(same[0])).select(*prediction.channels)
        errors.append(metric(prediction.u[i], target))
    return torch.stack(errors)
