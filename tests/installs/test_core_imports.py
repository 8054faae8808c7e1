"""The modules that asyncapy-core imports where only it, a codec and their requirements are installed.

Modules that trio and pluggy import themselves do not count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Install, Start

ACME = 77

DEFERRED = {
    "asyncapy_core.client",
    "asyncapy_core.config",
    "asyncapy_core.interfaces",  # type checkers alone import it
    "asyncapy_core.keys.cache",
    "asyncapy_core.net.tls",
    "asyncapy_core.plugins.inventory",
    "asyncapy_core.server.detached",
    "asyncapy_core.server.explain",
    "asyncapy_core.server.link",  # type checkers alone import it
    "asyncapy_core.storage",
    "asyncapy_core.testing",
}
"""The modules and packages of core that `import asyncapy_core` does not import; it imports all others."""

STANDARD = {
    "dataclasses",
    "json",
    "json.decoder",
    "json.encoder",
    "json.scanner",
    "secrets",
    "uuid",
}
"""The modules outside core that `import asyncapy_core` imports; each costs time at the start of every program."""

HEAVY = {
    "asyncio",
    "concurrent.futures",
    "configparser",
    "email",
    "http",
    "importlib.metadata",
    "importlib.resources",
    "multiprocessing",
    "pydantic",
    "sqlite3",
    "tomllib",
    "unittest",
    "urllib.request",
    "xml",
}

FOR_SETTINGS = {"configparser", "email", "importlib.metadata", "importlib.resources", "pydantic", "tomllib"}
"""The heavy modules that a server may import, to read its settings and to find its plugins."""

REPORT = """
import sys
import trio, pluggy
base = set(sys.modules)

def report():
    loaded = set(sys.modules) - base
    import json, pkgutil
    modules = {module.name for module in pkgutil.walk_packages(asyncapy_core.__path__, "asyncapy_core.")}
    missing = modules - loaded
    return json.dumps({
        "base": sorted(base),
        "loaded": sorted(loaded),
        "missing": [name for name in sorted(missing) if name.rpartition(".")[0] not in missing],
    })

import asyncapy_core
"""
"""Defines ``report()``, which returns the modules that trio and pluggy import, those that core imports besides, and
those of core that are not imported: of a package that is not imported, its own name."""

SERVER = f"""{REPORT}
server = asyncapy_core.Server(port=0)

@server.add_handler()
async def tell(client, packet):
    print(report())
    await client.send(packet)

server.start()
"""


@pytest.fixture
def at_import(install: Install) -> dict[str, Any]:
    """The modules after `import asyncapy_core`, in an isolated interpreter."""
    done = install("asyncapy-core").execute("python", "-I", "-c", f"{REPORT}print(report())")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_importing_core_imports_no_client_no_settings_and_no_tls(at_import: dict[str, Any]) -> None:
    assert set(at_import["missing"]) == DEFERRED


def test_importing_core_imports_these_modules_of_others(at_import: dict[str, Any]) -> None:
    others = {name for name in at_import["loaded"] if name.partition(".")[0] != "asyncapy_core"}
    private = {name for name in others if name.rpartition(".")[2].startswith("_")}
    assert others - private == STANDARD - set(at_import["base"])
    assert not HEAVY & others


def test_a_server_imports_its_settings_when_it_is_created_and_still_no_client_and_no_tls(
    install: Install, start: Start, call: Call
) -> None:
    server = start(install("asyncapy-core", "acme-codec"), SERVER)
    assert call(server).ask(ACME, b"word=hello") == (ACME, b"word=hello")
    found = json.loads(server.wait_for("{.*}")[0])
    assert set(found["missing"]) == DEFERRED - {"asyncapy_core.config"}
    assert HEAVY & set(found["loaded"]) <= FOR_SETTINGS
    assert server.stop() == 0
