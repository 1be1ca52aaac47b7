"""Points, weights and axes of regular grids."""

from typing import Any

import numpy as np
import pytest
import torch

from cst_operator.datasets.readers.grids import axis_weights, frames_of, grid_mesh, uniform_axis
from cst_operator.errors import InputError
from tests.reader_samples import wave

F64 = torch.float64


@pytest.mark.parametrize("placement, exact", [("ends", 1), ("cells", 1), ("periodic", 0)])
def test_weights_of_every_placement_integrate(placement: Any, exact: int) -> None:
    x = uniform_axis(8, 1.0, 3.0, placement)
    weights = axis_weights(x, placement)
    assert weights.sum() == pytest.approx(2.0, rel=1e-14)
    assert (weights @ x == pytest.approx(4.0, rel=1e-14)) == bool(exact)
    # a whole period, which equal weights integrate exactly
    if placement == "periodic":
        assert weights @ np.cos(np.pi * x) == pytest.approx(0.0, abs=1e-14)


def test_trapezoidal_weights_fit_unequal_steps() -> None:
    x = np.array([0.0, 0.1, 0.5, 1.0])
    assert axis_weights(x, "ends") @ (3 * x + 1) == pytest.approx(2.5, rel=1e-14)


def test_a_grid_has_cells_that_fill_it() -> None:
    from cst_operator.quadrature import node_weights

    for d in (1, 2, 3):
        axes = [np.linspace(0, i + 1, i + 3) for i in range(d)]
        mesh = grid_mesh(axes, "ends", F64)
        assert torch.allclose(node_weights(mesh.pos, mesh.cells), mesh.weights, rtol=1e-12)


def test_frames_put_the_axes_in_the_order_of_the_points() -> None:
    x, y, t = np.arange(3.0), np.arange(4.0), np.arange(2.0)
    expected = wave(t, x, y).reshape(2, 12, 1)
    array = wave(t, x, y)
    for axes, order in (("txy", (0, 1, 2)), ("xyt", (1, 2, 0)), ("yxt", (2, 1, 0))):
        assert np.array_equal(frames_of(array.transpose(order), axes), expected)
    two = np.stack([array, 2 * array])
    assert np.array_equal(frames_of(two, "ctxy")[..., 1:], 2 * expected)


@pytest.mark.parametrize("axes", ["tx", "txyy", "tpxy", "txq"])
def test_letters_that_do_not_fit_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match="give one letter for every dimension"):
        frames_of(np.zeros((2, 3, 4)), axes)


def test_axes_that_turn_back_are_refused() -> None:
    with pytest.raises(InputError, match="rise or fall"):
        axis_weights(np.array([0.0, 2.0, 1.0]), "ends")
    with pytest.raises(InputError, match="expected 'ends'"):
        axis_weights(np.arange(3.0), "middle")  # type: ignore[arg-type]
