"""CST as one of neuraloperator's models: registry, dense tensors, checkpoints."""

import subprocess
import sys
import warnings

import pytest
import torch
from neuralop.models.base_model import BaseModel, available_models, get_model
from neuralop.training import AdamW
from neuralop.utils import count_model_params

import cst_operator as cst
from cst_operator.comparison import num_parameters
from cst_operator.interop import CST, TrainerDataset, collate, unit_grid
from tests.interop_samples import SMALL, clouds, joined, small_cst


class Bunch(dict):
    """What ``get_model`` asks of a configuration: items and attributes."""

    __getattr__ = dict.__getitem__

    def copy(self):
        return Bunch(self)


def settings(**changes):
    given = {"model_arch": "cst", "data_channels": 3, "out_channels": 2, "dim": 2, **SMALL}
    return Bunch(model=Bunch(given | changes))


def test_importing_the_library_registers_cst_and_keeps_the_warning_filters():
    code = (
        "import cst_operator, warnings; from neuralop.models.base_model import available_models; "
        # Neuraloperator sets this filter for the whole process when it is imported.
        "print('cst' in available_models(), any(f[:3] == ('once', None, UserWarning) "
        "for f in warnings.filters))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    assert "cst" in available_models()


def test_the_library_works_without_neuraloperator():
    code = (
        "import sys; sys.modules['neuralop'] = None; import cst_operator\n"
        "try:\n    import cst_operator.interop\nexcept ImportError:\n    print('absent')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["absent"]


def test_get_model_builds_it():
    model = get_model(settings(radii=[0.2, 2.0]))
    assert isinstance(model, CST)
    config = model.operator.config
    assert (config.in_channels, config.out_channels, config.width) == (3, 2, 32)
    assert config.radii == (0.2, 2.0)


def test_keys_that_zencfg_adds_are_ignored():
    model = get_model(settings(_config_name="CST", _other=1))
    assert model.operator.config == get_model(settings()).operator.config


def test_an_unknown_setting_is_named_with_the_nearest():
    with pytest.raises(cst.ConfigError, match="'widht'; nearest: 'width'"):
        CST(dim=2, in_channels=1, out_channels=1, widht=32)


def test_a_missing_setting_is_named():
    with pytest.raises(cst.ConfigError, match="in_channels is missing"):
        CST(dim=2, out_channels=1)


def test_an_empty_box_is_refused():
    with pytest.raises(cst.ConfigError, match="is empty"):
        small_cst(0, lower=1.0, upper=(2.0, 1.0))


def test_the_box_becomes_the_unit_scale(seed):
    model = small_cst(seed, lower=(-1.0, 4.0), upper=(3.0, 6.0)).operator
    corners = torch.tensor([[-1.0, 4.0], [3.0, 6.0]])
    unit = model.coordinates(cst.PointField(corners))
    assert unit.tolist() == [[-1.0, -0.5], [1.0, 0.5]]


def test_every_setting_and_default_of_the_configuration_is_in_its_signature(seed):
    model = small_cst(seed)
    recorded = {key: model._init_kwargs[key] for key in ("depth", "form", "radii", "noise")}
    assert recorded == {"depth": 2, "form": "operator", "radii": (0.15, 3.0), "noise": 0.0}


def test_checkpoint_reproduces_outputs_bit_for_bit(seed, generator, tmp_path):
    model = small_cst(seed, lower=(-1.0, 0.0), upper=2.0).eval()
    x = torch.rand(2, 1, 5, 6, generator=generator)
    model.save_checkpoint(tmp_path, "cst")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = CST.from_checkpoint(tmp_path, "cst").eval()
    assert torch.equal(loaded(x), model(x))


def test_state_dict_loads_with_weights_only(seed, tmp_path):
    model = small_cst(seed)
    model.save_checkpoint(tmp_path, "cst")
    state = torch.load(tmp_path / "cst_state_dict.pt", weights_only=True)
    assert state["_metadata"]["width"] == 32
    small_cst(seed + 1).load_state_dict(state)


def test_the_model_goes_to_this_librarys_checkpoints_and_back(seed, generator, tmp_path):
    model = small_cst(seed).eval()
    loaded = cst.load(cst.save(model.operator, tmp_path / "ours"))
    back = CST.from_operator(loaded)
    x = torch.rand(2, 1, 4, 4, generator=generator)
    assert torch.equal(back(x), model(x))
    assert not back.training
    back.save_checkpoint(tmp_path, "theirs")
    assert torch.equal(CST.from_checkpoint(tmp_path, "theirs").eval()(x), model(x))


def test_a_model_in_double_precision_stays_so(seed):
    model = small_cst(seed).double()
    assert next(CST.from_operator(model.operator).parameters()).dtype == torch.float64


def test_on_points_it_is_the_operator_on_every_sample(seed, generator):
    model = small_cst(seed).double().eval()
    examples = clouds(generator, 4)
    for side in (side for example in examples for side in example):
        side.apply(lambda t: t.double() if t.is_floating_point() else t)
    batch = collate([TrainerDataset(examples)[i] for i in range(4)])
    answer = model(**batch)
    together = model.operator(*joined(examples))
    # Rounding of double precision, since padding changes the order of no sum.
    assert torch.allclose(answer[batch["query_mask"]], together, rtol=0, atol=1e-13)
    for i, example in enumerate(examples):
        alone = model.operator(*example)
        assert torch.allclose(answer[i, : len(alone)], alone, rtol=0, atol=1e-12)
        assert not answer[i, len(alone) :].any()


def test_on_a_grid_it_is_the_operator_at_the_points_of_the_grid(seed, generator):
    model = small_cst(seed).double().eval()
    x = torch.rand(2, 1, 4, 3, generator=generator, dtype=torch.float64)
    answer = model(x)
    pos = torch.tensor([[i / 4, j / 3] for i in range(4) for j in range(3)], dtype=torch.float64)
    assert torch.equal(pos, unit_grid((4, 3)))
    points = model(x.flatten(2).transpose(1, 2), pos)
    assert torch.equal(answer.flatten(2).transpose(1, 2), points)


def test_it_answers_on_a_finer_grid(seed, generator):
    model = small_cst(seed).double().eval()
    x = torch.rand(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    fine = model(x, output_shape=(8, 8))
    assert fine.shape == (1, 1, 8, 8)
    # The same points by another way through the same function: rounding.
    assert torch.allclose(fine[..., ::2, ::2], model(x), rtol=0, atol=1e-13)


def test_targets_and_unknown_keys_are_ignored(seed, generator):
    model = small_cst(seed).eval()
    x = torch.rand(1, 1, 4, 4, generator=generator)
    assert torch.equal(model(x, y=torch.ones(3), name="sample", quadrature=2.0), model(x))


def test_padding_content_changes_nothing(seed, generator):
    model = small_cst(seed).eval()
    examples = clouds(generator, 3)
    batch = collate([TrainerDataset(examples)[i] for i in range(3)])
    assert not batch["mask"].all()
    other = {key: value.clone() for key, value in batch.items()}
    for side, keys in (("mask", ("x", "pos", "weights")), ("query_mask", ("query_pos",))):
        for key in keys:
            other[key][~batch[side]] = torch.nan
    assert torch.equal(model(**other), model(**batch))


def test_order_of_the_points_changes_nothing(seed, generator):
    model = small_cst(seed).double().eval()
    x, pos = (torch.rand(1, 9, c, generator=generator, dtype=torch.float64) for c in (1, 2))
    weights = torch.rand(1, 9, generator=generator, dtype=torch.float64)
    order = torch.randperm(9, generator=generator)
    answer = model(x, pos, weights=weights)
    permuted = model(x[:, order], pos[:, order], weights=weights[:, order])
    # The order of the sums over the source differs: rounding.
    assert torch.allclose(permuted, answer[:, order], rtol=0, atol=1e-12)


def test_omitted_weights_are_equal(seed, generator):
    model = small_cst(seed).eval()
    x, pos = torch.rand(1, 9, 1, generator=generator), torch.rand(9, 2, generator=generator)
    assert torch.allclose(model(x, pos), model(x, pos, weights=torch.full((9,), 0.2)), atol=1e-6)


def test_time_is_a_coordinate_of_a_transient_model(seed, generator):
    model = small_cst(seed, transient=True, end=2.0, width=48).eval()
    x, pos = torch.rand(1, 9, 1, generator=generator), torch.rand(9, 2, generator=generator)
    now, later = (model(x, pos, query_time=torch.full((1, 9), t)) for t in (0.0, 1.5))
    assert not torch.allclose(now, later)
    assert model.operator.normalization.time_scale.item() == 1.0


def test_wrong_shapes_are_named(seed):
    model = small_cst(seed)
    with pytest.raises(cst.FieldError, match="without pos a model with dim=2"):
        model(torch.rand(1, 9, 1))
    with pytest.raises(cst.FieldError, match="as many points"):
        model(torch.rand(1, 9, 1), torch.rand(1, 8, 2))
    with pytest.raises(cst.FieldError, match="no points"):
        model(torch.rand(1, 9, 1), torch.rand(1, 9, 2), mask=torch.zeros(1, 9, dtype=torch.bool))


def test_neuraloperators_tools_take_it(seed, generator):
    model = small_cst(seed)
    assert count_model_params(model) == num_parameters(model)
    before = [p.clone() for p in model.parameters()]
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model(torch.rand(1, 1, 4, 4, generator=generator)).square().mean().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert isinstance(model, BaseModel)
