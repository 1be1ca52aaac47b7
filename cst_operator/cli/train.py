"""``cst train``: train a model on a data set."""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import tyro
from rich.markup import escape

from cst_operator import checkpoint
from cst_operator._run_folder import locked
from cst_operator.cli._shared import (
    console,
    examples_of,
    examples_to_train,
    num_held_out,
    open_set,
    quoted,
    resolve_task,
)
from cst_operator.config import EXPERIMENT_FILE, ExperimentConfig, load_config, write_config
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import InputError
from cst_operator.log_writers import CsvWriter, LogWriter, TensorBoardWriter, WandbWriter
from cst_operator.model import CSTOperator
from cst_operator.processes import connect, stop_on_signal
from cst_operator.training import fit

__all__ = ["Train"]

_TERMINATED, _INTERRUPTED = 143, 130
_WRITERS: dict[str, Callable[[Path], LogWriter]] = {
    "csv": lambda out: CsvWriter(out / "log.csv"),
    "tensorboard": lambda out: TensorBoardWriter(out / "tensorboard"),
    "wandb": lambda out: WandbWriter(out / "wandb"),
}


@dataclass(frozen=True, kw_only=True)
class Train(ExperimentConfig):
    """Options of ``cst train``."""

    help: ClassVar[str] = (
        "Train a model on a data set. Settings come from a TOML file (--config), and flags win\n"
        "over it; experiment.toml in the run folder has all of them, to repeat the run.\n\n"
        "Examples:\n"
        "  cst train --data data/poisson --out runs/first\n"
        "  cst train --config train.toml --out runs/second --fit.lr 3e-4\n"
        "  cst train --out runs/first --resume\n"
        "  torchrun --nproc-per-node 2 -m cst_operator train --data data/poisson --out runs/first"
    )

    out: Path
    """Run folder: checkpoints, log.jsonl and experiment.toml."""
    config: Path | None = None
    """TOML file with any of the settings below, e.g. [fit] lr = 3e-4."""
    resume: bool = False
    """Go on from the newest checkpoint in the run folder, with its settings; of those, flags may
    change what changes no weight, e.g. --fit.save-every."""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> "Train":
        """Settings before the flags: of the file, or of the run that is resumed."""
        path = _value_of(arguments, "--config")
        if path is None and "--resume" in arguments:
            out = _value_of(arguments, "--out")
            saved = None if out is None else Path(out) / EXPERIMENT_FILE
            path = str(saved) if saved is not None and saved.is_file() else None
        config = ExperimentConfig() if path is None else load_config(path)
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        return cls(**values, out=tyro.MISSING)

    def run(self) -> int:
        """Train, and say where the model is."""
        if self.resume and not self.out.is_dir():
            raise InputError(f"there is no run to resume at {self.out}; check the path")
        if not self.data:
            raise InputError("nothing to train on; give a data set with --data FOLDER")
        if checkpoint.steps(self.out) and not self.resume:
            raise InputError(
                f"{self.out} holds a run already; add --resume to go on with it, "
                "or choose another folder with --out"
            )
        data = open_set(self.data)
        held_out = num_held_out(self.validation, len(data))
        first, last = data.split(len(data) - held_out, held_out)
        task = resolve_task(self.task, data)
        sample = data[0]
        model_config = self.model.build(
            dim=sample.mesh.dim,
            in_names=task.source_channels,
            out_names=task.outputs,
            transient=task.transient,
        )
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(ExperimentConfig)}
        resolved = ExperimentConfig(**{**values, "task": task, "validation": held_out})
        model = new_model(model_config, self.fit.seed)
        examples = (examples_to_train(first, task, self.fit.seed), examples_of(last, task))
        processes = connect()
        out = console(quiet=not processes.is_first)
        out.print(
            f"{task.kind}: {', '.join(task.source_channels)} -> {', '.join(task.outputs)}, "
            f"{len(first)} trajectories to train on, {held_out} to validate"
        )
        with ExitStack() as stack:
            folder = locked(self.out, resume=self.resume)
            processes.on_first(lambda: stack.enter_context(folder))
            if processes.is_first and not self.resume:
                write_config(self.out / EXPERIMENT_FILE, resolved)
            terminated = stack.enter_context(stop_on_signal())
            interrupted = stack.enter_context(stop_on_signal(signal.SIGINT))
            run = fit(
                model,
                *examples,
                loss=self.loss,
                config=self.fit,
                out=self.out,
                resume=self.resume,
                stop=lambda: terminated() or interrupted(),
                writers=[_WRITERS[name](self.out) for name in self.writers],
            )
        where = quoted(self.out)
        if run.interrupted:
            out.print(
                f"stopped after step {run.step}; go on: cst train --out {where} --resume",
                soft_wrap=True,
            )
            return _INTERRUPTED if interrupted() else _TERMINATED
        if run.stopped_early and run.best is not None:
            out.print(
                f"stopped early after step {run.step}; the weights are those of step "
                f"{run.best['step']:.0f}"
            )
        if run.scores is not None:
            out.print(run.scores.table("validation"))
        out.print(
            f"the run is in {escape(str(self.out))}; next: cst evaluate {where} --data FOLDER",
            soft_wrap=True,
        )
        return 0


def new_model(config: CSTConfig, seed: int) -> CSTOperator:
    """A model whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CSTOperator(config)


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag, before the real parser sees it."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None
