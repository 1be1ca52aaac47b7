"""Two-dimensional spirals that solve integral equations, from the experiments of the CST paper.

Source: vandijklab/CST (MIT): 500 spirals at 100 times.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cst_operator.datasets._places import find
from cst_operator.datasets.readers.numpy_files import read_numpy
from cst_operator.fields import Trajectory

__all__ = ["ide_spirals"]

_FILE = "spirals_500x100x2.npz"


def ide_spirals(folder: str | Path | None = None) -> Sequence[Trajectory]:
    """Read the spirals: functions of time alone, given at one point of weight 1.

    The file has no times; here they are equally spaced from 0 to 1.

    Args:
        folder: where the file is, or the folder of third-party data that holds ``ide_spirals``;
            found as by :func:`~cst_operator.datasets.cylinder_wake.cylinder_wake` if omitted.

    Returns:
        500 trajectories with channels "x" and "y", [100, 1, 2], float64.

    Raises:
        InputError: if the file is absent or damaged.
    """
    return read_numpy(
        find("ide_spirals", _FILE, folder),
        "ntc",
        u="data",
        times=np.linspace(0.0, 1.0, 100),
        channels=("x", "y"),
        dtype=torch.float64,
    )
