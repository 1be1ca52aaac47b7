"""Laplacians of points, meshes and paths: their formulas, bounds and limits."""

import math

import pytest
import torch
from torch import Tensor

from cst_operator.errors import FieldError
from cst_operator.fields import PointField
from cst_operator.nn import CellLaplacian, PointLaplacian
from tests.laplacian_samples import (
    RADIUS,
    everywhere,
    laplacian_on,
    matrix_of,
    on_cells,
    on_points,
    uniform,
)
from tests.mesh_samples import box

pytestmark = pytest.mark.usefixtures("seeded")

# Sums of some hundred terms of order one in another order.
SUMS = {"rtol": 0.0, "atol": 1e-12}


def test_the_laplacian_of_points_is_the_formula_of_its_docstring():
    laplacian, v = on_points(7), torch.randn(2, 7, 3).double()
    wanted = torch.zeros_like(v)
    for b in range(2):
        for i in range(7):
            away = (laplacian.coordinates[b] - laplacian.coordinates[b, i]).square().sum(-1)
            mass = laplacian.log_weights[b].exp() * torch.exp(-away / (2 * RADIUS**2))
            wanted[b, i] = 2 / RADIUS**2 * (mass @ v[b] / mass.sum() - v[b, i])
    torch.testing.assert_close(laplacian.apply(v), wanted, **SUMS)


@everywhere
def test_no_eigenvalue_exceeds_the_bound(place):
    laplacian, n = laplacian_on(place)
    eigenvalues = torch.linalg.eigvals(-matrix_of(laplacian, n))
    assert eigenvalues.imag.abs().max() < 1e-10  # symmetric up to a measure; rounding
    assert eigenvalues.real.min() > -1e-10
    assert 0.3 * laplacian.bound < eigenvalues.real.max() <= laplacian.bound


@everywhere
@pytest.mark.parametrize("drifting", [False, True])
def test_steps_within_the_bound_are_averages(place, drifting):
    # Angles are not obtuse on the regular mesh.
    laplacian, n = (on_cells(bend=0.0), 49) if place == "cells" else laplacian_on(place)
    if drifting:
        dim = 1 if place == "path" else 2
        laplacian = laplacian.drifting(torch.full((1, dim), 0.999 / dim**0.5).double())
    step = torch.eye(n).double() + matrix_of(laplacian, n) / laplacian.bound
    assert step.min() > -1e-14
    torch.testing.assert_close(step.sum(-1), torch.ones_like(step[..., 0]), **SUMS)


def test_padding_and_splitting_do_not_change_the_laplacian():
    laplacian, v = on_points(9, batch=1), torch.randn(1, 9, 3).double()
    s, log_weights = laplacian.coordinates, laplacian.log_weights.clone()
    padded = PointLaplacian(
        torch.cat([s, s[:, :1]], 1), torch.nn.functional.pad(log_weights, (0, 1), value=-1e4), 0.25
    )
    junk = torch.cat([v, torch.full_like(v[:, :1], 1e6)], 1)
    torch.testing.assert_close(padded.apply(junk)[:, :9], laplacian.apply(v), **SUMS)
    log_weights[:, 0] -= math.log(2)
    split = PointLaplacian(
        torch.cat([s, s[:, :1]], 1), torch.cat([log_weights, log_weights[:, :1]], 1), 0.25
    )
    twice = torch.cat([v, v[:, :1]], 1)
    torch.testing.assert_close(split.apply(twice)[:, :9], laplacian.apply(v), **SUMS)


def _graded(n: int) -> tuple[Tensor, Tensor]:
    """Midpoints of n squared cells of the square, eight times denser in one corner: [1, N, 2]."""
    t = (torch.arange(n).double() + 0.5) / n
    x, w = t + t * (t - 1) * 0.7, (1 + 0.7 * (2 * t - 1)) / n
    s = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(1, -1, 2)
    return s, (w[:, None] * w).view(1, -1)


def test_the_laplacian_of_graded_points_tends_to_that_of_the_function_with_weights_alone():
    s, w = _graded(64)
    x, y = s[0].T
    v = (torch.sin(3 * x) * torch.cos(2 * y))[None, :, None]
    at = torch.tensor([[[0.4, 0.45], [0.5, 0.6]]]).double()
    own = (torch.sin(3 * at[..., :1]) * torch.cos(2 * at[..., 1:])).double()

    def error(radius: float, weighted: bool = True) -> float:
        measure = w.log() if weighted else torch.zeros_like(w)
        got = PointLaplacian(s, measure, radius).at(at).apply(v, own)
        return float((got + 13 * own).abs().max())

    # The average of a Gaussian has the symbol exp(-13 r^2 / 2): the error is 13 r^2 / 4 of 13.
    assert math.log2(error(0.1) / error(0.05)) == pytest.approx(2, abs=0.2)
    assert error(0.05) < 0.2
    assert error(0.05, weighted=False) > 1  # drifts to where the points are


def test_the_laplacian_of_a_mesh_is_exact_for_quadratics_on_a_regular_one():
    pos, cells = box("triangle", 6)
    laplacian = CellLaplacian.of(PointField(pos=pos, cells=cells))
    v = (pos[:, :1] ** 2 + 3 * pos[:, 1:] ** 2 + pos[:, :1] * pos[:, 1:])[None]
    inside = ((pos > 0.01) & (pos < 0.99)).all(1)
    torch.testing.assert_close(laplacian.apply(v)[0, inside], torch.full((25, 1), 8.0).double())


def test_the_lowest_modes_of_a_mesh_are_those_of_the_square():
    eigenvalues = torch.linalg.eigvals(-matrix_of(on_cells(12), 169)).real[0].sort().values
    wanted = torch.tensor([0, 1, 1, 2]).double() * math.pi**2
    # Linear elements of size 1/12: pi^2 h^2 / 12 relative, times a constant of order one.
    torch.testing.assert_close(eigenvalues[:4], wanted, rtol=2e-2, atol=1e-10)


@pytest.mark.parametrize("place", ["points", "cells"])
def test_a_drift_adds_the_gradient(place):
    drift = torch.tensor([[0.06, -0.03]]).double()
    if place == "points":
        s, w = _graded(48)
        laplacian, length = PointLaplacian(s, w.log(), 0.08), 0.08
    else:
        pos, cells = box("triangle", 12)
        s, laplacian, length = pos[None], on_cells(12, bend=0.0), 2**0.5 / 12
    slope = torch.tensor([[2.0], [-1.0]]).double()
    got = laplacian.drifting(drift).apply(s @ slope) - laplacian.apply(s @ slope)
    inside = ((s > 0.3) & (s < 0.7)).all(-1)
    wanted = 2 / length * (drift @ slope).squeeze()
    # Linear functions have no error on this mesh; on points, quadrature's is about 1e-4.
    torch.testing.assert_close(
        got[inside][:, 0], wanted.expand(int(inside.sum())), rtol=1e-2, atol=0
    )


def test_a_field_without_cells_is_refused_with_a_remedy():
    with pytest.raises(FieldError, match="no cells; use PointLaplacian"):
        CellLaplacian.of(PointField(pos=uniform(5, 2)))
