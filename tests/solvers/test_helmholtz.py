from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import CloughTocher2DInterpolator
from scipy.special import j0, j1, jn_zeros

from cst_operator.errors import InputError, SolverError
from cst_operator.solvers import (
    HELMHOLTZ_CHANNELS,
    Constant,
    Helmholtz,
    System,
    disk,
    mesh_geometry,
    rectangle,
    solve_helmholtz,
)

_K = 12.0


def _wave(x, loss):
    r"""A wave that loses strength: exp(i q . x) with q . q = k^2 (1 + i loss), f = 0."""
    q = _K * np.sqrt(1 + 1j * loss) * np.array([np.cos(0.4), np.sin(0.4)])
    value = np.exp(1j * (x @ q))
    return value, 1j * value[:, None] * q


def _errors(h, degree, loss):
    geometry = disk(0.5, holes=(disk(0.15).loops[0],), num_points=20000)
    mesh = mesh_geometry(geometry, h, np.random.default_rng(3))
    field = solve_helmholtz(
        mesh,
        wave_number=_K,
        loss=loss,
        g=(lambda x: _wave(x, loss)[0].real, lambda x: _wave(x, loss)[0].imag),
        degree=degree,
        geometry=geometry,
    )
    value, slope = _wave(mesh.pos.numpy(), loss)
    w = mesh.weights.numpy()
    u, gradient = field.u.numpy(), field.gradient.numpy()
    error = u[:, 0] + 1j * u[:, 1] - value
    difference = gradient[:, 0] + 1j * gradient[:, 1] - slope
    return np.sqrt(w @ np.abs(error) ** 2), np.sqrt((w @ np.abs(difference) ** 2).sum())


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize(
    "degree, sizes", [(1, (0.05, 0.025, 0.0125)), (2, (0.1, 0.05, 0.025)), (3, (0.1, 0.05))]
)
def test_error_falls_at_the_stated_order(degree, sizes, loss):
    found = [_errors(h, degree, loss) for h in sizes]
    for coarse, fine in pairwise(found):
        # edges are parabolas, which limits values of degree 3 to order 3
        assert np.log2(coarse[0] / fine[0]) > min(degree + 1, 3) - 0.15
        assert np.log2(coarse[1] / fine[1]) > degree - 0.15


def test_a_disk_with_a_source_and_a_refractive_index_sounds_like_a_bessel_function():
    # u = J0(m r) on the disk with k^2 n = m^2 and without source
    m, k = 3.5, 2.0
    geometry = disk(1.0, num_points=20000)
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    options = {"wave_number": k, "index": (m / k) ** 2, "geometry": geometry}
    edge = float(j0(m))
    field = solve_helmholtz(mesh, g=(edge, -2 * edge), **options)
    r = mesh.pos.norm(dim=1)
    exact = torch.from_numpy(j0(m * r.numpy()))
    # curved edges of .1: (m h)^4 / 100
    assert torch.allclose(field.u[:, 0], exact, rtol=0, atol=1e-4)
    assert torch.allclose(field.u[:, 1], -2 * exact, rtol=0, atol=2e-4)
    radial = (field.gradient[:, 0] * mesh.pos).sum(dim=1)
    assert torch.allclose(radial, torch.from_numpy(-m * r.numpy() * j1(m * r.numpy())), atol=3e-3)
    # a constant source: -k^2 u = f away from the boundary condition: particular solution
    shifted = solve_helmholtz(mesh, f=m**2, g=(edge - 1, 0.0), **options)
    assert torch.allclose(shifted.u[:, 0], exact - 1, rtol=0, atol=1e-4)


def test_waves_at_a_resonance_are_refused_and_loss_helps():
    geometry = disk(1.0, num_points=20000)
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    k = float(jn_zeros(0, 1)[0])
    with pytest.raises(SolverError, match="at a resonance"):
        solve_helmholtz(mesh, wave_number=k, f=1.0, geometry=geometry)
    solve_helmholtz(mesh, wave_number=1.01 * k, f=1.0, geometry=geometry)
    lossy = solve_helmholtz(mesh, wave_number=k, loss=0.1, f=1.0, geometry=geometry)
    norm = float((mesh.weights @ lossy.u.square()).sum().sqrt())
    assert norm < np.sqrt(np.pi) / (0.1 * k**2)  # the bound of the module's text


def test_refinement_gives_the_same_problem():
    system = Helmholtz(neumann=0.3)
    assert isinstance(system, System)
    coarse, fine = (system.sample(0, 2, refine=r) for r in (0, 1))
    same = ("area", "num_holes", "attempts", "wave_number", "loss")
    assert all(coarse.parameters[k] == fine.parameters[k] for k in same)
    inner = coarse.mesh.select(*HELMHOLTZ_CHANNELS[4:]).u.min(dim=1).values > 0.05
    x, y = coarse.mesh.pos[inner].numpy(), fine.mesh.pos.numpy()
    for i in range(2):
        values = coarse.u[0, :, i]
        error = CloughTocher2DInterpolator(y, fine.u[0, :, i].numpy())(x) - values[inner].numpy()
        assert np.abs(error).max() < 2e-2 * float(values.abs().max())


def test_a_sample_depends_on_seed_and_index_only_and_vanishes_on_its_boundary():
    one, two = (Helmholtz().sample(4, 2) for _ in range(2))
    assert torch.equal(one.u, two.u) and torch.equal(one.gradient, two.gradient)
    n = one.mesh.num_points
    assert one.u.shape == (1, n, 2) and one.gradient.shape == (1, n, 2, 2)
    assert one.mesh.channels == HELMHOLTZ_CHANNELS
    assert float(one.u[0, one.mesh.facets["line"].unique()].abs().max()) == 0.0
    assert 5 <= one.parameters["wave_number"] <= 20 and 0.05 <= one.parameters["loss"] <= 0.2
    assert float(one.u.abs().max()) > 0.1


def test_a_resonance_names_the_sample(monkeypatch):
    monkeypatch.setattr("cst_operator.solvers.helmholtz._RESONANCE", 1e3)
    with pytest.raises(SolverError, match="sample 1 of seed 5: the wave number"):
        Helmholtz().sample(5, 1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"wave_number": 0.0}, "positive wave number"),
        ({"loss": -1.0}, "loss of 0 or more"),
        ({"index": lambda x: x[:, 0] - 0.5}, "index .* must be positive"),
        ({"neumann": (1,)}, "whole boundary is Neumann"),
    ],
)
def test_problems_that_are_not_well_posed_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    with pytest.raises(InputError, match=words):
        solve_helmholtz(mesh, **{"wave_number": 1.0, **change})


@pytest.mark.parametrize(
    "change", [{"wave_number": (0.0, 1.0)}, {"loss": (0.2, 0.1)}, {"neumann": 2.0}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(InputError):
        Helmholtz(**change)


def test_without_a_source_there_is_silence():
    sample = replace(Helmholtz(), f=Constant(0.0)).sample(0, 0)
    assert float(sample.u.abs().max()) == 0.0


def _open_errors(h, degree, admittance):
    """The wave on a disk whose boundary gives d/dn u - i k beta u instead of values."""
    geometry = disk(0.5, num_points=20000)
    mesh = mesh_geometry(geometry, h, np.random.default_rng(3))

    def incoming(x):
        value, slope = _wave(x, 0.0)
        normal = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (slope * normal).sum(axis=1) - 1j * _K * admittance * value

    field = solve_helmholtz(
        mesh,
        wave_number=_K,
        impedance=(1,),
        admittance=admittance,
        incoming=(lambda x: incoming(x).real, lambda x: incoming(x).imag),
        degree=degree,
        geometry=geometry,
    )
    value, slope = _wave(mesh.pos.numpy(), 0.0)
    w, u, gradient = mesh.weights.numpy(), field.u.numpy(), field.gradient.numpy()
    error = u[:, 0] + 1j * u[:, 1] - value
    difference = gradient[:, 0] + 1j * gradient[:, 1] - slope
    return np.sqrt(w @ np.abs(error) ** 2), np.sqrt((w @ np.abs(difference) ** 2).sum())


# Measured: see docs/solvers.rst.
@pytest.mark.parametrize(
    "degree, sizes", [(1, (0.05, 0.025, 0.0125)), (2, (0.1, 0.05, 0.025)), (3, (0.1, 0.05))]
)
def test_error_of_a_wave_through_an_open_boundary_falls_at_the_stated_order(degree, sizes):
    found = [_open_errors(h, degree, 1.0 if degree > 1 else 0.7) for h in sizes]
    for coarse, fine in pairwise(found):
        # edges are parabolas, which limits values of degree 3 to order 3
        assert np.log2(coarse[0] / fine[0]) > min(degree + 1, 3) - 0.15
        assert np.log2(coarse[1] / fine[1]) > degree - 0.15


def test_a_wave_leaves_a_channel_without_reflection():
    # enters with value 1 on the left, slides along the walls, leaves on the right
    mesh = mesh_geometry(rectangle(2.0, 0.3, sides=True), 0.05, np.random.default_rng(0))
    field = solve_helmholtz(
        mesh, wave_number=_K, g=(1.0, 0.0), neumann=(1, 3), impedance=(2,), degree=3
    )
    phase = _K * mesh.pos[:, 0]
    exact = torch.stack([torch.cos(phase), torch.sin(phase)], dim=1)
    assert torch.allclose(field.u, exact, rtol=0, atol=1e-3)  # the error of the phase
    reflected = solve_helmholtz(mesh, wave_number=_K, g=(1.0, 0.0), neumann=(1, 2, 3), degree=3)
    assert float((reflected.u - exact).abs().max()) > 0.5


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_the_source_gives_an_open_system_leaves_through_its_outer_boundary(index):
    # int f Im u = k int |u|^2 over the boundary: the weak form with the conjugate of u
    sample = Helmholtz.open().sample(0, index)
    mesh, u = sample.mesh, sample.u[0]
    source = mesh.select("f").u[:, 0]
    given = mesh.weights @ (source * u[:, 1])
    outer = mesh.facets["line"][mesh.facet_markers["line"] == 1]
    length = (mesh.pos[outer[:, 1]] - mesh.pos[outer[:, 0]]).norm(dim=1)
    square = u.square().sum(dim=1)[outer]
    gone = sample.parameters["wave_number"] * (length @ square.mean(dim=1))
    assert sample.parameters["loss"] == 0.0 and gone > 0.01
    assert float(given / gone) == pytest.approx(1, abs=0.05)  # trapezoids: measured 1 %
    distances = mesh.select(*HELMHOLTZ_CHANNELS[4:]).u
    assert float(distances[outer.unique(), 2].abs().max()) < 1e-12
    assert float(distances[outer.unique(), :2].min()) > 0.02  # the gap to the holes


def test_parts_that_let_waves_out_are_never_neumann():
    system = Helmholtz(neumann=1.0, impedance=(1,))
    parameters = system.sample(0, 0).parameters
    assert [k for k in parameters if k.startswith("neumann_")] == [
        f"neumann_{i + 2}" for i in range(int(parameters["num_holes"]))
    ]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"impedance": (1,), "neumann": (1,)}, "marker 1 is in neumann and in impedance"),
        ({"impedance": (9,)}, "impedance names marker 9"),
        ({"impedance": (1,), "admittance": 0.0}, "admittance is 0.0"),
    ],
)
def test_impedances_that_do_not_fit_are_refused(change, words):
    mesh = mesh_geometry(rectangle(), 0.3, np.random.default_rng(0))
    with pytest.raises(InputError, match=words):
        solve_helmholtz(mesh, wave_number=3.0, **change)
