"""The Continuous Spatiotemporal Transformer as a neural operator on irregular meshes."""

from contextlib import suppress

from cst_operator.autoregression import errors_over_time, rollout
from cst_operator.boundary import boundary_facets, boundary_points, distance_to_boundary
from cst_operator.checkpoint import load, save
from cst_operator.comparison import Comparison, compare
from cst_operator.cst_config import ARCHITECTURES, Architecture, CSTConfig
from cst_operator.derivatives import Derivatives
from cst_operator.differentiation import GradientOperator, gradient_operator
from cst_operator.dummies import Dummies
from cst_operator.ensemble import Calibration, Ensemble
from cst_operator.errors import (
    CheckpointError,
    ConfigError,
    FieldError,
    InputError,
    MeshError,
    SolverError,
    TrainingError,
)
from cst_operator.evaluation import Scores, evaluate
from cst_operator.fields import Example, PointField, Trajectory
from cst_operator.masking import (
    EquallySpacedFrames,
    LastFrames,
    Masking,
    RandomFrames,
    Subsampled,
)
from cst_operator.mesh_files import read_mesh, read_series, write_mesh, write_series
from cst_operator.mesh_repair import MeshRepair, repair_mesh
from cst_operator.mesh_report import MeshReport, mesh_report
from cst_operator.metrics import max_error, relative_h1, relative_l2, rms_error
from cst_operator.model import CSTOperator
from cst_operator.normalization import Normalization
from cst_operator.peers import GridFNO, GridFNOConfig
from cst_operator.physics import PhysicsLoss, State
from cst_operator.quadrature import (
    cell_weights,
    integrate,
    node_weights,
    point_weights,
    with_weights,
)
from cst_operator.sobolev import LossTerms, SobolevLoss
from cst_operator.tasks import (
    Forecast,
    FrameInterpolation,
    LeadTime,
    PointUpsampling,
    Steady,
    TaskDataset,
)
from cst_operator.training import FitConfig, Run, fit

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "CSTConfig",
    "Calibration",
    "Ensemble",
    "EquallySpacedFrames",
    "CSTOperator",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "Derivatives",
    "Dummies",
    "Example",
    "FieldError",
    "FitConfig",
    "Forecast",
    "FrameInterpolation",
    "GradientOperator",
    "GridFNO",
    "GridFNOConfig",
    "InputError",
    "LeadTime",
    "LastFrames",
    "LossTerms",
    "Masking",
    "MeshError",
    "MeshRepair",
    "MeshReport",
    "Normalization",
    "PhysicsLoss",
    "PointField",
    "PointUpsampling",
    "RandomFrames",
    "Run",
    "Scores",
    "SobolevLoss",
    "SolverError",
    "State",
    "Steady",
    "Subsampled",
    "TaskDataset",
    "TrainingError",
    "Trajectory",
    "boundary_facets",
    "boundary_points",
    "cell_weights",
    "compare",
    "distance_to_boundary",
    "errors_over_time",
    "evaluate",
    "fit",
    "gradient_operator",
    "integrate",
    "load",
    "max_error",
    "mesh_report",
    "node_weights",
    "point_weights",
    "read_mesh",
    "read_series",
    "relative_h1",
    "relative_l2",
    "repair_mesh",
    "rms_error",
    "rollout",
    "save",
    "with_weights",
    "write_mesh",
    "write_series",
]

# Registers CST among neuraloperator's models. Where neuraloperator cannot be imported the rest
# works without it, ``cst doctor`` says so, and so does importing cst_operator.interop.
with suppress(ImportError):
    import cst_operator.interop  # noqa: F401
