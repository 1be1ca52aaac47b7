"""Names with units in files that hold names only: ``T [K]``."""

import re
from collections.abc import Iterable

__all__ = ["label", "split_labels"]

# What is in the brackets of an index, ``stress[0]``, is no unit.
_LABEL = re.compile(r"(.*\S)\s*\[(?!\d+\])([^\[\]]+)\]")


def label(name: str, unit: str, *, space: bool = True) -> str:
    """The name with its unit in brackets, if it has one."""
    return f"{name}{' ' * space}[{unit}]" if unit else name


def split_labels(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Name and unit of every label; as they are where two would have the same name."""
    found = {text: _LABEL.fullmatch(text) for text in labels}
    names = [text if match is None else match[1] for text, match in found.items()]
    return {
        text: (text, "") if match is None or names.count(match[1]) > 1 else (match[1], match[2])
        for text, match in found.items()
    }
