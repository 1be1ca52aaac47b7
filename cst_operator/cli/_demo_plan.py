"""The numbers of ``cst demo``: sizes and times, in full and quick."""

from dataclasses import dataclass, replace

from cst_operator.cst_config import Architecture
from cst_operator.peers import GridFNOConfig
from cst_operator.sobolev import SobolevLoss
from cst_operator.solvers import Poisson, System
from cst_operator.task_config import TaskConfig
from cst_operator.training import FitConfig

__all__ = ["FULL", "QUICK", "TASK", "Plan"]

TASK = TaskConfig(
    kind="steady",
    inputs=("f", "distance"),
    outputs=("u",),
    num_queries=0,
    resample=False,
    boundary=False,
)
"""What FNO reads and is asked; its grid does not follow the mesh."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every number of the demo."""

    system: System
    num_train: int
    num_validation: int
    num_test: int
    model: Architecture
    task: TaskConfig
    """What the transformer is trained on."""
    loss: SobolevLoss
    fit: FitConfig
    seconds: float
    """The transformer trains for about so long: fewer steps on a slower machine."""
    fno: GridFNOConfig
    fno_fit: FitConfig
    fno_seconds: float


FULL = Plan(
    system=Poisson(),
    num_train=600,
    num_validation=16,
    num_test=32,
    model=Architecture(width=64, depth=4),
    task=replace(TASK, resample=True, boundary=True, num_queries=64),
    loss=SobolevLoss(order=1, weights=(1.0, 0.1), num_points=16),
    fit=FitConfig(
        steps=3000,
        batch_size=8,
        lr=3e-3,
        muon_lr=0.015,
        ema=0.99,
        eval_every=250,
        save_every=250,
        log_every=50,
    ),
    seconds=240.0,
    fno=GridFNOConfig(dim=2, in_channels=2, out_channels=1),
    fno_fit=FitConfig(
        steps=1500,
        batch_size=16,
        lr=5e-3,
        ema=0.99,
        eval_every=250,
        save_every=250,
        log_every=50,
    ),
    fno_seconds=100.0,
)
QUICK = Plan(
    system=Poisson(h=0.09),
    num_train=16,
    num_validation=2,
    num_test=2,
    model=Architecture(width=16, depth=1, heads=2, hidden=16, fourier_features=8),
    task=replace(TASK, resample=True, boundary=True, num_queries=12),
    loss=SobolevLoss(order=1, weights=(1.0, 0.1), num_points=8),
    fit=FitConfig(
        steps=20, batch_size=4, lr=2e-3, ema=0.5, eval_every=10, save_every=10, log_every=5
    ),
    seconds=20.0,
    fno=GridFNOConfig(
        dim=2, in_channels=2, out_channels=1, width=4, modes=4, layers=2, resolution=12
    ),
    fno_fit=FitConfig(
        steps=20, batch_size=4, lr=2e-3, ema=0.5, eval_every=10, save_every=10, log_every=5
    ),
    fno_seconds=20.0,
)
