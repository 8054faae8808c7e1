"""The configuration of the site; the pages that are generated from the code are written into `generated/` first."""

from __future__ import annotations

import sys
from pathlib import Path

import asyncapy

sys.path.insert(0, str(Path(__file__).parent))

from reference import write_reference  # docs/reference.py

project = "AsyncAPY"
author = "The AsyncAPY developers"
project_copyright = author
version = release = asyncapy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "literal"
smartquotes = False
nitpicky = False
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

write_reference(Path(__file__).parent / "generated")
