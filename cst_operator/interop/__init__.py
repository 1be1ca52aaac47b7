"""With neuraloperator, in both directions.

This library in neuraloperator's training: :class:`CST` is one of its models,
:class:`TrainerDataset` and :func:`collate` make its batches, :class:`PointDataProcessor` scales
them, and :class:`RelativeSobolev` and :class:`TrainerLoss` are its losses. Neuraloperator in this
library's :func:`~cst_operator.fit`: :class:`GridOperator` holds its FNO, TFNO and UNO,
:class:`GeometryOperator` its GINO and FNOGNO, :class:`GridExamples` reads its data sets, and
:class:`GridLoss` takes its losses. Nothing else in the library imports this package.
"""

from cst_operator.interop.grids import GridExamples, unit_grid
from cst_operator.interop.losses import GridLoss, RelativeSobolev, TrainerLoss
from cst_operator.interop.model import CST
from cst_operator.interop.operators import (
    GeometryOperator,
    GeometryOperatorConfig,
    GridOperator,
    GridOperatorConfig,
    load_weights,
)
from cst_operator.interop.processor import PointDataProcessor
from cst_operator.interop.samples import TrainerDataset, collate

__all__ = [
    "CST",
    "GeometryOperator",
    "GeometryOperatorConfig",
    "GridExamples",
    "GridLoss",
    "GridOperator",
    "GridOperatorConfig",
    "PointDataProcessor",
    "RelativeSobolev",
    "TrainerDataset",
    "TrainerLoss",
    "collate",
    "load_weights",
    "unit_grid",
]
