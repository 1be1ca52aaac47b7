"""Displacements of an elastic block for 500 choices of stiffnesses and loads.

Source: smithers 0.0.1 (MIT): linear elasticity on one mesh of 2,560 triangles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets._places import find
from cst_operator.datasets.readers._reading import LazyTrajectories, reading, tensor
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights

__all__ = ["elastic_block"]

_NAMES = ("coords", "triangles", "params", "snapshots")


def elastic_block(folder: str | Path | None = None) -> Sequence[Trajectory]:
    """Read the elastic block; solutions are read when they are asked for.

    The orientation of the triangles is mixed, as in the files; integrals ignore it.

    Args:
        folder: where the files are, or the folder of third-party data that holds
            ``elastic_block``; found as by
            :func:`~cst_operator.datasets.cylinder_wake.cylinder_wake` if omitted.

    Returns:
        500 steady trajectories with channels "u_x" and "u_y", [1, 1346, 2], float64, and
        parameters "mu_0" to "mu_10": the first eight, stiffnesses, between 1 and 100, the last
        three, loads, between -1 and 1.

    Raises:
        InputError: if a file is absent or damaged.
    """
    paths = {n: find("elastic_block", f"{n}.npy", folder) for n in _NAMES}
    arrays = {}
    for name, path in paths.items():
        with reading(path):
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    path = paths["snapshots"]
    with reading(path):
        pos = tensor(arrays["coords"].T, torch.float64)
        cells = {"triangle": torch.from_numpy(arrays["triangles"].astype(np.int64))}
        snapshots, parameters = arrays["snapshots"], arrays["params"]
        if snapshots.shape != (len(parameters), 2 * len(pos)):
            raise InputError(
                f"it has shape {snapshots.shape}; expected {(len(parameters), 2 * len(pos))}"
            )
        mesh = PointField(pos, weights=node_weights(pos, cells), cells=cells)
        read = _Reader(mesh=mesh, snapshots=snapshots, parameters=np.array(parameters))
    return LazyTrajectories(path, read, range(len(snapshots)))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    mesh: PointField
    snapshots: NDArray[np.floating]
    parameters: NDArray[np.floating]

    def __call__(self, index: int) -> Trajectory:
        # A snapshot holds all first components, then all second ones.
        u = tensor(self.snapshots[index].reshape(2, -1).T, torch.float64)
        named = {f"mu_{i}": float(value) for i, value in enumerate(self.parameters[index])}
        return Trajectory(
            mesh=self.mesh,
            times=torch.zeros(1, dtype=torch.float64),
            u=u[None],
            channels=("u_x", "u_y"),
            parameters=named,
        )
