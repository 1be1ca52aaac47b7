"""Vortex shedding behind a cylinder, computed with OpenFOAM on a body-fitted quadrilateral mesh.

Source: at-aaims/DataSiftML (MIT), the crop of the developed wake: 71 frames, 3,944 points, 3,772
quadrilaterals.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets._places import find
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights

__all__ = ["cylinder_wake"]

_FILE = "cylinder_wake_crop.npz"
_KEYS = ("xy", "quads", "time", "velocity", "pressure")


def cylinder_wake(folder: str | Path | None = None) -> Trajectory:
    """Read the cylinder wake.

    The file's ``time`` is a step label, 3000 to 10000 by 100, and the physical step was not
    recorded; times here are the label / 100, so that frames are one unit apart.

    Args:
        folder: where ``cylinder_wake_crop.npz`` is, or the folder of third-party data that holds
            ``cylinder_wake``. By default the environment variable ``CST_DATA``, else
            ``../shared/data`` seen from the working directory, else from the repository.

    Returns:
        Trajectory with channels "u_x", "u_y" and "p", [71, 3944, 3], float64, on a mesh of
        quadrilaterals.

    Raises:
        InputError: if the file is absent or damaged.
    """
    path = find("cylinder_wake", _FILE, folder)
    try:
        with np.load(path, allow_pickle=False) as archive:
            xy, quads, time, velocity, pressure = (archive[key] for key in _KEYS)
        u = np.concatenate([velocity, pressure[..., None]], axis=2).astype(np.float64)
    except Exception as error:  # zip, zlib and numpy each have their own
        raise InputError(f"{path} is damaged ({error}); copy it again") from error
    pos = torch.from_numpy(xy.astype(np.float64))
    cells = {"quad": torch.from_numpy(_around(xy, quads.astype(np.int64)))}
    return Trajectory(
        mesh=PointField(pos=pos, weights=node_weights(pos, cells), cells=cells),
        times=torch.from_numpy(time.astype(np.float64) / 100.0),
        u=torch.from_numpy(u),
        channels=("u_x", "u_y", "p"),
    )


def _around(xy: NDArray[np.floating], quads: NDArray[np.int64]) -> NDArray[np.int64]:
    """The file names the corners of a cell crosswise; put them in counter-clockwise order."""
    corners = xy[quads].astype(np.float64)  # [cells, 4, 2]
    x, y = np.moveaxis(corners - corners.mean(axis=1, keepdims=True), 2, 0)
    return np.take_along_axis(quads, np.argsort(np.arctan2(y, x), axis=1), axis=1)
