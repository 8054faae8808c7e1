"""Metadata of installed distributions that is not as it should be: no traceback, and the other plugins work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from core.plugins.conftest import Site

STATES = """
import json
from asyncapy_core import Filters
from asyncapy_core.client import Client
from asyncapy_core.plugins import default_manager

Client(tls=False)
records = [[each.name, each.distribution, each.version, each.state, each.reason] for each in default_manager().plugins]
print(json.dumps({"records": records, "filter": Filters.Fields.__name__, "leftovers": default_manager().leftovers}))
"""
OURS = {"codecs", "filters", "limits", "metrics", "redis", "sqlite", "typed"}


def found(site: Site, program: str = STATES) -> dict[str, Any]:
    """Use plugins in a program; return its records other than those of this repository, and its leftovers."""
    answer: dict[str, Any] = json.loads(site.prints(program))
    assert answer["filter"] == "Fields"
    assert {record[0] for record in answer["records"] if record[3] == "loaded"} >= OURS
    return {**answer, "records": [record for record in answer["records"] if record[0] not in OURS]}


def entries(*lines: str) -> str:
    return "\n".join(["[asyncapy]", *lines, ""])


def test_metadata_that_an_interrupted_pip_has_left_behind_is_not_read(site: Site) -> None:
    info = site.install("plug")
    left = site.folder / "~lug-0.9.dist-info"
    left.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (left / name).write_text((info / name).read_text())
    ours = site.folder / "~syncapy_codecs-0.5.dist-info"
    ours.mkdir()
    (ours / "METADATA").write_text("Metadata-Version: 2.1\nName: asyncapy-codecs\nVersion: 0.5\n")
    (ours / "entry_points.txt").write_text(entries("codecs = asyncapy_codecs"))
    answer = found(site)
    assert answer["records"] == [["plug", "plug", "1.0", "loaded", ""]]
    assert sorted(answer["leftovers"]) == sorted(map(str, [left, ours]))
    done = site.asyncapy("plugins", "doctor")
    assert done.returncode == 0
    assert f"{left} is left over from an interrupted pip, and is not read; delete it" in done.stderr


def test_an_entry_point_that_is_listed_twice_is_one_plugin(site: Site) -> None:
    info = site.install("plug")
    (info / "entry_points.txt").write_text(entries("plug = plug", "plug = plug", "plug=plug"))
    assert found(site)["records"] == [["plug", "plug", "1.0", "loaded", ""]]


@pytest.mark.parametrize("second", ["Plug-1.0.dist-info", "plug-2.0.dist-info", "plug.egg-info"])
def test_metadata_of_the_same_distribution_that_is_there_twice_is_one_plugin(site: Site, second: str) -> None:
    info = site.install("plug")
    other = site.folder / "other" / second
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text((info / "entry_points.txt").read_text())
    path = f"import sys; sys.path.append({str(other.parent)!r})\n"
    assert found(site, path + STATES)["records"] == [["plug", "plug", "1.0", "loaded", ""]]


def test_an_empty_folder_of_metadata_does_not_hide_the_distribution(site: Site) -> None:
    first = site.folder / "first" / "plug-1.0.dist-info"
    first.mkdir(parents=True)
    site.install("plug", version="2.0")
    path = f"import sys; sys.path.insert(0, {str(first.parent)!r})\n"
    assert found(site, path + STATES)["records"] == [["plug", "plug", "2.0", "loaded", ""]]


def test_two_entry_points_of_one_name_in_one_distribution_name_their_values(site: Site) -> None:
    info = site.install("plug")
    (info / "entry_points.txt").write_text(entries("plug = plug", "plug = plug:other"))
    reason = "plug has two entry points 'plug', plug and plug:other; install it again"
    assert found(site)["records"] == [["plug", "plug", "1.0", "quarantined", reason]] * 2


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no equals sign": (_text("[console_scripts]\nnonsense\n"), "TypeError"),
    "no equals sign in the group": (_text(entries("nonsense")), "TypeError"),
    "not UTF-8": (lambda path: path.write_bytes(b"[asyncapy]\nplug = plug \xff\n"), "UnicodeDecodeError"),
    "UTF-16": (lambda path: path.write_text("[asyncapy]\nplug = plug\n", "utf-16"), "UnicodeDecodeError"),
    "a folder": (lambda path: path.mkdir(), "its entry_points.txt cannot be read"),
    "a link to itself": (lambda path: path.symlink_to(path), "OSError"),
}


@pytest.mark.parametrize(("write", "words"), BROKEN.values(), ids=list(BROKEN))
def test_a_distribution_whose_entry_points_cannot_be_read_is_quarantined_by_its_name(
    site: Site, write: Callable[[Path], object], words: str
) -> None:
    info = site.install("unrelated", version="3.2")
    (info / "entry_points.txt").unlink()
    write(info / "entry_points.txt")
    ((name, distribution, version, state, reason),) = found(site)["records"]
    assert (name, distribution, version, state) == ("(metadata)", "unrelated", "3.2", "quarantined")
    assert reason.startswith("its entry_points.txt cannot be read")
    assert words in reason
    done = site.asyncapy("plugins", "doctor")
    assert done.returncode == 1
    assert f"the metadata of unrelated 3.2 is quarantined: {reason.partition(': [')[0]}" in done.stdout
    done = site.asyncapy("plugins")
    assert (done.returncode, "unrelated" in done.stdout) == (0, True)


def test_a_distribution_whose_entry_points_may_not_be_read_is_quarantined_by_its_name(site: Site) -> None:
    info = site.install("plug")
    (info / "entry_points.txt").chmod(0)
    ((*_, state, reason),) = found(site)["records"]
    if os.access(info / "entry_points.txt", os.R_OK):  # root may read all files
        assert (state, reason) == ("loaded", "")
    else:
        assert (state, reason) == ("quarantined", "its entry_points.txt cannot be read")


@pytest.mark.parametrize(
    ("metadata", "version"),
    [(b"", "1.0"), (b"\xff\xfe", "1.0"), (b"Name: \n", "1.0"), (None, "1.0"), (b"Name: plug\n", "1.0")],
    ids=["empty", "not UTF-8", "no name", "missing", "no version"],
)
def test_a_plugin_without_a_name_in_its_metadata_has_that_of_its_folder(
    site: Site, metadata: bytes | None, version: str
) -> None:
    info = site.install("plug")
    (info / "METADATA").unlink()
    if metadata is not None:
        (info / "METADATA").write_bytes(metadata)
    assert found(site)["records"] == [["plug", "plug", version, "loaded", ""]]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("two words = plug", "its name 'two words' has other characters than letters, digits, '_', '-' and '.'"),
        ("'quoted' = plug", "its name \"'quoted'\" has other characters"),
        (" = plug", "its name '' has other characters"),
        ("plug = not a module!", "its entry point 'not a module!' is neither MODULE nor MODULE:OBJECT"),
        ("plug =", "its entry point '' is neither MODULE nor MODULE:OBJECT"),
        ("plug = nowhere_to_be_found", "import failed with ModuleNotFoundError"),
        ("plug = plug:nothing", "import failed with AttributeError"),
        ("plug = .", "import failed with "),
        ("plug = plug:hookimpl [extra]", None),
    ],
)
def test_an_entry_point_that_names_nothing_is_quarantined(site: Site, entry: str, words: str | None) -> None:
    info = site.install("plug")
    (info / "entry_points.txt").write_text(entries(entry))
    ((*_, state, reason),) = found(site)["records"]
    assert (state, reason) == ("loaded", "") if words is None else (state == "quarantined" and words in reason)


FINDER = """
import sys

class Finder:
    def find_spec(self, *args):
        return None

    def invalidate_caches(self):
        pass

    def find_distributions(self, context):
        BODY

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise SystemExit('no list')", "Finder on sys.meta_path fails to list them: SystemExit: no list"),
        ("return None", "Finder on sys.meta_path fails to list them: TypeError"),
        ("return [object()]", "its entry_points.txt cannot be read: AttributeError"),
    ],
)
def test_a_finder_of_another_package_that_fails_takes_no_plugin_away(site: Site, body: str, words: str) -> None:
    ((name, distribution, _, state, reason),) = found(site, FINDER.replace("BODY", body) + STATES)["records"]
    assert (name, distribution, state) == ("(metadata)", "(unknown)", "quarantined")
    assert reason.startswith(words)


def test_an_entry_point_without_a_distribution_is_loaded(site: Site) -> None:
    """importlib.metadata of some finders gives entry points that do not know their distribution."""
    finder = (
        FINDER.replace("BODY", "return [Distribution()]")
        + """
import importlib.metadata

class Distribution:
    entry_points = [importlib.metadata.EntryPoint("plug", "plug", "asyncapy")]
    metadata = {"Name": "virtual", "Version": "9"}

    def read_text(self, name):
        return None
"""
    )
    (site.folder / "plug.py").write_text("")
    assert found(site, finder + STATES)["records"] == [["plug", "virtual", "9", "loaded", ""]]
