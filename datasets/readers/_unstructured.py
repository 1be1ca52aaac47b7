"""Meshes of polygons in the plane or in longitude and latitude."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers.sphere import sphere_coordinates
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import cell_weights, node_weights

__all__ = ["centre_field", "node_field", "polygon_cells"]

_KINDS = {3: "triangle", 4: "quad"}


def polygon_cells(
    polygons: Sequence[NDArray[np.integer]], num_nodes: int
) -> dict[str, torch.Tensor]:
    """Triangles and quadrilaterals by kind; larger polygons become fans of triangles."""
    parts: dict[str, list[NDArray[np.integer]]] = {}
    for polygon in polygons:
        if len(polygon) < 3 or polygon.min() < 0 or polygon.max() >= num_nodes:
            raise MeshError(
                f"a face has the nodes {polygon.tolist()[:8]}; expected at least 3 of {num_nodes}, "
                "numbered from 0"
            )
        if len(polygon) in _KINDS:
            parts.setdefault(_KINDS[len(polygon)], []).append(polygon)
        else:
            fan = [polygon[[0, i, i + 1]] for i in range(1, len(polygon) - 1)]
            parts.setdefault("triangle", []).extend(fan)
    return {k: torch.from_numpy(np.stack(p).astype(np.int64)) for k, p in parts.items()}


def _placed(nodes: NDArray[np.floating], sphere: bool) -> torch.Tensor:
    pos = torch.from_numpy(np.array(nodes, dtype=np.float64))
    return sphere_coordinates(pos[:, 0], pos[:, 1]) if sphere else pos


def node_field(
    nodes: NDArray[np.floating], cells: dict[str, torch.Tensor], sphere: bool, dtype: torch.dtype
) -> PointField:
    """Nodes with the weights of their cells, for values at nodes."""
    pos = _placed(nodes, sphere)
    weights = node_weights(pos, cells)
    return PointField(pos.to(dtype), weights=weights.to(dtype), cells=cells)


def centre_field(
    nodes: NDArray[np.floating],
    polygons: Sequence[NDArray[np.integer]],
    sphere: bool,
    dtype: torch.dtype,
) -> PointField:
    """Centres of polygons with their areas as weights, for values that belong to faces."""
    pos = _placed(nodes, sphere)
    polygon_cells(polygons, len(pos))  # refuses nodes out of range
    centres = torch.stack([pos[polygon.astype(np.int64)].mean(dim=0) for polygon in polygons])
    if sphere:
        centres = centres / centres.norm(dim=1, keepdim=True)
    areas = torch.empty(len(polygons), dtype=pos.dtype)
    sizes = np.array([len(polygon) for polygon in polygons])
    for size in np.unique(sizes):
        which = np.flatnonzero(sizes == size)
        corners = np.stack([polygons[i] for i in which.tolist()]).astype(np.int64)
        if size in _KINDS:
            kind = _KINDS[int(size)]
            parts = cell_weights(pos, {kind: torch.from_numpy(corners)})[kind]
        else:
            parts = torch.zeros(len(which), dtype=pos.dtype)
            for i in range(1, int(size) - 1):
                fan = torch.from_numpy(corners[:, [0, i, i + 1]])
                parts = parts + cell_weights(pos, {"triangle": fan})["triangle"]
        areas[torch.from_numpy(which)] = parts
    return PointField(centres.to(dtype), weights=areas.to(dtype))
