"""Points, weights and cells of rectangular grids, and arrays on them as frames."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.errors import InputError
from cst_operator.fields import PointField

__all__ = ["Placement", "axis_weights", "frames_of", "grid_cells", "grid_mesh", "uniform_axis"]

Placement = Literal["ends", "cells", "periodic"]
"""Where the samples of an axis lie: ``"ends"`` from one end of the domain to the other, both
included (trapezoidal weights); ``"cells"`` in the middle of equal cells; ``"periodic"`` from one
end to one step before the other. In the latter two every sample has a whole step as its weight."""

_SPACE = "xyz"


def uniform_axis(
    num_points: int, lower: float, upper: float, placement: Placement
) -> NDArray[np.float64]:
    """Coordinates of equally spaced samples of an interval, [n]."""
    number = np.arange(num_points, dtype=np.float64)
    if placement == "ends":
        return lower + number * ((upper - lower) / max(num_points - 1, 1))
    if placement == "cells":
        number += 0.5
    return lower + number * ((upper - lower) / num_points)


def axis_weights(x: NDArray[np.floating], placement: Placement) -> NDArray[np.float64]:
    """Quadrature weights of samples along one axis, [n]; one sample has weight 1.

    Raises:
        InputError: if the coordinates neither rise nor fall throughout, or the placement is
            unknown.
    """
    if placement not in ("ends", "cells", "periodic"):
        raise InputError(f"placement is {placement!r}; expected 'ends', 'cells' or 'periodic'")
    if len(x) == 1:
        return np.ones(1)
    step = np.diff(np.asarray(x, dtype=np.float64))
    if not (bool((step > 0).all()) or bool((step < 0).all())):
        raise InputError("the coordinates of a grid axis do not rise or fall throughout; sort them")
    half = np.abs(step) / 2
    if placement == "ends":
        return np.concatenate([half[:1], half[1:] + half[:-1], half[-1:]])
    return np.concatenate([half[:1] * 2, half[1:] + half[:-1], half[-1:] * 2])


def grid_mesh(
    axes: Sequence[NDArray[np.floating]],
    placement: Placement | Sequence[Placement],
    dtype: torch.dtype,
) -> PointField:
    """The points of a grid with weights and cells, the last axis running fastest.

    Args:
        axes: coordinates along every axis, d arrays.
        placement: of every axis, or one for all.
        dtype: of coordinates and weights.

    Returns:
        N = n_1 ... n_d points; lines, quadrilaterals or hexahedra between neighbours.

    Raises:
        InputError: as :func:`axis_weights`.
    """
    places = [placement] * len(axes) if isinstance(placement, str) else list(placement)
    if len(places) != len(axes):
        raise InputError(f"{len(places)} placements for a grid of {len(axes)} axes; give one each")
    weights = np.ones(())
    for x, place in zip(axes, places, strict=True):
        weights = np.multiply.outer(weights, axis_weights(x, place))
    pos = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    shape = [len(x) for x in axes]
    return PointField(
        pos=torch.from_numpy(pos.astype(np.float64)).to(dtype),
        weights=torch.from_numpy(weights.ravel()).to(dtype),
        cells=grid_cells(shape),
    )


def grid_cells(shape: Sequence[int]) -> dict[str, torch.Tensor]:
    """Lines, quadrilaterals or hexahedra between the neighbours of a grid, by meshio's cell type.

    None where an axis has one point, and none in more than three dimensions.
    """
    if min(shape) < 2 or len(shape) > 3:
        return {}
    number = np.arange(np.prod(shape)).reshape(shape)
    low, high = slice(None, -1), slice(1, None)
    corners: list[tuple[slice, ...]]
    if len(shape) == 1:
        kind, corners = "line", [(low,), (high,)]
    else:
        square = [(low, low), (high, low), (high, high), (low, high)]
        kind, corners = "quad", list(square)
        if len(shape) == 3:
            kind = "hexahedron"
            corners = [(*at, side) for side in (low, high) for at in square]
    index = np.stack([number[at].ravel() for at in corners], axis=1)
    return {kind: torch.from_numpy(index)}


def frames_of(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """An array as frames, [T, N, c], its points in the order of :func:`grid_mesh`.

    Args:
        array: samples of one trajectory.
        axes: a letter for every dimension: ``t`` time, ``x``, ``y``, ``z`` the axes of a grid or
            ``p`` points, ``c`` channels. What is missing has length one.

    Raises:
        InputError: if the letters do not fit the array.
    """
    space = [letter for letter in _SPACE if letter in axes] or ["p"]
    known = len(set(axes)) == len(axes) and set(axes) <= {"t", "c", "p", *_SPACE}
    if not known or len(axes) != array.ndim or ("p" in axes and space != ["p"]):
        raise InputError(
            f"axes {axes!r} do not describe an array of shape {array.shape}; give one letter for "
            "every dimension: t time, x y z grid axes or p points, c channels"
        )
    order = [letter for letter in ("t", *space, "c") if letter in axes]
    array = array.transpose([axes.index(letter) for letter in order])
    num_times = array.shape[0] if "t" in axes else 1
    num_channels = array.shape[-1] if "c" in axes else 1
    return array.reshape(num_times, -1, num_channels)
