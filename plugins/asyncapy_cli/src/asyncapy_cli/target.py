"""Find the server of ``module:server`` or ``path/to/file.py:server``, or run its program as written."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click
import trio

from asyncapy_cli.output import note
from asyncapy_cli.tracebacks import describe_exception
from asyncapy_core import Server
from asyncapy_core.foreign.inspection import is_a, is_group, leaves

DEFAULT_NAME: Final = "server"


class Target:
    """A program and the name of one of its servers.

    Args:
        text: ``module:server`` or ``path/to/file.py:server``; the name is ``server`` by default. Modules are searched
            for in the working directory first.

    Attributes:
        folder: the folder of the file, or the working directory for a module.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._place, _, name = text.partition(":")
        self._name = name or DEFAULT_NAME
        self._is_file = self._place.endswith(".py") or "/" in self._place
        self._name_of_module = _name_of_file(Path(self._place)) if self._is_file else self._place
        self.folder: Path = Path(self._place).resolve().parent if self._is_file else Path.cwd()

    def load(self) -> Server:
        """Run the program until it would start the server, unwind it from there, and return the server.

        Raises:
            click.ClickException: there is no such server; the message names it, and the servers in the program.
        """
        begun: list[Server] = []

        def leave(server: Server) -> None:
            begun.append(server)
            raise _Begun

        try:
            return self._run(leave, others=False)
        except _Begun:
            return begun[0]
        except BaseExceptionGroup as group:  # raised in a nursery of the program
            if not begun or not all(is_a(leaf, _Begun) for leaf in leaves(group)):
                raise
            return begun[0]

    def run(self, prepare: Callable[[Server], None]) -> None:
        """Run the program as written, and call ``prepare(server)`` before it starts the server.

        If the program does not start the server, prepare and start it when the program has run.

        Raises:
            click.ClickException: there is no such server.
        """
        prepared = False

        def prepare_once(server: Server) -> None:
            nonlocal prepared
            if not prepared:
                prepared = True
                prepare(server)

        server = self._run(prepare_once, others=True)
        if not prepared:
            prepare(server)
            server.start()

    def _run(self, before: Callable[[Server], None], *, others: bool) -> Server:
        """Execute the program, and call ``before`` when it starts the server. `Server.start` of others does nothing.

        Args:
            before: is called with the server.
            others: whether `Server.serve` of other servers serves; otherwise it returns at once.
        """
        start, serve = Server.start, Server.serve

        def is_meant(server: Server) -> bool:
            return getattr(sys.modules.get(self._name_of_module), self._name, None) is server

        def started(server: Server) -> None:
            if is_meant(server):
                before(server)
                start(server)

        async def served(server: Server, **arguments: Any) -> None:
            if is_meant(server):
                before(server)
            elif not others:
                _pretend_to_serve(server, **arguments)
                return
            await serve(server, **arguments)

        Server.start, Server.serve = started, served  # type: ignore[method-assign, assignment]  # for this run only
        try:
            module = self._from_file(Path(self._place)) if self._is_file else self._from_module(self._place)
        except click.ClickException:
            raise
        except Exception as error:  # the program may raise any exception
            if is_group(error) and any(is_a(leaf, _Begun) for leaf in leaves(error)):
                raise
            note(describe_exception(self.text, error, hidden=__file__))
            sys.exit(1)
        finally:
            Server.start, Server.serve = start, serve  # type: ignore[method-assign]  # the original methods
        return self._server_in(module)

    def _server_in(self, module: ModuleType) -> Server:
        found = getattr(module, self._name, None)
        if isinstance(found, Server):
            return found
        servers = [key for key, value in vars(module).items() if isinstance(value, Server)]
        got = f"{self._name} is {found!r}" if found is not None else f"there is no {self._name!r}"
        advice = f"servers in it: {', '.join(servers)}" if servers else "define one, as in server = Server()"
        raise click.ClickException(f"{self.text}: {got} in {self._place}; {advice}")

    def _from_module(self, name: str) -> ModuleType:
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise  # the module exists, and imports one that does not
            files = [path.stem for path in Path.cwd().glob("*.py")]
            close = difflib.get_close_matches(name, files, n=1)
            advice = (
                f"did you mean {close[0]}:{DEFAULT_NAME}?" if close else "give MODULE:SERVER, or the path of a file"
            )
            raise click.ClickException(f"no module is called {name!r} here; {advice}") from error
        except ValueError as error:
            if name.strip("."):
                raise
            raise click.ClickException(f"{name!r} is not the name of a module; give MODULE:SERVER") from error

    def _from_file(self, path: Path) -> ModuleType:
        if not path.is_file():
            raise click.ClickException(f"there is no file {path}; give MODULE:SERVER, or the path of a file")
        sys.path.insert(0, str(path.resolve().parent))
        if self._name_of_module != path.stem:
            package = self._name_of_module.partition(".")[0]
            if package in sys.modules:
                raise click.ClickException(f"{path} is in a package {package!r}, as another one is called; rename it")
            sys.path.insert(0, str(path.resolve().parents[self._name_of_module.count(".")]))
            return importlib.import_module(self._name_of_module)
        specification = importlib.util.spec_from_file_location(path.stem, path)
        if specification is None or specification.loader is None:
            raise click.ClickException(f"{path} is not a Python file; its name has to end in .py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[path.stem] = module
        specification.loader.exec_module(module)
        return module


def _name_of_file(path: Path) -> str:
    """Return the name of a program in a file: with its packages if it has relative imports, as ``python -m`` needs."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # reported when it runs
        return path.stem
    levels = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)
    if not levels:
        return path.stem
    folder = path.resolve().parent
    packages: list[str] = []
    while folder.name and (levels > len(packages) or (folder / "__init__.py").is_file()):
        packages.append(folder.name)
        folder = folder.parent
    return ".".join([*reversed(packages), path.stem])


class _Begun(BaseException):
    """Unwinds a program from the place where it would start its server."""


def _pretend_to_serve(
    server: Server, *, listeners: object = None, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    """Report that a server has started, at the addresses of its configuration."""
    task_status.started(tuple((address, server.config.port) for address in server.config.addresses))
