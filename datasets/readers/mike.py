"""MIKE's flexible meshes, ``.dfsu``, through DHI's mikeio (an optional library)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cst_operator.datasets.readers._reading import existing, needs, reading, tensor
from cst_operator.datasets.readers._unstructured import centre_field
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory

__all__ = ["read_dfsu"]


def read_dfsu(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    sphere: bool = False,
    dtype: torch.dtype | None = None,
) -> Trajectory:
    """Read a two-dimensional ``.dfsu`` file (needs the extra ``mike``).

    Values belong to elements, so the points are the centres of the elements and the weights their
    areas, in the units of the coordinates (degrees for longitude and latitude), or on the unit
    sphere. The depth of the bed is the static channel ``bed``; times are seconds from the first
    frame.

    Args:
        path: the file.
        fields: names of items to read; all if omitted.
        sphere: whether longitude and latitude become 3-D coordinates on the unit sphere.
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged or not two-dimensional, has no such item, or
            mikeio is not installed.
        FieldError: if a value is missing, e.g. in elements that fall dry.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    try:
        import mikeio
    except ImportError as error:
        raise needs("mikeio", "mike") from error
    with reading(path):
        if path.suffix.lower() != ".dfsu":
            raise InputError(f"its suffix is {path.suffix!r}; expected .dfsu")
        data: Any = mikeio.read(path)
        geometry = data.geometry
        if type(geometry).__name__ != "GeometryFM2D":
            raise InputError(
                f"it has a {type(geometry).__name__}; only two-dimensional meshes are read, so "
                "extract a layer with mikeio first"
            )
        if sphere and not geometry.is_geo:
            raise InputError(f"its projection is {geometry.projection}; sphere needs LONG/LAT")
        names = [item.name for item in data.items]
        wanted = list(fields or names)
        absent = [name for name in wanted if name not in names]
        if absent:
            raise InputError(f"there is no item {', '.join(absent)}; it has {', '.join(names)}")
        nodes = np.asarray(geometry.node_coordinates, dtype=np.float64)
        elements = [np.asarray(element) for element in geometry.element_table]
        bed = np.array([nodes[element, 2].mean() for element in elements])
        mesh = centre_field(nodes[:, :2], elements, sphere, dtype)
        mesh = mesh.with_values(tensor(bed[:, None], dtype), ["bed"], ["m"])
        seconds = (data.time - data.time[0]).total_seconds().to_numpy()
        u = np.stack([np.atleast_2d(data[name].to_numpy()) for name in wanted], axis=2)
        items = {item.name: item for item in data.items}
        return Trajectory(
            mesh=mesh,
            times=tensor(seconds, torch.float64).to(dtype),
            u=tensor(u, dtype),
            channels=tuple(wanted),
            units=tuple(str(items[name].unit.short_name) for name in wanted),
        )
