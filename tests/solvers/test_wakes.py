import numpy as np
import pytest
import torch
from scipy.interpolate import CloughTocher2DInterpolator

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import CHANNEL_CHANNELS, System, Wakes

_SHORT = Wakes(near=(0.15,), final_time=1.0, num_frames=5, dt=0.05)


def test_a_sample_depends_on_seed_and_index_only_and_fits_its_boundary():
    assert isinstance(_SHORT, System)
    one, two = (_SHORT.sample(4, 2) for _ in range(2))
    assert torch.equal(one.u, two.u) and torch.equal(one.gradient, two.gradient)
    assert one.parameters["viscosity"] != _SHORT.sample(4, 3).parameters["viscosity"]
    n = one.mesh.num_points
    assert one.channels == ("u_x", "u_y", "p")
    assert one.u.shape == (5, n, 3) and one.gradient.shape == (5, n, 3, 2)
    assert one.mesh.channels == CHANNEL_CHANNELS
    wall, inflow = (one.mesh.select(f"distance_{k}").u[:, 0] < 1e-12 for k in ("wall", "inflow"))
    assert float(one.u[:, wall, :2].abs().max()) < 1e-15
    assert float(one.u[0, :, :2].abs().max()) == 0  # at rest
    profile = one.mesh.select("inflow").u[inflow, 0]
    # sin^2 of pi/8, pi/4, ... up to rounding
    for frame, size in zip(
        one.u[1:], [0.14644660940672627, 0.5, 0.8535533905932737, 1.0], strict=True
    ):
        assert torch.allclose(frame[inflow, 0], size * profile, rtol=1e-12, atol=1e-14)


def test_what_flows_in_flows_out():
    sample = _SHORT.sample(4, 2)
    x, u = sample.mesh.pos.numpy(), sample.u[-1, :, 0].numpy()
    flow = []
    for end in (0.0, _SHORT.domain.width):
        at = np.flatnonzero(np.abs(x[:, 0] - end) < 1e-12)
        at = at[np.argsort(x[at, 1])]
        flow.append(np.trapezoid(u[at], x[at, 1]))
    assert np.isclose(*flow, rtol=0.06)  # 11 points of a trapezoidal rule: measured .028


def test_refinement_gives_the_same_problem_and_nearly_the_same_flow():
    coarse, fine = (_SHORT.sample(0, 2, refine=r) for r in (0, 1))
    same = ("area", "num_holes", "attempts", "viscosity", "skew")
    assert all(coarse.parameters[k] == fine.parameters[k] for k in same)
    assert fine.parameters["dt"] == coarse.parameters["dt"] / 2 == _SHORT.dt / 2
    assert fine.mesh.num_points > 3 * coarse.mesh.num_points
    inner = coarse.mesh.select("distance_wall").u[:, 0] > 0.08
    x, y = coarse.mesh.pos[inner].numpy(), fine.mesh.pos.numpy()
    values = coarse.u[-1, inner, :2].numpy()
    error = np.nan_to_num(CloughTocher2DInterpolator(y, fine.u[-1, :, :2].numpy())(x) - values)
    # meshes that are coarser than the default: measured 8e-3
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(values)


def test_a_flow_that_diverges_is_an_error_that_names_the_sample():
    system = Wakes(viscosity=(1e-6, 1e-6), near=(), h=0.2, dt=0.1, final_time=20.0, num_frames=2)
    with pytest.raises(SolverError, match="sample 1 of seed 3: the flow diverges"):
        system.sample(3, 1)


@pytest.mark.parametrize(
    "change", [{"viscosity": (0.0, 1.0)}, {"skew": 2.0}, {"num_frames": 1}, {"ramp": 0.0}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        Wakes(**change)
