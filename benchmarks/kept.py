"""What a long benchmark has finished outlives an interruption."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cst_operator._atomic import write_atomically
from cst_operator.comparison import source_commit

__all__ = ["Rows", "kept_rows"]

Rows = list[dict[str, Any]]
"""Of :func:`cst_operator.comparison.benchmark_row`."""


def kept_rows(path: Path, options: dict[str, Any], measure: Callable[[], Rows]) -> Rows:
    """Rows that an earlier run of this commit with these options left, or new ones, left there.

    Args:
        path: a JSON file.
        options: everything that the rows depend on and that a caller can change; JSON values.
        measure: what makes the rows.
    """
    options = {**options, "commit": source_commit()}
    if path.is_file() and (found := json.loads(path.read_text()))["options"] == options:
        rows: Rows = found["rows"]
        return rows
    rows = measure()
    write_atomically(path, json.dumps({"options": options, "rows": rows}))
    return rows
