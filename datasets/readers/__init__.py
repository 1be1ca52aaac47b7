"""Readers of what others wrote, one format a module: every function returns trajectories.

Mesh files and their time series are read by :mod:`cst_operator.mesh_files`.
"""

from cst_operator.datasets.readers.by_suffix import read_file
from cst_operator.datasets.readers.comsol import read_comsol
from cst_operator.datasets.readers.gaot import read_gaot
from cst_operator.datasets.readers.geo_fno import read_geo_fno
from cst_operator.datasets.readers.grids import Placement, axis_weights, frames_of, grid_mesh
from cst_operator.datasets.readers.mat import read_mat
from cst_operator.datasets.readers.meshgraphnets import read_meshgraphnets
from cst_operator.datasets.readers.mike import read_dfsu
from cst_operator.datasets.readers.movie import read_movie
from cst_operator.datasets.readers.netcdf import read_netcdf
from cst_operator.datasets.readers.neuraloperator import read_neuraloperator
from cst_operator.datasets.readers.numpy_files import read_numpy
from cst_operator.datasets.readers.pdebench import read_pdebench
from cst_operator.datasets.readers.sphere import sphere_coordinates
from cst_operator.datasets.readers.the_well import read_the_well

__all__ = [
    "Placement",
    "axis_weights",
    "frames_of",
    "grid_mesh",
    "read_comsol",
    "read_dfsu",
    "read_file",
    "read_gaot",
    "read_geo_fno",
    "read_mat",
    "read_meshgraphnets",
    "read_movie",
    "read_netcdf",
    "read_neuraloperator",
    "read_numpy",
    "read_pdebench",
    "read_the_well",
    "sphere_coordinates",
]
