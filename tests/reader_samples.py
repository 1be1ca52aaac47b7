"""Small files in the layouts of others, written as their documentation describes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import torch
import xarray
from scipy.io import savemat

from cst_operator.datasets import readers

RNG = np.random.default_rng(20230123)
POINTS = RNG.random((30, 2))


def wave(*axes: np.ndarray) -> np.ndarray:
    """A smooth function on the grid of the axes."""
    total = np.zeros(())
    for x in axes:
        total = np.add.outer(total, np.sin(2.0 * np.asarray(x)))
    return total


def pdebench(path: Path) -> Path:
    x, y, t = (np.arange(4) + 0.5) / 4, (np.arange(5) + 0.5) / 5, np.linspace(0, 1, 4)
    with h5py.File(path, "w") as file:
        for shift, name in enumerate(("density", "Vx", "Vy")):
            file[name] = np.stack([wave(t[:3], x, y) + n + 10 * shift for n in range(2)])
        file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = x, y, t
        file.attrs["eta"] = 0.01
    return path


def pdebench_groups(path: Path) -> Path:
    x, y, t = (np.arange(4) + 0.5) / 2 - 1, (np.arange(5) + 0.5) / 2.5 - 1, np.linspace(0, 5, 3)
    with h5py.File(path, "w") as file:
        for n in range(2):
            u = wave(t, x, y) + n
            file[f"{n:04d}/data"] = np.stack([u, -u], axis=-1).astype(np.float32)
            for name, axis in (("x", x), ("y", y), ("t", t)):
                file[f"{n:04d}/grid/{name}"] = axis
    return path


def the_well(
    path: Path, *, grid_type: str = "cartesian", dims: tuple[str, str] = ("x", "y")
) -> Path:
    x, y, t = np.linspace(0.1, 3, 5), np.arange(6) * 2 * np.pi / 6, np.linspace(0, 1, 3)
    with h5py.File(path, "w") as file:
        file.attrs["n_trajectories"], file.attrs["grid_type"] = 2, grid_type
        file.attrs["n_spatial_dims"], file.attrs["simulation_parameters"] = 2, ["Re"]
        file.attrs["Re"] = 100.0
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = list(dims)
        for name, axis in zip((*dims, "time"), (x, y, t), strict=True):
            group[name] = axis.astype(np.float32)
            group[name].attrs["sample_varying"] = False
        for name, kind in zip(dims, ("WALL", "PERIODIC"), strict=True):
            edge = file.create_group(f"boundary_conditions/{name}_{kind.lower()}")
            edge.attrs["associated_dims"], edge.attrs["bc_type"] = [name], kind
        file["scalars/heating"] = np.array([1.0, 2.0])
        file["scalars/heating"].attrs["sample_varying"] = True
        file["scalars/heating"].attrs["time_varying"] = False

        def add(name: str, array: np.ndarray, sample: bool, time: bool, dim: list[bool]) -> None:
            file[name] = array
            file[name].attrs["sample_varying"], file[name].attrs["time_varying"] = sample, time
            file[name].attrs["dim_varying"] = dim

        u = np.stack([wave(t, x, y) + n for n in range(2)])
        add("t0_fields/density", u, True, True, [True, True])
        add("t0_fields/profile", np.sin(x), False, False, [True, False])
        add("t1_fields/velocity", np.stack([u, 2 * u], axis=-1), True, True, [True, True])
        shear = np.stack([np.stack([u, 2 * u], -1), np.stack([3 * u, 4 * u], -1)], -2)
        add("t2_fields/D", shear, True, True, [True, True])
    return path


def darcy(path: Path) -> Path:
    x = wave(np.arange(3), np.arange(4), np.arange(5))
    torch.save({"x": torch.tensor(x > 0), "y": torch.tensor(x)}, path)
    return path


def burgers(path: Path) -> Path:
    y = wave(np.arange(2), np.linspace(0, 1, 4), np.arange(8))
    content = {"x": y[:, 0], "y": y, "visc": np.array([[0.01]])}
    torch.save({name: torch.tensor(array) for name, array in content.items()}, path)
    return path


def mat_arrays() -> dict[str, np.ndarray]:
    a = wave(np.arange(2), np.arange(4), np.arange(5))
    return {"a": a, "u": np.add.outer(a, np.arange(1.0, 4.0)), "t": np.array([[1.0, 2.0, 4.0]])}


def mat5(path: Path) -> Path:
    savemat(path, mat_arrays(), do_compression=True)
    return path


def mat73(path: Path) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in mat_arrays().items():
            file[name] = array.T  # MATLAB runs through the first dimension fastest
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def meshgraphnets(path: Path) -> Path:
    pos, cells = triangles()
    with h5py.File(path, "w") as file:
        for n in range(2):
            group = file.create_group(f"trajectory_{n}")
            group["mesh_pos"] = np.repeat(pos[None], 3, axis=0)
            group["cells"] = cells.astype(np.int32)
            group["node_type"] = np.arange(len(pos))[:, None]
            group["velocity"] = np.stack([n + t + pos for t in range(3)])
            group["pressure"] = np.stack([pos[:, :1] * t for t in range(3)])
    return path


def triangles() -> tuple[np.ndarray, np.ndarray]:
    """The unit square, four triangles around its centre."""
    pos = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
    return pos, np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def gaot(path: Path) -> Path:
    u = np.stack(
        [[np.stack([POINTS[:, 0] * (t + n), POINTS[:, 1]], 1) for t in range(2)] for n in range(3)]
    )
    data = {
        "u": (("sample", "time", "node", "channel"), u),
        "c": (("sample", "time", "node", "condition"), u[..., :1] + 7),
        "x": (("one", "still", "node", "dim"), POINTS[None, None]),
    }
    xarray.Dataset(data).to_netcdf(path, engine="h5netcdf")
    return path


def netcdf(path: Path, *, classic: bool = False) -> Path:
    lon, lat = np.array([170.0, 175.0, 180.0, -175.0]), np.array([-10.0, 0.0, 20.0])
    data = xarray.Dataset(
        {
            "sst": (("time", "lat", "lon"), wave(np.arange(2), lat, lon), {"units": "degC"}),
            "depth": (("lat", "lon"), wave(lat, lon), {"units": "m"}),
        },
        coords={
            "lon": ("lon", lon, {"units": "degrees_east"}),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "time": ("time", np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")),
        },
    )
    data.to_netcdf(path, engine="scipy" if classic else "h5netcdf")
    return path


def curvilinear(path: Path) -> Path:
    x, y = np.meshgrid(np.linspace(0, 3, 4), np.linspace(0, 2, 3))
    values = np.stack([x + y + t for t in range(2)])
    values[:, 0, 0] = np.nan  # land
    data = xarray.Dataset(
        {"eta": (("time", "j", "i"), values)},
        coords={
            "nav_lon": (("j", "i"), x + 0.1 * y, {"units": "degrees_east"}),
            "nav_lat": (("j", "i"), y, {"units": "degrees_north"}),
            "time": ("time", [0.0, 1.0]),
        },
    )
    data.to_netcdf(path, engine="h5netcdf")
    return path


def ugrid(path: Path, *, place: str = "node") -> Path:
    nodes = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [2, 0]])
    faces = np.array([[1, 2, 3, 4], [2, 5, 3, -999]])  # from 1 on, filled up
    size = 5 if place == "node" else 2
    data = xarray.Dataset(
        {
            "mesh": (
                (),
                0,
                {
                    "cf_role": "mesh_topology",
                    "topology_dimension": 2,
                    "node_coordinates": "node_x node_y",
                    "face_node_connectivity": "faces",
                },
            ),
            "node_x": ("node", nodes[:, 0], {"standard_name": "longitude"}),
            "node_y": ("node", nodes[:, 1], {"standard_name": "latitude"}),
            "faces": (("face", "corner"), faces.astype(np.int32), {"start_index": 1}),
            "level": (("time", place), wave(np.arange(3), np.arange(size)), {"units": "m"}),
        },
        coords={"time": [0.0, 1.0, 2.0]},
    )
    data.to_netcdf(path, engine="h5netcdf", encoding={"faces": {"_FillValue": -999}})
    return path


def npy(path: Path) -> Path:
    np.save(path, wave(np.arange(3), np.arange(2), np.arange(4)))
    return path


def npz(path: Path) -> Path:
    pos, cells = triangles()
    u = np.stack([[pos * (t + 1) + n for t in range(3)] for n in range(2)])
    np.savez_compressed(path, u=u, pos=pos, cells=cells, times=np.array([2.0, 0.0, 1.0]))
    return path


def comsol(path: Path) -> Path:
    head = [
        "% Model:  plate.mph",
        "% Dimension:  2",
        f"% Nodes:  {len(POINTS)}",
        "% Length unit: m",
    ]
    names = [f"{name} @ t={t:g}" for t in (0, 0.5) for name in ("T (K)", "p (Pa)")]
    head.append("% x" + " " * 10 + "y" + " " * 10 + "   ".join(names))
    columns = [POINTS[:, 0], POINTS[:, 1]] + [POINTS[:, 0] * k for k in range(1, 5)]
    rows = ["   ".join(f"{v:.17g}" for v in row) for row in np.stack(columns, 1)]
    path.write_text("\n".join(head + rows) + "\n")
    return path


def movie_npy(path: Path) -> Path:
    np.save(path, np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4))
    return path


def movie_tif(path: Path) -> Path:
    array = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")
    return path


def geo_fno(path: Path) -> Path:
    """Deformed grids, [2, 3, 4, 5]: the second twice as large as the first."""
    x, y = np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 2, 5), indexing="ij")
    x = x + 0.1 * y
    np.save(path.with_name("X.npy"), np.stack([x, 2 * x]))
    np.save(path.with_name("Y.npy"), np.stack([y, 2 * y]))
    np.save(path, np.stack([[x, y, x * y], [2 * x, 2 * y, 4 * x * y]]))
    return path


def read_deformed(path: Path, **options: Any) -> Any:
    places = [path.with_name(f"{name}.npy") for name in "XY"]
    return readers.read_geo_fno(path, *(p if p.exists() else path for p in places), **options)


def read_points(path: Path) -> Any:
    return readers.read_numpy(path, "ntpc", pos="pos", cells="cells", times="times")


FORMATS: dict[str, tuple[str, Callable[[Path], Path], Callable[[Path], Any]]] = {
    "pdebench": (".hdf5", pdebench, readers.read_pdebench),
    "pdebench_groups": (".h5", pdebench_groups, readers.read_pdebench),
    "the_well": (".hdf5", the_well, readers.read_the_well),
    "darcy": (".pt", darcy, readers.read_neuraloperator),
    "burgers": (".pt", burgers, readers.read_neuraloperator),
    "mat5": (".mat", mat5, readers.read_mat),
    "mat73": (".mat", mat73, readers.read_mat),
    "meshgraphnets": (".h5", meshgraphnets, readers.read_meshgraphnets),
    "gaot": (".nc", gaot, readers.read_gaot),
    "geo_fno": (".npy", geo_fno, read_deformed),
    "netcdf": (".nc", netcdf, readers.read_netcdf),
    "netcdf_classic": (".nc", lambda path: netcdf(path, classic=True), readers.read_netcdf),
    "curvilinear": (".nc", curvilinear, lambda p: readers.read_netcdf(p, missing="drop")),
    "ugrid": (".nc", ugrid, readers.read_netcdf),
    "npy": (".npy", npy, lambda path: readers.read_numpy(path, "nxy")),
    "npz": (".npz", npz, read_points),
    "comsol": (".txt", comsol, readers.read_comsol),
    "movie_npy": (".npy", movie_npy, readers.read_movie),
    "movie_tif": (".tif", movie_tif, readers.read_movie),
}
"""Suffix, writer and reader of every format."""


def trajectories(found: Any) -> list[Any]:
    """All trajectories that a reader returns."""
    return [found] if hasattr(found, "mesh") else list(found)
