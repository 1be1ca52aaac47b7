"""FNO through a grid, and interpolation."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.spatial import Delaunay
from torch import nn
from torch_geometric.loader import DataLoader

from cst_operator.checkpoint import load
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.peers import (
    CubicSplineInTime,
    GridFNO,
    GridFNOConfig,
    LinearInterpolation,
    Nearest,
    ThinPlateSpline,
)
from cst_operator.peers.grid import GridBox, grid_to_points, points_to_grid
from cst_operator.training import FitConfig, fit

BOX = GridBox((0.0, 0.0), (1.0, 1.0), 33)


def triangulated(pos: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"triangle": torch.from_numpy(Delaunay(pos.numpy()).simplices).long()}


def scattered(n: int, generator: torch.Generator, dim: int = 2) -> torch.Tensor:
    """Random points that cover the unit box, its corners included."""
    corners = torch.cartesian_prod(*(torch.tensor([0.0, 1.0]),) * dim)
    inner = torch.rand(n - len(corners), dim, generator=generator)
    return torch.cat([corners, inner]).double()


def linear(pos: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 + 2 * pos[:, 0] - 3 * pos[:, -1], pos.sum(dim=1)], dim=1)


def example(n: int, generator: torch.Generator) -> Example:
    pos = scattered(n, generator)
    cells, weights = triangulated(pos), torch.full((n,), 1 / n, dtype=torch.float64)
    u = linear(pos)
    source = PointField(pos, u, weights, channels=["u", "v"], cells=cells)
    return Example(source, source.select("u"))


@pytest.fixture
def examples(generator: torch.Generator) -> list[Example]:
    return [example(n, generator) for n in (40, 70, 55)]


@pytest.fixture
def fno(examples: list[Example], seed: int) -> GridFNO:
    torch.manual_seed(seed)
    config = GridFNOConfig(
        dim=2, in_channels=2, out_channels=1, modes=4, width=8, layers=2, resolution=16
    )
    return GridFNO(config).fit_normalization(examples).eval()


def batch_of(examples: list[Example]) -> Example:
    return next(iter(DataLoader(examples, batch_size=len(examples))))


# Between points and grid


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("with_cells", [True, False])
def test_linear_functions_go_to_the_grid_and_back_exactly(
    dim: int, with_cells: bool, generator: torch.Generator
) -> None:
    box = GridBox((0.0,) * dim, (1.0,) * dim, 9)
    pos = scattered(200, generator, dim)
    kind = "triangle" if dim == 2 else "tetra"
    cells = {kind: torch.from_numpy(Delaunay(pos.numpy()).simplices).long()}
    grid = points_to_grid(pos, cells if with_cells else None, box).apply(linear(pos))
    query = torch.rand(100, dim, generator=generator).double()
    values = grid.T.reshape(1, 2, *(9,) * dim)
    back = grid_to_points(values, query, torch.zeros(100, dtype=torch.long), box)
    # Weights are kept in single precision: 2^-24 times values up to 4 and d + 1 terms.
    assert torch.allclose(back, linear(query), atol=2e-6)


def test_quadrilaterals_and_hexahedra_are_interpolated_too() -> None:
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]).double()
    flat = points_to_grid(
        corners, {"quad": torch.tensor([[0, 1, 2, 3]])}, GridBox((0, 0), (1, 1), 5)
    )
    brick = torch.cat([torch.cat([corners, torch.full((4, 1), z)], dim=1) for z in (0.0, 1.0)])
    box = GridBox((0, 0, 0), (1, 1, 1), 5)
    solid = points_to_grid(brick, {"hexahedron": torch.arange(8)[None]}, box)
    for stencil, pos, grid in ((flat, corners, GridBox((0, 0), (1, 1), 5)), (solid, brick, box)):
        assert not stencil.outside.any()
        # Single-precision weights, values up to 4.
        expected = linear(torch.from_numpy(grid.points()))
        assert torch.allclose(stencil.apply(linear(pos)), expected, atol=2e-6)


def ring(with_cells: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
    """An annulus of radii .2 and .5 about (.5, .5)."""
    turns = 2 * math.pi * torch.arange(48, dtype=torch.float64) / 48
    circle = torch.stack([turns.cos(), turns.sin()], dim=1)
    pos = torch.cat([0.5 + r * circle for r in torch.linspace(0.2, 0.5, 8).tolist()])
    if not with_cells:
        return pos, None
    i, j = torch.meshgrid(torch.arange(7), torch.arange(48), indexing="ij")
    a, b = 48 * i + j, 48 * i + (j + 1) % 48
    return pos, {"quad": torch.stack([a, b, b + 48, a + 48], dim=-1).reshape(-1, 4)}


@pytest.mark.parametrize("with_cells", [True, False])
def test_the_mask_shows_holes_and_outside(with_cells: bool) -> None:
    stencil = points_to_grid(*ring(with_cells), BOX)
    radius = torch.from_numpy(BOX.points()).sub(0.5).norm(dim=1)
    inside = stencil.outside[:, 0] == 0
    # One circle of 48 chords deviates from the polygon by less than .002.
    assert inside[(radius > 0.203) & (radius < 0.497)].all()
    assert not inside[(radius < 0.197) | (radius > 0.503)].any()
    # The centre is .2 from the ring, which is 6.4 grid spacings of 1/32.
    centre = int(radius.argmin())
    assert float(stencil.outside[centre, 1]) == pytest.approx(6.4, rel=1e-6)


def test_outside_the_domain_the_nearest_point_counts() -> None:
    pos, cells = ring(True)
    u = torch.arange(len(pos), dtype=torch.float64)[:, None]
    stencil = points_to_grid(pos, cells, BOX)
    values, grid = stencil.apply(u), torch.from_numpy(BOX.points())
    away = stencil.outside[:, 0] == 1
    distances = torch.cdist(grid[away], pos)
    taken = distances.gather(1, values[away].long())
    # Ties may go either way, so distances are compared, and rounding is 1e-16.
    assert torch.allclose(taken[:, 0], distances.amin(dim=1), atol=1e-12)


def test_points_on_one_line_reach_the_grid_by_the_nearest() -> None:
    pos = torch.stack([torch.linspace(0, 1, 5), torch.zeros(5)], dim=1).double()
    stencil = points_to_grid(pos, None, BOX)
    assert (stencil.outside[:, 0] == 1).all()
    assert torch.equal(stencil.apply(torch.ones(5, 1)), torch.ones(BOX.num_points, 1))


def test_queries_outside_the_box_take_the_value_at_its_edge() -> None:
    values = torch.from_numpy(BOX.points())[:, :1].T.reshape(1, 1, 33, 33)
    query = torch.tensor([[-3.0, 0.5], [9.0, 0.5]]).double()
    out = grid_to_points(values, query, torch.zeros(2, dtype=torch.long), BOX)
    assert out[:, 0].tolist() == [0, 1]


# FNO through a grid


def test_fno_batches_samples_of_different_sizes_without_changing_them(
    fno: GridFNO, examples: list[Example]
) -> None:
    together = fno(*batch_of(examples))
    one_by_one = torch.cat([fno(*e) for e in examples])
    # Single-precision FFTs and sums in another order.
    assert torch.allclose(together, one_by_one, atol=1e-5)


def test_fno_answers_a_query_the_same_whichever_else_are_asked(
    fno: GridFNO, examples: list[Example]
) -> None:
    source, target = examples[0]
    few = target.subset(torch.tensor([3, 17]))
    assert torch.equal(fno(source, few), fno(source, target)[[3, 17]])


def test_fno_ignores_the_order_of_the_source_points(
    fno: GridFNO, examples: list[Example], generator: torch.Generator
) -> None:
    source, target = examples[1]
    order = torch.randperm(source.num_points, generator=generator)
    place = order.argsort()
    shuffled = PointField(
        source.pos[order],
        source.u[order],
        source.weights[order],
        channels=source.channels,
        cells={"triangle": place[source.cells["triangle"]]},
    )
    # Corners of a triangle are summed in another order, in single precision.
    assert torch.allclose(fno(shuffled, target), fno(source, target), atol=1e-5)


def test_gradients_reach_weights_and_source_values(fno: GridFNO, examples: list[Example]) -> None:
    source, target = batch_of(examples)
    source.u.requires_grad_()
    fno(source, target).square().sum().backward()
    assert source.u.grad is not None
    # A point whose triangles all fall between grid points is not read.
    assert (source.u.grad.abs().sum(dim=1) > 0).double().mean() > 0.95
    assert all(p.grad is not None for p in fno.parameters())


def test_fno_speaks_the_units_of_its_training_data(seed: int, examples: list[Example]) -> None:
    def scaled(e: Example, length: float, value: float) -> Example:
        sides = [
            PointField(f.pos * length, f.u * value, f.weights, channels=f.channels, cells=f.cells)
            for f in e
        ]
        return Example(*sides)

    def answer(length: float, value: float) -> torch.Tensor:
        torch.manual_seed(seed)
        config = GridFNOConfig(
            dim=2, in_channels=2, out_channels=1, modes=4, width=8, layers=2, resolution=16
        )
        given = [scaled(e, length, value) for e in examples]
        return GridFNO(config).fit_normalization(given)(*given[0])

    # The same numbers enter the network up to rounding in single precision.
    assert torch.allclose(answer(1000.0, 50.0), 50 * answer(1.0, 1.0), rtol=1e-3, atol=1e-3)


def test_state_and_copies_reproduce_the_answer(fno: GridFNO, examples: list[Example]) -> None:
    state = fno.state_dict()
    assert all(torch.is_tensor(value) for value in state.values())
    other = GridFNO(fno.config).eval()
    other.load_state_dict(state)
    expected = fno(*examples[0])
    assert torch.equal(other(*examples[0]), expected)
    assert torch.equal(copy.deepcopy(fno)(*examples[0]), expected)


def test_training_reduces_the_error(fno: GridFNO, examples: list[Example]) -> None:
    batch = batch_of(examples)
    optimizer = torch.optim.AdamW(fno.parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        error = (fno(*batch) - batch.target.u).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.05 * errors[0]  # .003 when written


class SquaredError:
    """The least a loss can be, so that this test needs no other module's."""

    def __call__(
        self, model: nn.Module, batch: Example, *, generator: torch.Generator | None = None
    ) -> SimpleNamespace:
        total = (model(*batch) - batch.target.u).square().mean()
        return SimpleNamespace(total=total, terms={"value": total})


def test_fno_goes_through_training_and_checkpoints(
    examples: list[Example], tmp_path: Path, seed: int
) -> None:
    config = GridFNOConfig(
        dim=2, in_channels=2, out_channels=1, modes=4, width=6, layers=2, resolution=12
    )

    def trained(out: Path, steps_first: int) -> nn.Module:
        torch.manual_seed(seed)
        model = GridFNO(config)
        settings = FitConfig(
            steps=6, batch_size=2, lr=5e-3, device="cpu", save_every=2, eval_every=3
        )
        seen: list[int] = []

        def stop() -> bool:
            seen.append(1)
            return len(seen) == steps_first

        given = {"loss": SquaredError(), "config": settings, "out": out, "progress": False}
        run = fit(model, examples, examples, **given, stop=stop)
        if run.interrupted:
            run = fit(GridFNO(config), examples, examples, **given, resume=True)
        assert run.step == 6
        return run.model

    whole, resumed = trained(tmp_path / "a", 0), trained(tmp_path / "b", 3)
    loaded = load(tmp_path / "a")
    source, target = examples[0]
    assert isinstance(loaded, GridFNO)
    assert loaded.config == config
    assert torch.equal(loaded(source, target), whole(source, target))
    assert torch.equal(resumed(source, target), whole(source, target))


def test_transient_fno_asks_at_many_times_at_once(seed: int, generator: torch.Generator) -> None:
    given = []
    for n in (30, 50):
        source, target = example(n, generator)
        later = PointField(
            target.pos.repeat(3, 1),
            target.u.repeat(3, 1),
            target.weights.repeat(3),
            time=torch.tensor([0.0, 1.0, 2.0]).double().repeat_interleave(n),
            channels=["u"],
        )
        given.append(Example(source, later))
    torch.manual_seed(seed)
    config = GridFNOConfig(
        dim=2, in_channels=2, out_channels=1, transient=True, modes=3, width=6, resolution=8
    )
    model = GridFNO(config).fit_normalization(given).eval()
    together = model(*batch_of(given))
    parts = []
    for source, target in given:
        n = source.num_points
        parts += [model(source, target.subset(torch.arange(k * n, (k + 1) * n))) for k in range(3)]
    # Single-precision FFTs and sums in another order.
    assert torch.allclose(together, torch.cat(parts), atol=1e-5)
    assert (parts[0] - parts[1]).abs().max() > 1e-3


def test_predict_keeps_cells_names_and_mode(fno: GridFNO, examples: list[Example]) -> None:
    source, target = examples[0]
    model = GridFNO(GridFNOConfig(dim=2, in_channels=2, out_channels=1, out_names=("u",)))
    model.load_state_dict(GridFNO(GridFNOConfig(dim=2, in_channels=2, out_channels=1)).state_dict())
    field = model.train().predict(source, target)
    assert model.training
    assert field.channels == ("u",)
    assert torch.equal(field.cells["triangle"], target.cells["triangle"])


def test_fno_names_what_does_not_fit(fno: GridFNO, examples: list[Example]) -> None:
    source, target = examples[0]
    with pytest.raises(FieldError, match="the model reads 2 channels"):
        fno(source.select("u"), target)
    moved = PointField(target.pos, target.u, target.weights, time=torch.ones(40).double())
    with pytest.raises(FieldError, match="transient=True"):
        fno(source, moved)
    mixed = PointField(source.pos, source.u, source.weights, time=torch.arange(40).double())
    with pytest.raises(FieldError, match="one frame"):
        fno(mixed, target)
    with pytest.raises(FieldError, match="3 samples"):
        fno(batch_of(examples).source, target)
    named = GridFNO(
        GridFNOConfig(dim=2, in_channels=2, out_channels=1, modes=4, in_names=("v", "u"))
    )
    with pytest.raises(FieldError, match="v, u"):
        named(source, target)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"dim": 1}, "expected 2 or 3"),
        ({"modes": 0}, "at least 1"),
        ({"modes": 99}, "lower modes"),
        ({"padding": -0.1}, "zero or more"),
        ({"in_names": ("a",)}, "expected 2"),
    ],
)
def test_a_configuration_out_of_range_is_refused(wrong: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"dim": 2, "in_channels": 2, "out_channels": 1, **wrong}
    with pytest.raises(ConfigError, match=message):
        GridFNOConfig(**values)  # type: ignore[arg-type]


# Interpolation

IN_SPACE = (Nearest(), LinearInterpolation(), ThinPlateSpline(), CubicSplineInTime())


@pytest.mark.parametrize("model", IN_SPACE, ids=lambda m: type(m).__name__)
def test_interpolation_reproduces_what_it_knows_in_batches(
    model: Nearest, examples: list[Example]
) -> None:
    batch = batch_of(examples)
    # The dense system of the splines is solved to about 1e-12 times its condition.
    assert torch.allclose(model(*batch), batch.target.u, atol=1e-8)


@pytest.mark.parametrize(
    "model", [LinearInterpolation(), ThinPlateSpline(), ThinPlateSpline(dense_limit=10)]
)
def test_linear_functions_are_interpolated_exactly(
    model: LinearInterpolation, generator: torch.Generator
) -> None:
    pos = scattered(60, generator)
    query = torch.rand(50, 2, generator=generator).double()
    source = PointField(pos, linear(pos), channels=["u", "v"])
    # As above.
    assert torch.allclose(model(source, PointField(query)), linear(query), atol=1e-8)


def test_thin_plate_spline_beats_linear_on_a_smooth_field(generator: torch.Generator) -> None:
    def u(pos: torch.Tensor) -> torch.Tensor:
        return (3 * pos).sin().prod(dim=1, keepdim=True)

    pos = scattered(150, generator)
    query = 0.1 + 0.8 * torch.rand(200, 2, generator=generator).double()
    source = PointField(pos, u(pos))
    errors = [
        (model(source, PointField(query)) - u(query)).norm()
        for model in (ThinPlateSpline(), LinearInterpolation(), Nearest())
    ]
    assert errors[0] < 0.5 * errors[1] < 0.25 * errors[2]


def frames(times: list[float], pos: torch.Tensor) -> PointField:
    t = torch.tensor(times).double().repeat_interleave(len(pos))
    u = (t**3 - t)[:, None] * linear(pos.repeat(len(times), 1))
    return PointField(pos.repeat(len(times), 1), u, time=t, channels=["u", "v"])


def test_cubic_splines_are_exact_for_cubics_in_time(generator: torch.Generator) -> None:
    pos = scattered(30, generator)
    source = frames([0.0, 0.3, 1.0, 1.4, 2.0], pos)
    elsewhere = torch.rand(20, 2, generator=generator).double()
    for query in (pos, elsewhere):
        target = frames([0.1, 1.7], query)
        # Cubic in time and linear in space: exact but for rounding of values up to 30.
        assert torch.allclose(CubicSplineInTime()(source, target), target.u, atol=1e-12)
        assert not torch.allclose(LinearInterpolation()(source, target), target.u, atol=1e-1)


def test_linear_interpolation_is_the_mean_half_way_between_frames(
    generator: torch.Generator,
) -> None:
    pos = scattered(30, generator)
    source, target = frames([0.0, 2.0], pos), frames([1.0], pos)
    expected = (source.u[:30] + source.u[30:]) / 2
    # One rounding of values up to 30.
    assert torch.allclose(LinearInterpolation()(source, target), expected, atol=1e-12)


def test_outside_the_times_the_last_frame_counts(generator: torch.Generator) -> None:
    pos = scattered(30, generator)
    source, target = frames([0.0, 1.0, 2.0], pos), frames([7.0], pos)
    for model in (LinearInterpolation(), CubicSplineInTime(), Nearest()):
        # One rounding of values up to 30.
        assert torch.allclose(model(source, target), source.u[-30:], atol=1e-12)


def test_interpolation_refuses_what_it_cannot_answer(generator: torch.Generator) -> None:
    pos = scattered(12, generator)
    source = frames([0.0, 1.0], pos)
    with pytest.raises(FieldError, match="cannot answer p"):
        Nearest()(source, PointField(pos, pos[:, :1], channels=["p"]))
    with pytest.raises(FieldError, match="several times"):
        ThinPlateSpline()(source, source)
    with pytest.raises(FieldError, match="different points"):
        LinearInterpolation()(source.subset(torch.arange(23)), source)
    line = torch.stack([torch.arange(9.0), torch.zeros(9)], dim=1).double()
    with pytest.raises(FieldError, match="on one line"):
        ThinPlateSpline()(PointField(line, line), PointField(line))
    with pytest.raises(ConfigError, match="at least 4"):
        ThinPlateSpline(neighbors=2)
