"""Data sets: generating, storing and reading trajectories, and readers of measured ones."""

from cst_operator.datasets.clusters import Dask, Slurm
from cst_operator.datasets.conversion import TrajectoryFiles, convert
from cst_operator.datasets.cylinder_wake import cylinder_wake
from cst_operator.datasets.elastic_block import elastic_block
from cst_operator.datasets.generation import generate
from cst_operator.datasets.ide_spirals import ide_spirals
from cst_operator.datasets.inspection import SetReport, inspect_trajectories
from cst_operator.datasets.north_sea_surge import north_sea_surge
from cst_operator.datasets.public import fetch, load_public
from cst_operator.datasets.public_files import PUBLIC, PublicFile
from cst_operator.datasets.readers import (
    read_comsol,
    read_dfsu,
    read_file,
    read_gaot,
    read_geo_fno,
    read_mat,
    read_meshgraphnets,
    read_movie,
    read_netcdf,
    read_neuraloperator,
    read_numpy,
    read_pdebench,
    read_the_well,
    sphere_coordinates,
)
from cst_operator.datasets.store import read_trajectory, write_trajectory
from cst_operator.datasets.trajectories import TrajectoryDataset, pack, read_manifest
from cst_operator.datasets.windows import Windows

__all__ = [
    "PUBLIC",
    "Dask",
    "PublicFile",
    "SetReport",
    "Slurm",
    "TrajectoryDataset",
    "TrajectoryFiles",
    "Windows",
    "convert",
    "cylinder_wake",
    "elastic_block",
    "fetch",
    "generate",
    "ide_spirals",
    "inspect_trajectories",
    "load_public",
    "north_sea_surge",
    "pack",
    "read_comsol",
    "read_dfsu",
    "read_file",
    "read_gaot",
    "read_geo_fno",
    "read_manifest",
    "read_mat",
    "read_meshgraphnets",
    "read_movie",
    "read_netcdf",
    "read_neuraloperator",
    "read_numpy",
    "read_pdebench",
    "read_the_well",
    "read_trajectory",
    "sphere_coordinates",
    "write_trajectory",
]
