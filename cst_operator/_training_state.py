"""State of a training: what changes from step to step, how it is saved and taken up again."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator._averaging import Averaging
from cst_operator.checkpoint import Checkpoint, TrainingState
from cst_operator.errors import CheckpointError, InputError
from cst_operator.fit_config import FitConfig

__all__ = [
    "LOG_FILE",
    "State",
    "new_state",
    "open_run",
    "restore_state",
    "save_step",
    "saved_state",
]

LOG_FILE = "log.jsonl"
# What may differ between a run and its continuation: none of it changes a weight.
_FREE = ("device", "num_workers", "keep")


@dataclass(kw_only=True)
class State:
    """What changes from step to step, beside the model."""

    optimizers: tuple[torch.optim.Optimizer, ...]
    names: tuple[list[str], ...]
    """Names of each optimizer's parameters, in its order."""
    averaging: Averaging
    first_bad: Tensor
    """First step whose loss or gradient was not finite, else -1; on the device."""
    step: int = 0
    """Steps done."""
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    """Sums since the last record, on the device."""
    num_summed: int = 0


def new_state(model: nn.Module, config: FitConfig, device: torch.device) -> State:
    """The state before the first step."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise InputError(f"{type(model).__name__} has no trainable parameters; nothing to train")
    hidden = _hidden_matrices(model) if config.muon_lr else set()
    muon = [(name, p) for name, p in named if p in hidden]
    matrices = [(name, p) for name, p in named if p.dim() > 1 and p not in hidden]
    others = [(name, p) for name, p in named if p.dim() <= 1]  # biases, norms, scalars
    groups = [
        {"params": [p for _, p in matrices], "weight_decay": config.weight_decay},
        {"params": [p for _, p in others], "weight_decay": 0.0},
    ]
    # One kernel instead of many; it knows no complex parameters.
    fused = device.type == "cuda" and not any(p.is_complex() for _, p in named)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, fused=fused)]
    names = [[name for name, _ in (*matrices, *others)]]
    if muon:
        optimizers.append(
            torch.optim.Muon(
                [p for _, p in muon], lr=config.muon_lr, weight_decay=config.weight_decay
            )
        )
        names.append([name for name, _ in muon])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return State(
        optimizers=tuple(optimizers),
        names=tuple(names),
        averaging=Averaging(model, config.ema),
        first_bad=torch.full((), -1, dtype=torch.long, device=device),
    )


def _hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The matrices inside a model that Muon is made for, if the model names them."""
    named = getattr(model, "hidden_matrices", None)
    return set(named()) if callable(named) else set()


def open_run(
    model: nn.Module, out: Path | None, resume: bool, identity: Mapping[str, Any]
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run in a folder without one."""
    if out is None:
        if resume:
            raise InputError("resume needs the run folder; give it as out")
        return None
    checkpoint.name_of(model)
    if not resume:
        if checkpoint.steps(out) or (out / LOG_FILE).exists():
            raise InputError(
                f"{out} holds a run already; resume it, or choose another folder for a new one"
            )
        out.mkdir(parents=True, exist_ok=True)
        return None
    if not out.is_dir():
        raise CheckpointError(f"there is no run to resume at {out}; check the path")
    previous = checkpoint.newest(out)
    before = saved_state(previous).values["identity"]
    old, new = ({k: v for k, v in d.items() if k not in _FREE} for d in (before, identity))
    if old != new:
        raise CheckpointError(
            f"{previous.path} belongs to another training: {checkpoint.differences(old, new)}; "
            "resume with the same settings or start a new run"
        )
    for step, folder in checkpoint.steps(out):
        # Found damaged just now; out of the way, so that it can be written again.
        if step > saved_state(previous).values["step"]:
            folder.rename(checkpoint.aside(folder))
    return previous


def saved_state(previous: Checkpoint) -> TrainingState:
    """The state of the training that a checkpoint holds."""
    if previous.training is None:
        raise CheckpointError(
            f"{previous.path} holds a model without the state of its training; "
            "start a new run from that model instead of resuming"
        )
    return previous.training


def save_step(
    model: nn.Module,
    out: Path,
    state: State,
    identity: Mapping[str, Any],
    records: list[dict[str, Any]],
) -> None:
    """The averaged weights as the model, everything else as the state of the training."""
    tensors = {f"parameters.{k}": p.detach() for k, p in state.averaging.parameters.items()}
    for optimizer, names in zip(state.optimizers, state.names, strict=True):
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[i]}.{key}": value for key, value in values.items()}
    tensors |= {f"sums.{key}": value for key, value in state.sums.items()}
    values = {
        "step": state.step,
        "num_summed": state.num_summed,
        "identity": dict(identity),
        "history": records,
    }
    with state.averaging.applied():
        checkpoint.save(
            model,
            checkpoint.step_folder(out, state.step),
            training=TrainingState(tensors=tensors, values=values),
            metadata={"step": state.step},
        )


def restore_state(state: State, model: nn.Module, previous: Checkpoint) -> None:
    """Take up a saved training: state and weights as they were."""
    saved = saved_state(previous)
    state.step = saved.values["step"]
    state.num_summed = saved.values["num_summed"]
    device = state.first_bad.device
    moments: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for key, tensor in saved.tensors.items():
            kind, name = key.split(".", 1)
            if kind == "sums":
                state.sums[name] = tensor.to(device)
            elif kind == "parameters":  # until here they were the averaged ones
                state.averaging.parameters[name].copy_(tensor)
            else:
                name, moment = name.rsplit(".", 1)
                moments.setdefault(name, {})[moment] = tensor
    for optimizer, names in zip(state.optimizers, state.names, strict=True):
        entries = optimizer.state_dict()
        entries["state"] = {i: moments[name] for i, name in enumerate(names) if name in moments}
        optimizer.load_state_dict(entries)
