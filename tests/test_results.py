"""A figure in README or in the documentation that no results file backs is a defect."""

from pathlib import Path

import pytest

from benchmarks import pages
from benchmarks.pages import (
    BEGIN,
    COSTS,
    END,
    END_COSTS,
    costs_section,
    readme_section,
    results_page,
)
from cst_operator.solvers import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]


def test_readme_shows_what_was_recorded() -> None:
    shown = (ROOT / "README.md").read_text().split(BEGIN)[1].split(END)[0]
    assert shown.strip() == readme_section().strip()


def test_results_page_shows_what_was_recorded() -> None:
    assert (ROOT / "docs" / "results.rst").read_text() == results_page()


def test_the_page_of_the_solvers_shows_the_recorded_costs() -> None:
    shown = (ROOT / "docs" / "solvers.rst").read_text().split(COSTS)[1].split(END_COSTS)[0]
    assert shown.strip() == costs_section().strip()


def test_costs_are_those_of_samples_of_sets_and_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        ("poisson", "sample"): {
            "cpu_time_median": 0.05,
            "cpu_time_max": 0.0632,
            "points": 280.4,
            "frames": 1.0,
        },
        ("heat", "sample"): {"failures": 3.0},
        ("poisson_1000_nodes", "8 samples"): {"time": 9.04, "time_per_sample": 1.1, "points": 971},
        ("burgers_periodic", "128 points"): {"time_per_step": 1.25e-4, "time_per_trajectory": 0.02},
    }
    rows = [
        {"model": model, "split": split, "metric": metric, "value": value}
        for (model, split), values in measured.items()
        for metric, value in values.items()
    ]
    record = {"rows": rows, "command": "python", "machine": "abacus"}
    monkeypatch.setattr(pages, "records", lambda: {"solvers": record})
    lines = costs_section().splitlines()
    assert lines[0] == "``python`` on abacus:"
    assert [line for line in lines if line.startswith('   "')] == [
        '   "``poisson``", "0.05", "0.063", "280", "1"',
        '   "8 samples", "971", "9.04"',
        '   "``burgers_periodic``", "128 points", "0.00013", "0.02"',
    ]


def test_every_system_has_its_place_and_its_picture_on_the_page_of_the_solvers() -> None:
    page = (ROOT / "docs" / "solvers.rst").read_text().splitlines()
    for name in SYSTEMS:
        assert page[page.index(name) + 1] == "~" * len(name), name
        assert f".. image:: pictures/solvers/{name}.png" in page
    drawn = {path.stem for path in (ROOT / "docs" / "pictures" / "solvers").iterdir()}
    assert drawn == set(SYSTEMS)
