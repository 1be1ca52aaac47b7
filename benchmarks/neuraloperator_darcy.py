"""Neuraloperator's FNO on its own small Darcy flow, trained in this library's loop.

The network (340,833 parameters), the data, the loss (its ``H1Loss``), 20 epochs of batches of 32,
AdamW with its learning rate and weight decay are those of neuraloperator's example
``plot_FNO_darcy.py`` as of version 2.0. ``fno`` is trained in this library's loop, with half a
cosine down to the learning rate at which the example stops, ``fno_trainer`` by neuraloperator's own
Trainer with the example's schedule. Both take the samples in a new random order in every epoch,
which the example does not, train at 16 points a side and are tested at 16 and at 32.
``relative_h1`` is neuraloperator's ``H1Loss``, across the ends of the grid.

    OMP_NUM_THREADS=1 python -m benchmarks.neuraloperator_darcy [--seeds 3] [--quick]

The data are the files ``darcy_*.pt`` of neuraloperator, in the folder ``neuraloperator_small`` of
the third-party data.
"""

import argparse
import dataclasses
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

import neuralop.models
import torch
from neuralop.data.datasets import DarcyDataset
from neuralop.losses import H1Loss, LpLoss
from neuralop.training import AdamW, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import cst_operator as cst
from cst_operator.comparison import benchmark_record, benchmark_row
from cst_operator.interop import GridExamples, GridLoss, GridOperator, GridOperatorConfig

HERE = Path(__file__).parent
FNO = GridOperatorConfig(
    architecture="fno",
    dim=2,
    in_channels=1,
    out_channels=1,
    arguments={"n_modes": [8, 8], "hidden_channels": 32, "projection_channel_ratio": 2},
    out_names=("u",),
)
EPOCHS, BATCH = 20, 32
FIT = cst.FitConfig(
    batch_size=BATCH,
    lr=8e-3,
    weight_decay=1e-4,
    warmup=0.0,
    floor=0.25,
    clip=0.0,
    ema=0.0,
)


def data(folder: str | Path | None = None) -> DarcyDataset:
    """Neuraloperator's data set, of the files in a folder of third-party data."""
    beside = HERE.parents[1] / "shared" / "data"
    root = Path(folder or os.environ.get("CST_DATA", beside)) / "neuraloperator_small"
    if not root.is_dir():
        raise cst.InputError(f"there is no folder {root}; name the third-party data with --data")
    return DarcyDataset(
        root_dir=root,
        n_train=1000,
        n_tests=[50, 50],
        batch_size=BATCH,
        test_batch_sizes=[50, 50],
        train_resolution=16,
        test_resolutions=[16, 32],
        download=False,
    )


def examples(samples: Dataset[dict[str, Tensor]]) -> list[cst.Example]:
    """A part of it as examples of this library."""
    found = GridExamples(samples, in_names=("a",), out_names=("u",))  # type: ignore[arg-type]
    return [found[i] for i in range(len(found))]


def relative_h1(prediction: Tensor, target: cst.PointField) -> Tensor:
    """Neuraloperator's ``H1Loss(d=2)``, [1]."""
    n = math.isqrt(len(prediction))
    grids = (u.to(torch.float64).view(1, 1, n, n) for u in (prediction, target.u))
    return H1Loss(d=2)(*grids)[None]


def train_here(darcy: DarcyDataset, epochs: int, seed: int) -> dict[str, dict[str, float]]:
    """Errors by split after training in this library's loop."""
    torch.manual_seed(seed)
    model = GridOperator(FNO)
    train = examples(darcy.train_db)
    # The last batch of an epoch would be smaller; these are as many whole batches.
    config = dataclasses.replace(FIT, steps=round(epochs * len(train) / BATCH), seed=seed)
    cst.fit(model, train, loss=GridLoss(H1Loss(d=2)), config=config)
    errors = {}
    for n, samples in darcy.test_dbs.items():
        scores = cst.evaluate(model, examples(samples), metrics=(cst.relative_l2, relative_h1))
        errors[f"test_{n}"] = {name: scores.mean(name) for name in scores.per_sample}
    return errors


def train_there(darcy: DarcyDataset, epochs: int, seed: int) -> dict[str, dict[str, float]]:
    """Errors by split after training by neuraloperator's Trainer."""
    torch.manual_seed(seed)
    model = neuralop.models.FNO(in_channels=1, out_channels=1, **FNO.arguments)
    optimizer = AdamW(model.parameters(), lr=FIT.lr, weight_decay=FIT.weight_decay)
    trainer = Trainer(model=model, n_epochs=epochs, data_processor=darcy.data_processor)
    losses = {"relative_l2": LpLoss(d=2), "relative_h1": H1Loss(d=2)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*unexpected keyword")
        trainer.train(
            DataLoader(darcy.train_db, batch_size=BATCH, shuffle=True),
            {},
            optimizer,
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30),
            training_loss=H1Loss(d=2),
        )
        errors = {}
        for n, samples in darcy.test_dbs.items():
            found = trainer.evaluate(losses, DataLoader(samples, batch_size=50))
            errors[f"test_{n}"] = {name[1:]: float(value) for name, value in found.items()}
    return errors


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings of each")
    parser.add_argument("--quick", action="store_true", help="one epoch, recorded apart")
    parser.add_argument("--data", type=Path, help="folder of third-party data")
    options = parser.parse_args()
    console = Console()
    darcy = data(options.data)
    epochs, seeds = (1, 1) if options.quick else (EPOCHS, options.seeds)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for name, train in (("fno", train_here), ("fno_trainer", train_there)):
            console.print(f"training {name}, seed {seed}")
            begin = time.process_time()
            errors = train(darcy, epochs, seed)
            spent = time.process_time() - begin
            found = [(split, m, v, "") for split, by in errors.items() for m, v in by.items()]
            for entry in (*found, ("train", "cpu_time", spent, "s")):
                rows.append(benchmark_row(name, *entry, seed))
    console.print(table(rows))
    record = benchmark_record(
        "neuraloperator_darcy",
        rows,
        data="neuraloperator's small Darcy flow: 1,000 solutions at 16 x 16 to train on, 50 at "
        "16 x 16 and 50 at 32 x 32 to test on",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
        models={"fno": dataclasses.asdict(FNO)},
        training={**dataclasses.asdict(FIT), "epochs": epochs},
    )
    console.print(f"record: {record}", soft_wrap=True)


def table(rows: list[dict[str, Any]]) -> Table:
    """One row for every training and split."""
    shown = Table(title="neuraloperator's FNO on its small Darcy flow")
    metrics = ("relative_l2", "relative_h1")
    for column in ("model", "seed", "split", *metrics):
        shown.add_column(column)
    found = {(r["model"], r["seed"], r["split"], r["metric"]): r["value"] for r in rows}
    for model, seed, split, metric in found:
        if metric == metrics[0]:
            values = (f"{found[model, seed, split, m]:.4f}" for m in metrics)
            shown.add_row(model, str(seed), split, *values)
    return shown


if __name__ == "__main__":
    main()
