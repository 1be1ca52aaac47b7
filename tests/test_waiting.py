"""A step waits for no GPU: nothing asks a device for a value, or hands it one from the host.

Tensors on the device "meta" have no values, so what depends on one is an error; numbers of points
stay on the host, as they do with a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cst_operator import _draws, dummies
from cst_operator.fields import Example, PointField
from cst_operator.sobolev import SobolevLoss
from tests.model_samples import KINDS, joined, known_field, tiny_model

aten = torch.ops.aten

# Everything a loss can have but what is interpolated from the source.
EVERYTHING = SobolevLoss(
    order=1,
    num_points=16,
    smoothing=(0.1,),
    time_weights=(1.0,),
    time_smoothing=(0.1,),
    channel_weights=(1.0, 2.0),
    num_dummies=4,
)


class _Waiting(TorchDispatchMode):
    """Refuses what waits for a GPU though it would work without values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.overloadpacket is aten._linalg_check_errors and args[0].device.type == "meta":
            raise RuntimeError("the success of a decomposition is read")
        if function.overloadpacket is aten._to_copy and not kwargs.get("non_blocking"):
            where = torch.device(kwargs.get("device") or args[0].device).type
            if (args[0].device.type, where) == ("cpu", "meta"):
                raise RuntimeError(f"values are copied to the device, {tuple(args[0].shape)}")
        return function(*args, **kwargs)


class _Handing(TorchFunctionMode):
    """Refuses numbers that torch itself would copy to the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        place = torch.device(kwargs.get("device") or "cpu").type
        if function in (torch.tensor, torch.as_tensor) and place == "meta":
            raise RuntimeError(f"{args[0]} is copied to the device")
        if function is Tensor.__getitem__ and args[0].device.type == "meta":
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                raise RuntimeError(f"the index {index} is copied to the device")
        return function(*args, **kwargs)


@pytest.fixture
def _no_autocast(monkeypatch):
    """The device without values knows no autocast and no generator."""

    def uniform(like: Tensor, count: int, generator: object) -> Tensor:
        return torch.rand(len(like), count, dtype=like.dtype, device=like.device)

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    for module in (_draws, dummies):
        monkeypatch.setattr(module, "uniform", uniform)


def _target(generator: torch.Generator, n: int) -> PointField:
    field = known_field(generator, n, transient=True)
    slope = torch.randn(n, 2, 2, generator=generator, dtype=torch.float64)
    return field.with_values(field.u, gradient=slope, time_derivative=slope[..., 0])


@pytest.mark.parametrize("kind", ["operator", "thin", "modulated", "implicit"])
def test_a_step_waits_for_no_gpu(kind, seed, generator, _no_autocast):
    model = tiny_model(seed, transient=True, **KINDS[kind]).train().to("meta")
    batch = joined(
        *(
            Example(known_field(generator, n, transient=True), _target(generator, 2 * n))
            for n in (20, 17)
        )
    )
    source, target = (side.to("meta") for side in batch)
    with _Waiting(), _Handing():
        loss = EVERYTHING(model, Example(source, target)).total
        loss.backward()
    assert loss.device.type == "meta"
