"""Neuraloperator's FNO on its own small Darcy flow, trained in this library's loop.

The network (340,833 parameters), the data, the loss (its ``H1Loss``), 20 epochs of batches of 32,
AdamW with its learning rate and weight decay are those of neuraloperator's example
``plot_FNO_darcy.py`` as of version 2.0; the loop, the schedule (half a cosine down to the rate at
which the example stops) and the norms that score are this library's. With neuraloperator's own
Trainer, seeds 0, 1 and 2 give a relative L2 error of .0993, .1013 and .0983 at 16 points a side,
and .1275, .1246 and .1233 at 32, which no model saw in training. ``relative_h1`` is
neuraloperator's ``H1Loss``, across the ends of the grid; its Trainer gives .180, .182 and .177 at
16, .325, .324 and .324 at 32.

    OMP_NUM_THREADS=1 python -m benchmarks.neuraloperator_darcy [--seeds 3] [--quick]

The data are the files ``darcy_*.pt`` of neuraloperator, in the folder ``neuraloperator_small`` of
the third-party data.
"""

import argparse
import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from neuralop.data.datasets import DarcyDataset
from neuralop.losses import H1Loss
from rich.console import Console
from torch import Tensor

import cst_operator as cst
from cst_operator.comparison import benchmark_record, num_parameters
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


def data(folder: str | Path | None = None, num_train: int = 1000) -> dict[str, list[cst.Example]]:
    """The examples of training, and of tests at 16 and 32 points a side."""
    beside = HERE.parents[1] / "shared" / "data"
    root = Path(folder or os.environ.get("CST_DATA", beside)) / "neuraloperator_small"
    if not root.is_dir():
        raise cst.InputError(f"there is no folder {root}; name the third-party data with --data")
    darcy = DarcyDataset(
        root_dir=root,
        n_train=num_train,
        n_tests=[50, 50],
        batch_size=BATCH,
        test_batch_sizes=[50, 50],
        train_resolution=16,
        test_resolutions=[16, 32],
        download=False,
    )
    sets = {"train": darcy.train_db, **{f"test_{n}": db for n, db in darcy.test_dbs.items()}}
    found = {}
    for name, samples in sets.items():
        examples = GridExamples(samples, in_names=("a",), out_names=("u",))
        found[name] = [examples[i] for i in range(len(examples))]
    return found


def relative_h1(prediction: Tensor, target: cst.PointField) -> Tensor:
    """Neuraloperator's ``H1Loss(d=2)``, [1]."""
    n = math.isqrt(len(prediction))
    grids = (u.to(torch.float64).view(1, 1, n, n) for u in (prediction, target.u))
    return H1Loss(d=2)(*grids)[None]


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings")
    parser.add_argument("--quick", action="store_true", help="one epoch, recorded apart")
    parser.add_argument("--data", type=Path, help="folder of third-party data")
    options = parser.parse_args()
    console = Console()
    examples = data(options.data)
    train = examples.pop("train")
    epochs, seeds = (1, 1) if options.quick else (EPOCHS, options.seeds)
    # The last batch of an epoch would be smaller; 20 epochs are as many whole batches.
    config = dataclasses.replace(FIT, steps=round(epochs * len(train) / BATCH))
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = GridOperator(FNO)
        console.print(f"training FNO, {num_parameters(model):,} parameters, seed {seed}")
        begin = time.process_time()
        cst.fit(
            model,
            train,
            loss=GridLoss(H1Loss(d=2)),
            config=dataclasses.replace(config, seed=seed),
        )
        spent = time.process_time() - begin
        for split, tests in examples.items():
            scores = cst.evaluate(model, tests, metrics=(cst.relative_l2, relative_h1))
            console.print(scores.table(f"{split}, seed {seed}"))
            rows += scores.rows(model="fno", split=split, seed=seed)
        row = {"model": "fno", "split": "train", "metric": "cpu_time", "value": spent, "unit": "s"}
        rows.append({**row, "seed": seed})
    record = benchmark_record(
        "neuraloperator_darcy",
        rows,
        data="neuraloperator's small Darcy flow: 1,000 solutions at 16 x 16 to train on, 50 at "
        "16 x 16 and 50 at 32 x 32 to test on",
        folder=HERE / "results" / ("quick" if options.quick else ""),
        threads=torch.get_num_threads(),
        models={"fno": dataclasses.asdict(FNO)},
        training=dataclasses.asdict(config),
    )
    console.print(f"record: {record}", soft_wrap=True)


if __name__ == "__main__":
    main()
