"""The storm surge of 27-29 October 2017 in the North Sea, computed with MIKE 21.

Source: DHI's mikeio and modelskill (BSD-3 and MIT): surface elevation and wind speed every hour on
a mesh of 958 triangles in longitude and latitude.
"""

from pathlib import Path

import torch

from cst_operator.datasets._places import find
from cst_operator.datasets.readers._reading import reading, tensor
from cst_operator.datasets.readers._unstructured import centre_field
from cst_operator.datasets.readers.numpy_files import read_arrays
from cst_operator.fields import Trajectory

__all__ = ["north_sea_surge"]

_FILE = "northsea_surge.npz"


def north_sea_surge(folder: str | Path | None = None, *, sphere: bool = False) -> Trajectory:
    """Read the surge; values belong to elements, whose centres are the points.

    Args:
        folder: where the file is, or the folder of third-party data that holds
            ``north_sea_surge``; found as by
            :func:`~cst_operator.datasets.cylinder_wake.cylinder_wake` if omitted.
        sphere: whether longitude and latitude become 3-D coordinates on the unit sphere.

    Returns:
        Trajectory with channels "Surface elevation" in m and "Wind speed" in m/s, [67, 958, 2],
        float64, times in hours; weights are the areas of the elements (in square degrees, or on
        the unit sphere), and the depth of the bed, "bed", is static.

    Raises:
        InputError: if the file is absent or damaged.
    """
    path = find("north_sea_surge", _FILE, folder)
    arrays = read_arrays(path, ["node_xyz", "elements", "elem_center", "time_hours", "values"])
    with reading(path):
        nodes = arrays["node_xyz"]
        mesh = centre_field(nodes[:, :2], list(arrays["elements"]), sphere, torch.float64)
        bed = tensor(arrays["elem_center"][:, 2:], torch.float64)
        return Trajectory(
            mesh=mesh.with_values(bed, ["bed"], ["m"]),
            times=tensor(arrays["time_hours"], torch.float64),
            u=tensor(arrays["values"], torch.float64),
            channels=("Surface elevation", "Wind speed"),
            units=("m", "m/s"),
        )
