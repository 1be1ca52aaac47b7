import sys

import numpy as np
import pytest
import torch

from cst_operator import PointField, write_mesh
from cst_operator.errors import InputError, MeshError, SolverError
from cst_operator.solvers import (
    FixedDomain,
    NavierStokes,
    Poisson,
    RandomDomain,
    RandomProfile,
    disk,
    geometry_of_mesh,
    mesh_geometry,
    naca_profile,
    read_geometry,
    rectangle,
)

_HOLE = disk(0.2, (0.6, 0.5)).loops[0][::20]


def test_a_mesh_file_becomes_the_domain_it_was_made_of(tmp_path):
    geometry = rectangle(1.5, 1.0, holes=(_HOLE,), sides=True)
    mesh = mesh_geometry(geometry, 0.1, np.random.default_rng(0))
    write_mesh(tmp_path / "plate.msh", mesh)
    read = read_geometry(tmp_path / "plate.msh")
    assert set(read.parts) == set(geometry.parts) == {1, 2, 3, 4, 5}
    assert read.area == pytest.approx(float(mesh.weights.sum()), rel=1e-6)  # single precision
    again = mesh_geometry(read, 0.07, np.random.default_rng(1))
    for mesh_of_it in (mesh, again):
        edges = mesh_of_it.pos[mesh_of_it.facets["line"]].mean(dim=1)
        right = mesh_of_it.facet_markers["line"] == 2
        assert torch.equal(right, edges[:, 0] > 1.5 - 1e-5)
    sample = Poisson(domain=FixedDomain(read), h=0.1).sample(0, 0)
    assert sample.parameters["num_holes"] == 1


def test_sides_that_change_on_a_straight_edge_have_a_node_there():
    mesh = mesh_geometry(rectangle(), 0.25, np.random.default_rng(0))
    middle = mesh.pos[mesh.facets["line"]].mean(dim=1)
    markers = torch.where((middle[:, 1] < 1e-9) & (middle[:, 0] < 0.25), 7, 3)
    marked = PointField(
        pos=mesh.pos, cells=mesh.cells, facets=mesh.facets, facet_markers={"line": markers}
    )
    read = geometry_of_mesh(marked)
    assert set(read.parts) == {3, 7}
    for seed in range(3):
        again = mesh_geometry(read, 0.09, np.random.default_rng(seed))
        short = again.facet_markers["line"] == 7
        ends = again.pos[again.facets["line"][short]]
        assert float((ends[:, 1] - ends[:, 0]).norm(dim=1).sum()) == pytest.approx(0.25)


def test_a_mesh_without_markers_gets_those_of_its_loops():
    mesh = mesh_geometry(disk(1.0, holes=(disk(0.3).loops[0],)), 0.2, np.random.default_rng(0))
    read = geometry_of_mesh(PointField(pos=mesh.pos, cells=mesh.cells))
    assert read.parts == (1, 2) and len(read.loops) == 2


def test_real_files_become_domains(shared_data):
    read = read_geometry(shared_data / "meshes" / "good" / "cylinder_stokes.msh")
    mesh = mesh_geometry(read, 0.1, np.random.default_rng(0))
    assert float(mesh.weights.sum()) == pytest.approx(read.area, rel=1e-2)


def _two_parts():
    pos = torch.tensor([[0.0, 0], [1, 0], [0, 1], [5, 0], [6, 0], [5, 1]])
    return PointField(pos=pos, cells={"triangle": torch.tensor([[0, 1, 2], [3, 4, 5]])})


def _touching():
    pos = torch.tensor([[0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    return PointField(pos=pos, cells={"triangle": torch.tensor([[0, 1, 2], [0, 3, 4]])})


def _half_marked():
    pos = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    return PointField(
        pos=pos,
        cells={"triangle": torch.tensor([[0, 1, 2]])},
        facets={"line": torch.tensor([[0, 1]])},
        facet_markers={"line": torch.tensor([4])},
    )


def _split_hole():
    geometry = disk(1.0, holes=(disk(0.3).loops[0],))
    mesh = mesh_geometry(geometry, 0.2, np.random.default_rng(0))
    markers = torch.arange(len(mesh.facets["line"])) % 2
    return PointField(
        pos=mesh.pos, cells=mesh.cells, facets=mesh.facets, facet_markers={"line": markers}
    )


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: PointField(pos=torch.rand(3, 2)), "no cells in 2 dimensions"),
        (_two_parts, "several parts, one of them at"),
        (_touching, "4 boundary edges meet at point 0"),
        (_half_marked, "has no marker"),
        (_split_hole, "has the markers 0, 1; give every hole one"),
    ],
)
def test_meshes_that_are_no_domain_are_refused(make, words):
    with pytest.raises(MeshError, match=words):
        geometry_of_mesh(make())


def test_models_need_gmsh(tmp_path, monkeypatch):
    model = tmp_path / "square.geo"
    with pytest.raises(MeshError, match="does not exist"):
        read_geometry(model)
    model.write_text("Point(1) = {0, 0, 0};")
    monkeypatch.setitem(sys.modules, "gmsh", None)
    with pytest.raises(MeshError, match="only gmsh can mesh.*pip install 'cst-operator.gmsh.'"):
        read_geometry(model)


def test_gmsh_meshes_models(tmp_path):
    pytest.importorskip("gmsh", reason="gmsh is optional", exc_type=(ImportError, OSError))
    model = tmp_path / "square.geo"
    model.write_text(
        'SetFactory("OpenCASCADE"); Rectangle(1) = {0, 0, 0, 2, 1}; Disk(2) = {1, .5, 0, .2};\n'
        "BooleanDifference{ Surface{1}; Delete; }{ Surface{2}; Delete; }\n"
        "Mesh.MeshSizeMax = .1;\n"
    )
    read = read_geometry(model)
    assert len(read.loops) == 2
    assert read.area == pytest.approx(2 - np.pi * 0.04, rel=1e-2)  # chords of the disk


@pytest.mark.parametrize("camber, position, thickness", [(0.0, 0.4, 0.12), (0.04, 0.4, 0.15)])
def test_a_profile_has_its_thickness_and_its_camber(camber, position, thickness):
    loop = naca_profile(camber, position, thickness, num_points=2000)
    upper, lower = loop[:1001], np.concatenate([loop[1000:], loop[:1]])
    assert np.allclose(loop[0], [1, 0], rtol=0, atol=1e-12)  # closed trailing edge
    assert np.allclose(upper[-1], [0, 0], rtol=0, atol=1e-12)
    across = np.linalg.norm(upper - lower[::-1], axis=1)
    line = (upper + lower[::-1])[:, 1] / 2
    # the formula has its maximum of 1.0003 t at x = .3
    assert across.max() == pytest.approx(thickness, rel=1e-3)
    assert line.max() == pytest.approx(camber, abs=1e-5)
    # area of the symmetric section: twice the integral of the polynomial;
    # camber adds its square
    x, y = loop.T
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    assert area == pytest.approx(0.6809 * thickness, rel=2e-3 + 2 * camber**2)


def test_random_profiles_keep_their_distance_and_carry_flows(rng):
    domain = RandomProfile()
    for _ in range(20):
        geometry = domain.sample(rng)
        section = geometry.loops[1]
        assert geometry.parts == (1, 2, 3, 4, 5)
        assert section.min() >= 0.1 - 1e-12 and section[:, 1].max() <= 0.9 + 1e-12
        assert section[:, 0].max() <= 1.0 + 1e-12
    lifted = RandomProfile(angle=(15.0, 15.0), camber=(0.04, 0.04))
    flow = NavierStokes(domain=lifted, h=0.1, skew=0.0, viscosity=(0.02, 0.02)).sample(0, 0)
    assert flow.parameters["force_x_5"] > 0 and flow.parameters["force_y_5"] > 0  # drag and lift


@pytest.mark.parametrize("outline", ["smooth", "polygon"])
def test_random_outlines_exist(outline, rng):
    assert RandomDomain(outline=outline).sample(rng).area > 0


def test_impossible_profiles_are_refused(rng):
    with pytest.raises(InputError, match="thickness 0.9"):
        naca_profile(0.0, 0.4, 0.9)
    with pytest.raises(InputError, match="num_points is 3"):
        naca_profile(0.0, 0.4, 0.1, num_points=3)
    with pytest.raises(InputError, match="chord is"):
        RandomProfile(chord=(0.5, 0.4))
    with pytest.raises(InputError, match="outlet 3.0"):
        RandomProfile(outlet=3.0)
    with pytest.raises(SolverError, match="finds no place"):
        RandomProfile(chord=(0.95, 0.95)).sample(rng)
