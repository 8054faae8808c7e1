"""``asyncapy new``: create the project of a plugin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Final
from zlib import crc32

import click

from asyncapy_cli.command_names import command_names
from asyncapy_cli.main import COMMANDS
from asyncapy_cli.output import echo, note
from asyncapy_core.plugins import default_manager


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugins.

    Attributes:
        summary: the summary in its README.
        usage: the usage there.
        requires: the distributions that it requires beside the core; ``$range`` is the range of versions of AsyncAPY.
        group: the group of its entry point, as a key of TOML.
        entry: the name of its entry point.
        object: the value of its entry point.
    """

    summary: str
    usage: str
    requires: tuple[str, ...] = ()
    group: str = "asyncapy"
    entry: str = "$name"
    object: str = "$package"


KINDS: Final = {
    "filter": Kind("A filter", '`Filters.$Class("text")` passes packets whose field `text` is written in capitals.'),
    "codec": Kind("A codec", 'Clients and servers that have it installed may use `encoding="$name"`.'),
    "keystore": Kind("A key store", '`APIKeyFactory(store="$scheme:///path/to/keys.json")` keeps API keys in a file.'),
    "hooks": Kind(
        "Setup and shutdown hooks",
        'Every server of its environment answers `{"ping": 1}` from any client.',
        requires=("pydantic>=2.12",),
    ),
    "command": Kind(
        "A command",
        "`asyncapy $command HOST PORT` measures how long requests to a server take.",
        requires=("asyncapy-cli$range", "click>=8.1"),
        group='"asyncapy.commands"',
        entry="$command",
        object="$package:command",
    ),
}
"""The kinds of plugins."""

NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

PARTS: Final = ("cli", "codecs", "core", "filters", "limits", "metrics", "redis", "sqlite")
"""The packages of AsyncAPY. Their names are taken even if they are not installed."""

IMPORTED: Final = ("Client", "Filter", "Packet")
"""Names that the filter template imports; a filter class of the same name would shadow them."""


@click.group()
def new() -> None:
    """Create a project."""


@new.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), default="filter", show_default=True, help="The kind of plugin.")
def plugin(*, name: str, kind: str) -> None:
    """Create a plugin NAME, with tests, in the folder asyncapy-NAME."""
    if NAME.fullmatch(name) is None:
        raise click.BadParameter(
            f"{name!r}: give lowercase letters, digits and dashes, such as shout", param_hint="NAME"
        )
    taken = _taken(name.replace("-", "_"))
    if not taken and kind == "command" and (name in COMMANDS or name in command_names()):
        taken = f"there is a command asyncapy {name}"
    if taken:
        raise click.BadParameter(f"{name!r}: {taken}; give another name", param_hint="NAME")
    folder = Path(f"asyncapy-{name}")
    if folder.exists() or folder.is_symlink():
        raise click.ClickException(f"{folder} exists already; give another name, or move it away")
    project = _project(name, kind)
    for path, text in project.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    for path in project:
        echo(f"{folder / path}")
    note(f"\nNext: cd {folder} && pip install -e '.[test]' && pytest && mypy")


def _taken(identifier: str) -> str:
    """Return the reason why a new plugin cannot have this name, or an empty string."""
    manager = default_manager()
    if identifier.startswith("test"):
        return "pytest collects classes that begin with Test"
    if identifier in PARTS or find_spec(f"asyncapy_{identifier}") is not None:
        return f"there is a package asyncapy_{identifier}"
    if any(record.name == identifier for record in manager.plugins):
        return f"there is a plugin {identifier!r}"
    brought = {*manager.filters, *manager.key_stores, *(codec.name for codec in manager.codecs()), *IMPORTED}
    if _class_name(identifier).lower() in {each.lower() for each in brought}:
        return "there is a filter, a codec, a key store or a class of this name"
    return ""


def _free_wire_id(identifier: str) -> int:
    """Return a wire id that no installed codec uses. It is derived from the name, so that plugins rarely collide."""
    taken = {codec.wire_id for codec in default_manager().codecs()}
    first = crc32(identifier.encode())
    return next(wire_id for step in range(254) if (wire_id := 2 + (first + step) % 254) not in taken)


def _class_name(identifier: str) -> str:
    return "".join(part.capitalize() for part in identifier.split("_"))


def _project(name: str, kind: str) -> dict[str, str]:
    """Return the texts of the files of a project by path."""
    identifier = name.replace("-", "_")
    core = version("asyncapy-core")
    major, minor, *_ = core.split(".")
    chosen = KINDS[kind]
    values = {
        "name": identifier,
        "Class": _class_name(identifier),
        "package": f"asyncapy_{identifier}",
        "distribution": f"asyncapy-{name.replace('_', '-')}",
        "scheme": name.replace("_", "-"),
        "command": name,
        "wire_id": str(_free_wire_id(identifier)),
        "core": core,
        "next_core": f"{major}.{int(minor) + 1}",
        "range": f">={core},<{major}.{int(minor) + 1}",
        "summary": chosen.summary,
        "group": chosen.group,
    }
    for part in ("usage", "entry", "object"):
        values[part] = Template(getattr(chosen, part)).substitute(values)
    required = [Template(each).substitute(values) for each in ("asyncapy-core$range", *chosen.requires)]
    values["dependencies"] = ", ".join(f'"{each}"' for each in sorted(required))
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{values['package']}/__init__.py": f"{kind}.py",
        f"tests/test_{identifier}.py": f"{kind}_test.py",
    }
    folder = files("asyncapy_cli") / "templates"
    project = {
        path: Template((folder / f"{source}.txt").read_text(encoding="utf-8")).substitute(values)
        for path, source in templates.items()
    }
    return {**project, f"src/{values['package']}/py.typed": ""}
