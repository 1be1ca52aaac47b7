"""The HTML page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from cst_operator.errors import InputError
from cst_operator.fields import PointField
from cst_operator.plots import figure_png, plot_fields
from cst_operator.report import Picture, ReportTable, Section, write_report

EVIL = "<script>alert(\"x\")</script> & 'quoted'"
VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def field() -> PointField:
    pos = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    return PointField(pos, pos[:, :1], channels=["u"])


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "out put").mkdir()
    (tmp_path / "out put" / "a&b.vtu").write_text("x")
    (tmp_path / "shot.png").write_bytes(figure_png(plot_fields({"t": field()}), dpi=20))
    sections = [
        Section(title=EVIL, text=f"First.\n\n{EVIL}\n\nLast."),
        Section(
            title="Numbers",
            tables=(
                ReportTable(
                    rows=[
                        {EVIL: "a", "relative_l2": 0.04812, "parameters": 12345},
                        {EVIL: EVIL, "relative_l2": 0.1, "missing": None},
                    ],
                    caption=EVIL,
                    best=("relative_l2",),
                ),
            ),
        ),
        Section(
            title="Pictures",
            pictures=(
                Picture(image=plot_fields({"t": field()}), caption=EVIL),
                Picture(image=tmp_path / "shot.png"),
                Picture(image=(tmp_path / "shot.png").read_bytes()),
            ),
            files={EVIL: "out put/a&b.vtu", "the picture": tmp_path / "shot.png"},
        ),
    ]
    return write_report(tmp_path / "report.html", EVIL, sections, subtitle=EVIL).read_text(
        encoding="utf-8"
    )


def test_the_page_is_well_formed_and_stands_alone(page: str) -> None:
    parsed = Page(page)
    assert "script" not in parsed.tags and "link" not in parsed.tags
    sources = [value for name, value in parsed.attributes if name == "src"]
    assert len(sources) == 3
    assert all(str(value).startswith("data:image/png;base64,iVBOR") for value in sources)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]+", "", page))


def test_everything_is_escaped(page: str) -> None:
    assert "<script" not in page
    # title, h1, subtitle, contents, heading, text, caption, column, cell, figure caption, link
    assert Page(page).text.count(EVIL) == 11


def test_tables_round_numbers_and_emphasise_the_best(page: str) -> None:
    assert '<td class="number"><strong>0.0481</strong></td>' in page
    assert '<td class="number">0.1</td>' in page
    assert '<td class="number">12,345</td>' in page
    assert "None" not in page


def test_the_best_is_sought_within_groups(tmp_path: Path) -> None:
    rows = [{"split": s, "error": e} for s, e in (("a", 0.1), ("a", 0.2), ("b", 0.3), ("b", 0.25))]
    table = ReportTable(rows=rows, best=("error",), within="split")
    page = write_report(tmp_path / "r.html", "t", [Section(title="s", tables=(table,))])
    assert re.findall(r"<strong>(.*?)</strong>", page.read_text()) == ["0.1", "0.25"]


def test_links_are_relative_to_the_page_and_quoted(page: str) -> None:
    links = [value for name, value in Page(page).attributes if name == "href"]
    assert links == ["#s1", "#s2", "#s3", "out%20put/a%26b.vtu", "shot.png"]


def test_what_does_not_exist_is_not_linked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no.vtu, which does not exist"):
        write_report(tmp_path / "r.html", "t", [Section(title="s", files={"x": "no.vtu"})])
    with pytest.raises(InputError, match="no.png does not exist"):
        missing = Picture(image=tmp_path / "no.png")
        write_report(tmp_path / "r.html", "t", [Section(title="s", pictures=(missing,))])
    assert not list(tmp_path.iterdir())


def test_a_report_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "report.html"
    for title in ("one", "two"):
        write_report(path, title, [])
    assert "two" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
