"""neuraloperator's ``.pt`` files: a dictionary of inputs ``x`` and outputs ``y`` on one grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from cst_operator.datasets.readers._reading import LazyTrajectories, existing, reading
from cst_operator.datasets.readers.grids import Placement, grid_mesh, uniform_axis
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory

__all__ = ["read_neuraloperator"]


def read_neuraloperator(
    path: str | Path,
    *,
    placement: Placement | None = None,
    box: Sequence[tuple[float, float]] | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a ``.pt`` file of neuraloperator; tensors stay in the file until they are asked for.

    - ``x`` and ``y`` of one shape [n, x, ...] (Darcy, Navier-Stokes): steady solutions ``u`` with
      the static channel ``a``. The files do not say where their samples lie; by default the ends
      of the unit box are included (Darcy), for Navier-Stokes give ``placement="periodic"``.
    - ``y`` with one dimension more, [n, T, x, ...] (Burgers): solutions at T equally spaced times
      from 0 to 1, periodic by default, with ``visc`` as parameter ``viscosity``.
    - a list of dictionaries with ``vertices`` and ``press`` (car surfaces): pressure on vertices,
      with the normals as static channels. The files have the areas and centroids of the
      triangles but not their vertices, so each area is shared by the three vertices nearest to its
      centroid: the sum is the area of the surface.

    Nothing in the file is executed: only tensors and plain containers are accepted.

    Args:
        path: the ``.pt`` file.
        placement: where the samples of a grid lie.
        box: interval of every grid axis; the unit box if omitted.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged, holds code or has another layout.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        content = _load(path)
        if isinstance(content, list) and all(isinstance(item, dict) for item in content):
            return LazyTrajectories(path, _Surfaces(content, dtype), range(len(content)))
        if not isinstance(content, Mapping) or not {"x", "y"} <= set(content):
            found = (
                ", ".join(map(str, content)) if isinstance(content, Mapping) else "no dictionary"
            )
            raise InputError(f"it has {found or 'nothing'}; expected a dictionary with x and y")
        x, y = content["x"], content["y"]
        transient = y.dim() - x.dim()
        if transient not in (0, 1) or len(x) != len(y) or x.shape[1:] != y.shape[1 + transient :]:
            raise InputError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected [n, x, ...] and "
                "[n, x, ...] or [n, T, x, ...]"
            )
        place: Placement = placement or ("periodic" if transient else "ends")
        box = box or [(0.0, 1.0)] * (x.dim() - 1)
        if len(box) != x.dim() - 1:
            raise InputError(f"box has {len(box)} intervals for a grid of {x.dim() - 1} axes")
        axes = [uniform_axis(n, *ends, place) for n, ends in zip(x.shape[1:], box, strict=True)]
        read = _Grids(
            x=x,
            y=y,
            mesh=grid_mesh(axes, place, dtype),
            viscosity=_number(content.get("visc")),
        )
    return LazyTrajectories(path, read, range(len(x)))


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # written by torch before 1.6, which cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


def _number(value: Any) -> float | None:
    return float(value) if torch.is_tensor(value) and value.numel() == 1 else None


@dataclass(frozen=True, kw_only=True)
class _Grids:
    x: Tensor
    y: Tensor
    mesh: PointField
    viscosity: float | None

    def __call__(self, index: int) -> Trajectory:
        pos = self.mesh.pos
        static = self.x[index].reshape(-1, 1).to(pos, copy=True)
        u = self.y[index].reshape(-1, self.mesh.num_points, 1).to(pos, copy=True)
        times = torch.linspace(0, 1, len(u), dtype=pos.dtype) if len(u) > 1 else pos.new_zeros(1)
        parameters = {} if self.viscosity is None else {"viscosity": self.viscosity}
        return Trajectory(
            mesh=self.mesh.with_values(static, ["a"]),
            times=times,
            u=u,
            channels=("u",),
            parameters=parameters,
        )


@dataclass(frozen=True)
class _Surfaces:
    items: list[dict[str, Any]]
    dtype: torch.dtype

    def __call__(self, index: int) -> Trajectory:
        item = self.items[index]
        for name in ("vertices", "press", "centroids", "triangle_areas"):
            if name not in item:
                raise InputError(f"it lacks {name}; expected a surface with its pressure")
        pos = item["vertices"].to(self.dtype, copy=True)
        near = cKDTree(pos.double().numpy()).query(item["centroids"].double().numpy(), k=3)[1]
        areas = item["triangle_areas"].double().numpy().repeat(3) / 3
        weights = np.bincount(near.ravel(), areas, minlength=len(pos))
        if not (weights > 0).all():
            raise InputError("a vertex is near to no triangle; the surface is inconsistent")
        normals = item.get("vertex_normals", pos[:, :0])
        return Trajectory(
            mesh=PointField(
                pos=pos,
                u=normals.to(pos, copy=True),
                weights=torch.from_numpy(weights).to(pos),
                channels=[f"normal_{axis}" for axis in "xyz"[: normals.shape[1]]],
            ),
            times=pos.new_zeros(1),
            u=item["press"].reshape(1, -1, 1).to(pos, copy=True),
            channels=("p",),
        )
