"""Several models on the same examples."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
import torch
from rich.console import Console
from scipy.spatial import Delaunay
from torch import nn

from cst_operator import comparison as module
from cst_operator.comparison import Comparison, benchmark_record, compare, join, num_parameters
from cst_operator.errors import FieldError, InputError
from cst_operator.evaluation import evaluate
from cst_operator.fields import Example, PointField
from cst_operator.peers import GridFNO, GridFNOConfig, LinearInterpolation

KEYS = {"model", "split", "metric", "value", "unit", "seed"}


class Scaled(nn.Module):
    """Answers the source's first channel times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.mode: list[bool] = []

    def forward(self, source: PointField, target: PointField) -> torch.Tensor:
        self.mode.append(self.training)
        return self.factor * source.u[:, :1]


def examples(sizes: tuple[int, ...], generator: torch.Generator) -> list[Example]:
    found = []
    for n in sizes:
        pos = torch.rand(n, 2, generator=generator).double()
        cells = {"triangle": torch.from_numpy(Delaunay(pos.numpy()).simplices).long()}
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        field = PointField(pos, 1 + pos[:, :1], weights, channels=["u"], units=["m"], cells=cells)
        found.append(Example(field, field))
    return found


@pytest.fixture
def splits(generator: torch.Generator) -> dict[str, list[Example]]:
    return {"test": examples((20, 30), generator), "fine": examples((80,), generator)}


@pytest.fixture
def result(splits: dict[str, list[Example]]) -> Comparison:
    models = {"close": Scaled(1.1), "far": Scaled(2.0), "linear": LinearInterpolation()}
    return compare(models, splits, seed=3)


def test_rows_are_those_of_evaluation_with_size_and_time(
    result: Comparison, splits: dict[str, list[Example]]
) -> None:
    assert all(set(row) == KEYS and row["seed"] == 3 for row in result.rows)
    assert {row["model"] for row in result.rows} == {"close", "far", "linear"}
    for row in evaluate(Scaled(1.1), splits["fine"]).rows(model="close", split="fine", seed=3):
        assert row in result.rows
    # The answer is 1.1 or 2 times the truth, whatever the norm; rounding only.
    assert result.value("close", "test", "relative_l2") == pytest.approx(0.1, rel=1e-12)
    assert result.value("far", "fine", "relative_h1") == pytest.approx(1.0, rel=1e-12)
    assert result.value("close", "", "parameters") == 1
    assert result.value("linear", "", "parameters") == 0
    assert result.value("far", "test", "forward_time") > 0
    assert result.scores["close", "test"].num_samples == 2
    with pytest.raises(InputError, match="no 'nothing' of 'close'"):
        result.value("close", "test", "nothing")


def test_the_table_has_a_line_for_each_model_and_split(result: Comparison) -> None:
    lines = result.wide()
    assert [(line["split"], line["model"]) for line in lines] == [
        (split, model) for split in ("test", "fine") for model in ("close", "far", "linear")
    ]
    console = Console(file=io.StringIO(), width=200, no_color=True)
    console.print(result.table("Poisson"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Poisson" in text and "forward_time [s]" in text and "0.1" in text


def test_models_run_in_eval_mode_and_are_left_as_they_were(
    splits: dict[str, list[Example]],
) -> None:
    model = Scaled(1.0).train()
    compare({"m": model}, splits)
    assert model.training
    assert not any(model.mode)


class Elsewhere(nn.Module):
    """Lives on a device without values; answers ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))
        self.seen: set[str] = set()

    def forward(self, source: PointField, target: PointField) -> torch.Tensor:
        self.seen |= {tensor.device.type for tensor in (source.pos, target.cells["triangle"])}
        return torch.ones(target.num_points, 1, dtype=torch.float64)


def test_examples_stay_where_they_are(splits: dict[str, list[Example]]) -> None:
    model = Elsewhere()
    compare({"m": model}, splits)
    assert model.seen == {"meta"}
    for field in (side for split in splits.values() for example in split for side in example):
        assert {field[key].device.type for key in ("pos", "u", "weights", "time")} == {"cpu"}
        assert field.cells["triangle"].device.type == "cpu"


def test_complex_parameters_count_twice() -> None:
    model = nn.Module()
    model.register_parameter("a", nn.Parameter(torch.zeros(3, dtype=torch.complex64)))
    model.register_parameter("b", nn.Parameter(torch.zeros(2)))
    assert num_parameters(model) == 8
    fno = GridFNO(GridFNOConfig(dim=2, in_channels=1, out_channels=1, modes=4, width=4, layers=1))
    assert num_parameters(fno) > sum(p.numel() for p in fno.parameters())


def test_files_hold_the_rows(result: Comparison, tmp_path: Path) -> None:
    as_json, as_csv = result.write(tmp_path / "new", name="poisson")
    assert json.loads(as_json.read_text())["rows"] == list(result.rows)
    with as_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [row["value"] for row in result.rows]
    assert sorted(p.name for p in as_csv.parent.iterdir()) == ["poisson.csv", "poisson.json"]


def test_comparisons_are_joined(result: Comparison) -> None:
    (row, *_) = result.rows
    other = Comparison(rows=({**row, "model": "other"},), scores={})
    both = join(result, other)
    assert both.rows == (*result.rows, *other.rows)
    assert both.scores == result.scores


def test_a_model_that_cannot_answer_is_named(splits: dict[str, list[Example]]) -> None:
    wrong = [Example(e.source, e.target.with_values(e.target.u, ["p"])) for e in splits["test"]]
    with pytest.raises(FieldError, match="linear on test: .*cannot answer p"):
        compare({"linear": LinearInterpolation()}, {"test": wrong})
    with pytest.raises(InputError, match="at least one model"):
        compare({}, splits)


def test_a_record_says_what_was_measured_when_where_and_how(
    result: Comparison, tmp_path: Path
) -> None:
    path = benchmark_record(
        "poisson", result.rows, data="seed 0", folder=tmp_path, command="python -m x", budget=60
    )
    record = json.loads(path.read_text())
    assert path == tmp_path / "poisson.json"
    assert set(record) == {"commit", "date", "machine", "command", "data", "budget", "rows"}
    assert record["rows"] == list(result.rows)
    assert record["command"] == "python -m x"
    assert record["date"].endswith("+00:00")
    assert f"torch {torch.__version__}" in record["machine"]


def test_a_record_refuses_rows_that_do_not_say_enough(result: Comparison, tmp_path: Path) -> None:
    short = {key: value for key, value in result.rows[0].items() if key != "unit"}
    with pytest.raises(InputError, match="lacks unit"):
        benchmark_record("x", [short], data="", folder=tmp_path)
    with pytest.raises(InputError, match="is nan"):
        benchmark_record("x", [{**result.rows[0], "value": float("nan")}], data="", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_commit_is_marked_where_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *names, *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(module, "__file__", str(package / "comparison.py"))
    git("init", "-q")
    assert module.source_commit() == ""
    (package / "a").write_text("one")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    assert module.source_commit() == git("rev-parse", "HEAD")
    (package / "a").write_text("two")
    assert module.source_commit() == git("rev-parse", "HEAD") + "+"
