"""An exported model answers as the model does, for any numbers of points."""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cst_operator import checkpoint
from cst_operator.checkpoint import TrainingState
from cst_operator.cli import main
from cst_operator.errors import CheckpointError, ConfigError
from cst_operator.export import PACKAGE_FILE, PROGRAM_FILE, export, trace
from cst_operator.fields import PointField
from cst_operator.model_card import model_card
from tests.model_samples import known_field, queries_in, tiny_model
from tests.training_samples import Net, NetConfig, train

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "export"


def tensors(source: PointField, target: PointField, transient: bool = False) -> tuple[Tensor, ...]:
    """The arguments of a program."""
    times = (source.time, target.time) if transient else ()
    return (source.pos, source.u, source.weights, target.pos, *times)


@pytest.mark.parametrize("form, transient", [("operator", True), ("joint", False)])
def test_a_program_answers_as_the_model_for_any_numbers_of_points(
    form: str, transient: bool, seed: int, generator: torch.Generator
) -> None:
    model = tiny_model(seed, form=form, transient=transient, depth=1 + transient)
    program = trace(model).module()
    for n, m in ((50, 33), (53, 53), (200, 7), (2, 1), (1, 9)):
        source = known_field(generator, n, transient=transient)
        target = queries_in(generator, m, transient=transient)
        found = program(*tensors(source, target, transient))
        # Double precision, and the order of sums may differ.
        torch.testing.assert_close(found, model(source, target), rtol=1e-12, atol=1e-12)


@pytest.fixture
def saved(tmp_path: Path, seed: int) -> Path:
    return checkpoint.save(tiny_model(seed, depth=1), tmp_path / "model", metadata={"score": 0.5})


def test_an_export_is_a_checkpoint_with_a_program_and_a_card(
    saved: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    out = export(saved, tmp_path / "deep" / "exported")
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        PROGRAM_FILE,
    ]
    assert checkpoint.read(out).metadata == {"score": 0.5}
    model, source, target = (
        checkpoint.load(out),
        known_field(generator, 40),
        queries_in(generator, 9),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of one part of torch about another
        program = torch.export.load(out / PROGRAM_FILE).module()
    found = program(*tensors(source, target))
    torch.testing.assert_close(found, model(source, target), rtol=1e-12, atol=1e-12)


def test_a_failed_export_leaves_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="needs a C.. compiler"):
        export(saved, tmp_path / "exported", package=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "exported").mkdir()
    with pytest.raises(CheckpointError, match="exported exists already"):
        export(saved, tmp_path / "exported")


def test_what_cannot_be_traced_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Net does not say how many dimensions"):
        trace(Net(NetConfig()))

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = tiny_model(0).config
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, source: PointField, target: PointField) -> Tensor:
            return target.pos if float(source.u.sum()) > 0 else -target.pos

    with pytest.raises(ConfigError, match="Branching cannot be traced by torch.export"):
        trace(Branching())


def test_a_card_says_what_the_model_is(tmp_path: Path, seed: int) -> None:
    model = tiny_model(seed, in_names=("f", "distance"), out_names=("u", "v"))
    card = model_card(checkpoint.read(checkpoint.save(model, tmp_path / "model")))
    assert card.startswith("---\nlibrary_name: cst_operator\n")
    numbers = sum(value.numel() for value in model.state_dict().values())
    for line in (
        "| reads | f, distance |",
        "| answers | u, v |",
        f"| numbers in it | {numbers:,} |",
    ):
        assert line in card
    center, scale = model.normalization.pos_center, model.normalization.pos_scale
    low = ", ".join(f"{x:.4g}" for x in (center - scale).tolist())
    assert f"box from ({low}) to" in card
    assert "| width | 32 |" in card and f"| torch | {torch.__version__} |" in card
    assert "## Training" not in card


def test_the_card_of_a_run_says_how_it_was_trained(tmp_path: Path) -> None:
    run = train(tmp_path / "run")
    card = model_card(checkpoint.read(tmp_path / "run"))
    assert "## Training\n\n12 steps." in card
    error = run.history[-1]["validation"]["relative_l2"]
    assert f"after step 12: relative_l2 {error:.4g}" in card
    assert "| batch_size | 3 |" in card


def test_an_export_that_fills_the_disk_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in saved.iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))  # too little for the program
        with pytest.raises(OSError, match="File too large"):
            export(saved, tmp_path / "exported")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("patience", "steps", "step", "error"),
    [(2, 12, 4, 0.3), (0, 12, 8, 0.4), (3, 12, 8, 0.4), (3, 8, 4, 0.3)],
    ids=["stopped early", "no early stopping", "under way", "ended"],
)
def test_the_error_on_a_card_is_that_of_its_weights(
    patience: int, steps: int, step: int, error: float, tmp_path: Path
) -> None:
    train(tmp_path / "run")
    found = checkpoint.read(tmp_path / "run")
    errors = {2: 0.5, 4: 0.3, 6: 0.3, 8: 0.4}
    history = [{"step": k, "validation": {"relative_l2": e}} for k, e in errors.items()]
    identity = {"patience": patience, "steps": steps}
    state = TrainingState(values={"step": 8, "identity": identity, "history": history})
    card = model_card(replace(found, training=state))
    assert f"after step {step}: relative_l2 {error}" in card


def test_cst_export_writes_the_folder(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(saved), "--out", str(tmp_path / "exported")]) == 0
    assert PROGRAM_FILE in capsys.readouterr().out
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["model"] == "cst"
    assert main(["export", str(saved), "--out", str(tmp_path / "exported")]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_example_in_cpp_answers_as_the_model(
    tmp_path: Path, seed: int, generator: torch.Generator
) -> None:
    from torch.utils.cpp_extension import include_paths, library_paths

    model = tiny_model(seed, depth=1).float()
    checkpoint.save(model, tmp_path / "model")
    command = (sys.executable, "-m", "cst_operator", "export", str(tmp_path / "model"))
    command += ("--out", str(tmp_path / "exported"), "--package")
    subprocess.run(command, check=True, cwd=EXAMPLE.parents[1])
    abi = int(torch.compiled_with_cxx11_abi())
    build = ["g++", "-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", str(EXAMPLE / "predict.cpp")]
    build += ["-o", str(tmp_path / "predict"), *(f"-I{folder}" for folder in include_paths())]
    for folder in library_paths():
        build += [f"-L{folder}", f"-Wl,-rpath,{folder}"]
    subprocess.run([*build, "-ltorch", "-ltorch_cpu", "-lc10"], check=True)
    source, target = known_field(generator, 40), queries_in(generator, 9)
    rows = torch.cat([source.pos, source.u, source.weights[:, None]], dim=1)
    for name, table in (("source.txt", rows), ("queries.txt", target.pos)):
        lines = (" ".join(f"{x:.9g}" for x in row) for row in table.float().tolist())
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    files = (
        tmp_path / "exported" / PACKAGE_FILE,
        tmp_path / "source.txt",
        tmp_path / "queries.txt",
    )
    done = subprocess.run(
        [str(tmp_path / "predict"), *map(str, files)], check=True, capture_output=True, text=True
    )
    found = torch.tensor([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
    for field in (source, target):
        for key in ("pos", "u", "weights", "time"):
            if key in field:
                field[key] = field[key].float()
    # Single precision; compiled kernels round differently.
    torch.testing.assert_close(found, model(source, target).detach(), rtol=1e-4, atol=1e-5)
    done = subprocess.run([str(tmp_path / "predict"), "a", "b"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr
