"""Five plugins of third parties in one environment with ours: they work together, and beside any one that is broken.

They were written from the documentation alone: a codec, a filter with an option, a key factory, a wrap and a command.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Caller, Environment, Install, Program, Start

HOOKED: Final = ("acme_cbor", "acme_keys", "acme_lengths", "acme_timing")
"""The plugins with hooks; the fifth is a command."""

CBOR: Final = 99

SERVER = """
import os, sys

from asyncapy import Server
from asyncapy.errors import UnknownFilter
from asyncapy.filters import Filters
from asyncapy_core.plugins import server_hooks

server_hooks.SETUP_SECONDS = float(os.environ.get("PATIENCE", server_hooks.SETUP_SECONDS))
server = Server(port=0)

@server.operation("echo")
async def echo(client, packet):
    return packet

try:
    lengths = Filters.Lengths("say")
except UnknownFilter as error:
    print(error, file=sys.stderr)
else:
    @server.add_handler(lengths)
    async def say(client, packet):
        return {"said": packet["say"]}

try:
    from acme_keys import FolderKeys
except (Exception, SystemExit) as error:
    print(f"acme_keys: {error!r}", file=sys.stderr)
else:
    keys = FolderKeys(os.environ["KEYS"])

    @server.operation("member", Filters.APIFactory(keys, "key", tell=True))
    async def member(client, packet):
        return {"owner": packet.context["api_key"].metadata["owner"]}

server.start()
"""


@pytest.fixture
def environment(install: Install) -> Environment:
    return install(
        *("asyncapy", "asyncapy-limits", "asyncapy-metrics", "asyncapy-redis", "asyncapy-sqlite"),
        *("acme-cbor", "acme-lengths", "acme-keys", "acme-timing", "acme-command"),
    )


@pytest.fixture
def key(environment: Environment, tmp_path: Path) -> str:
    """A key in the folder ``tmp_path/keys``, issued in a process of its own."""
    (tmp_path / "keys").mkdir()
    program = f"""
import json
from acme_keys import FolderKeys

print(json.dumps(FolderKeys({str(tmp_path / "keys")!r}).issue({{"owner": "alice"}})))
"""
    issued: str = environment.answer(program)
    return issued


def check_cbor(caller: Caller, key: str) -> None:
    """Send ``{"op": "echo", "n": [1, -2]}``."""
    body = bytes.fromhex("a2 626f70 646563686f 616e 82 01 21")
    assert caller.ask(CBOR, body) == (CBOR, body)


def check_lengths(caller: Caller, key: str) -> None:
    assert caller.ask_json(say="hello") == {"said": "hello"}
    assert caller.ask_json(say="good morning") == {"status": "failure", "error": "ERR_NO_HANDLER"}


def check_keys(caller: Caller, key: str) -> None:
    assert caller.ask_json(op="member", key=key) == {"owner": "alice"}
    assert caller.ask_json(op="member", key="guessed")["error"] == "ERR_UNAUTHORIZED"


def check_timing(caller: Caller, key: str) -> None:
    caller.ask_json(op="echo")
    timings = caller.ask_json(op="timings")
    assert timings["echo"]["calls"] >= 1
    assert timings["echo"]["seconds"] >= 0


CHECKS: Final[dict[str, Callable[[Caller, str], None]]] = {
    "acme_cbor": check_cbor,
    "acme_keys": check_keys,
    "acme_lengths": check_lengths,
    "acme_timing": check_timing,
}


def begin(environment: Environment, start: Start, folder: Path, **environ: str) -> Program:
    """Start the server, whose texts may have eight characters."""
    return start(environment, SERVER, KEYS=str(folder / "keys"), ASYNCAPY_PLUGIN_ACME_LENGTHS__LONGEST="8", **environ)


def test_they_work_together(environment: Environment, start: Start, call: Call, tmp_path: Path, key: str) -> None:
    server = begin(environment, start, tmp_path)
    for check in CHECKS.values():
        with call(server) as caller:
            check(caller, key)
    for encoding in ("json", "cbor"):
        done = environment.execute("asyncapy", "timings", "127.0.0.1", str(server.port), "--encoding", encoding)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^member: \d calls, [\d.e-]+ s$", done.stdout, re.MULTILINE)
    assert server.stop() == 0
    assert "ERROR" not in server.errors


def test_the_command_line_names_them(environment: Environment, tmp_path: Path) -> None:
    listed = environment.execute("asyncapy", "plugins")
    assert listed.returncode == 0, listed.stderr
    for name in (*HOOKED, "timings"):
        assert re.search(rf"^{name} +acme-\w+ +1\.0 +loaded", listed.stdout, re.MULTILINE)
    doctor = environment.execute("asyncapy", "plugins", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "11 plugins and 3 commands, no problems found" in doctor.stdout
    assert "  timings" in environment.execute("asyncapy", "--help").stdout
    options = environment.execute("asyncapy", "plugins", "acme_lengths").stderr
    assert "--option acme_lengths.longest=VALUE" in options
    tested = environment.execute("asyncapy", "plugins", "test", "acme_cbor")
    assert tested.returncode == 0, tested.stdout
    stubs = environment.execute("asyncapy", "plugins", "stubs", cwd=tmp_path)
    assert stubs.returncode == 0, stubs.stderr
    assert "from acme_lengths import Lengths as Lengths" in (tmp_path / "typings/asyncapy/filters.pyi").read_text()


def hook(name: str, body: str) -> str:
    """Return the text of one more implementation of a hook."""
    return f"import trio\n@hookimpl(specname={name!r})\n{'async ' * ('await' in body)}def broken():\n    {body}"


RAISE: Final = "raise OSError('a slip')"

BROKEN: Final = {
    "import": ("raise RuntimeError('a slip')", "quarantined"),
    "requirement": ("import acme_nowhere", "No module named 'acme_nowhere'"),
    "exit": ("raise SystemExit(3)", "quarantined"),
    "syntax": ("def broken(:", "SyntaxError"),
    "options": ("asyncapy_options = 7", "asyncapy_options is 7"),
    "hook name": ("@hookimpl\ndef asyncapy_setpu(server): ...", "did you mean asyncapy_setup?"),
    "signature": ("@hookimpl(specname='asyncapy_setup')\ndef broken(sever): ...", "sever"),
    "unmarked": ("def asyncapy_drain(server): ...", "not marked with hookimpl"),
    "result": (hook("asyncapy_codecs", "return 7"), "expected codecs in a list, got 7"),
    "store": (hook("asyncapy_key_stores", "return {'acme': 7}"), "not a function that opens a key store"),
    "name": (
        hook("asyncapy_filters", "import asyncapy_filters as f; return {'Ip': f.Ip}"),
        "filter 'Ip' is claimed by",
    ),
    "requires": ("asyncapy_requires = ('acme_nowhere',)", "acme_nowhere"),
    "setup": (hook("asyncapy_setup", RAISE), "failed in setup"),
    "hanging setup": (hook("asyncapy_setup", "await trio.sleep_forever()"), "was in setup for more than"),
    "wrap": (hook("asyncapy_wrap", RAISE), "in asyncapy_wrap"),
    "wrap result": (hook("asyncapy_wrap", "return 7"), "in asyncapy_wrap"),
    "session": (hook("asyncapy_session", "return 7"), "in asyncapy_session"),
    "run": (hook("asyncapy_run", f"await trio.sleep(0); {RAISE}"), "in asyncapy_run"),
    "drain": (hook("asyncapy_drain", RAISE), "in asyncapy_drain"),
    "shutdown": (hook("asyncapy_shutdown", RAISE), "failed in shutdown"),
}
"""The ways in which a plugin is broken: a text at the end of its module, and a part of the line in the log."""


SEEN_BY_DOCTOR: Final = [*BROKEN][: [*BROKEN].index("setup")]
"""The ways that are found without a server."""

BROKEN_COMMANDS: Final = {
    "import": ("raise RuntimeError('a slip')", "RuntimeError: a slip"),
    "requirement": ("import acme_nowhere", "No module named 'acme_nowhere'"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "syntax": ("def broken(:", "SyntaxError"),
    "kind": ("command = 7", "7"),
    "missing": ("del command", "command"),
    "result": ("def command():\n    return 7", "7"),
    "signature": ("def command(environment):\n    return 7", "environment"),
    "raises": ("def command():\n    raise OSError('a slip')", "OSError: a slip"),
    "run": (
        "@click.command()\n@click.argument('all', nargs=-1)\ndef command(all):\n    raise OSError('a slip')",
        "a slip",
    ),
}
"""The ways in which the command is broken, and a part of the error."""


@pytest.fixture
def broken(environment: Environment, tmp_path: Path) -> Callable[[str, str], str]:
    """Return ``broken(plugin, text)``, which returns a folder with a plugin whose module ends with this text."""

    def make(plugin: str, text: str) -> str:
        folder = tmp_path / f"broken_{plugin}"
        (original,) = environment.path.glob(f"lib/python*/site-packages/{plugin}")
        shutil.copytree(original, folder / plugin)
        with (folder / plugin / "__init__.py").open("a") as file:
            file.write(f"\n\n{text}\n")
        return str(folder)

    return make


@pytest.mark.parametrize("way", BROKEN)
def test_one_that_is_broken_is_named_and_the_others_serve(
    environment: Environment,
    start: Start,
    call: Call,
    tmp_path: Path,
    key: str,
    broken: Callable[[str, str], str],
    way: str,
) -> None:
    text, reason = BROKEN[way]
    environ = {"PATIENCE": "0.5"} if way == "hanging setup" else {}
    servers = {
        plugin: begin(environment, start, tmp_path, PYTHONPATH=broken(plugin, text), **environ) for plugin in HOOKED
    }
    if way in SEEN_BY_DOCTOR:  # one of the four is enough
        plugin = HOOKED[[*BROKEN].index(way) % len(HOOKED)]
        done = environment.execute("asyncapy", "plugins", "doctor", PYTHONPATH=str(tmp_path / f"broken_{plugin}"))
        assert done.returncode == 1
        assert reason in done.stdout
        assert f"plugin {plugin!r} of acme-" in done.stdout
    for plugin, server in servers.items():
        for other in HOOKED:
            if other != plugin:
                with call(server) as caller:
                    CHECKS[other](caller, key)
        assert server.stop() == 0
        lines = [line for line in server.lines["stderr"] if f"plugin {plugin!r} of acme-" in line and reason in line]
        assert lines, server.errors
        assert not [line for line in server.lines["stderr"] if "Traceback" in line]


@pytest.mark.parametrize("way", BROKEN_COMMANDS)
def test_a_command_that_is_broken_is_named_and_the_others_work(
    environment: Environment, broken: Callable[[str, str], str], way: str
) -> None:
    text, reason = BROKEN_COMMANDS[way]
    path = broken("acme_command", text)
    done = environment.execute("asyncapy", "timings", "127.0.0.1", "1", PYTHONPATH=path)
    assert done.returncode != 0
    assert "timings" in done.stderr
    assert reason in done.stderr
    helped = environment.execute("asyncapy", "--help", PYTHONPATH=path)
    assert helped.returncode == 0
    assert "  timings" in helped.stdout
    doctor = environment.execute("asyncapy", "plugins", "doctor", PYTHONPATH=path)
    assert doctor.returncode == (0 if way == "run" else 1)
    if way != "run":  # it is known when the command is called
        assert "command 'timings' of acme-command" in doctor.stdout
        assert reason in doctor.stdout
