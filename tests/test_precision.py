"""Autocast is for models: geometry, quadrature and derivatives of data keep their precision."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cst_operator._nearby import values_nearby
from cst_operator.boundary import boundary_points
from cst_operator.differentiation import gradient_operator
from cst_operator.evaluation import evaluate
from cst_operator.fields import Example, PointField
from cst_operator.interop import RelativeSobolev
from cst_operator.quadrature import cell_weights, integrate, node_weights, with_weights
from cst_operator.sampling import sample_cells
from cst_operator.sobolev import SobolevLoss
from tests.mesh_samples import box


def field(kind: str = "triangle") -> PointField:
    """A wave on a bent mesh of the unit square or cube in float32, none of it exact in bfloat16."""
    pos, cells = box(kind, 4, bend=0.05)
    u = torch.sin(3 * pos[:, :1]) * torch.cos(2 * pos[:, 1:2])
    return PointField(
        pos.float(), u.float(), node_weights(pos, cells).float(), channels=["u"], cells=cells
    )


def shifted(known: PointField) -> PointField:
    """Queries between the points of a field."""
    return PointField(known.pos + 0.01)


class Wrong(nn.Module):
    """Answers the truth times 1.1, in a precision of its own."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, source: PointField, target: PointField) -> Tensor:
        return (1.1 * target.u).bfloat16().to(self.dtype)


def drawn(known: PointField) -> PointField:
    return sample_cells(known, torch.Generator().manual_seed(0))


COMPUTED: dict[str, Callable[[PointField], Tensor]] = {
    "integrate": lambda known: integrate(known.u, known.weights),
    "node_weights": lambda known: node_weights(known.pos, known.cells),
    "cell_weights": lambda known: torch.cat(list(cell_weights(known.pos, known.cells).values())),
    "with_weights": lambda known: with_weights(known).weights,
    "boundary_points": lambda known: boundary_points(known).weights,
    "gradient": lambda known: gradient_operator(known).apply(known.u),
    "gradient_without_cells": lambda known: gradient_operator(PointField(known.pos)).apply(known.u),
    "values_nearby": lambda known: values_nearby(known, shifted(known)),
    "places": lambda known: drawn(known).pos,
    "samples": lambda known: drawn(known).u,
    "loss": lambda known: SobolevLoss(order=1)(Wrong(), Example(known, known)).total,
    "scores": lambda known: torch.stack(
        list(evaluate(Wrong(), [Example(known, known)]).per_sample.values())
    ),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_autocast_around_it_changes_nothing(name: str) -> None:
    known = field()
    exact = COMPUTED[name](known)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = COMPUTED[name](known)
    assert got.dtype == exact.dtype
    assert torch.equal(got, exact)


@pytest.mark.parametrize("kind", ["tetra", "hexahedron", "wedge", "pyramid"])
def test_autocast_changes_no_weight_or_gradient_of_solids(kind: str) -> None:
    known = field(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = with_weights(known).weights
        gradient = gradient_operator(known).apply(known.u)
    assert torch.equal(weights, with_weights(known).weights)
    assert torch.equal(gradient, gradient_operator(known).apply(known.u))


@pytest.mark.parametrize("order", [0, 1])
def test_autocast_changes_no_loss_of_neuraloperators_trainer(
    order: int, generator: torch.Generator
) -> None:
    y = torch.randn(2, 1, 8, 8, generator=generator)
    prediction = y + 0.1 * torch.randn(y.shape, generator=generator)
    loss = RelativeSobolev(order=order)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(prediction, y)
    assert torch.equal(got, loss(prediction, y))


def test_answers_of_low_precision_do_not_lower_that_of_the_quadrature() -> None:
    known = field()
    loss = replace(SobolevLoss(order=1), relative=False)
    low, full = (
        loss(Wrong(dtype), Example(known, known)).total for dtype in (torch.bfloat16, torch.float32)
    )
    assert torch.equal(low, full)
