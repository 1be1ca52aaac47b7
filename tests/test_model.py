"""A CST is a function of what is known, not of how it is stored."""

import copy
import warnings

import pytest
import torch

from cst_operator.cst_config import CSTConfig
from cst_operator.errors import ConfigError, FieldError
from cst_operator.fields import Example, PointField
from cst_operator.model import CSTOperator
from tests.mesh_samples import box
from tests.model_samples import KINDS, joined, known_field, queries_in, tiny_model

# Sums are taken in another order: some hundred operations on numbers of order one in float64.
SUMS = {"rtol": 0.0, "atol": 1e-12}

every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
both_forms = pytest.mark.parametrize("form", ["operator", "joint"])


def _rows(field: PointField, index: torch.Tensor) -> PointField:
    """Some points with the weights they have."""
    keys = ("pos", "u", "weights", "time")
    return PointField(**{key: field[key][index] for key in keys if key in field})


@every_kind
def test_order_of_source_points_changes_nothing(changes, seed, generator):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    mixed = _rows(source, torch.randperm(40, generator=generator))
    torch.testing.assert_close(model(mixed, target), model(source, target), **SUMS)


@every_kind
def test_order_of_queries_orders_the_answers(changes, seed, generator):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    order = torch.randperm(15, generator=generator)
    answer = model(source, target)
    torch.testing.assert_close(model(source, _rows(target, order)), answer[order], **SUMS)
    assert (answer[order] - answer).abs().max() > 1e-3


@every_kind
def test_splitting_a_source_point_in_two_of_half_the_weight_changes_nothing(
    changes, seed, generator
):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    split = _rows(source, torch.cat([torch.arange(40), torch.tensor([3])]))
    unweighted = model(split, target)
    split.weights[[3, 40]] /= 2
    torch.testing.assert_close(model(split, target), model(source, target), **SUMS)
    assert (unweighted - model(source, target)).abs().max() > 1e-4  # weights do matter


@every_kind
def test_a_constant_factor_on_the_weights_changes_nothing(changes, seed, generator):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    scaled = _rows(source, torch.arange(40))
    scaled.weights *= 1234.5
    torch.testing.assert_close(model(scaled, target), model(source, target), **SUMS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "joint"])
def test_an_answer_does_not_depend_on_the_other_queries(kind, seed, generator):
    model = tiny_model(seed, **KINDS[kind])
    source, target = known_field(generator, 40), queries_in(generator, 15)
    alone = torch.cat([model(source, _rows(target, torch.tensor([i]))) for i in range(15)])
    torch.testing.assert_close(alone, model(source, target), **SUMS)


def test_an_answer_depends_on_the_other_queries_in_the_joint_form(seed, generator):
    model = tiny_model(seed, form="joint")
    source, target = known_field(generator, 40), queries_in(generator, 15)
    alone = model(source, _rows(target, torch.tensor([0])))
    assert (alone - model(source, target)[:1]).abs().max() > 1e-4


@every_kind
@pytest.mark.parametrize("transient", [False, True])
def test_batching_samples_of_different_sizes_changes_no_answer_and_no_gradient(
    changes, transient, seed, generator
):
    model = tiny_model(seed, transient=transient, **changes)
    examples = [
        Example(
            known_field(generator, n, transient=transient),
            queries_in(generator, m, transient=transient),
        )
        for n, m in ((40, 15), (7, 3), (23, 31))
    ]

    def answer_and_slope(answers):
        probe = torch.linspace(-1, 1, answers.numel(), dtype=answers.dtype).view_as(answers)
        return torch.autograd.grad((answers * probe).sum(), list(model.parameters()))

    single = torch.cat([model(*example) for example in examples])
    together = model(*joined(*examples))
    torch.testing.assert_close(together, single, **SUMS)
    for a, b in zip(answer_and_slope(together), answer_and_slope(single), strict=True):
        # Gradients sum over all points: relative to their size.
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * float(1 + b.abs().max()))


@both_forms
def test_noise_acts_in_training_alone(form, seed, generator):
    noisy = tiny_model(seed, form=form, noise=0.1, coordinate_noise=0.01)
    clean = tiny_model(seed, form=form)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    torch.testing.assert_close(noisy(source, target), clean(source, target), rtol=0, atol=0)
    noisy.train()
    clean.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second = noisy(source, target), noisy(source, target)
        assert (first - second).abs().max() > 1e-4
        torch.testing.assert_close(clean(source, target), clean.eval()(source, target))


@pytest.mark.parametrize("changes", [{"noise": 0.1}, {"coordinate_noise": 0.01}])
def test_either_noise_acts_by_itself(changes, seed, generator):
    model = tiny_model(seed, **changes).train()
    source, target = known_field(generator, 40), queries_in(generator, 15)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        assert (model(source, target) - model(source, target)).abs().max() > 1e-4


@every_kind
def test_encoding_once_answers_the_same(changes, seed, generator):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    encoded = model.encode(source, target)
    torch.testing.assert_close(model(encoded, target), model(source, target), rtol=0, atol=0)


@both_forms
@pytest.mark.parametrize("training", [False, True])
def test_predictions_do_not_depend_on_the_chunk_and_keep_the_mesh(form, training, seed, generator):
    model = tiny_model(seed, form=form, noise=0.1, out_names=("a", "b")).train(training)
    pos, cells = box("triangle", 4)
    lines = {"line": torch.tensor([[0, 1]])}
    marks = {"line": torch.tensor([7])}
    target = PointField(pos=pos, cells=cells, facets=lines, facet_markers=marks)
    source = known_field(generator, 40)
    whole = model.predict(source, target)
    parts = model.predict(source, target, chunk=7)
    torch.testing.assert_close(parts.u, whole.u, **SUMS)
    assert model.training is training  # as it was
    torch.testing.assert_close(whole.u, model.eval()(source, target).detach(), **SUMS)
    assert not whole.u.requires_grad
    assert whole.channels == ("a", "b")
    assert torch.equal(whole.cells["triangle"], cells["triangle"])
    assert torch.equal(whole.facet_markers["line"], marks["line"])
    assert target.u.shape == (25, 0)  # untouched


def test_a_transient_model_depends_on_time_and_a_steady_one_does_not(seed, generator):
    source, target = known_field(generator, 40, transient=True), queries_in(generator, 15)
    later = PointField(pos=target.pos, time=target.time + 0.5)
    steady, transient = tiny_model(seed), tiny_model(seed, transient=True)
    torch.testing.assert_close(steady(source, later), steady(source, target), rtol=0, atol=0)
    assert (transient(source, later) - transient(source, target)).abs().max() > 1e-3


@both_forms
def test_every_point_may_have_a_time_of_its_own(form, seed, generator):
    model = tiny_model(seed, transient=True, form=form)
    source = known_field(generator, 40, transient=True)
    target = queries_in(generator, 15, transient=True)
    assert len(source.time.unique()) == 40
    order = torch.randperm(40, generator=generator)
    answer = model(source, target)
    torch.testing.assert_close(model(_rows(source, order), target), answer, **SUMS)
    split = _rows(source, torch.cat([torch.arange(40), torch.tensor([3])]))
    split.weights[[3, 40]] /= 2  # one place and time, known twice
    torch.testing.assert_close(model(split, target), answer, **SUMS)
    elsewhen = _rows(source, torch.arange(40))
    elsewhen.time[3] += 0.3
    assert (model(elsewhen, target) - answer).abs().max() > 1e-6


def test_other_units_give_the_same_answers_in_those_units(seed, generator):
    model = tiny_model(seed, transient=True)
    source = known_field(generator, 40, transient=True)
    target = known_field(generator, 15, transient=True)
    shift, gain = torch.tensor([3.0, -2.0]).double(), torch.tensor([1e-3, 40.0]).double()

    def converted(field):
        return PointField(
            pos=1000 * field.pos + 70,
            time=60 * field.time - 5,
            u=gain * field.u + shift,
            weights=1e6 * field.weights,
        )

    other = copy.deepcopy(model)
    model.fit_normalization([Example(source, target)])
    other.fit_normalization([Example(converted(source), converted(target))])
    got = (other(converted(source), converted(target)) - shift) / gain
    # Adding and taking away an offset of 70 to 3000 rounds: four more digits than 1e-16 go.
    torch.testing.assert_close(got, model(source, target), rtol=0, atol=1e-9)
    by_user = other.derivatives(converted(source), converted(target)).gradient
    gradient = model.derivatives(source, target).gradient
    torch.testing.assert_close(by_user / gain[:, None] * 1000, gradient, rtol=0, atol=1e-8)


@every_kind
def test_parameters_do_not_depend_on_the_number_of_points(changes, seed, generator):
    model = tiny_model(seed, **changes)
    for n, m in ((1, 1), (2, 5), (60, 1)):
        answer = model(known_field(generator, n), queries_in(generator, m))
        assert answer.shape == (m, 2)
        assert bool(answer.isfinite().all())


@every_kind
def test_every_parameter_gets_a_gradient(changes, seed, generator):
    model = tiny_model(seed, **changes)
    source, target = known_field(generator, 40), queries_in(generator, 15)
    model(source, target).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@every_kind
def test_recomputed_layers_have_the_same_gradients(changes, seed, generator):
    example = known_field(generator, 40), queries_in(generator, 15)
    slopes = []
    for recompute in (False, True):
        model = tiny_model(seed, recompute=recompute, **changes)
        loss = model(*example).square().sum()
        loss = loss + model.derivatives(*example).gradient.square().sum()
        slopes.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    for kept, again in zip(*slopes, strict=True):
        if kept is not None:
            torch.testing.assert_close(again, kept, rtol=0, atol=0)  # the same operations


def test_a_source_that_does_not_fit_is_refused_with_a_remedy(seed, generator):
    model = tiny_model(seed, in_names=("f", "g"))
    source, target = known_field(generator, 40), queries_in(generator, 15)
    named = source.with_values(source.u, ("f", "g"))
    bare = PointField(pos=source.pos, u=source.u, channels=("f", "g"))
    wide = named.with_channels(source.u[:, :1], ("h",))
    solid = PointField(
        pos=torch.rand(5, 3, generator=generator).double(),
        u=torch.zeros(5, 2).double(),
        weights=torch.ones(5).double(),
        channels=("f", "g"),
    )
    model(named, target)
    for wrong, text in (
        (bare, r"no quadrature weights; set them with cst_operator.with_weights\(field\)"),
        (wide, r"3 channels; the model reads 2 \(f, g\); choose them with field.select"),
        (source, r"\(u0, u1\); the model reads \(f, g\); choose them with field.select"),
        (solid, r"3 space dimensions; the model was made for 2, so make another with CSTConfig"),
    ):
        with pytest.raises(FieldError, match=text):
            model(wrong, target)
    with pytest.raises(FieldError, match="3 space dimensions; the model was made for 2"):
        model(named, solid)


def test_data_of_more_digits_than_the_model_are_refused_with_a_remedy(seed, generator):
    model = tiny_model(seed, transient=True).float()
    source = known_field(generator, 9, transient=True)
    target = queries_in(generator, 4, transient=True)
    rough = {key: source[key].float() for key in ("pos", "u", "weights", "time")}
    model(PointField(**rough), PointField(target.pos.float(), time=target.time.float()))
    for key, name in (("pos", "coordinates"), ("u", "source's samples"), ("time", "times")):
        text = rf"the {name} are torch.float64 but the model's numbers torch.float32; .*double\(\)"
        with pytest.raises(FieldError, match=text):
            model(PointField(**rough | {key: source[key]}), target)
    # Fewer digits are enough.
    answer = model.double()(PointField(**rough), target)
    assert answer.dtype == torch.float64


def test_sources_and_targets_of_different_numbers_are_refused_with_a_remedy(seed, generator):
    model = tiny_model(seed)
    one, two, three = (
        joined(*(Example(known_field(generator, n), queries_in(generator, 3)) for n in sizes))
        for sizes in ((9,), (9, 5), (9, 5, 7))
    )
    single = torch.cat([model(one.source, target) for target in two.target.to_data_list()])
    torch.testing.assert_close(model(one.source, two.target), single, **SUMS)
    for call in (model, model.derivatives):
        with pytest.raises(FieldError, match="a batch of 2 samples but the target of 3; give"):
            call(two.source, three.target)
        with pytest.raises(FieldError, match="a batch of 2 samples but the target of 1; give"):
            call(model.encode(two.source), queries_in(generator, 3))
    with pytest.raises(FieldError, match=r"a batch of 2 fields; expected one.*to_data_list\(\)"):
        model.predict(*two)


@pytest.mark.parametrize("place", [0, 1, 2])
@both_forms
def test_a_sample_of_a_batch_may_ask_nothing(form, place, seed, generator):
    model = tiny_model(seed, form=form)
    examples = [Example(known_field(generator, n), queries_in(generator, n)) for n in (9, 5)]
    single = torch.cat([model(*example) for example in examples])
    examples.insert(place, Example(known_field(generator, 7), queries_in(generator, 0)))
    together = joined(*examples)
    torch.testing.assert_close(model(*together), single, **SUMS)
    assert model.derivatives(*together).gradient.shape == (14, 2, 2)


def test_a_source_without_points_is_refused(seed, generator):
    model, target = tiny_model(seed), queries_in(generator, 3)
    full, empty = known_field(generator, 9), known_field(generator, 0)
    for source in (empty, joined(*[Example(full, target), Example(empty, target)]).source):
        with pytest.raises(FieldError, match="a source without points says nothing; expected"):
            model(source, target)


def test_channel_names_are_checked_in_every_sample_of_a_batch(seed, generator):
    model = tiny_model(seed, in_names=("f", "g"))
    source, target = known_field(generator, 40), queries_in(generator, 15)
    right = source.with_values(source.u, ("f", "g"))
    swapped = source.with_values(source.u, ("g", "f"))
    model(*joined(Example(right, target), Example(right, target)))
    with pytest.raises(FieldError, match=r"\(g, f\); the model reads \(f, g\)"):
        model(*joined(Example(right, target), Example(swapped, target)))


def test_the_joint_form_cannot_encode_without_its_queries(seed, generator):
    with pytest.raises(FieldError, match="encode needs a target"):
        tiny_model(seed, form="joint").encode(known_field(generator, 40))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"dim": 0}, "dim is 0; expected at least 1"),
        ({"depth": 0}, "depth is 0; expected at least 1"),
        ({"form": "both"}, "form is 'both'; expected 'operator' or 'joint'"),
        ({"fourier_features": 3}, "fourier_features is 3; expected an even number"),
        ({"width": 30, "heads": 4}, "width 30 is not a multiple of heads 4; change one of them"),
        ({"width": 16, "heads": 4}, "a head has 4 channels.*widen the model or use fewer heads"),
        ({"max_turns": 0.0}, "max_turns is 0.0; expected a positive number"),
        ({"aggregation_radius": 0.0}, "aggregation_radius is 0.0; expected a positive number"),
        ({"aggregate_at_queries": True}, "set without anchors.*expected anchors of one or more"),
        ({"radii": (0.1, -1.0)}, r"radii is \(0.1, -1.0\); expected a positive number"),
        ({"noise": -0.1}, "noise is -0.1; expected zero or more"),
        ({"in_names": ("f",)}, "in_names lists 1 channels; expected 2"),
        ({"out_names": ("u", "v", "w")}, "out_names lists 3 channels; expected 2"),
    ],
)
def test_a_configuration_out_of_range_is_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        CSTConfig(**({"dim": 2, "in_channels": 2, "out_channels": 2} | changes))


def test_the_smallest_head_that_is_accepted_works(generator):
    config = CSTConfig(dim=2, in_channels=2, out_channels=1, width=10, heads=2, depth=1)
    with torch.random.fork_rng():
        model = CSTOperator(config).double()
    with pytest.raises(ConfigError, match="need at least 5"):
        CSTConfig(dim=2, in_channels=2, out_channels=1, width=8, heads=2)
    assert model(known_field(generator, 9), queries_in(generator, 4)).shape == (4, 1)


def test_making_a_model_prints_and_warns_nothing(capsys, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_model(seed)
    assert capsys.readouterr() == ("", "")


# --- modulation ---


def test_a_parameter_modulates_every_layer(seed, generator):
    model = tiny_model(seed, in_names=("u0", "u1"), modulators=("u1",))
    with torch.no_grad():
        model.embed[0].weight[:, 1] = 0  # now u1 is known to the modulation alone
    source, target = known_field(generator, 40), queries_in(generator, 15)
    before = model(source, target)
    mean = (source.weights @ source.u[:, 1]) / source.weights.sum()
    source.u[:, 1] = mean  # the modulation reads the mean alone; differences are of rounding
    torch.testing.assert_close(model(source, target), before, rtol=0, atol=1e-12)
    source.u[:, 1] = mean + 1
    assert (model(source, target) - before).abs().max() > 1e-3


def test_a_new_model_is_not_modulated(generator):
    settings = {"dim": 2, "in_channels": 2, "out_channels": 1, "in_names": ("u0", "u1")}
    source, target = known_field(generator, 20), queries_in(generator, 5)
    plain = CSTOperator(CSTConfig(**settings)).double().eval()
    modulated = CSTOperator(CSTConfig(**settings, modulators=("u1",))).double().eval()
    modulated.load_state_dict(plain.state_dict(), strict=False)
    answers = [model(source, target) for model in (plain, modulated)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_a_modulator_must_be_read():
    with pytest.raises(ConfigError, match="modulators names c.*choose from in_names: a, b"):
        CSTConfig(dim=2, in_channels=2, out_channels=1, in_names=("a", "b"), modulators=("c",))
