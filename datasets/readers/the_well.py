"""The Well: HDF5 files of many trajectories on rectangular grids.

Layout by The Well's data format page (Ohana et al., NeurIPS 2024, arXiv:2412.00568): groups
``dimensions``, ``boundary_conditions``, ``scalars`` and ``t0_fields``, ``t1_fields``, ``t2_fields``
(scalars, vectors, tensors), whose attributes say what varies with sample, time and dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    LazyTrajectories,
    check_attributes,
    existing,
    open_hdf5,
    read_array,
    reading,
    sorted_frames,
    tensor,
)
from cst_operator.datasets.readers.grids import Placement, grid_mesh
from cst_operator.datasets.readers.sphere import sphere_coordinates
from cst_operator.errors import InputError
from cst_operator.fields import PointField, Trajectory

__all__ = ["read_the_well"]


def read_the_well(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    sphere: bool = False,
    dtype: torch.dtype | None = None,
) -> Sequence[Trajectory]:
    """Open a file of The Well; every trajectory is read when it is asked for.

    Weights along an axis are a whole step a point where the boundary is periodic, trapezoidal
    elsewhere. On a ``spherical`` grid (colatitude ``theta``, longitude ``phi``) they are areas on
    the unit sphere. Fields that do not vary in time are static channels; scalars that do not vary
    in time are parameters. Components are called ``velocity_x``, ``D_xy``, ... by the dimensions.

    Args:
        path: the ``.hdf5`` file.
        fields: names of fields to read; all if omitted.
        sphere: whether points of a spherical grid become 3-D coordinates on the unit sphere.
        dtype: of coordinates and values; torch's default if omitted.

    Returns:
        One trajectory a sample.

    Raises:
        InputError: if the file is missing, damaged or of another layout or grid type.
    """
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        check_attributes(path)
    with reading(path), open_hdf5(path) as file:
        if "dimensions" not in file or "n_trajectories" not in file.attrs:
            raise InputError("it has no group dimensions; expected the layout of The Well")
        dims = _texts(file["dimensions"].attrs["spatial_dims"])
        axes = [read_array(file["dimensions"][name]).astype(np.float64) for name in dims]
        if any(x.ndim != 1 for x in axes):
            raise InputError("its grid varies with the sample or is not rectangular")
        mesh = grid_mesh(axes, _placements(file, dims), dtype)
        mesh = _curved(mesh, _text(file.attrs.get("grid_type", "cartesian")), dims, sphere)
        wanted = _fields(file, fields)
        read = _Reader(
            path=path,
            mesh=mesh,
            shape=tuple(len(x) for x in axes),
            dims=tuple(dims),
            fields=wanted,
        )
        number = int(file.attrs["n_trajectories"])
        for group, name in wanted:
            dataset = file[group][name]
            if dataset.attrs["sample_varying"] and len(dataset) != number:
                raise InputError(f"{name} has {len(dataset)} samples, others {number}")
    return LazyTrajectories(path, read, range(number))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in np.atleast_1d(values)]


def _placements(file: h5py.File, dims: Sequence[str]) -> list[Placement]:
    periodic = set()
    for group in file.get("boundary_conditions", {}).values():
        if _text(group.attrs.get("bc_type", "")).lower() == "periodic":
            periodic |= set(_texts(group.attrs["associated_dims"]))
    return ["periodic" if name in periodic else "ends" for name in dims]


def _curved(mesh: PointField, grid_type: str, dims: Sequence[str], sphere: bool) -> PointField:
    if grid_type == "cartesian" and not sphere:
        return mesh
    if grid_type != "spherical" or list(dims) != ["theta", "phi"]:
        raise InputError(
            f"it has a {grid_type} grid of {', '.join(dims)}; expected a cartesian one, or a "
            "spherical one of theta and phi"
        )
    theta, phi = mesh.pos.unbind(dim=1)
    # A grid that reaches a pole has points there; their share of the area is that of their cap.
    area = mesh.weights * theta.sin().clamp_min(1e-6)
    pos = mesh.pos
    if sphere:
        degree = 180.0 / torch.pi
        pos = sphere_coordinates(phi * degree, 90.0 - theta * degree)
    return mesh._with(pos=pos, weights=area)


def _fields(file: h5py.File, names: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    there = [
        (f"t{order}_fields", name)
        for order in range(3)
        if f"t{order}_fields" in file
        for name in file[f"t{order}_fields"]
    ]
    if names is None:
        return tuple(there)
    missing = set(names) - {name for _, name in there}
    if missing:
        raise InputError(
            f"there is no field {', '.join(sorted(missing))}; "
            f"it has {', '.join(name for _, name in there)}"
        )
    return tuple(found for name in names for found in there if found[1] == name)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    mesh: PointField
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]

    def __call__(self, index: int) -> Trajectory:
        dtype = self.mesh.pos.dtype
        with open_hdf5(self.path) as file:
            time = file["dimensions"]["time"]
            times = read_array(time, index if time.ndim == 2 else ())
            moving: list[NDArray[Any]] = []
            static: list[NDArray[Any]] = []
            names: tuple[list[str], list[str]] = ([], [])
            for group, name in self.fields:
                dataset = file[group][name]
                varies = bool(dataset.attrs["time_varying"])
                (moving if varies else static).append(self._frames(dataset, index))
                names[0 if varies else 1].extend(self._names(name, int(group[1])))
            parameters = _parameters(file, index)
        u = np.concatenate(moving, axis=2) if moving else np.empty((1, self.mesh.num_points, 0))
        if not moving:
            times = np.zeros(1)
        times, u = sorted_frames(times, u)
        mesh = self.mesh
        if static:
            mesh = mesh.with_values(tensor(np.concatenate(static, axis=2)[0], dtype), names[1])
        return Trajectory(
            mesh=mesh,
            times=tensor(times, dtype),
            u=tensor(u, dtype),
            channels=tuple(names[0]),
            parameters=parameters,
        )

    def _frames(self, dataset: h5py.Dataset, index: int) -> NDArray[Any]:
        """One field of one sample, [T or 1, N, components]."""
        array = read_array(dataset, index if dataset.attrs["sample_varying"] else ())
        if not dataset.attrs["time_varying"]:
            array = array[None]
        varies = np.broadcast_to(dataset.attrs["dim_varying"], len(self.shape))
        for axis, kept in enumerate(varies):
            if not kept:
                array = np.expand_dims(array, 1 + axis)
        lead, tail = array.shape[:1], array.shape[1 + len(self.shape) :]
        array = np.broadcast_to(array, (*lead, *self.shape, *tail))
        return array.reshape(len(array), self.mesh.num_points, -1)

    def _names(self, name: str, order: int) -> list[str]:
        if order == 0:
            return [name]
        if order == 1:
            return [f"{name}_{i}" for i in self.dims]
        return [f"{name}_{i}{j}" for i in self.dims for j in self.dims]


def _parameters(file: h5py.File, index: int) -> dict[str, float]:
    """Scalars that are constant in time; where there are none, the attributes of those names."""
    found = {}
    for name in _texts(file.attrs.get("simulation_parameters", [])):
        value = file.attrs.get(name)
        if value is not None and np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf":
            found[name] = float(value)
    for name, dataset in file.get("scalars", {}).items():
        if not dataset.attrs.get("time_varying", False):
            values = read_array(dataset).reshape(-1)
            found[name] = float(values[index if dataset.attrs["sample_varying"] else 0])
    return found
