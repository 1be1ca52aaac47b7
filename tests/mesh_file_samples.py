"""Fields, series and raw meshes that tests of mesh files share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cst_operator.boundary import boundary_facets
from cst_operator.fields import PointField, Trajectory
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box

meshio = pytest.importorskip("meshio")

__all__ = ["SQUARE", "TWO", "assert_same", "sample", "trajectory", "write"]


def sample(kind: str, *, facets: bool = False) -> PointField:
    pos, cells = box(kind, 4, bend=0.05)
    names = ["p", *(f"U_{axis}" for axis in "xyz"[: pos.shape[1]]), "a b"]
    u = torch.stack([(k * pos).sum(1).sin() for k in range(1, len(names) + 1)], dim=1)
    sides = boundary_facets(cells) if facets else {}
    marks = {k: torch.arange(len(i)) % 3 + 1 for k, i in sides.items()}
    return PointField(
        pos, u, node_weights(pos, cells), channels=names, cells=cells,
        units=["Pa", *["m/s"] * (len(names) - 2), ""],
        facets=sides, facet_markers=marks,
    )  # fmt: skip


def trajectory() -> Trajectory:
    mesh = sample("mixed2").select()
    times = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)
    u = torch.stack([torch.stack([mesh.pos[:, 0] + t, 0 * mesh.pos[:, 1], t - mesh.pos[:, 1]], 1)
                     for t in times])  # fmt: skip
    return Trajectory(mesh=mesh, times=times, u=u, channels=("U_x", "U_y", "p"),
                      units=("m/s", "m/s", "Pa"))  # fmt: skip


def assert_same(a: PointField, b: PointField) -> None:
    assert a.channels == b.channels
    assert a.units == b.units
    for key in ("pos", "u", "weights"):
        torch.testing.assert_close(a[key], b[key], rtol=1e-15, atol=1e-15)
    for key in ("cells", "facets", "facet_markers"):
        assert a.get(key, {}).keys() == b.get(key, {}).keys()
        for kind, index in a.get(key, {}).items():
            assert torch.equal(index, b[key][kind])


def write(path: Path, points: object, cells: list[tuple[str, object]], **options: object) -> Path:
    meshio.Mesh(np.array(points, dtype=float), cells, **options).write(path)
    return path


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
TWO = [("triangle", np.array([[0, 1, 2], [0, 2, 3]]))]
