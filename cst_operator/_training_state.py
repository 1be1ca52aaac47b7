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
from cst_operator._balancing import Balancing
from cst_operator.checkpoint import Checkpoint, TrainingState
from cst_operator.errors import CheckpointError, InputError
from cst_operator.fit_config import FitConfig
from cst_operator.processes import Processes

__all__ = [
    "State",
    "new_state",
    "restore_state",
    "save_step",
    "saved_state",
]


@dataclass(kw_only=True)
class State:
    """What changes from step to step, beside the model."""

    optimizers: tuple[torch.optim.Optimizer, ...]
    names: tuple[list[str], ...]
    """Names of each optimizer's parameters, in its order."""
    averaging: Averaging
    balancing: Balancing
    scaler: torch.amp.GradScaler
    """Scales the loss where the forward pass is float16, else does nothing."""
    first_bad: Tensor
    """First step whose loss or gradient was not finite, else -1; on the device."""
    step: int = 0
    """Steps done."""
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    """Sums since the last record, on the device."""
    num_summed: int = 0
    """Steps since the last record."""
    best: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    """Averaged parameters of the best evaluation, if training may stop early."""

    def add(self, key: str, value: Tensor | int) -> None:
        """Add to a sum since the last record."""
        value = value.detach() if torch.is_tensor(value) else torch.tensor(value)
        self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()

    def note_if_bad(self, value: Tensor) -> None:
        """Remember the step if a value of it is not finite, without waiting for a GPU."""
        bad = ~torch.isfinite(value.detach()) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, self.step, self.first_bad)


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
        balancing=Balancing(config.balance),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "float16"),
        first_bad=torch.full((), -1, dtype=torch.long, device=device),
    )


def _hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The matrices inside a model that Muon is made for, if the model names them."""
    named = getattr(model, "hidden_matrices", None)
    return set(named()) if callable(named) else set()


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
    tensors |= {f"means.{key}": value for key, value in state.balancing.means.items()}
    tensors |= {f"best.{key}": value for key, value in state.best.items()}
    values = {
        "step": state.step,
        "num_summed": state.num_summed,
        "scaler": state.scaler.state_dict(),
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


def restore_state(state: State, previous: Checkpoint, processes: Processes) -> None:
    """Take up a saved training: state and weights as they were, sums in the first process."""
    saved = saved_state(previous)
    state.step = saved.values["step"]
    state.num_summed = saved.values["num_summed"]
    state.scaler.load_state_dict(saved.values["scaler"])
    device = state.first_bad.device
    moments: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for key, tensor in saved.tensors.items():
            kind, name = key.split(".", 1)
            if kind == "sums":
                held = tensor if processes.is_first else torch.zeros_like(tensor)
                state.sums[name] = held.to(device)
            elif kind == "means":
                state.balancing.means[name] = tensor.to(device)
            elif kind == "best":
                state.best[name] = tensor.to(device)
            elif kind == "parameters":  # until here they were the averaged ones
                state.averaging.parameters[name].copy_(tensor)
            else:
                name, moment = name.rsplit(".", 1)
                moments.setdefault(name, {})[moment] = tensor
    for optimizer, names in zip(state.optimizers, state.names, strict=True):
        entries = optimizer.state_dict()
        entries["state"] = {i: moments[name] for i, name in enumerate(names) if name in moments}
        optimizer.load_state_dict(entries)
