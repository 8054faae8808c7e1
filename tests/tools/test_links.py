"""docs/links.py: the links of the repository in the pages of the site."""

from __future__ import annotations

from pathlib import Path

import pytest
from links import DOCS, PAGES, ROOT, site_links, write_included


@pytest.mark.parametrize(
    ("source", "link", "target"),
    [
        ("CONTRIBUTING.md", "ARCHITECTURE.md", "architecture.md"),
        ("CONTRIBUTING.md", "docs/hooks.md#order", "hooks.md#order"),
        ("docs/migration.md", "../CHANGELOG.md", "changelog.md"),
        ("docs/operating.md", "hooks.md", "hooks.md"),
        ("docs/examples.md", "../examples/demo.py", "../examples/demo.py"),
        ("plugins/asyncapy_redis/README.md", "../../docs/keys.md", "keys.md"),
        ("docs/install.md", "../plugins/asyncapy_redis/README.md", "distributions.md"),
        ("docs/install.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/install.md", "#above", "#above"),
    ],
)
def test_a_link_leads_to_the_page_with_the_file(source: str, link: str, target: str) -> None:
    assert site_links(f"See [`this`]({link}).", ROOT / source) == f"See [`this`]({target})."


def test_a_link_to_no_file_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"install\.md has a link to nowhere\.md, but there is no such file"):
        site_links("[a](nowhere.md)", DOCS / "install.md")


@pytest.mark.parametrize("text", ["`[a](nowhere.md)`", "```\n[a](nowhere.md)\n```\n"])
def test_code_has_no_links(text: str) -> None:
    assert site_links(text, DOCS / "install.md") == text


def test_each_file_is_part_of_a_page(tmp_path: Path) -> None:
    write_included(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(PAGES.values())
    distributions = (tmp_path / "distributions.txt").read_text("utf-8")
    for path, page in PAGES.items():
        assert f"{{include}} generated/{page}.txt" in (DOCS / f"{page}.md").read_text("utf-8")
        if page == "distributions":
            assert f"\n## {path.parent.name.replace('_', '-')}\n" in f"\n{distributions}"
    assert "\n# " not in f"\n{distributions}"


def test_all_links_of_the_pages_lead_to_files() -> None:
    for page in DOCS.glob("*.md"):
        site_links(page.read_text("utf-8"), page)
    site_links((ROOT / "README.md").read_text("utf-8"), ROOT / "README.md")
