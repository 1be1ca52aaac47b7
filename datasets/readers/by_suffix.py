"""Any data file that the readers know, without naming its format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cst_operator.datasets.readers._reading import existing
from cst_operator.datasets.readers.comsol import read_comsol
from cst_operator.datasets.readers.gaot import read_gaot
from cst_operator.datasets.readers.mat import read_mat
from cst_operator.datasets.readers.meshgraphnets import read_meshgraphnets
from cst_operator.datasets.readers.mike import read_dfsu
from cst_operator.datasets.readers.movie import read_movie
from cst_operator.datasets.readers.netcdf import read_netcdf
from cst_operator.datasets.readers.neuraloperator import read_neuraloperator
from cst_operator.datasets.readers.pdebench import read_pdebench
from cst_operator.datasets.readers.the_well import read_the_well
from cst_operator.errors import InputError
from cst_operator.fields import Trajectory
from cst_operator.mesh_files import is_series, read_mesh, read_series

__all__ = ["holds_data", "read_file"]


def read_tecplot(path: Path, *, dtype: torch.dtype | None = None) -> Trajectory:
    """A Tecplot file, which is one mesh, as a trajectory of one frame."""
    return Trajectory.of(read_mesh(path, dtype=dtype))


_HDF5 = (read_the_well, read_pdebench, read_meshgraphnets)
_READERS: dict[str, tuple[Callable[..., Any], ...]] = {
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".nc": (read_meshgraphnets, read_gaot, read_netcdf),
    ".pt": (read_neuraloperator,),
    ".mat": (read_mat,),
    ".dfsu": (read_dfsu,),
    ".tif": (read_movie,),
    ".tiff": (read_movie,),
    ".txt": (read_comsol,),
    ".dat": (read_comsol, read_tecplot),
    ".csv": (read_comsol,),
}
_ARRAYS = (".npy", ".npz")


def holds_data(path: Path) -> bool:
    """Whether a file is of data, by its suffix; else it is a mesh or a series of meshes."""
    return path.suffix.lower() in (*_READERS, *_ARRAYS)


def read_file(
    path: str | Path, fields: Sequence[str] | None = None, *, dtype: torch.dtype | None = None
) -> Sequence[Trajectory]:
    """Open a file with the first reader of its suffix that takes it, with its defaults.

    Args:
        path: the file. ``.h5`` and ``.hdf5`` are tried as The Well, PDEBench and MeshGraphNets,
            ``.nc`` as MeshGraphNets, GAOT and netCDF with the usual conventions, ``.dat`` as
            COMSOL and Tecplot. A file of any other suffix is a series of meshes, or one mesh,
            which becomes a trajectory of one frame.
        fields: of a mesh or series, the fields to read, see
            :func:`~cst_operator.mesh_files.read_mesh`.
        dtype: of coordinates and channels; torch's default if omitted.

    Raises:
        InputError: if the file is missing or taken by no reader, with what each says; or an array
            file, whose axes have no names.
    """
    path = existing(path)
    if not holds_data(path):
        if is_series(path):
            return [read_series(path, fields, dtype=dtype)]
        return [Trajectory.of(read_mesh(path, fields, dtype=dtype))]
    if fields is not None:
        raise InputError(f"{path}: fields are chosen in mesh files only; leave them out")
    suffix = path.suffix.lower()
    if suffix in _ARRAYS:
        raise InputError(
            f"{path}: an array file does not name its axes; read it with "
            "cst_operator.datasets.read_numpy or read_movie and hand the result to "
            "inspect_trajectories"
        )
    said = []
    for read in _READERS[suffix]:
        try:
            found = read(path, dtype=dtype)
            return [found] if isinstance(found, Trajectory) else found
        except InputError as error:
            said.append((read.__name__.removeprefix("read_"), str(error)))
    if len(said) == 1:
        raise InputError(said[0][1])
    words = "; ".join(f"{name}: {text.removeprefix(f'{path}: ')}" for name, text in said)
    raise InputError(f"{path} is of no format that is known with this suffix ({words})")
