"""Checkpoints are complete or absent, verified, and never unpickled."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator._checkpoint_files import manifest_of, to_json
from cst_operator.checkpoint import TrainingState, load, read, register, save
from cst_operator.cst_config import CSTConfig
from cst_operator.errors import CheckpointError, ConfigError
from cst_operator.model import CSTOperator
from tests.checkpoint_samples import Tiny, TinyConfig

FILES = (
    "config.json",
    "model.safetensors",
    "training.json",
    "training.safetensors",
    "manifest.json",
)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


@pytest.fixture
def model(seed: int) -> Tiny:
    torch.manual_seed(seed)
    return Tiny(TinyConfig())


@pytest.fixture
def state(generator: torch.Generator) -> TrainingState:
    return TrainingState(tensors={"moment": torch.rand(7, generator=generator)}, values={"step": 5})


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_round_trip_is_bit_for_bit(tmp_path: Path, seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    config = CSTConfig(
        dim=2,
        in_channels=2,
        out_channels=1,
        in_names=("f", "distance"),
        width=32,
        depth=1,
        radii=(0.1, 1 / 3),
    )
    model = CSTOperator(config).to(dtype)
    model.normalization.in_mean.copy_(torch.tensor([1 / 3, 1e-20]))
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert isinstance(loaded, CSTOperator)
    assert not loaded.training
    assert loaded.config == config
    assert equal(tensors(loaded), tensors(model))


def test_every_kind_of_tensor_and_setting_survives(tmp_path: Path, model: Tiny) -> None:
    save(model, tmp_path / "deep" / "model", metadata={"score": 0.5})
    loaded = load(tmp_path / "deep" / "model")
    assert loaded.config == model.config
    assert equal(tensors(loaded), tensors(model))
    assert loaded.tied.weight is loaded.linear.weight
    found = read(tmp_path / "deep" / "model")
    assert found.metadata == {"score": 0.5}
    assert found.versions["torch"] == torch.__version__
    assert found.training is None


def test_the_files_name_no_device(tmp_path: Path, model: Tiny, state: TrainingState) -> None:
    save(model, tmp_path / "model", training=state)
    for name in ("model.safetensors", "training.safetensors"):
        content = (tmp_path / "model" / name).read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header.pop("__metadata__", None)
        assert header
        for entry in header.values():
            assert entry.keys() == {"dtype", "shape", "data_offsets"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_saved_from_a_gpu_loads_on_a_cpu(
    tmp_path: Path, model: Tiny, state: TrainingState
) -> None:
    expected = {key: tensor.clone() for key, tensor in tensors(model).items()}
    moved = TrainingState(
        tensors={key: tensor.cuda() for key, tensor in state.tensors.items()}, values=state.values
    )
    save(model.cuda(), tmp_path / "model", training=moved)
    script = (
        "import sys, torch\n"
        "from cst_operator import checkpoint\n"
        "from tests import checkpoint_samples\n"
        "assert not torch.cuda.is_available(); checkpoint.load(sys.argv[1])"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run(
        (sys.executable, "-c", script, str(tmp_path / "model")),
        cwd=root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)},
        check=True,
    )
    loaded = load(tmp_path / "model")
    found = read(tmp_path / "model").training
    assert found is not None and {t.device.type for t in found.tensors.values()} == {"cpu"}
    assert {t.device.type for t in tensors(loaded).values()} == {"cpu"}
    assert equal(tensors(loaded), expected)


def test_loading_draws_no_random_numbers(tmp_path: Path, model: Tiny, seed: int) -> None:
    save(model, tmp_path / "model")
    torch.manual_seed(seed)
    expected = torch.rand(3)
    torch.manual_seed(seed)
    load(tmp_path / "model")
    assert torch.equal(torch.rand(3), expected)


def test_training_state_survives(tmp_path: Path, model: Tiny, state: TrainingState) -> None:
    save(model, tmp_path / "model", training=state)
    found = read(tmp_path / "model").training
    assert found is not None
    assert found.values == state.values
    assert torch.equal(found.tensors["moment"], state.tensors["moment"])
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == sorted(FILES)


def test_an_existing_folder_is_never_overwritten(tmp_path: Path, model: Tiny) -> None:
    save(model, tmp_path / "model")
    before = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()}
    with pytest.raises(CheckpointError, match="exists already"):
        save(model, tmp_path / "model")
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == before


# --- what is damaged is detected ----------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, model: Tiny, state: TrainingState) -> Path:
    return save(model, tmp_path / "model", training=state)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_detected_and_named(saved: Path, name: str, seed: int) -> None:
    content = (saved / name).read_bytes()
    draw = random.Random(seed)
    for length in (0, 1, len(content) - 1, *(draw.randrange(len(content)) for _ in range(40))):
        (saved / name).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            load(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("flips", (200, pytest.param(5000, marks=pytest.mark.slow)))
def test_every_bit_flip_is_detected(saved: Path, name: str, flips: int, seed: int) -> None:
    content = (saved / name).read_bytes()
    draw = random.Random(seed)
    for _ in range(flips):
        bit = draw.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (saved / name).write_bytes(flipped)
        with pytest.raises(CheckpointError):
            read(saved)
    (saved / name).write_bytes(content)
    load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load(saved)


def test_parts_of_two_checkpoints_do_not_mix(saved: Path, model: Tiny, tmp_path: Path) -> None:
    other = save(Tiny(TinyConfig()), tmp_path / "other")
    shutil.copy(other / "model.safetensors", saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
        load(saved)


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file"):
        load(tmp_path / "model.pt")


class _Canary:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_is_never_run(saved: Path, name: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (saved / name).write_bytes(pickle.dumps(_Canary(trace)))
    if name != "manifest.json":  # an attacker would sign it
        files = {n: (saved / n).read_bytes() for n in FILES if n != "manifest.json"}
        (saved / "manifest.json").write_bytes(to_json(manifest_of(files)))
    with pytest.raises(CheckpointError):
        load(saved)
    assert not trace.exists()


def resign(folder: Path, **changes: object) -> None:
    """Change the configuration and make the manifest agree, as another version might."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        if key in config:
            config[key] = value
        else:
            config["config"][key] = value
    (folder / "config.json").write_bytes(to_json(config))
    files = {n: (folder / n).read_bytes() for n in FILES if n != "manifest.json"}
    (folder / "manifest.json").write_bytes(to_json(manifest_of(files)))


def test_what_does_not_fit_is_refused(saved: Path) -> None:
    for changes, message in (
        ({"widht": 8}, "sets 'widht', which TinyConfig does not have .nearest: 'width'"),
        ({"width": 8}, r"linear.weight is \(4, 4\) there and \(8, 8\) here"),
        ({"width": 0}, "width is 0; expected at least 1"),
        ({"model": "other"}, "unknown kind 'other' .known: cst, "),
        ({"format": 99}, "format 99"),
    ):
        copy = saved.with_name("copy")
        shutil.copytree(saved, copy)
        resign(copy, **changes)
        with pytest.raises(CheckpointError, match=message):
            load(copy)
        shutil.rmtree(copy)


def test_renamed_weights_are_listed(saved: Path, model: Tiny) -> None:
    found = read(saved)
    weights = {k.replace("linear.bias", "linear.offset"): v for k, v in found.weights.items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(model, replace(found, weights=weights))
    assert "linear.offset is (4,) there and absent here" in str(caught.value)
    assert "linear.bias is absent there and (4,) here" in str(caught.value)


def test_another_configuration_is_refused_with_both_values(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="width is 4 there and 8 here"):
        checkpoint.restore(Tiny(TinyConfig(width=8)), read(saved))


def test_only_registered_models_with_finite_weights_are_saved(tmp_path: Path, model: Tiny) -> None:
    with pytest.raises(CheckpointError, match="Linear is not a registered kind"):
        save(nn.Linear(2, 2), tmp_path / "model")
    with torch.no_grad():
        model.linear.bias[1] = float("nan")
    with pytest.raises(CheckpointError, match="linear.bias has values that are not finite"):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_name_is_registered_once() -> None:
    register("tiny", TinyConfig, Tiny)
    with pytest.raises(ConfigError, match="'tiny' is taken by Tiny"):
        register("tiny", CSTConfig, CSTOperator)
