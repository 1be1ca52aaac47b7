"""One self-contained HTML page: words, tables and pictures, readable offline."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from cst_operator._atomic import write_atomically
from cst_operator.errors import InputError
from cst_operator.plots import figure_png

__all__ = ["Picture", "ReportTable", "Section", "write_report"]


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table of rows that share their keys.

    Args:
        rows: mappings from column to value; numbers are aligned and rounded.
        caption: what the table shows.
        columns: columns in order; those of the rows as they appear if omitted.
        best: columns whose smallest number is emphasised.
        within: column whose values part the table into groups, each with its own smallest number.
    """

    rows: Sequence[Mapping[str, object]]
    caption: str = ""
    columns: tuple[str, ...] = ()
    best: tuple[str, ...] = ()
    within: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with a caption.

    Args:
        image: a figure, a PNG's bytes, or the path of a PNG file.
        caption: what to see in it; also the text for readers who cannot.
    """

    image: Figure | bytes | str | Path
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what follows it, in this order: text, tables, pictures, files.

    Args:
        title: the heading.
        text: paragraphs, separated by empty lines; plain text, no markup.
        tables: tables.
        pictures: pictures.
        files: files to link to, by the words of the link; best beside the report or below it.
    """

    title: str
    text: str = ""
    tables: tuple[ReportTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    files: Mapping[str, str | Path] | None = None


def write_report(
    path: str | Path, title: str, sections: Sequence[Section], *, subtitle: str = ""
) -> Path:
    """Write the page; pictures are inside it, nothing is fetched, no script runs.

    Args:
        path: the HTML file; its folder is made if missing.
        title: title of the page.
        sections: what it says.
        subtitle: one line under the title, e.g. date, machine and command.

    Returns:
        The path of the page.

    Raises:
        InputError: if a linked file or a picture does not exist.
    """
    path = Path(path)
    contents = "".join(
        f'<li><a href="#s{i}">{_text(section.title)}</a></li>'
        for i, section in enumerate(sections, start=1)
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<header><h1>{_text(title)}</h1>",
        f'<p class="subtitle">{_text(subtitle)}</p>' if subtitle else "",
        f"<nav><ol>{contents}</ol></nav>" if len(sections) > 2 else "",
        "</header>",
        *(_section(s, f"s{i}", path.parent) for i, s in enumerate(sections, start=1)),
        "</main></body></html>\n",
    ]
    return write_atomically(path, "\n".join(part for part in parts if part))


def _section(section: Section, anchor: str, folder: Path) -> str:
    paragraphs = [p.strip() for p in section.text.split("\n\n") if p.strip()]
    parts = [f'<section id="{anchor}"><h2>{_text(section.title)}</h2>']
    parts += [f"<p>{_text(p)}</p>" for p in paragraphs]
    parts += [_table(table) for table in section.tables]
    parts += [_picture(picture) for picture in section.pictures]
    if section.files:
        links = [_link(words, Path(file), folder) for words, file in section.files.items()]
        parts.append(f'<ul class="files">{"".join(links)}</ul>')
    return "\n".join([*parts, "</section>"])


def _table(table: ReportTable) -> str:
    columns = table.columns or tuple(dict.fromkeys(key for row in table.rows for key in row))
    numeric = {
        c: all(_is_number(row[c]) for row in table.rows if row.get(c) is not None) for c in columns
    }
    head = "".join(
        f'<th scope="col"{_NUMBER if numeric[c] else ""}>{_text(c)}</th>' for c in columns
    )
    body = []
    for row in table.rows:
        cells = []
        for c in columns:
            text = _text(_value(row.get(c)))
            if c in table.best and row.get(c) == _least(table, c, row):
                text = f"<strong>{text}</strong>"
            cells.append(f"<td{_NUMBER if numeric[c] else ''}>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _least(table: ReportTable, column: str, row: Mapping[str, object]) -> float | None:
    """Smallest number of a column in one row's group; None if the group has fewer than two."""
    group = [r for r in table.rows if not table.within or r[table.within] == row[table.within]]
    numbers = [value for r in group if isinstance(value := r.get(column), float)]
    return min(numbers) if len(numbers) > 1 else None


_DENSITY = 1.5
_NUMBER = ' class="number"'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _picture(picture: Picture) -> str:
    image = picture.image
    if isinstance(image, Figure):
        image = figure_png(image)
    elif isinstance(image, str | Path):
        if not Path(image).is_file():
            raise InputError(f"the picture {image} does not exist; write it before the report")
        image = Path(image).read_bytes()
    words = _text(picture.caption)
    caption = f"<figcaption>{words}</figcaption>" if picture.caption else ""
    encoded = base64.b64encode(image).decode("ascii")
    # Shown smaller than its pixels, so that it is sharp on dense screens. Bytes 16 to 19 of a PNG
    # are its width.
    width = round(int.from_bytes(image[16:20], "big") / _DENSITY)
    return (
        f'<figure><img alt="{words}" width="{width}" src="data:image/png;base64,{encoded}">'
        f"{caption}</figure>"
    )


def _link(words: str, file: Path, folder: Path) -> str:
    place = file if file.is_absolute() else folder / file
    if not place.exists():
        raise InputError(
            f"the report links to {file}, which does not exist in {folder}; write it first"
        )
    relative = Path(os.path.relpath(place.resolve(), folder.resolve())).as_posix()
    return (
        f'<li><a href="{html.escape(quote(relative), quote=True)}">{_text(words)}</a> '
        f"<code>{_text(relative)}</code></li>"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


_STYLE = """
:root { --ink:#1f2328; --soft:#59636e; --line:#d8dee4; --paper:#ffffff; --band:#f6f8fa;
  --link:#0b63a5; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e6edf3; --soft:#9aa4af; --line:#30363d; --paper:#0f141a; --band:#171d25;
    --link:#6cb6ff; }
}
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1080px; margin:0 auto; padding:2.5rem 1.25rem 4rem; }
h1 { font-size:2rem; line-height:1.2; margin:0 0 .4rem; letter-spacing:-.015em; }
h2 { font-size:1.3rem; line-height:1.3; margin:2.8rem 0 .8rem; padding-top:1.2rem;
  border-top:1px solid var(--line); }
p { max-width:46rem; margin:0 0 1rem; overflow-wrap:anywhere; }
a { color:var(--link); }
.subtitle { color:var(--soft); margin:0; }
nav ol { list-style:none; display:flex; flex-wrap:wrap; gap:.2rem 1.4rem; padding:0;
  margin:1.2rem 0 0; font-size:.95rem; }
.table { overflow-x:auto; margin:0 0 1.6rem; }
table { border-collapse:collapse; font-size:.93rem; font-variant-numeric:tabular-nums; }
caption { text-align:left; color:var(--soft); padding:0 0 .5rem; caption-side:top; }
th, td { text-align:left; padding:.42rem .95rem; border-bottom:1px solid var(--line);
  white-space:nowrap; }
thead th { font-weight:600; border-bottom:2px solid var(--line); }
tbody tr:nth-child(even) { background:var(--band); }
.number { text-align:right; }
figure { margin:0 0 2rem; }
img { display:block; max-width:100%; height:auto; background:#fff; border:1px solid var(--line);
  border-radius:8px; padding:.5rem; }
figcaption { color:var(--soft); font-size:.93rem; margin-top:.5rem; max-width:46rem; }
.files { padding-left:1.2rem; }
code { font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; color:var(--soft); }
@media print { h2 { break-after:avoid; } figure, table { break-inside:avoid; } }
"""
