"""``cst demo``: the whole path on data it makes itself."""

import copy
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from cst_operator import checkpoint
from cst_operator.cli._demo_plan import FULL, QUICK, TASK, Plan
from cst_operator.cli._demo_upsampling import sides, upsample
from cst_operator.cli._shared import (
    SinglePrecision,
    console,
    examples_of,
    quoted,
    reading,
    warn,
)
from cst_operator.cli.comparing import (
    METRICS_EXPLAINED,
    Asked,
    compare_each,
    comparison_table,
    pictures,
)
from cst_operator.cli.train import new_model
from cst_operator.comparison import Comparison, num_parameters
from cst_operator.config import (
    EXPERIMENT_FILE,
    ExperimentConfig,
    load_config,
    write_config,
)
from cst_operator.datasets import TrajectoryDataset, generate
from cst_operator.evaluation import answer
from cst_operator.mesh_files import write_mesh
from cst_operator.peers import GridFNO
from cst_operator.plots import plot_comparison, plot_history
from cst_operator.report import Picture, ReportTable, Section, write_report
from cst_operator.sobolev import SobolevLoss
from cst_operator.tasks import TaskDataset
from cst_operator.training import FitConfig, Run, fit

__all__ = ["Demo"]

_TRAIN_SEED, _TEST_SEED = 0, 1
_TIMED_STEPS = 9
_PATIENCE = 1.3


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Options of ``cst demo``."""

    help: ClassVar[str] = (
        "Generate Poisson solutions on random domains, train the transformer and neuraloperator's\n"
        "FNO, judge both on unseen domains and on meshes four times finer, upsample, and write a\n"
        "report. At most 10 minutes on two processor cores; called again it keeps what is done.\n\n"
        "Example:\n  cst demo --out demo"
    )

    out: Path = Path("demo")
    """Folder for everything."""
    quick: bool = False
    """A tiny version of the same in less than a minute; its models are far from trained."""
    workers: int = 0
    """Processes that generate data; 2, or 1 on a machine with one processor, if 0."""

    def run(self) -> int:
        """Do it, and say what is where."""
        start = time.monotonic()
        plan = QUICK if self.quick else FULL
        out = console()
        data = self._generate(plan, out)
        kept = {name: SinglePrecision(part) for name, part in data.items()}
        runs = self._train(plan, kept, out)
        asked = {"CST": Asked(runs["CST"].model, plan.task), "FNO": Asked(runs["FNO"].model, TASK)}

        out.rule("[bold]3. Judge both on unseen domains", align="left")
        splits = {"unseen domains": kept["test"], "4x finer meshes": kept["fine"]}
        found = compare_each(asked, splits)
        found.write(self.out)
        out.print(found.table("errors: mean over the samples"))

        out.rule("[bold]4. Upsample: read on the coarse mesh, answer on the fine one", align="left")
        upsampled = upsample(asked, kept["test"], kept["fine"])
        upsampled.write(self.out, name="upsampling")
        out.print(upsampled.table("source on the coarse mesh, answer at four times the points"))

        out.rule("[bold]5. Write files and a report", align="left")
        files = self._write_fields(asked, kept)
        report = self._report(plan, data, kept, asked, runs, found, upsampled, files)
        minutes = (time.monotonic() - start) / 60
        out.print(f"done in {minutes:.1f} minutes\n")
        for words, place in {
            "report, open it in a browser": report,
            "tables": self.out / "comparison.csv",
            "fields, open them in ParaView": self.out / "fine.vtu",
            "trained models": self.out / "cst",
            "data": self.out / "data",
        }.items():
            out.print(f"{words:32}{escape(str(place))}", soft_wrap=True)
        out.print(
            f"\nnext: cst inspect {quoted(self.out / 'coarse.vtu')}, or cst predict "
            f"{quoted(self.out / 'cst')} --mesh {quoted(self.out / 'coarse.vtu')} --out answer.vtu",
            soft_wrap=True,
        )
        return 0

    def _generate(self, plan: Plan, out: Console) -> dict[str, TrajectoryDataset]:
        out.rule("[bold]1. Solve Poisson's equation on random domains", align="left")
        folder = self.out / "data"
        workers = self.workers or min(2, os.cpu_count() or 1)
        number = plan.num_train + plan.num_validation
        made: dict[str, TrajectoryDataset] = {}
        for name, n, seed, refine in (
            ("train", number, _TRAIN_SEED, 0),
            ("test", plan.num_test, _TEST_SEED, 0),
            ("fine", plan.num_test, _TEST_SEED, 1),
        ):
            made[name] = generate(
                plan.system,
                n,
                out=folder / name,
                seed=seed,
                refine=refine,
                workers=workers,
                dtype="float32",
            )
        out.print(
            f"{len(made['train'])} solutions to learn from, {len(made['test'])} on unseen domains, "
            "these also on meshes with four times the points"
        )
        return made

    def _train(self, plan: Plan, kept: dict[str, SinglePrecision], out: Console) -> dict[str, Run]:
        out.rule("[bold]2. Train the transformer (CST), and FNO for comparison", align="left")
        held_out = min(plan.num_validation, len(kept["train"]) - 1)
        border = len(kept["train"]) - held_out
        cst = plan.model.build(
            dim=2, in_names=plan.task.source_channels, out_names=TASK.outputs, transient=False
        )
        fno = replace(plan.fno, in_names=TASK.inputs, out_names=TASK.outputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.fno_fit.seed)
            peer = GridFNO(fno)
        runs: dict[str, Run] = {}
        for name, model, task, loss, wanted, seconds in (
            ("CST", new_model(cst, plan.fit.seed), plan.task, plan.loss, plan.fit, plan.seconds),
            ("FNO", peer, TASK, SobolevLoss(order=0), plan.fno_fit, plan.fno_seconds),
        ):
            folder = self.out / name.lower()
            train = TaskDataset(kept["train"][:border], task.build())
            validation = examples_of(kept["train"][border:], task)
            config = _fit_config(folder, model, train, loss, wanted, seconds)
            known = bool(checkpoint.steps(folder))
            if not known:
                experiment = ExperimentConfig(
                    data=str(self.out / "data" / "train"),
                    validation=held_out,
                    task=task,
                    model=plan.model,
                    loss=loss,
                    fit=config,
                )
                write_config(folder / EXPERIMENT_FILE, experiment)
            out.print(
                f"{name}: {num_parameters(model):,} weights, "
                f"{config.steps} steps of {config.batch_size} samples"
                + (f", going on in {escape(str(folder))}" if known else ""),
                soft_wrap=True,
            )
            # Should the machine get busier than when it was timed, ten minutes stay ten minutes.
            deadline = time.monotonic() + _PATIENCE * seconds
            run = fit(
                model,
                train,
                validation,
                loss=loss,
                config=config,
                out=folder,
                resume=known,
                stop=partial(_is_past, deadline),
            )
            if run.interrupted:
                warn(f"{name} stopped at step {run.step} for lack of time; call again to go on")
            run.model.cpu()
            runs[name] = run
        return runs

    def _write_fields(
        self, asked: dict[str, Asked], kept: dict[str, SinglePrecision]
    ) -> dict[str, Path]:
        """Input, truth, answers and errors on one unseen domain, coarse, fine and upsampled."""
        coarse, fine = (sides(kept[name][0]) for name in ("test", "fine"))
        files = {}
        for name, words, source, truth in (
            ("coarse", "on the coarse mesh", coarse[0], coarse[1]),
            ("fine", "on the fine mesh", fine[0], fine[1]),
            ("upsampled", "at the fine points, read on the coarse mesh", coarse[0], fine[1]),
        ):
            field = truth.with_values(truth.u, ["u_true"])
            if source.num_points == truth.num_points:
                field = field.with_channels(source.u, source.channels)
            for model_name, (model, task) in asked.items():
                u = answer(model, reading(source, task), truth).u
                field = field.with_channels(
                    torch.cat([u, u - truth.u], dim=1),
                    [f"u_{model_name.lower()}", f"error_{model_name.lower()}"],
                )
            path = self.out / f"{name}.vtu"
            write_mesh(path, field)
            files[f"Truth, answers and errors {words}"] = path
        return files

    def _report(
        self,
        plan: Plan,
        data: dict[str, TrajectoryDataset],
        kept: dict[str, SinglePrecision],
        asked: dict[str, Asked],
        runs: dict[str, Run],
        found: Comparison,
        upsampled: Comparison,
        files: dict[str, Path],
    ) -> Path:
        points = {
            name: round(sum(t.mesh.num_points for t in part) / len(part))
            for name, part in kept.items()
        }
        coarse, fine = (sides(kept[name][0]) for name in ("test", "fine"))
        rows = [
            {"set": words, "solutions": len(data[name]), "points a mesh": points[name]}
            for name, words in (
                ("train", "training and validation"),
                ("test", "unseen domains"),
                ("fine", "the same domains, finer meshes"),
            )
        ]
        quick = (
            "This is the quick version of the demo: its models are far from trained.\n\n"
            if self.quick
            else ""
        )
        sections = [
            Section(
                title="Result",
                text=quick + "Two networks learned to solve Poisson's equation with a random right-"
                "hand side on random domains with holes, from the right-hand side and the distance "
                "to the boundary; the transformer reads the points of the boundary as well, which "
                "a grid has no place for. Both are asked on domains they never saw, and on meshes "
                "of those domains four times finer than any they saw. " + METRICS_EXPLAINED,
                tables=(comparison_table(found),),
            ),
            Section(
                title="An unseen domain",
                pictures=pictures(asked, kept["test"][0], TASK),
            ),
            Section(
                title="The same domain on a mesh four times finer",
                pictures=pictures(asked, kept["fine"][0], TASK, " on the fine mesh"),
            ),
            Section(
                title="Upsampling",
                text="The source is known on the coarse mesh alone, and the answer is asked at the "
                "points of the fine one. The transformer's answer is a function of the coordinate, "
                "so it is asked there directly; beside it stands the detour over its answer at the "
                "coarse points and linear interpolation. The last line is a yardstick no model "
                "has: the exact solution at the coarse points, interpolated linearly, so what is "
                "lost by linear interpolation alone.",
                tables=(comparison_table(upsampled),),
                pictures=(
                    Picture(
                        image=plot_comparison(
                            coarse[0],
                            fine[1],
                            {
                                name: answer(model, reading(coarse[0], task), fine[1])
                                for name, (model, task) in asked.items()
                            },
                        ),
                        caption="Read on the coarse mesh, asked on the fine one.",
                    ),
                ),
            ),
            Section(
                title="Training",
                text=f"CST was trained for {runs['CST'].step} steps with the Sobolev loss of order "
                f"{plan.loss.order} (values and gradients) on a new random sampling of every "
                f"solution in every epoch, FNO for {runs['FNO'].step} steps with the loss of its "
                "values on the meshes as they are. "
                + " ".join(
                    f"{name} took {_seconds(run):.0f} s on this machine."
                    for name, run in runs.items()
                )
                + " The benchmark poisson_domains gives both the same time.",
                pictures=tuple(
                    Picture(image=plot_history(run.history), caption=f"Training of {name}.")
                    for name, run in runs.items()
                ),
            ),
            Section(title="Data", tables=(ReportTable(rows=rows),)),
            Section(
                title="Files",
                text="ParaView opens the .vtu files; cst inspect shows what is in each.",
                files={
                    **{words: file.resolve() for words, file in files.items()},
                    "All errors": self.out.resolve() / "comparison.json",
                    "Upsampling": self.out.resolve() / "upsampling.json",
                    "The transformer": self.out.resolve() / "cst",
                    "FNO": self.out.resolve() / "fno",
                },
            ),
        ]
        return write_report(
            self.out / "report.html",
            "A neural operator on meshes it has never seen",
            sections,
            subtitle="cst demo: Continuous Spatiotemporal Transformer and FNO, Poisson's equation",
        )


def _seconds(run: Run) -> float:
    """Time of the training's steps, from its log."""
    spent, before = 0.0, 0
    for record in run.history:
        if "steps_per_second" in record:
            spent += (record["step"] - before) / max(record["steps_per_second"], 1e-9)
            before = record["step"]
    return spent


def _is_past(deadline: float) -> bool:
    return time.monotonic() > deadline


def _fit_config(
    folder: Path,
    model: nn.Module,
    train: TaskDataset,
    loss: SobolevLoss,
    wanted: FitConfig,
    seconds: float,
) -> FitConfig:
    """As many steps as fit into the time, on this machine; those of a run that exists."""
    file = folder / EXPERIMENT_FILE
    if checkpoint.steps(folder) and file.is_file():
        return load_config(file).fit
    trial = copy.deepcopy(model)
    short = replace(
        wanted, warmup=0.0, steps=_TIMED_STEPS, eval_every=10**6, save_every=10**6, log_every=1
    )
    history = fit(trial, train, loss=loss, config=short, progress=False).history
    rates = sorted(record["steps_per_second"] for record in history[1:])
    steps = min(wanted.steps, max(20, int(rates[len(rates) // 2] * seconds)))
    return replace(wanted, steps=steps)
