"""What tests/test_processes.py starts by torchrun: trainings in the folder that is named."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_samples import (
    CONFIG,
    Balanced,
    Doubles,
    Exact,
    MeanSquare,
    plain_net,
    stop_after,
    train,
)

from cst_operator.errors import InputError
from cst_operator.processes import connect


def main(folder: Path) -> None:
    config = replace(CONFIG, batch_size=6, accumulate=1, num_workers=0)
    kinds: dict[str, dict[str, Any]] = {
        "exact": {"loss": Exact(), "noise": 0.0},
        "drawing": {"loss": MeanSquare(), "noise": 0.1},
        "balanced": {"loss": Balanced(), "noise": 0.0, "balance": 0.5},
    }
    report: dict[str, object] = {}
    processes = connect()
    report["processes"] = [processes.rank, processes.size]
    for name, kind in kinds.items():
        run = train(
            folder / name,
            model=plain_net(kind["noise"]),
            train=Doubles(),
            validation=Doubles(5),
            loss=kind["loss"],
            config=replace(config, balance=kind.get("balance", 0.0)),
        )
        report[name] = [p.flatten().tolist() for p in run.model.parameters()]
        report[f"{name} history"] = run.history
    # Stopped by one process alone, then resumed.
    arguments = {"train": Doubles(), "validation": Doubles(5), "loss": MeanSquare()}
    stop = stop_after(3 if processes.rank == 1 else 99)  # between two records of the log
    model = plain_net(0.1)
    stopped = train(folder / "resumed", model=model, config=config, stop=stop, **arguments)
    report["stopped"] = [stopped.interrupted, stopped.step]
    model = plain_net(0.1)
    run = train(folder / "resumed", model=model, config=config, resume=True, **arguments)
    report["resumed"] = [p.flatten().tolist() for p in run.model.parameters()]
    report["resumed history"] = run.history
    try:
        train(folder / "typo", model=plain_net(), config=config, resume=True, **arguments)
    except InputError as error:
        report["typo"] = str(error)
    (folder / f"report-{processes.rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
