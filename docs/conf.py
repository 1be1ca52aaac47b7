"""Configuration of the documentation; ``make docs`` builds it."""

import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring

project = "cst_operator"
author = "cst_operator developers"
copyright = "2026, cst_operator developers"
_pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
version = release = tomllib.loads(_pyproject.read_text())["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
pygments_style = "friendly"

html_theme = "pydata_sphinx_theme"
html_title = "cst_operator"
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False}
html_sidebars = {"index": [], "theory": [], "tutorial": []}
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Every reference to this library must resolve. Other libraries are not linked to, because that
# would need the network in every build.
nitpicky = True
_others = "h5py|matplotlib|meshio|neuralop|np|numpy|rich|scipy|skfem|torch|torch_geometric|tyro"
_others += "|" + "|".join(sys.stdlib_module_names)
nitpick_ignore_regex = [
    (r"py:.*", rf"({_others})\..*"),
    (
        r"py:.*",
        r"(Tensor|nn\.Module|Data|Path|SuperLU|Callable|Iterable|Iterator|Mapping|Sequence)",
    ),
    # What tyro adds to the type of an argument.
    (r"py:class", r"Positional|to"),
    # Private base classes and aliases have no page.
    (r"py:.*", r"cst_operator\.(\w+\.)*_\w+"),
]


# Types are in the annotations, so a colon in the sentence on an attribute is only a colon.
GoogleDocstring._consume_inline_attribute = lambda self: ("", self._dedent(self._consume_to_end()))


def resolve_import(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name as Python does, where it is imported, to where it is defined."""
    if node.get("refdomain") != "py":
        return None
    found = find(node["reftarget"]) or find(f"{node.get('py:module')}.{node['reftarget']}")
    if found is None:
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", found, node, contnode
    )


def find(name: str) -> str | None:
    """Name by which something imported from ``name`` was defined in this library."""
    if not name.startswith("cst_operator."):
        return None
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            found = getattr(found, part, None)
        module, qualified = (getattr(found, key, None) for key in ("__module__", "__qualname__"))
        return f"{module}.{qualified}" if module and qualified else None
    return None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", resolve_import)
