"""Every documented example runs, and every public module has its place in the documentation."""

import doctest
import importlib
import re
import runpy
from pathlib import Path

import pytest
import torch

from cst_operator.errors import SolverError
from cst_operator.solvers import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.rst")), ROOT / "README.md"]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_names() -> list[str]:
    """Every module of the library by its installed name, found without importing anything."""
    names = []
    for folder, package in (
        (ROOT / "cst_operator", "cst_operator"),
        (ROOT / "solvers", "cst_operator.solvers"),
        (ROOT / "datasets", "cst_operator.datasets"),
    ):
        for path in sorted(folder.rglob("*.py")):  # does not follow links
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            names.append(".".join((package, *parts)))
    return names


MODULES = module_names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    # Without the fences of Markdown, which would be read as expected output.
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0


@pytest.mark.parametrize("name", ["plain_pytorch", "lightning_module"])
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # within lightning
def test_example_loops_learn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))
    errors = []
    for epochs in (0, 10):
        folder = tmp_path / str(epochs)
        folder.mkdir()
        monkeypatch.chdir(folder)  # examples write files
        torch.manual_seed(0)
        errors.append(example["main"](epochs=epochs, samples=16))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("name", ["poisson", "allen_cahn_periodic", "burgers_periodic", "lorenz96"])
def test_pictures_of_solvers_are_made_by_code_and_small(name: str) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    sample = SYSTEMS[name].sample(script["SEED"], script["INDEX"])
    made = script["small_png"](script["draw"](name, sample))
    shown = (script["FOLDER"] / f"{name}.png").read_bytes()
    assert len(made) < 60_000
    size = slice(16, 24)  # width and height in a PNG file; fonts and rounding move the rest
    assert made[size] == shown[size]


def test_a_program_that_writes_files_makes_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "own_solver.py"))
    found = example["main"](samples=3, out=str(tmp_path / "set"), workers=1)
    assert found.indices == (0, 2)
    assert [f["reason"] for f in found.manifest["failures"]] == [
        "sample 1 of seed 0: the membrane tears"
    ]
    membrane = example["Membrane"](load=(1.0, 12.0))
    assert torch.equal(found[1].u, membrane.sample(0, 2).u)
    coarse, fine = (membrane.sample(0, 2, refine=r) for r in (0, 1))
    assert (coarse.mesh.num_points, fine.mesh.num_points) == (17**2, 33**2)
    # the same membrane; the trapezoidal rule is of order two in an edge of 1/16
    integrals = [float(s.mesh.weights @ s.u[0, :, 0]) for s in (coarse, fine)]
    assert integrals[0] == pytest.approx(integrals[1], rel=1e-2)

    with pytest.raises(SolverError, match="sample 2 of seed 0: .* timed out"):
        example["Membrane"](timeout=1e-3).sample(0, 2)
    silent = tmp_path / "silent.py"
    silent.write_text("")
    monkeypatch.setitem(membrane.sample.__globals__, "PROGRAM", silent)
    with pytest.raises(SolverError, match="sample 2 of seed 0: .*result.vtu"):
        membrane.sample(0, 2)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith("__main__"):
        pytest.skip("importing it runs the program")
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0


def test_every_public_module_is_in_the_reference() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.rst"))
    documented = set(re.findall(r"^\.\. automodule:: (\S+)$", pages, flags=re.MULTILINE))
    packages = {name.rpartition(".")[0] for name in MODULES}
    public = {name for name in MODULES if not any(p.startswith("_") for p in name.split("."))}
    assert documented >= public - packages
    assert documented <= set(MODULES)
