"""From ``module:server`` or ``path/to/file.py:server`` to a server."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click

from asyncapy_core import Server

DEFAULT_NAME = "server"


def load_server(target: str) -> Server:
    """Return the server that a target names; the working directory is searched for modules first.

    Raises:
        click.ClickException: there is none; the message says what was looked for, and what is there.
    """
    place, _, name = target.partition(":")
    is_file = place.endswith(".py") or "/" in place
    with _programs_that_do_not_start():
        module = _from_file(Path(place)) if is_file else _from_module(place)
    wanted = name or DEFAULT_NAME
    found = getattr(module, wanted, None)
    if isinstance(found, Server):
        return found
    servers = [key for key, value in vars(module).items() if isinstance(value, Server)]
    got = f"{wanted} is {found!r}" if found is not None else f"there is no {wanted!r}"
    advice = f"servers in it: {', '.join(servers)}" if servers else "make one in it, as in server = Server()"
    raise click.ClickException(f"{target}: {got} in {place}; {advice}")


@contextlib.contextmanager
def _programs_that_do_not_start() -> Iterator[None]:
    """Have ``server.start()`` do nothing, so that programs that end with it can be loaded, the documented ones too."""
    start = Server.start
    Server.start = _ignore  # type: ignore[assignment, method-assign]  # as long as a program is being loaded
    try:
        yield
    finally:
        Server.start = start  # type: ignore[method-assign]


def _ignore(server: Server) -> None:
    """Take the place of `Server.start`."""


def _from_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # it is there, and imports what is not
        files = [path.stem for path in Path.cwd().glob("*.py")]
        close = difflib.get_close_matches(name, files, n=1)
        advice = f"did you mean {close[0]}:{DEFAULT_NAME}?" if close else "give MODULE:SERVER, or the path of a file"
        raise click.ClickException(f"no module is called {name!r} here; {advice}") from error
    except ValueError as error:
        raise click.ClickException(f"{name!r} is no name of a module: {error}; give MODULE:SERVER") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise click.ClickException(f"there is no file {path}; give MODULE:SERVER, or the path of a file")
    sys.path.insert(0, str(path.resolve().parent))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise click.ClickException(f"{path} is no Python file; its name has to end in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module
