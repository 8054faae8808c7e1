"""Files of the repository as pages of the site, and the links between them.

A link in a Markdown file is a path, so that it works in the repository. In the site, the same link leads to the page
with that file. Does not know Sphinx: `conf.py` passes the text of each page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent
ROOT: Final = DOCS.parent
READMES: Final = sorted(
    path / "README.md"
    for pattern in ("asyncapy_*", "plugins/asyncapy_*")
    for path in ROOT.glob(pattern)
    if (path / "pyproject.toml").is_file()
)
PAGES: Final = {
    ROOT / "ARCHITECTURE.md": "architecture",
    ROOT / "CHANGELOG.md": "changelog",
    ROOT / "CONTRIBUTING.md": "contributing",
    ROOT / "SECURITY.md": "security",
    **dict.fromkeys(READMES, "distributions"),
}
"""The page of the site that includes each file."""

_LINK: Final = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE: Final = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`(?!\]))", re.MULTILINE | re.DOTALL)


def write_included(folder: Path) -> None:
    """Write the files that pages include, with the links of the site: one of each file, and one of all READMEs."""
    for path, page in PAGES.items():
        if path not in READMES:
            (folder / f"{page}.txt").write_text(site_links(path.read_text("utf-8"), path), encoding="utf-8")
    sections = [_lower_headings(site_links(path.read_text("utf-8"), path)) for path in READMES]
    (folder / "distributions.txt").write_text("\n".join(sections), encoding="utf-8")


def site_links(text: str, path: Path, folder: Path = DOCS) -> str:
    """Return the text of a Markdown file, with links that are valid in a page of the site.

    Args:
        text: the text.
        path: the file; its links are relative to its folder.
        folder: the folder of the page, ``docs`` or one below it.

    Raises:
        ValueError: there is no file where a link leads.
    """

    def replace(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / found[1]))
        if not target.exists():
            raise ValueError(f"{path} has a link to {found[1]}, but there is no such file; correct the link")
        page = DOCS / f"{PAGES[target]}.md" if target in PAGES else target
        return f"]({os.path.relpath(page, folder)}{found[2] or ''})"

    parts = _CODE.split(text)
    return "".join(part if number % 2 else _LINK.sub(replace, part) for number, part in enumerate(parts))


def _lower_headings(text: str) -> str:
    parts = _CODE.split(text)
    return "".join(part if n % 2 else re.sub(r"^#", "##", part, flags=re.MULTILINE) for n, part in enumerate(parts))
