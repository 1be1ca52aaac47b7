"""Derivatives are those of the answer, in the user's units, and have no jumps."""

import pytest
import torch
from torch import Tensor

from cst_operator import _jets
from cst_operator.derivatives import Derivatives, differentiate
from cst_operator.differentiation import gradient_operator
from cst_operator.fields import PointField
from cst_operator.model import CSTOperator
from tests.mesh_samples import box
from tests.model_samples import KINDS, joined, known_field, queries_in, tiny_model

every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
both_forms = pytest.mark.parametrize("form", ["operator", "joint"])

STEP = 1e-3
# Five-point differences err by step^4 f'''''/30, about 1e-8 of the largest value for frequencies
# up to 4 pi; rounding adds 1e-16/step.
STENCIL = 1e-6


def _moved(target: PointField, axis: int, by: float) -> PointField:
    """The same points shifted along one axis; the one after the last is time."""
    pos, time = target.pos.clone(), target.time.clone()
    if axis < target.dim:
        pos[:, axis] += by
    else:
        time += by
    return PointField(pos=pos, time=time)


def _difference(function, target: PointField, axis: int) -> Tensor:
    """Fourth-order central difference of ``function(field)`` along one axis."""
    at = {k: function(_moved(target, axis, k * STEP)) for k in (-2, -1, 1, 2)}
    return (at[-2] - 8 * at[-1] + 8 * at[1] - at[2]) / (12 * STEP)


def _close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=STENCIL * float(wanted.abs().max()))
    assert wanted.abs().max() > 1e-2  # there is something to compare


def _in_other_units(model: CSTOperator) -> CSTOperator:
    """Every scale another number, so that a forgotten one shows."""
    scales = model.normalization
    scales.pos_scale.fill_(1.7)
    scales.time_scale.fill_(0.6)
    scales.out_std.copy_(torch.tensor([3.0, 0.4]))
    return model


@every_kind
def test_first_derivatives_agree_with_finite_differences(changes, seed, generator):
    model = _in_other_units(tiny_model(seed, transient=True, **changes))
    source = known_field(generator, 30, transient=True)
    target = queries_in(generator, 10, transient=True)
    got = model.derivatives(source, target)
    # With the encoded source, so that in the joint form the other queries stay where they are.
    encoded = model.encode(source, target)

    def answer(field: PointField) -> Tensor:
        return model(encoded, field).detach()

    torch.testing.assert_close(got.u, model(source, target), rtol=0, atol=1e-12)  # rounding
    assert got.gradient.shape == (10, 2, 2)
    for axis in range(2):
        _close(got.gradient[..., axis].detach(), _difference(answer, target, axis))
    _close(got.time_derivative.detach(), _difference(answer, target, 2))
    vector = sum(_difference(answer, target, axis)[:, axis] for axis in range(2))
    _close(got.divergence.detach(), vector)


@every_kind
def test_second_derivatives_agree_with_finite_differences(changes, seed, generator):
    model = _in_other_units(tiny_model(seed, transient=True, **changes))
    source = known_field(generator, 30, transient=True)
    target = queries_in(generator, 10, transient=True)
    # Encoded, so that in the joint form the other queries stay where they are.
    source = model.encode(source, target)
    got = model.derivatives(source, target, order=2)
    assert got.hessian.shape == (10, 2, 2, 2)
    assert got.order(2).shape == (10, 2, 3, 3)
    for axis in range(2):
        wanted = _difference(
            lambda field: model.derivatives(source, field).gradient.detach(), target, axis
        )
        _close(got.hessian[..., axis].detach(), wanted)
    mixed = _difference(
        lambda field: model.derivatives(source, field).time_derivative.detach(), target, 0
    )
    _close(got.order(2)[..., 0, 2].detach(), mixed)
    centre = model(source, target)
    second = sum(
        sum(model(source, _moved(target, axis, by)) for by in (-STEP, STEP)) - 2 * centre
        for axis in range(2)
    )
    wanted = second.detach() / STEP**2
    # Three-point second differences err by step^2 f''''/12: 1e-6 * (4 pi)^2/12 = 1e-5 of f''.
    torch.testing.assert_close(
        got.laplacian.detach(), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max())
    )


@every_kind
def test_first_derivatives_take_no_operation_without_a_rule(changes, seed, generator, monkeypatch):
    def refuse(function, *args, **kwargs):
        pytest.fail(f"{function.__name__} has no rule in cst_operator._jets")

    monkeypatch.setattr(_jets, "_general", refuse)
    model = tiny_model(seed, **changes)
    model.derivatives(known_field(generator, 30), queries_in(generator, 10))


def test_third_derivatives_agree_with_finite_differences_of_second_ones(seed, generator):
    model = _in_other_units(tiny_model(seed))
    source, target = known_field(generator, 20), queries_in(generator, 6)
    got = model.derivatives(source, target, order=3).order(3).detach()
    for axis in range(2):
        wanted = _difference(
            lambda field: model.derivatives(source, field, 2).hessian.detach(), target, axis
        )
        _close(got[..., axis], wanted)
    # Partial derivatives commute; rounding of nested forward mode alone.
    torch.testing.assert_close(got, got.transpose(-1, -2), rtol=0, atol=1e-11 * got.abs().max())


def test_lower_orders_do_not_depend_on_the_order_asked_for(seed, generator):
    model = tiny_model(seed)
    source, target = known_field(generator, 20), queries_in(generator, 6)
    high = model.derivatives(source, target, order=2)
    for k in range(2):
        low = model.derivatives(source, target, order=k)
        torch.testing.assert_close(low.order(k), high.order(k), rtol=0, atol=1e-11)  # rounding


@every_kind
def test_derivatives_keep_their_precision_under_autocast(changes, seed, generator):
    model = tiny_model(seed, **changes).float()
    source, target = known_field(generator, 40), queries_in(generator, 15)
    for field in (source, target):
        for key in ("pos", "u", "time", "weights"):
            if key in field:
                field[key] = field[key].float()
    encoded = model.encode(source, target)
    exact = model.derivatives(encoded, target)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.derivatives(encoded, target)
        rough = model.derivatives(source, target)
        assert (model(encoded, target) - exact.u).abs().max() > 1e-4  # values are rounded
    torch.testing.assert_close(got.gradient, exact.gradient, rtol=0, atol=0)
    assert rough.gradient.dtype == torch.float32
    # bfloat16 has 8 bits; what it reads is off by some of its roundings, not by more.
    assert (rough.gradient - exact.gradient).norm() < 0.1 * exact.gradient.norm()


@both_forms
def test_derivatives_do_not_depend_on_the_chunk(form, seed, generator):
    model = tiny_model(seed, form=form)
    source, target = known_field(generator, 30), queries_in(generator, 17)
    whole, parts = (model.derivatives(source, target, 2, chunk=c) for c in (100, 5))
    for k in range(3):
        torch.testing.assert_close(parts.order(k), whole.order(k), rtol=0, atol=1e-11)  # rounding


@both_forms
def test_derivatives_of_a_batch_are_those_of_its_samples(form, seed, generator):
    model = tiny_model(seed, form=form)
    examples = [(known_field(generator, n), queries_in(generator, m)) for n, m in ((20, 5), (9, 8))]
    together = model.derivatives(*joined(*examples), order=2)
    for k in range(3):
        single = torch.cat([model.derivatives(*e, order=2).order(k) for e in examples])
        size = float(1 + single.detach().abs().max())
        torch.testing.assert_close(together.order(k), single, rtol=0, atol=1e-12 * size)  # sums


@both_forms
def test_reverse_mode_runs_through_derivatives(form, seed, generator):
    model = tiny_model(seed, form=form)
    source, target = known_field(generator, 20), queries_in(generator, 6)
    parameters = list(model.parameters())
    way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> Tensor:
        got = model.derivatives(source, target, order=2)
        return got.u.sin().mean() + got.gradient.sin().mean() + (got.laplacian / 10).sin().mean()

    slopes = torch.autograd.grad(loss(), parameters)
    slope = sum((a * b).sum() for a, b in zip(slopes, way, strict=True))

    def at(step: float) -> float:
        with torch.no_grad():
            for p, w in zip(parameters, way, strict=True):
                p += step * w
            value = float(loss())
            for p, w in zip(parameters, way, strict=True):
                p -= step * w
        return value

    # Fourth-order differences with a step of 1e-4: 1e-16 of curvature, rounding 1e-16/1e-4.
    h = 1e-4
    wanted = (at(-2 * h) - 8 * at(-h) + 8 * at(h) - at(2 * h)) / (12 * h)
    assert float(slope) == pytest.approx(wanted, rel=1e-6)
    assert abs(wanted) > 1e-3


def _across_faces(generator: torch.Generator) -> tuple[PointField, Tensor, Tensor]:
    """A field on a mesh, the middles of its inner faces, and the unit vectors across them."""
    pos, cells = box("triangle", 6, bend=0.02)
    u = torch.randn(len(pos), 2, generator=generator, dtype=pos.dtype)
    mesh = PointField(pos=pos, u=u, weights=torch.ones(len(pos)).to(pos), cells=cells)
    pair = cells["triangle"][:, [0, 1]]
    edge = pos[pair[:, 1]] - pos[pair[:, 0]]
    across = torch.stack([-edge[:, 1], edge[:, 0]], 1) / edge.norm(dim=1, keepdim=True)
    middle = pos[pair].mean(1)
    # Along the edge, the middle is where the nearest node changes.
    along = edge / edge.norm(dim=1, keepdim=True)
    return mesh, middle.repeat(2, 1), torch.cat([across, along])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "joint"])
def test_neither_value_nor_gradient_jumps_where_cells_or_nearest_nodes_change(
    kind, seed, generator
):
    model = tiny_model(seed, interpolant_radius=0.1, radii=(0.1, 2.0), **KINDS[kind])
    mesh, middle, across = _across_faces(generator)
    gap = 1e-9
    here, there = (
        model.derivatives(mesh, PointField(pos=middle + side * gap * across), order=2)
        for side in (-1, 1)
    )
    for k in range(2):
        jump = (there.order(k) - here.order(k)).abs().max()
        slope = here.order(k + 1).norm(dim=-1).max()
        # A smooth function changes by at most slope times distance; rounding adds 1e-13 or so.
        assert jump <= 1.01 * 2 * gap * slope + 1e-11 * here.order(k).abs().max()
    # The mesh's own linear interpolant of the same samples does jump.
    own = gradient_operator(mesh).apply(mesh.u)
    assert (own.diff(dim=0)).abs().max() > 1


def test_second_differences_along_a_line_through_many_cells_stay_bounded(seed, generator):
    model = tiny_model(seed, interpolant_radius=0.1, radii=(0.1, 2.0))
    mesh, _, _ = _across_faces(generator)
    step = 1e-4
    way = torch.tensor([0.8, 0.6], dtype=torch.float64)
    line = torch.arange(6000, dtype=way.dtype)[:, None] * step * way + 0.15
    with torch.no_grad():
        u = model.predict(mesh, PointField(pos=line)).u
        curve = torch.einsum(
            "mcij,i,j->mc",
            model.derivatives(mesh, PointField(pos=line[::20]), order=2).hessian,
            way,
            way,
        )
    second = (u[2:] - 2 * u[1:-1] + u[:-2]) / step**2
    # A kink of slope J would give J/step, ten thousand times J. The curvature is sampled every
    # 2e-3, in which it changes by less than a tenth; second differences round by 1e-7.
    assert second.abs().max() <= 1.1 * curve.abs().max() + 1e-5
    assert curve.abs().max() > 0.1


@both_forms
def test_what_was_not_computed_is_refused_with_a_remedy(form, seed, generator):
    model = tiny_model(seed, form=form, out_channels=1)
    source, target = known_field(generator, 20), queries_in(generator, 6)
    first = model.derivatives(source, target)
    with pytest.raises(ValueError, match=r"order 2 were not computed; ask for .*order=2"):
        _ = first.hessian
    with pytest.raises(ValueError, match="order 2 were not computed"):
        _ = first.laplacian
    with pytest.raises(ValueError, match=r"make it with CSTConfig\(transient=True\)"):
        _ = first.time_derivative
    with pytest.raises(ValueError, match="the divergence needs 2 channels, the field has 1"):
        _ = first.divergence
    with pytest.raises(ValueError, match="order is -1; expected zero or more"):
        model.derivatives(source, target, order=-1)
    with pytest.raises(ValueError, match="order -1 were not computed"):
        first.order(-1)


def test_a_polynomial_is_differentiated_exactly():
    s = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)

    def cubic(x: Tensor) -> Tensor:
        return (x[..., :1] ** 2 * x[..., 1:]) + x[..., 1:] ** 3

    got = Derivatives(differentiate(cubic, s, 3), dim=2)
    x, y = s.T
    exact = {"atol": 1e-13, "rtol": 0.0}  # a few products of numbers below 10
    torch.testing.assert_close(got.u[:, 0], x**2 * y + y**3, **exact)
    torch.testing.assert_close(
        got.gradient[:, 0], torch.stack([2 * x * y, x**2 + 3 * y**2], 1), **exact
    )
    torch.testing.assert_close(got.laplacian[:, 0], 2 * y + 6 * y, **exact)
    torch.testing.assert_close(got.hessian[:, 0, 0, 1], 2 * x, **exact)
    third = torch.zeros(2, 2, 2, dtype=torch.float64)
    third[0, 0, 1] = third[0, 1, 0] = third[1, 0, 0] = 2
    third[1, 1, 1] = 6
    torch.testing.assert_close(got.order(3)[:, 0], third.expand(5, 2, 2, 2), **exact)


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_curl_of_a_rotation_is_twice_its_rate_and_that_of_a_gradient_is_zero(dim, transient):
    rate = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64)
    s = torch.linspace(-1, 1, 4 * (dim + transient), dtype=torch.float64).view(4, -1)

    def rotation(x: Tensor) -> Tensor:  # and a further channel, which is no part of the vector
        if dim == 2:
            turned = rate[2] * torch.stack([-x[..., 1], x[..., 0]], -1)
        else:
            turned = torch.linalg.cross(rate.expand_as(x[..., :3]), x[..., :3])
        return torch.cat([turned, x[..., :1] ** 2], -1)

    def slope(x: Tensor) -> Tensor:  # of the product of the coordinates
        return x[..., :dim].prod(-1, keepdim=True) / x[..., :dim]

    exact = {"atol": 1e-13, "rtol": 0.0}  # a few products of numbers of order one
    curl = Derivatives(differentiate(rotation, s, 1), dim=dim).curl
    wanted = 2 * rate[2].expand(4) if dim == 2 else 2 * rate.expand(4, 3)
    torch.testing.assert_close(curl, wanted, **exact)
    none = Derivatives(differentiate(slope, s, 1), dim=dim).curl
    torch.testing.assert_close(none, torch.zeros_like(none), **exact)


def test_the_curl_needs_a_vector():
    s = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="the curl needs 2 channels, the field has 1"):
        _ = Derivatives(differentiate(lambda x: x[..., :1], s, 1), dim=2).curl
    line = Derivatives(differentiate(lambda x: x, s[:, :1], 1), dim=1)
    with pytest.raises(ValueError, match="needs two or three space dimensions"):
        _ = line.curl
