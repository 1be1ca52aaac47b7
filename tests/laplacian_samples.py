"""Laplacians on points, meshes and paths that several tests share."""

import pytest
import torch
from torch import Tensor

from cst_operator.fields import PointField
from cst_operator.nn import CellLaplacian, Laplacian, PathLaplacian, PointLaplacian
from tests.mesh_samples import box

__all__ = ["RADIUS", "everywhere", "laplacian_on", "matrix_of", "on_cells", "on_points", "uniform"]

RADIUS = 0.25


def uniform(*shape: int) -> Tensor:
    """Numbers between 0 and 1 of torch's own generator."""
    return torch.rand(*shape, dtype=torch.float64)


def on_points(num_points: int = 40, batch: int = 2) -> PointLaplacian:
    """That of random points of the square with uneven weights."""
    log_weights = (0.1 + uniform(batch, num_points)).log()
    return PointLaplacian(uniform(batch, num_points, 2), log_weights, RADIUS)


def on_cells(n: int = 6, bend: float = 0.02) -> CellLaplacian:
    """That of a triangulated square, (n + 1)^2 points."""
    pos, cells = box("triangle", n, bend=bend)
    return CellLaplacian.of(PointField(pos=pos, cells=cells))


def laplacian_on(name: str) -> tuple[Laplacian, int]:
    """A Laplacian and its number of points."""
    return {
        "points": lambda: (on_points(), 40),
        "cells": lambda: (on_cells(), 49),
        "path": lambda: (PathLaplacian(), 12),
    }[name]()


def matrix_of(laplacian: Laplacian, num_points: int) -> Tensor:
    """The Laplacian of every unit vector, [B, N, N]."""
    batch = len(laplacian.coordinates) if isinstance(laplacian, PointLaplacian) else 1
    return laplacian.apply(torch.eye(num_points).double().expand(batch, -1, -1))


everywhere = pytest.mark.parametrize("place", ["points", "cells", "path"])
