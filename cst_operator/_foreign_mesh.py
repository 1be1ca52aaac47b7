"""Meshes of foreign files, read by meshio in a child process and checked, as fields."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cst_operator import _mesh_reader
from cst_operator._cells import cell_dim, same_vertices
from cst_operator._labels import split_labels
from cst_operator._mesh_defects import repeated
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import cell_weights, node_weights

__all__ = ["REMEDY", "cell_fields", "read_foreign", "same_mesh", "spatial_vectors", "to_field"]

REMEDY = "check the file with the program that wrote it, or convert it to .vtu"
# Bookkeeping of file formats, which is not a field.
_POINT_TAGS = {"gmsh:dim_tags", "point_tags", "medit:ref", "avsucd:ref"}
_VTK_TAGS = {"vtkGhostType", "vtkOriginalPointIds", "vtkOriginalCellIds"}
# Where formats keep the number of a boundary, the first that is present counts.
_MARKERS = ("gmsh:physical", "cell_tags", "medit:ref", "su2:tag", "gmsh:geometrical")
# Second-order cells as linear ones through all of their nodes.
_LINEAR: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {
    "line3": ("line", ((0, 2), (2, 1))),
    "triangle6": ("triangle", ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5))),
    "quad9": ("quad", ((0, 4, 8, 7), (4, 1, 5, 8), (8, 5, 2, 6), (7, 8, 6, 3))),
    "tetra10": (
        "tetra",
        (
            (0, 4, 6, 7),
            (4, 1, 5, 8),
            (6, 5, 2, 9),
            (7, 8, 9, 3),
            (4, 9, 6, 5),
            (4, 9, 7, 6),
            (4, 9, 8, 7),
            (4, 9, 5, 8),
        ),
    ),
}


def read_foreign(
    files: Sequence[Path], mode: str, timeout: float, memory: int
) -> list[dict[str, Any]]:
    """Meshes as meshio reads them, each with points, cells, point_data and cell_data."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "mesh.npz"
        # -P keeps this folder off the child's path, where our module names would shadow others.
        command = [sys.executable, "-P", _mesh_reader.__file__, str(out), str(memory), mode]
        command += [str(file.absolute()) for file in files]  # a link's target may have no suffix
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
                # Threads of a numerical library would use up the address space.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired:
            raise MeshError(
                f"reading took longer than {timeout:g} s and was stopped; "
                "the file is damaged, or give a larger timeout"
            ) from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines and done.returncode == 3 else "the reader crashed"
            raise MeshError(f"cannot be read: {reason}; {REMEDY}")
        with np.load(out, allow_pickle=False) as stored:
            arrays = dict(stored)
    frames: list[dict[str, Any]] = json.loads(str(arrays["index"]))
    for raw in frames:
        raw["points"] = arrays[raw["points"]]
        raw["cells"] = [(kind, arrays[key]) for kind, key in raw["cells"]]
        raw["point_data"] = {name: arrays[key] for name, key in raw["point_data"].items()}
        raw["cell_data"] = {
            name: [arrays[key] for key in parts] for name, parts in raw["cell_data"].items()
        }
    return frames


def same_mesh(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return (
        np.array_equal(a["points"], b["points"])
        and len(a["cells"]) == len(b["cells"])
        and all(
            s == t and np.array_equal(i, j)
            for (s, i), (t, j) in zip(a["cells"], b["cells"], strict=True)
        )
    )


def cell_fields(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the cell data, which are read only if they are named, without formats' own tags."""
    tags = {*_MARKERS, *_VTK_TAGS}
    return tuple(name for name in raw["cell_data"] if name not in tags and ":" not in name)


def spatial_vectors(raws: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of vectors whose third component is not zero in every frame."""
    return {
        name
        for raw in raws
        for name, array in [
            *raw["point_data"].items(),
            *((name, part) for name, parts in raw["cell_data"].items() for part in parts),
        ]
        if array.ndim == 2 and array.shape[1] == 3 and array[:, 2].any()
    }


def to_field(
    raw: Mapping[str, Any],
    fields: Sequence[str] | None,
    dtype: torch.dtype,
    weights: bool,
    spatial: Collection[str] = (),
) -> PointField:
    """A field of what meshio read.

    Args:
        raw: the mesh.
        fields: as in :func:`~cst_operator.mesh_files.read_mesh`.
        dtype: of coordinates and channels.
        weights: whether to make weights.
        spatial: vectors that keep a third component even if it is zero, as other frames need it.
    """
    labels = split_labels(raw["point_data"])
    raw = {**raw, "point_data": {labels[k][0]: a for k, a in raw["point_data"].items()}}
    fields = None if fields is None else [labels.get(name, (name, ""))[0] for name in fields]
    spatial = {labels.get(name, (name, ""))[0] for name in spatial}
    points = raw["points"]
    if points.ndim != 2 or not len(points) or points.shape[1] not in (1, 2, 3):
        raise MeshError(f"it has points of shape {points.shape}, expected [N, 1..3]; {REMEDY}")
    if not np.isfinite(points).all():
        first = int((~np.isfinite(points)).any(axis=1).argmax())
        raise MeshError(f"the coordinates of point {first} are not finite; {REMEDY}")
    blocks, data = _linear_blocks(raw, len(points))
    top = max((cell_dim(kind) for kind, _ in blocks), default=0)
    cells = _joined(blocks, top) if top else {}
    facets = _joined(blocks, top - 1) if top > 1 else {}
    # Before anything is rounded to the wanted precision.
    pos = torch.from_numpy(points[:, : _used_dimensions(points, max(top, 1))])
    markers: dict[str, Tensor] = {}
    name = next((m for m in _MARKERS if m in data), None)
    if facets and name:
        tags = _joined([(k, a) for (k, _), a in zip(blocks, data[name], strict=True)], top - 1)
        markers = {kind: tag.reshape(len(tag), -1)[:, 0].long() for kind, tag in tags.items()}
    channels = _channels(raw, fields, pos, cells, blocks, data, top, spatial)
    units = {
        channel: unit
        for name, unit in labels.values()
        for channel in _components(name, raw["point_data"][name], pos.shape[1], spatial)
    }
    u = np.column_stack(list(channels.values())) if channels else np.empty((len(points), 0))
    if cells:
        used = torch.cat([index.flatten() for index in cells.values()]).unique()
        number = torch.full((len(points),), -1)
        number[used] = torch.arange(len(used))
        pos, u = pos[used], u[used.numpy()]
        cells = {kind: number[index] for kind, index in cells.items()}
        facets = {kind: number[index] for kind, index in facets.items()}
        kept = {kind: (index >= 0).all(dim=1) for kind, index in facets.items()}
        facets = {kind: index[kept[kind]] for kind, index in facets.items()}
        markers = {kind: mark[kept[kind]] for kind, mark in markers.items()}
    field_weights = None
    if cells and weights:
        field_weights = node_weights(pos, cells).to(dtype)
        _refuse_repeated(cells)
    return PointField(
        pos=pos.to(dtype),
        u=torch.from_numpy(np.asarray(u, dtype=np.float64)).to(dtype),
        weights=field_weights,
        channels=tuple(channels),
        units=tuple(units.get(channel, "") for channel in channels),
        cells=cells,
        facets=facets,
        facet_markers=markers,
    )


def _refuse_repeated(cells: Mapping[str, Tensor]) -> None:
    for kind, index in cells.items():
        again = repeated(same_vertices(index)).nonzero().flatten()
        if len(again):
            first = int(again[0])
            raise MeshError(
                f"{len(again)} cells of type {kind} have the points of an earlier one, so that "
                f"integrals would count them twice; the first is number {first} with points "
                f"{index[first].tolist()}; cst inspect --repair or repair_mesh drops them"
            )


def _linear_blocks(
    raw: Mapping[str, Any], num_points: int
) -> tuple[list[tuple[str, np.ndarray]], dict[str, list[np.ndarray]]]:
    """Non-empty blocks of linear cells, and cell data block by block; vertex cells left out."""
    blocks: list[tuple[str, np.ndarray]] = []
    kept: list[tuple[int, int]] = []
    for number, (kind, index) in enumerate(raw["cells"]):
        if kind == "vertex" or not len(index):
            continue
        if index.min() < 0 or index.max() >= num_points:
            bad = index.max() if index.max() >= num_points else index.min()
            raise MeshError(
                f"a cell of type {kind} names point {bad} but there are {num_points} points, "
                f"numbered from 0; {REMEDY}"
            )
        repeat = 1
        if kind in _LINEAR:
            kind, parts = _LINEAR[kind]
            repeat = len(parts)
            index = index[:, np.array(parts)].reshape(-1, len(parts[0]))
        cell_dim(kind)
        blocks.append((kind, index))
        kept.append((number, repeat))
    data = {}
    for name, parts in raw["cell_data"].items():
        if len(parts) != len(raw["cells"]):
            raise MeshError(f"cell data {name!r} does not fit the cells; {REMEDY}")
        data[name] = [parts[number].repeat(repeat, axis=0) for number, repeat in kept]
        if any(len(p) != len(i) for p, (_, i) in zip(data[name], blocks, strict=True)):
            raise MeshError(f"cell data {name!r} does not fit the cells; {REMEDY}")
    return blocks, data


def _joined(blocks: list[tuple[str, np.ndarray]], dim: int) -> dict[str, Tensor]:
    """Cells of one dimension, or what belongs to each of them, by their kind."""
    kinds = dict.fromkeys(kind for kind, _ in blocks if cell_dim(kind) == dim)
    return {
        kind: torch.from_numpy(np.concatenate([index for k, index in blocks if k == kind]))
        for kind in kinds
    }


def _used_dimensions(points: np.ndarray, least: int) -> int:
    """Number of coordinates up to the last that varies, at least that of the cells."""
    if points.shape[1] < least:
        raise MeshError(f"{least}-dimensional cells but {points.shape[1]} coordinates; {REMEDY}")
    extent = np.ptp(points, axis=0)
    d = points.shape[1]
    while d > least and extent[d - 1] <= 1e-12 * extent.max():
        d -= 1
    return d


def _channels(
    raw: Mapping[str, Any],
    fields: Sequence[str] | None,
    pos: Tensor,
    cells: Mapping[str, Tensor],
    blocks: list[tuple[str, np.ndarray]],
    cell_data: Mapping[str, list[np.ndarray]],
    top: int,
    spatial: Collection[str],
) -> dict[str, np.ndarray]:
    """Columns by channel name, each [N]."""
    dim = pos.shape[1]
    columns = {name: _components(name, a, dim, spatial) for name, a in raw["point_data"].items()}
    for name, array in raw["point_data"].items():
        if len(array) != len(pos):
            raise MeshError(f"field {name!r} has {len(array)} rows for {len(pos)} points; {REMEDY}")
    if fields is None:
        fields = [name for name in columns if name not in _POINT_TAGS | _VTK_TAGS]
    single = {key: a for parts in columns.values() for key, a in parts.items()}
    chosen: dict[str, np.ndarray] = {}
    for name in fields:
        if name in columns:
            found = columns[name]
        elif name in single:
            found = {name: single[name]}
        elif name in cell_data and top:
            parts = zip(blocks, cell_data[name], strict=True)
            by_kind: dict[str, list[np.ndarray]] = {}
            for (kind, _), part in parts:
                if cell_dim(kind) == top:
                    by_kind.setdefault(kind, []).append(part.reshape(len(part), -1))
            at_cells = {kind: np.concatenate(parts) for kind, parts in by_kind.items()}
            found = _components(name, _to_vertices(pos, cells, at_cells), dim, spatial)
        else:
            there = ", ".join(columns) or "none"
            raise MeshError(
                f"there is no field {name!r}; it has the point fields {there} "
                f"and the cell fields {', '.join(cell_data) or 'none'}"
            )
        for key, array in found.items():
            if key in chosen:
                raise MeshError(f"two fields give the channel {key!r}; choose one with fields")
            chosen[key] = array
    return chosen


def _components(
    name: str, array: np.ndarray, dim: int, spatial: Collection[str]
) -> dict[str, np.ndarray]:
    flat = array.reshape(len(array), -1)
    size = flat.shape[1]
    if size == 1:
        return {name: flat[:, 0]}
    if size == 3 and dim < 3 and name not in spatial and not flat[:, 2].any():
        size = 2
    endings = "xyz"[:size] if size in (2, 3) else range(size)
    return {f"{name}_{ending}": flat[:, i] for i, ending in enumerate(endings)}


def _to_vertices(
    pos: Tensor, cells: Mapping[str, Tensor], at_cells: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Mean of cell values around every vertex, weighted by volume, [N, c]."""
    volumes = cell_weights(pos, cells)
    total = pos.new_zeros(len(pos))
    mean = pos.new_zeros(len(pos), next(iter(at_cells.values())).shape[1])
    for kind, index in cells.items():
        values = torch.from_numpy(at_cells[kind]).to(pos) * volumes[kind][:, None]
        for corner in index.unbind(dim=1):
            total.index_add_(0, corner, volumes[kind])
            mean.index_add_(0, corner, values)
    return (mean / total.clamp_min(torch.finfo(pos.dtype).tiny)[:, None]).numpy()
