"""What the transformer is compared with: FNO through a grid, and interpolation."""

from cst_operator import checkpoint
from cst_operator.peers.fno import GridFNO, GridFNOConfig
from cst_operator.peers.interpolation import (
    CubicSplineInTime,
    LinearInterpolation,
    Nearest,
    ThinPlateSpline,
)

__all__ = [
    "CubicSplineInTime",
    "GridFNO",
    "GridFNOConfig",
    "LinearInterpolation",
    "Nearest",
    "ThinPlateSpline",
]

checkpoint.register("fno", GridFNOConfig, GridFNO)
