"""A figure in README or on the results page that no results file backs is a defect."""

from pathlib import Path

from benchmarks.pages import BEGIN, END, readme_section, results_page

ROOT = Path(__file__).resolve().parents[1]


def test_readme_shows_what_was_recorded() -> None:
    shown = (ROOT / "README.md").read_text().split(BEGIN)[1].split(END)[0]
    assert shown.strip() == readme_section().strip()


def test_results_page_shows_what_was_recorded() -> None:
    assert (ROOT / "docs" / "results.rst").read_text() == results_page()
