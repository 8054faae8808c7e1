"""Plugins in a folder of files: found by their files, and otherwise as installed ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from core.plugins.conftest import HEADER, ONE_FILTER

from asyncapy_core import PluginManager
from asyncapy_core.errors import ConfigError
from asyncapy_core.plugins.plugin_files import PACKAGE_PREFIX

if TYPE_CHECKING:
    from core.plugins.conftest import Site


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "plugins"
    folder.mkdir()
    yield folder
    for name in [name for name in sys.modules if name.startswith(PACKAGE_PREFIX)]:
        del sys.modules[name]


def write(folder: Path, path: str, source: str = "") -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(HEADER + source, encoding="utf-8")


def write_filter(folder: Path, path: str, name: str) -> None:
    write(folder, path, ONE_FILTER.format(name=name))


def managed(folder: Path, *, discover: bool = False) -> PluginManager:
    return PluginManager(discover=discover, folder=folder)


def names(manager: PluginManager) -> list[str]:
    return [record.name for record in manager.plugins]


def reasons(manager: PluginManager) -> dict[str, str]:
    return {record.name: record.reason for record in manager.problems}


def test_files_and_packages_are_plugins_in_the_order_of_their_names(folder: Path) -> None:
    write_filter(folder, "b.py", "B")
    write_filter(folder, "a/__init__.py", "A")
    write_filter(folder, "c-d.py", "C")
    manager = managed(folder)
    assert names(manager) == ["a", "b", "c-d"]
    assert [record.state for record in manager.plugins] == ["loaded"] * 3
    assert list(manager.filters) == ["A", "B", "C"]
    assert [record.title for record in manager.plugins][:2] == [
        f"plugin 'a' of {folder / 'a'}",
        f"plugin 'b' of {folder / 'b.py'}",
    ]


def test_they_are_called_among_the_installed_ones_in_the_order_of_their_names(folder: Path) -> None:
    write_filter(folder, "dump.py", "Dump")
    found = names(managed(folder, discover=True))
    assert found == sorted(found)
    assert {"codecs", "dump", "filters"} <= set(found)


@pytest.mark.parametrize(
    "path",
    [".hidden.py", "_shared.py", "__init__.py", "__pycache__/x.py", "__pycache__/__init__.py", ".git/__init__.py",
     "data/x.py", "notes.txt", "old.py.bak", "compiled.pyc"],
)  # fmt: skip
def test_hidden_files_modules_for_plugins_and_other_files_are_left_out(folder: Path, path: str) -> None:
    write(folder, path, "raise SystemExit")
    assert names(managed(folder)) == []


def test_a_file_is_imported_once_and_only_when_plugins_are_used(folder: Path) -> None:
    write_filter(folder, "a.py", "A")
    manager = managed(folder)
    assert manager.names == {"a"}
    assert not [name for name in sys.modules if name.startswith(PACKAGE_PREFIX)]
    assert manager.filters["A"] is managed(folder).filters["A"]


def test_a_file_may_have_the_name_of_another_module(folder: Path) -> None:
    write_filter(folder, "json.py", "A")
    write_filter(folder, "class.py", "B")
    assert list(managed(folder).filters) == ["A", "B"]
    assert "asyncapy" not in str(sys.modules["json"].__file__)


def test_plugins_import_modules_beside_them(folder: Path) -> None:
    write(folder, "_shared.py", "NAME = 'Shared'\n")
    write(folder, "package/_more.py", "from .._shared import NAME\n")
    write(folder, "package/__init__.py", "from ._more import NAME\n" + ONE_FILTER.format(name="A"))
    manager = managed(folder)
    assert not manager.problems
    assert manager.plugins[0].plugin.NAME == "Shared"


def test_folders_have_modules_of_their_own(folder: Path, tmp_path: Path) -> None:
    write_filter(folder, "a.py", "A")
    write_filter(tmp_path / "others", "a.py", "B")
    assert list(managed(folder).filters) == ["A"]
    assert list(managed(tmp_path / "others").filters) == ["B"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere' at {}:2"),
        ("\n\ndef f():\n    raise ValueError('why')\n\nf()\n", "ValueError: why at {}:5"),
        ("import json\njson.loads('')\n", "JSONDecodeError: Expecting value: line 1 column 1 (char 0) at {}:3"),
        ("def f(:\n", r"SyntaxError: invalid syntax (broken.py, line 2) at {}:2"),
        ("raise SystemExit(3)\n", "SystemExit: 3 at {}:2"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line_and_the_others_are_used(
    folder: Path, source: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "broken.py", source)
    write_filter(folder, "good.py", "Good")
    manager = managed(folder)
    assert list(manager.filters) == ["Good"]
    path = folder / "broken.py"
    assert reasons(manager) == {"broken": f"import failed with {reason.format(path)}"}
    assert f"plugin 'broken' of {path} is quarantined: import failed with" in caplog.text


def test_a_module_of_a_package_that_fails_is_named(folder: Path) -> None:
    write(folder, "broken/__init__.py", "from . import inner\n")
    write(folder, "broken/inner.py", "\n1 / 0\n")
    (reason,) = reasons(managed(folder)).values()
    assert reason == f"import failed with ZeroDivisionError: division by zero at {folder / 'broken' / 'inner.py'}:3"


def test_an_exception_without_a_line_in_the_file_is_named_without_one(folder: Path) -> None:
    write(folder, "broken.py")
    (folder / "broken.py").write_bytes(b"\xff")
    (reason,) = reasons(managed(folder)).values()
    assert reason.startswith("import failed with SyntaxError: ")


def test_an_exception_whose_attributes_raise_is_named(folder: Path) -> None:
    source = "class Odd(Exception):\n    __traceback__ = property(lambda self: 1 / 0, lambda self, value: None)\n"
    write(folder, "broken.py", f"{source}raise Odd('odd')\n")
    assert reasons(managed(folder)) == {"broken": f"import failed with Odd: odd at {folder / 'broken.py'}:4"}


def test_a_file_without_a_target_is_named(folder: Path) -> None:
    (folder / "broken.py").symlink_to(folder / "nowhere.py")
    (reason,) = reasons(managed(folder)).values()
    assert reason.startswith("import failed with ")


def test_a_name_that_is_none_is_told(folder: Path) -> None:
    write(folder, "a.b.py", "raise SystemExit")
    write(folder, "a b.py", "raise SystemExit")
    found = reasons(managed(folder))
    assert found["a.b"] == "its name 'a.b' has other characters than letters, digits, '_' and '-'; rename it"
    assert set(found) == {"a.b", "a b"}


def test_a_file_and_a_package_of_one_name_belong_to_neither(folder: Path) -> None:
    write(folder, "a.py", "raise SystemExit")
    write(folder, "a/__init__.py", "raise SystemExit")
    (record, other) = managed(folder).problems
    assert record.reason == f"the name 'a' is claimed by {folder / 'a'} and {folder / 'a.py'}; rename one of them"
    assert other.reason == record.reason


def test_a_file_with_the_name_of_an_installed_plugin_is_told(folder: Path) -> None:
    write(folder, "sqlite.py", "raise SystemExit")
    manager = managed(folder, discover=True)
    reason = f"the name 'sqlite' is claimed by {folder / 'sqlite.py'} and asyncapy-sqlite; rename one of them"
    assert reasons(manager) == {"sqlite": reason}
    assert [record.name for record in manager.problems] == ["sqlite", "sqlite"]
    assert "Ip" in manager.filters


def test_a_filter_of_an_installed_plugin_is_contested_by_that_of_a_file(folder: Path) -> None:
    write_filter(folder, "a.py", "Ip")
    manager = managed(folder, discover=True)
    assert manager.filters.owners("Ip")[0].name == "a"
    assert len(manager.filters.complaints) == 1


def test_lists_of_plugins_name_files(folder: Path) -> None:
    write_filter(folder, "a.py", "A")
    write(folder, "b.py", "raise SystemExit")
    for manager in (
        PluginManager(discover=False, folder=folder, deny=["b"]),
        PluginManager(discover=False, folder=folder, allow=["a"]),
    ):
        assert [(record.name, record.state) for record in manager.plugins] == [("a", "loaded"), ("b", "denied")]
    with pytest.raises(ConfigError, match=r"no plugin is called 'bb', .* did you mean 'b'\?"):
        _ = PluginManager(discover=False, folder=folder, deny=["bb"]).plugins


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_folder_that_cannot_be_read_is_told_at_each_use(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    manager = managed(tmp_path / place)
    reason = "No such file or directory" if place == "nowhere" else "Not a directory"
    message = f"the folder of plugins '{tmp_path / place}' cannot be read: {reason}; create it, or name another folder"
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            _ = manager.filters
        assert str(caught.value) == message


def test_a_folder_is_found_after_the_working_directory_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_filter(folder, "a.py", "A")
    monkeypatch.chdir(folder.parent)
    manager = managed(Path("plugins"))
    assert manager.names == {"a"}
    monkeypatch.chdir("/")
    assert list(manager.filters) == ["A"]
    assert manager.plugins[0].title == "plugin 'a' of plugins/a.py"


def test_the_environment_names_a_folder_for_a_process(site: Site, folder: Path) -> None:
    write_filter(folder, "a.py", "A")
    program = "from asyncapy_core import Filters; import asyncapy_core.config; print(Filters.A.__name__)"
    assert site.prints(program, ASYNCAPY_PLUGINS_DIR="plugins") == "A\n"
    server = "from asyncapy_core import Server; print([record.title for record in Server().plugins.plugins][0])"
    done = site.run("-c", server, ASYNCAPY_PLUGINS_DIR="plugins")
    assert (done.stdout, done.stderr) == ("plugin 'a' of plugins/a.py\n", "")
    assert "plugins" not in site.prints(server, ASYNCAPY_PLUGINS_DIR="")


def test_a_folder_of_the_environment_that_is_missing_is_one_line(site: Site) -> None:
    done = site.asyncapy("plugins", ASYNCAPY_PLUGINS_DIR="nowhere")
    assert done.returncode == 1
    reason = "No such file or directory; create it, or name another folder"
    assert done.stderr == f"asyncapy: the folder of plugins 'nowhere' cannot be read: {reason}\n"


def test_a_fork_has_the_plugins_of_the_folder(folder: Path) -> None:
    write_filter(folder, "a.py", "A")
    program = f"""
import os
from asyncapy_core import PluginManager
manager = PluginManager(discover=False, folder={str(folder)!r})
child = os.fork()
assert list(manager.filters) == ["A"]
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


def test_no_entry_of_the_folder_reaches_its_user_as_another_exception(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop.py").symlink_to(folder / "loop.py")
    (folder / "directory.py").mkdir()
    write_filter(folder, "a.py", "A")
    manager = managed(folder)
    assert list(manager.filters) == ["A"]
    assert re.match("import failed with ", reasons(manager)["loop"])
