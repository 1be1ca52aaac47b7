import math

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from cst_operator._cells import reference_cell
from cst_operator.differentiation import gradient_operator
from cst_operator.errors import MeshError
from cst_operator.fields import PointField
from cst_operator.quadrature import node_weights
from tests.mesh_samples import box

KINDS = ["line", "triangle", "quad", "mixed2", "tetra", "hexahedron", "wedge", "pyramid", "mixed3"]


def mesh(kind: str, n: int) -> PointField:
    pos, cells = box(kind, n, bend=0.0 if kind == "line" else 0.05)
    return PointField(pos, cells=cells)


def cloud(n: int, dim: int, generator: torch.Generator) -> PointField:
    """Jittered grid without cells: irregular, without clusters."""
    pos, _ = box({2: "quad", 3: "hexahedron"}[dim], n)
    return PointField(pos + (torch.rand(pos.shape, generator=generator).double() - 0.5) / (2 * n))


def wave(x: Tensor) -> Tensor:
    return (x @ torch.tensor([3.0, 2.0, 1.0], dtype=x.dtype)[: x.shape[1]]).sin()[:, None]


def wave_gradient(x: Tensor) -> Tensor:
    k = torch.tensor([3.0, 2.0, 1.0], dtype=x.dtype)[: x.shape[1]]
    return ((x @ k).cos()[:, None] * k)[:, None]


def linear(dim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    slope = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    return slope, torch.randn(2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_linear_fields_is_exact_on_meshes(
    kind: str, generator: torch.Generator
) -> None:
    field = mesh(kind, 4)
    slope, offset = linear(field.dim, generator)
    operator = gradient_operator(field)
    u = field.pos @ slope.T + offset
    # Rounding over a cell of size 1/4.
    torch.testing.assert_close(operator.apply(u), slope.expand(len(operator.weights), -1, -1))
    torch.testing.assert_close(operator.nodal(u), slope.expand(field.num_points, -1, -1))


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradient_of_polynomials_is_exact_on_points(
    dim: int, degree: int, generator: torch.Generator
) -> None:
    pos = torch.rand(200, dim, generator=generator, dtype=torch.float64)
    operator = gradient_operator(PointField(pos), degree=degree)
    slope, offset = linear(dim, generator)
    u, expected = pos @ slope.T + offset, slope.expand(200, -1, -1)
    if degree == 2:
        u = u + pos.square().sum(dim=1, keepdim=True)
        expected = expected + 2 * pos[:, None]
    # Random stencils have condition numbers up to 1e6, neighbours are 1e-2 away.
    torch.testing.assert_close(operator.apply(u), expected, rtol=0, atol=1e-6)
    assert operator.averaging is None
    torch.testing.assert_close(operator.nodal(u), operator.apply(u))


@pytest.mark.parametrize("kind", ["triangle", "quad", "mixed2", "tetra", "hexahedron", "mixed3"])
def test_gradient_in_cells_converges_at_first_order(kind: str) -> None:
    # It is the derivative of a linear interpolant, whose own error is of second order.
    errors = []
    for n in (8, 16):
        field = mesh(kind, n)
        operator = gradient_operator(field)
        difference = operator.apply(wave(field.pos)) - wave_gradient(_evaluation_points(field))
        errors.append(float((operator.weights @ difference[:, 0].square().sum(1)).sqrt()))
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.05  # the next term is one order smaller


def _evaluation_points(field: PointField) -> Tensor:
    """Quadrature points by interpolation of the coordinates, in the operator's order."""
    return torch.cat(
        [
            torch.einsum("qv,nvd->nqd", reference_cell(kind).basis, field.pos[index]).flatten(0, 1)
            for kind, index in field.cells.items()
        ]
    )


@pytest.mark.parametrize("kind", ["triangle", "quad", "hexahedron"])
def test_nodal_gradient_converges_faster_than_first_order(kind: str) -> None:
    # Averages are of second order inside and of first in a boundary layer of width h: 3/2 in L2.
    errors = []
    for n in (8, 16, 32) if kind != "hexahedron" else (4, 8, 16):
        field = mesh(kind, n)
        difference = gradient_operator(field).nodal(wave(field.pos)) - wave_gradient(field.pos)
        weights = node_weights(field.pos, field.cells)
        errors.append(float((weights @ difference[:, 0].square().sum(1)).sqrt()))
    assert abs(math.log2(errors[1] / errors[2]) - 1.5) < 0.15


@pytest.mark.parametrize(("dim", "sizes"), [(2, (16, 32)), (3, (8, 16))])
@pytest.mark.parametrize("degree", [1, 2])
def test_gradient_on_points_converges_at_its_degree(
    degree: int, dim: int, sizes: tuple[int, int], generator: torch.Generator
) -> None:
    errors = []
    for n in sizes:
        field = cloud(n, dim, generator)
        operator = gradient_operator(field, degree=degree)
        difference = operator.apply(wave(field.pos)) - wave_gradient(field.pos)
        errors.append(float(difference.square().mean().sqrt()))
    order = math.log2(errors[0] / errors[1])
    # Degree 1 gains up to half an order where stencils are nearly symmetric; random points scatter.
    assert degree - 0.2 < order < degree + 0.7


def test_gradient_on_a_surface_is_tangential() -> None:
    pos, cells = box("triangle", 4)
    sheet = torch.stack([pos[:, 0], 0.6 * pos[:, 1], 0.8 * pos[:, 1]], dim=1)
    gradient = gradient_operator(PointField(sheet, cells=cells)).nodal(sheet[:, 2:])
    # z = 0.8 s along the unit tangent (0, 0.6, 0.8).
    expected = 0.8 * torch.tensor([0, 0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected.expand(len(sheet), 1, 3))


def test_weights_integrate_the_energy() -> None:
    operator = gradient_operator(mesh("mixed2", 4))
    assert operator.weights.sum().item() == pytest.approx(1)


def test_gradients_flow_through_apply(generator: torch.Generator) -> None:
    for field in (mesh("mixed2", 2), cloud(3, 2, generator)):
        operator = gradient_operator(field)
        u = torch.randn(field.num_points, 2, generator=generator, dtype=torch.float64)
        u.requires_grad_()
        assert torch.autograd.gradcheck(operator.apply, u)
        assert torch.autograd.gradcheck(operator.nodal, u)
        assert torch.autograd.gradgradcheck(lambda v: operator.apply(v).square(), u)  # noqa: B023
        with torch.no_grad():
            assert not operator.apply(u).requires_grad


def test_autocast_does_not_lower_the_precision() -> None:
    field = mesh("triangle", 4)
    single = gradient_operator(field).to(torch.float32)
    u = wave(field.pos).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = single.apply(u)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, single.apply(u))


def test_cells_that_have_no_gradient_are_named() -> None:
    flat = torch.tensor([[0.0, 0], [1, 1], [2, 2]])
    with pytest.raises(MeshError, match="cell 0 of type triangle is degenerate"):
        gradient_operator(PointField(flat, cells={"triangle": torch.tensor([[0, 1, 2]])}))


def test_points_that_determine_no_gradient_are_refused() -> None:
    line = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None].expand(-1, 2)
    with pytest.raises(MeshError, match="do not determine a gradient"):
        gradient_operator(PointField(line))
    with pytest.raises(MeshError, match="needs 6 points or more"):
        gradient_operator(PointField(torch.rand(4, 2)))
    with pytest.raises(MeshError, match="do not determine a gradient"):
        gradient_operator(PointField(torch.zeros(30, 2)))
    with pytest.raises(ValueError, match="expected 1 or 2"):
        gradient_operator(PointField(torch.rand(30, 2)), degree=3)


def test_values_of_another_mesh_are_refused() -> None:
    operator = gradient_operator(mesh("triangle", 2))
    with pytest.raises(MeshError, match="one row for every point"):
        operator.apply(torch.zeros(5, 1))


def test_the_gradient_of_a_batch_is_that_of_its_samples() -> None:
    field = mesh("mixed2", 2)
    batch = Batch.from_data_list([field, field])
    single = gradient_operator(field).nodal(wave(field.pos))
    torch.testing.assert_close(
        gradient_operator(batch).nodal(wave(batch.pos)), torch.cat([single, single])
    )


def test_neighbours_are_sought_in_one_sample_and_frame(generator: torch.Generator) -> None:
    parts = [PointField(torch.rand(n, 2, generator=generator).double()) for n in (20, 15, 30)]
    single = [gradient_operator(part) for part in parts]
    wanted = torch.cat(
        [operator.apply(wave(part.pos)) for operator, part in zip(single, parts, strict=True)]
    )
    weights = torch.cat([operator.weights for operator in single])
    batch = Batch.from_data_list(parts)
    time = torch.tensor([3.0, 1.0, 2.0]).repeat_interleave(torch.tensor([20, 15, 30]))
    mixed = torch.randperm(65, generator=generator)  # frames need not follow one another
    moving = PointField(batch.pos[mixed], time=time[mixed])
    for field, order in ((batch, torch.arange(65)), (moving, mixed)):
        operator = gradient_operator(field)
        torch.testing.assert_close(operator.apply(wave(field.pos)), wanted[order])
        torch.testing.assert_close(operator.weights, weights[order])
    with pytest.raises(MeshError, match="6 points or more of one sample and time, got 1"):
        gradient_operator(PointField(batch.pos, time=torch.arange(65.0)))
    with pytest.raises(MeshError, match="got 0"):
        gradient_operator(PointField(batch.pos[:0]))


def test_precision_follows_the_points(generator: torch.Generator) -> None:
    for field in (mesh("mixed2", 2), cloud(3, 2, generator)):
        single = PointField(field.pos.float(), cells=field.get("cells"))
        gradient = gradient_operator(single).apply(single.pos)
        assert gradient.dtype == torch.float32
        # Rounding of 1e-7 over distances of 1e-1.
        torch.testing.assert_close(gradient, torch.eye(2).expand_as(gradient), rtol=0, atol=1e-4)
