"""netCDF by the CF and UGRID conventions, through xarray (an optional library).

Rectilinear grids (one coordinate a dimension), curvilinear grids (two-dimensional coordinates),
and unstructured meshes (UGRID 1.0, values at nodes or faces), with missing data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from cst_operator.datasets.readers._reading import (
    DEFLATE,
    check_attributes,
    existing,
    needs,
    open_hdf5,
    reading,
    sorted_frames,
    tensor,
)
from cst_operator.datasets.readers._unstructured import centre_field, node_field, polygon_cells
from cst_operator.datasets.readers.grids import Placement, grid_cells, grid_mesh
from cst_operator.datasets.readers.sphere import sphere_coordinates
from cst_operator.errors import InputError, MeshError
from cst_operator.fields import PointField, Trajectory

__all__ = ["open_netcdf", "read_netcdf"]

_LONGITUDE = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
_LATITUDE = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")


def read_netcdf(
    path: str | Path,
    fields: Sequence[str] | None = None,
    *,
    select: Mapping[str, int] | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
    sphere: bool = False,
    dtype: torch.dtype | None = None,
) -> Trajectory:
    """Read fields of a netCDF file (needs the extra ``netcdf``).

    - Rectilinear: every dimension has a coordinate, and the weights are trapezoidal, or a whole
      step a point along longitudes that go around; with longitude and latitude they carry the
      cosine of the latitude.
    - Curvilinear: longitude and latitude (or x and y) depend on two dimensions; neighbours form
      quadrilaterals, whose areas give the weights.
    - UGRID: triangles, quadrilaterals and polygons; values at nodes have the weights of their
      cells, values at faces lie at the centres and have the areas.

    Longitudes that jump at the date line are continued without a jump. Dates become seconds from
    the first frame. Fields without time are static channels.

    Args:
        path: a netCDF-4 or netCDF-3 file.
        fields: names of variables; by default all that depend on the mesh's dimensions.
        select: number along a dimension that is neither space nor time, e.g. ``{"level": 0}``.
        missing: "refuse" missing values, or "drop" points where a value is missing in any frame;
            cells at such points go with them, weights of the others stay as they are.
        sphere: whether longitude and latitude become 3-D coordinates on the unit sphere, with
            weights that are areas there (needed for meshes across the date line or a pole).
        dtype: of coordinates and values; torch's default if omitted.

    Raises:
        InputError: if the file is missing, damaged or cannot be understood, or xarray is not
            installed.
        FieldError: if a value is missing and missing is "refuse".
    """
    if missing not in ("refuse", "drop"):
        raise InputError(f"missing is {missing!r}; expected 'refuse' or 'drop'")
    path = existing(path)
    dtype = dtype or torch.get_default_dtype()
    with reading(path):
        if h5py.is_hdf5(path):
            check_attributes(path)
        data = open_netcdf(path)
        with data:
            data = data.isel({k: i for k, i in (select or {}).items() if k in data.dims})
            grid = _grid(data, fields, sphere, dtype)
            return _trajectory(data, grid, missing, dtype)


def open_netcdf(path: Path) -> Any:
    """An xarray data set whose arrays stay in the file.

    Raises:
        InputError: if xarray is not installed, or the file is no netCDF file or claims more values
            than it can hold.
    """
    try:
        import xarray
    except ImportError as error:
        raise needs("xarray with h5netcdf", "netcdf") from error
    with path.open("rb") as file:
        start = file.read(8)
    if start[:3] == b"CDF":
        engine = "scipy"
    elif start[1:4] == b"HDF":
        engine = "h5netcdf"
        open_hdf5(path).close()
    else:
        raise InputError("it is neither a netCDF-3 nor a netCDF-4 file")
    options: dict[str, Any] = {"mask_and_scale": True, "decode_timedelta": False}
    try:
        data = xarray.open_dataset(path, engine=engine, **options)
    except (ValueError, OverflowError):
        # Times whose units are not dates stay numbers.
        data = xarray.open_dataset(path, engine=engine, decode_times=False, **options)
    size = path.stat().st_size
    for name, variable in data.variables.items():
        if variable.nbytes > 2 * DEFLATE * size:  # 2: packed numbers unpack to larger ones
            data.close()
            raise InputError(f"{name} claims {variable.nbytes:,} bytes in a file of {size:,}")
    return data


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where the values of chosen variables lie: dimensions of space, and their points."""

    dims: tuple[str, ...]
    mesh: PointField
    names: tuple[str, ...]
    time: str | None


def _trajectory(data: Any, grid: _Grid, missing: str, dtype: torch.dtype) -> Trajectory:
    moving = [name for name in grid.names if grid.time in data[name].dims]
    static = [name for name in grid.names if name not in moving]
    times = _times(data, grid.time) if moving else np.zeros(1)
    u = np.stack([_values(data[name], grid, grid.time) for name in moving or static], axis=2)
    known = [_values(data[name], grid, None)[0] for name in static] if moving else []
    times, u = sorted_frames(times, u)
    mesh, units = grid.mesh, [str(data[n].attrs.get("units", "")) for n in moving or static]
    still = np.stack(known, axis=1) if known else np.empty((mesh.num_points, 0))
    if missing == "drop":
        kept = np.isfinite(u).all(axis=(0, 2)) & np.isfinite(still).all(axis=1)
        kept &= (mesh.weights > 0).numpy()
        mesh, u, still = _subset(mesh, kept), u[:, kept], still[kept]
    if known:
        names = [str(data[name].attrs.get("units", "")) for name in static]
        mesh = mesh.with_values(tensor(still, dtype), static, names)
    return Trajectory(
        mesh=mesh,
        times=tensor(times, dtype),
        u=tensor(u, dtype),
        channels=tuple(moving or static),
        units=tuple(units),
    )


def _values(variable: Any, grid: _Grid, time: str | None) -> NDArray[np.floating]:
    """Values as frames, [T or 1, N]."""
    dims = [*([time] if time in variable.dims else []), *grid.dims]
    rest = [name for name in variable.dims if name not in dims and variable.sizes[name] > 1]
    if rest:
        raise InputError(
            f"{variable.name} also depends on {', '.join(map(str, rest))}; choose one entry, "
            f"select={{{str(rest[0])!r}: 0}}"
        )
    drop = [name for name in variable.dims if name not in dims]
    array = variable.squeeze(drop).transpose(*dims).to_numpy()
    if array.dtype.kind not in "iufb":
        raise InputError(f"{variable.name} holds {array.dtype}; expected numbers")
    return array.reshape(-1, grid.mesh.num_points)


def _times(data: Any, name: str | None) -> NDArray[np.floating]:
    if name is None or name not in data.variables:
        return np.arange(float(data.sizes[name]))
    times = data[name].to_numpy()
    if times.dtype.kind == "M":
        return (times - times.min()) / np.timedelta64(1, "s")
    if times.dtype.kind == "O":  # dates of another calendar
        first = min(times)
        return np.array([(time - first).total_seconds() for time in times])
    return times.astype(np.float64)


def _subset(mesh: PointField, kept: NDArray[np.bool_]) -> PointField:
    """Some points with the cells among them; their weights stay."""
    mask = torch.from_numpy(kept)
    if not bool(mask.any()):
        raise InputError("every point has a missing value; choose other fields")
    number = torch.cumsum(mask, 0) - 1
    cells = {
        kind: number[index[mask[index].all(dim=1)]] for kind, index in mesh.get("cells", {}).items()
    }
    cells = {kind: index for kind, index in cells.items() if len(index)}
    return PointField(mesh.pos[mask], weights=mesh.weights[mask], cells=cells)


# Finding the grid


def _grid(data: Any, fields: Sequence[str] | None, sphere: bool, dtype: torch.dtype) -> _Grid:
    absent = [name for name in fields or () if name not in data.variables]
    if absent:
        raise InputError(
            f"there is no variable {', '.join(absent)}; "
            f"it has {', '.join(map(str, data.data_vars))}"
        )
    time = _time_dimension(data)
    topology = [n for n, v in data.variables.items() if v.attrs.get("cf_role") == "mesh_topology"]
    if topology:
        return _ugrid(data, data[topology[0]].attrs, fields, time, sphere, dtype)
    pair = _pair(data)
    if pair is not None and data[pair[0]].ndim == 2:
        return _curvilinear(data, pair, fields, time, sphere, dtype)
    return _rectilinear(data, pair, fields, time, sphere, dtype)


def _time_dimension(data: Any) -> str | None:
    for name in map(str, data.dims):
        attrs = data[name].attrs if name in data.variables else {}
        kind = data[name].dtype.kind if name in data.variables else ""
        if (
            name.lower() in ("time", "t")
            or kind == "M"
            or attrs.get("axis") == "T"
            or attrs.get("standard_name") == "time"
        ):
            return name
    return None


def _pair(data: Any) -> tuple[str, str] | None:
    """Names of longitude and latitude, by their units or standard names."""
    found = []
    for units, word in ((_LONGITUDE, "longitude"), (_LATITUDE, "latitude")):
        for name, variable in data.variables.items():
            unit = str(variable.attrs.get("units", "")).lower()
            if unit in units or variable.attrs.get("standard_name") == word:
                found.append(str(name))
                break
    return (found[0], found[1]) if len(found) == 2 else None


def _on(
    data: Any, dims: Sequence[str], fields: Sequence[str] | None, skip: set[str]
) -> tuple[str, ...]:
    """Variables that depend on all of these dimensions."""
    if fields is not None:
        for name in fields:
            if not set(dims) <= set(data[name].dims):
                raise InputError(
                    f"{name} depends on {', '.join(map(str, data[name].dims)) or 'nothing'}; "
                    f"expected {', '.join(dims)}"
                )
        return tuple(fields)
    names = tuple(
        str(name)
        for name in data.data_vars
        if set(dims) <= set(data[name].dims)
        and name not in skip
        and data[name].dtype.kind in "iufb"
    )
    if not names:
        raise InputError(f"no variable depends on {', '.join(dims)}; name one in fields")
    return names


def _rectilinear(
    data: Any,
    pair: tuple[str, str] | None,
    fields: Sequence[str] | None,
    time: str | None,
    sphere: bool,
    dtype: torch.dtype,
) -> _Grid:
    along = [
        n for n in map(str, data.dims) if n in data.variables and data[n].ndim == 1 and n != time
    ]
    axes_dims = [n for n in along if data.sizes[n] > 1 and data[n].dtype.kind in "iuf"]
    if fields is not None:
        axes_dims = [n for n in axes_dims if all(n in data[name].dims for name in fields)]
    if not axes_dims:
        raise InputError(
            "no dimension has a coordinate; expected a rectilinear, curvilinear or UGRID grid"
        )
    geographic = pair is not None and set(pair) <= set(axes_dims)
    if geographic and pair is not None:
        axes_dims = [pair[0], pair[1], *[n for n in axes_dims if n not in pair]]
    if sphere and (not geographic or len(axes_dims) != 2):
        raise InputError("sphere needs the coordinates longitude and latitude, and no third")
    names = _on(data, axes_dims, fields, set())
    axes = [data[n].to_numpy().astype(np.float64) for n in axes_dims]
    places: list[Placement] = ["ends"] * len(axes)
    if geographic:
        axes[0] = np.unwrap(axes[0], period=360.0)
        step = np.abs(np.diff(axes[0])).mean()
        if abs(step * len(axes[0]) - 360.0) < 0.5 * step:
            places[0] = "periodic"
    mesh = grid_mesh(axes, places, dtype)
    if geographic:
        north = mesh.pos[:, 1]
        # A row of points at a pole stands for its cap; a weight of zero would hide it.
        area = mesh.weights * torch.deg2rad(north).cos().clamp_min(1e-6)
        pos = mesh.pos
        if sphere:
            pos = sphere_coordinates(pos[:, 0], pos[:, 1])
            area = area * (torch.pi / 180.0) ** 2
        mesh = mesh._with(pos=pos, weights=area)
    return _Grid(dims=tuple(axes_dims), mesh=mesh, names=names, time=time)


def _curvilinear(
    data: Any,
    pair: tuple[str, str],
    fields: Sequence[str] | None,
    time: str | None,
    sphere: bool,
    dtype: torch.dtype,
) -> _Grid:
    dims = tuple(map(str, data[pair[0]].dims))
    east = data[pair[0]].to_numpy().astype(np.float64)
    north = data[pair[1]].transpose(*dims).to_numpy().astype(np.float64)
    known = np.isfinite(east) & np.isfinite(north)
    cells = grid_cells(east.shape)
    if "quad" not in cells:
        raise MeshError(
            f"{pair[0]} has shape {east.shape}; expected two points or more along both axes"
        )
    index = cells["quad"].numpy()
    index = index[known.ravel()[index].all(axis=1)]
    nodes = np.stack([east.ravel(), north.ravel()], axis=1)
    if not sphere:
        _refuse_jumps(nodes[:, 0], index)
    # Points whose coordinates are missing get a place far from none, and no weight: they are
    # dropped, as their values must be missing too.
    nodes[~known.ravel()] = nodes[known.ravel()][0] if known.any() else 0.0
    mesh = node_field(nodes, {"quad": torch.from_numpy(index)}, sphere, dtype)
    return _Grid(dims=dims, mesh=mesh, names=_on(data, dims, fields, set(pair)), time=time)


def _refuse_jumps(longitude: NDArray[np.floating], index: NDArray[np.integer]) -> None:
    if len(index) and (np.ptp(longitude[index], axis=1) > 180.0).any():
        raise MeshError("cells cross the date line; read it with sphere=True")


def _ugrid(
    data: Any,
    topology: Mapping[str, Any],
    fields: Sequence[str] | None,
    time: str | None,
    sphere: bool,
    dtype: torch.dtype,
) -> _Grid:
    try:
        places = topology["node_coordinates"].split()
        faces = data[topology["face_node_connectivity"]]
    except KeyError as error:
        raise MeshError(
            f"its mesh topology lacks {error}; only meshes of faces are read"
        ) from error
    nodes = np.stack([data[name].to_numpy().astype(np.float64) for name in places[:2]], axis=1)
    face_dim = str(topology.get("face_dimension", faces.dims[0]))
    faces = faces.transpose(face_dim, ...)
    polygons = _polygons(faces.to_numpy(), int(faces.attrs.get("start_index", 0)))
    standard = str(data[places[0]].attrs.get("standard_name", ""))
    geographic = (
        standard == "longitude" or str(data[places[0]].attrs.get("units", "")) in _LONGITUDE
    )
    if sphere and not geographic:
        raise InputError("sphere needs nodes in longitude and latitude")
    if geographic and not sphere:
        for polygon in polygons:
            _refuse_jumps(nodes[:, 0], polygon[None])
    node_dim = str(data[places[0]].dims[0])
    skip = {*places, str(faces.name)}
    for name in fields or [n for n in data.data_vars if n not in skip]:
        if node_dim in data[name].dims:
            mesh = node_field(nodes, polygon_cells(polygons, len(nodes)), sphere, dtype)
            names = _on(data, [node_dim], fields, skip)
            return _Grid(dims=(node_dim,), mesh=mesh, names=names, time=time)
        if face_dim in data[name].dims:
            break
    mesh = centre_field(nodes, polygons, sphere, dtype)
    return _Grid(dims=(face_dim,), mesh=mesh, names=_on(data, [face_dim], fields, skip), time=time)


def _polygons(table: NDArray[Any], start: int) -> list[NDArray[np.int64]]:
    """Rows of vertex numbers; what fills up short rows is missing or negative."""
    filled = np.where(np.isfinite(table.astype(np.float64)), table, -1) - start
    return [row[row >= 0].astype(np.int64) for row in filled]
