"""Files that only name others: ``.pvd`` the frames of a series, ``.pvtu`` the pieces of a mesh."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from cst_operator.errors import MeshError

__all__ = ["joined", "pieces", "read_pvd"]

_GHOSTS = "vtkGhostType"  # of a cell, not zero where another piece has the cell as its own


def read_pvd(path: Path) -> tuple[list[float], list[list[Path]]]:
    """Times of a series, and the files of every frame.

    Raises:
        MeshError: if it is no such file, or names what is missing or lies elsewhere.
    """
    times: list[float] = []
    frames: list[list[Path]] = []
    for item in _items(path, "DataSet"):
        try:
            time, name = float(item["timestep"]), item["file"]
        except (KeyError, ValueError) as error:
            raise MeshError(
                "it is not a .pvd file with timestep and file of every frame"
            ) from error
        files = pieces(_beside(path, name, "frame"))
        if times and time == times[-1] and item.get("part", "0") != "0":
            frames[-1] += files
        else:
            times.append(time)
            frames.append(files)
    return times, frames


def pieces(path: Path) -> list[Path]:
    """The files of a mesh: those that a ``.pvtu`` file names, else the file itself.

    Raises:
        MeshError: if a ``.pvtu`` file names no pieces, or some that are missing or lie elsewhere.
    """
    if path.suffix.lower() != ".pvtu":
        return [path]
    files = [
        _beside(path, item["Source"], "piece") for item in _items(path, "Piece") if "Source" in item
    ]
    if not files:
        raise MeshError(f"{path.name} is not a .pvtu file that names pieces; write it again")
    return files


def joined(raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pieces as one mesh: points of several pieces once, cells of the piece that owns them.

    Only data that all pieces have are kept.

    Raises:
        MeshError: if a piece names points that it does not have, or data do not fit.
    """
    if len(raws) == 1:
        return dict(raws[0])
    for raw in raws:
        for kind, index in raw["cells"]:
            if index.size and not (index.min() >= 0 and index.max() < len(raw["points"])):
                raise MeshError(f"cells of type {kind} name points that their piece does not have")
    try:
        return _joined(raws)
    except (IndexError, ValueError) as error:
        raise MeshError(f"its pieces do not fit together ({error}); write them again") from error


def _joined(raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = np.concatenate([raw["points"] for raw in raws])
    _, first, number = np.unique(points, axis=0, return_index=True, return_inverse=True)
    # In the order in which the pieces have them.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    number, first = rank[number.reshape(-1)], first[order]
    cells = []
    cell_data: dict[str, list[Any]] = {name: [] for name in _shared(raws, "cell_data")}
    start = 0
    for raw in raws:
        for block, (kind, index) in enumerate(raw["cells"]):
            ghosts = raw["cell_data"].get(_GHOSTS)
            own = slice(None) if ghosts is None else ghosts[block] == 0
            cells.append((kind, number[start + index[own]]))
            for name, parts in cell_data.items():
                parts.append(raw["cell_data"][name][block][own])
        start += len(raw["points"])
    return {
        "points": points[first],
        "cells": cells,
        "point_data": {
            name: np.concatenate([raw["point_data"][name] for raw in raws])[first]
            for name in _shared(raws, "point_data")
        },
        "cell_data": cell_data,
    }


def _shared(raws: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    return [name for name in raws[0][what] if all(name in raw[what] for raw in raws)]


def _items(path: Path, tag: str) -> list[dict[str, str]]:
    """Attributes of all elements of a name in an XML file."""
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise MeshError(
            f"it declares XML entities, which a {path.suffix} file does not need; remove them"
        )
    try:
        return [dict(item.attrib) for item in ElementTree.fromstring(text).iter(tag)]
    except ElementTree.ParseError as error:
        raise MeshError(
            f"{path.name} is not a {path.suffix} file ({error}); copy it again"
        ) from error


def _beside(path: Path, name: str, what: str) -> Path:
    """A file that another one names, which must lie in its folder or below."""
    file = path.parent / name
    folder = os.path.abspath(path.parent)
    # By its name: what a link points to is the user's own choice.
    if not Path(os.path.abspath(file)).is_relative_to(folder):
        raise MeshError(f"{what} {name!r} lies outside of its folder; move it below")
    if not file.is_file():
        raise MeshError(f"{what} {name!r} is missing; restore it or remove its entry")
    return file
