"""Scales are measured on training data, in the quadrature weights, and undone exactly."""

import pytest
import torch

from cst_operator.errors import FieldError
from cst_operator.fields import Example, PointField
from cst_operator.normalization import Normalization
from tests.model_samples import known_field

# Means and variances of some ten numbers, in float64.
SUMS = {"rtol": 1e-12, "atol": 1e-12}


def _fitted(*examples: Example) -> Normalization:
    return Normalization(2, 2, 2).double().fit(examples)


def test_the_box_becomes_the_unit_box_without_changing_its_shape():
    pos = torch.tensor([[10.0, 5.0], [14.0, 6.0], [12.0, 5.5]]).double()
    time = torch.tensor([3.0, 5.0, 4.0]).double()
    field = PointField(pos=pos, u=pos, weights=torch.ones(3).double(), time=time)
    scales = _fitted(Example(field, field))
    s = scales.coordinates(pos, time)
    wanted = torch.tensor([[-1.0, -0.25, -1.0], [1.0, 0.25, 1.0], [0.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(s, wanted, **SUMS)
    torch.testing.assert_close(scales.coordinates(pos, None), wanted[:, :2], **SUMS)
    torch.testing.assert_close(scales.coordinate_scale(True), torch.tensor([2.0, 2, 1]).double())
    torch.testing.assert_close(scales.coordinate_scale(False), torch.tensor([2.0, 2]).double())


def test_channels_get_zero_mean_and_unit_variance_in_the_weights(generator):
    examples = [
        Example(known_field(generator, n), known_field(generator, m)) for n, m in ((9, 4), (20, 7))
    ]
    scales = _fitted(*examples)
    for side, code in ((0, scales.encode), (1, lambda u: (u - scales.out_mean) / scales.out_std)):
        u = torch.cat([code(example[side].u) for example in examples])
        w = torch.cat([example[side].weights for example in examples])
        w = w / w.sum()
        torch.testing.assert_close(w @ u, torch.zeros(2).double(), **SUMS)
        torch.testing.assert_close(w @ u**2, torch.ones(2).double(), **SUMS)


def test_answers_come_back_in_the_users_units(generator):
    source, target = known_field(generator, 9), known_field(generator, 12)
    scales = _fitted(Example(source, target))
    unit = (target.u - scales.out_mean) / scales.out_std
    torch.testing.assert_close(scales.decode(unit), target.u, **SUMS)
    assert (unit - target.u).abs().max() > 1e-2


def test_a_constant_channel_a_single_time_and_a_single_place_keep_their_scale(generator):
    field = known_field(generator, 9)
    u = field.u.clone()
    u[:, 1] = 0.1 + 1e5  # not a binary number: rounding leaves a variance
    constant = field.with_values(u)
    scales = _fitted(Example(constant, constant))
    assert float(scales.in_std[1]) == 1
    assert float(scales.in_std[0]) != 1
    assert float(scales.time_scale) == 1
    torch.testing.assert_close(scales.encode(u)[:, 1], torch.zeros(9).double(), rtol=0, atol=1e-9)
    one = PointField(pos=torch.zeros(1, 2).double(), u=u[:1], weights=torch.ones(1).double())
    assert float(_fitted(Example(one, one)).pos_scale) == 1


def test_a_small_spread_on_a_large_mean_is_measured(generator):
    field = known_field(generator, 40)
    far = field.with_values(1e-2 * field.u + 1e3)
    near = _fitted(Example(field, field))
    # The second moment is 1e6: its rounding, 1e-10, against a variance of 1e-4.
    torch.testing.assert_close(
        _fitted(Example(far, far)).in_std, 1e-2 * near.in_std, rtol=1e-5, atol=0
    )


def test_what_cannot_be_measured_is_refused_with_a_remedy(generator):
    field = known_field(generator, 9)
    bare = PointField(pos=field.pos, u=field.u)
    for example in (Example(bare, field), Example(field, bare)):
        with pytest.raises(FieldError, match=r"set them with cst_operator.with_weights\(field\)"):
            _fitted(example)
    with pytest.raises(FieldError, match="at least one example, got none"):
        _fitted()


def test_scales_are_saved_with_the_model_and_not_trained():
    scales = Normalization(3, 1, 4)
    assert list(scales.parameters()) == []
    assert {k: tuple(v.shape) for k, v in scales.state_dict().items()} == {
        "pos_center": (3,),
        "pos_scale": (1,),
        "time_center": (1,),
        "time_scale": (1,),
        "in_mean": (1,),
        "in_std": (1,),
        "out_mean": (4,),
        "out_std": (4,),
    }
