"""The configuration of the site; the pages that are generated from the code are written into `generated/` first."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncapy
import asyncapy_core

sys.path.insert(0, str(Path(__file__).parent))

from links import DOCS, site_links, write_included  # docs/links.py
from reference import write_reference  # docs/reference.py

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "AsyncAPY"
author = "The AsyncAPY developers"
project_copyright = author
version = release = asyncapy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "literal"
smartquotes = False
nitpicky = True
nitpick_ignore_regex = [
    # No inventories of other projects are downloaded.
    ("py:.*", r"(collections|configparser|contextlib|importlib|os|pathlib|pydantic|re|socket|ssl|trio|uuid)\..*"),
    ("py:class", r"(.*\.)?(B|E|F|G|H|S|T|T_co|Ts|W|Answer|Signal)"),  # type variables
    ("py:class", "(Guard|Handler)Function"),  # aliases of callables
    ("py:class", r"asyncapy_typed\.binary\.(from|to)_base64"),  # functions in the type of Binary
]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline", "deflist"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
suppress_warnings = ["ref.python"]  # there are two classes called Client, as documented
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["console.css", "side-by-side.css"]
html_title = f"AsyncAPY {version}"
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
pygments_style = "friendly"
highlight_language = "none"

write_reference(DOCS / "generated")
write_included(DOCS / "generated")


def import_types() -> None:
    """Run the imports for type checkers in all modules of core, so that annotations are references to classes."""
    names = [module.name for module in pkgutil.walk_packages(asyncapy_core.__path__, "asyncapy_core.")]
    for module in map(importlib.import_module, names):
        for statement in ast.parse(inspect.getsource(module)).body:
            if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
                exec(ast.unparse(ast.Module(statement.body, [])), vars(module))  # noqa: S102  # our own sources


NOT_CALLED = {
    f"{module}.{name}"
    for module, names in {
        "asyncapy.client": "EventStream ReplyStream",
        "asyncapy.core": "Client Session",
        "asyncapy.server": "Registration",
        "asyncapy_core": "BatchKeyStore Codec KeyStore ServerConfig Transport WatchableKeyStore",
        "asyncapy_core.logs.session_log": "SessionLog",
        "asyncapy_core.plugins": "PluginRecord ServerHooks",
        "asyncapy_core.plugins.bound_hook": "BoundHook",
        "asyncapy_core.plugins.registry": "NameRegistry",
        "asyncapy_core.testing": "ServerInMemory",
    }.items()
    for name in names.split()
}
"""Classes that programs do not call, as the library makes their instances, or as they are protocols."""


def setup(app: Sphinx) -> None:
    """Give the links of each page their targets in the site, and the classes of `NOT_CALLED` no parameters."""

    def leave_out(
        _: Sphinx, kind: str, name: str, _object: object, _options: object, signature: str | None, result: str | None
    ) -> tuple[str | None, str | None]:
        if kind == "class" and name in NOT_CALLED:
            return "", None
        return signature and signature.replace("<factory>", "..."), result  # Sphinx cannot parse it

    def replace_links(_: Sphinx, name: str, source: list[str]) -> None:
        page = DOCS / f"{name}.md"
        source[0] = site_links(source[0], page, page.parent)

    app.connect("source-read", replace_links)
    app.connect("autodoc-process-signature", leave_out)


import_types()
