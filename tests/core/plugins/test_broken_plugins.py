"""One plugin is broken, in each of many ways: it is named in the log, and the others serve."""

from __future__ import annotations

import pytest
from core.plugins.conftest import Site

WELL = """
from contextlib import asynccontextmanager

class Well(Filter):
    def check(self, c, p):
        return "a" in p.fields

@hookimpl
def asyncapy_filters():
    return {"Well": Well}

@hookimpl
def asyncapy_setup():
    print("well: setup")

@hookimpl
def asyncapy_wrap(call):
    async def wrapped(client, packet):
        print("well: wrap")
        return await call(client, packet)
    return wrapped

@hookimpl
def asyncapy_session():
    @asynccontextmanager
    async def manage():
        print("well: session begins")
        yield
        print("well: session ends")
    return manage()

@hookimpl
async def asyncapy_run():
    print("well: run")

@hookimpl
async def asyncapy_drain():
    print("well: drain")

@hookimpl
def asyncapy_shutdown():
    print("well: shutdown")
"""

PROGRAM = """
import trio
from trio.testing import MockClock
from asyncapy import Server
from asyncapy.filters import Filters
from asyncapy_core.testing import serving

async def main():
    server = Server(drain_timeout=5, plugins_require=["well"])

    @server.add_handler(Filters.Well())
    async def echo(client, packet):
        return packet

    async with serving(server) as running:
        async with running.client() as client:
            print(await client.request({"a": 1}))
        await trio.sleep(1)
        await running.stop()

trio.run(main, clock=MockClock(autojump_threshold=0))
"""

EXPECTED = [
    "well: setup",
    "well: run",
    "well: session begins",
    "well: wrap",
    "{'a': 1}",
    "well: session ends",
    "well: drain",
    "well: shutdown",
]

IMPORTS = {
    "raises when it is imported": "raise ValueError('a slip')",
    "exits when it is imported": "raise SystemExit(3)",
    "is no Python": "def",
    "imports a module that is missing": "import there_is_no_such_module",
    "has options that are no model": "asyncapy_options = 7",
    "has options that raise": """
        from pydantic import BaseModel, model_validator
        class asyncapy_options(BaseModel):
            @model_validator(mode="before")
            def check(cls, values):
                raise RuntimeError("a slip")
    """,
    "has a misspelt hook": "@hookimpl\ndef asyncapy_setpu(): ...",
    "has a hook that is not marked": "def asyncapy_setup(): ...",
    "has a hook with another signature": "@hookimpl\ndef asyncapy_setup(sevrer): ...",
    "has a hook that is a wrapper": "@hookimpl(wrapper=True)\ndef asyncapy_setup():\n    yield",
    "requires a plugin that is missing": "asyncapy_requires = ('gone',)",
    "names no plugins": "asyncapy_after = 7",
    "names itself": "asyncapy_after = ('broken',)",
    "brings no hooks": "@hookimpl\ndef asyncapy_hookspecs(): ...",
}

HOOKS = {
    "returns no filters": "def asyncapy_filters(): return 7",
    "returns filters that are none": "def asyncapy_filters(): return {'Odd': 7}",
    "raises for its filters": "def asyncapy_filters(): raise ValueError('a slip')",
    "returns no codecs": "def asyncapy_codecs(): return [7]",
    "returns no key stores": "def asyncapy_key_stores(): return 'redis'",
    "is async where it cannot be": "async def asyncapy_filters(): return {}",
    "raises in setup": "def asyncapy_setup(): raise ValueError('a slip')",
    "exits in setup": "def asyncapy_setup(): raise SystemExit(3)",
    "hangs in setup": "async def asyncapy_setup(): await trio.sleep_forever()",
    "raises in run": "async def asyncapy_run(): raise ValueError('a slip')",
    "exits in run": "async def asyncapy_run(): raise SystemExit(3)",
    "is not async in run": "def asyncapy_run(): ...",
    "is never started in run": "async def asyncapy_run(task_status): await trio.sleep_forever()",
    "shields itself in run": "async def asyncapy_run():\n  with trio.CancelScope(shield=True): await trio.sleep(9e9)",
    "returns no wrap": "def asyncapy_wrap(): return 7",
    "raises in wrap": "def asyncapy_wrap(): raise ValueError('a slip')",
    "returns no context manager": "def asyncapy_session(): return 7",
    "raises in session": "def asyncapy_session(): raise ValueError('a slip')",
    "raises in drain": "def asyncapy_drain(): raise ValueError('a slip')",
    "hangs in drain": "async def asyncapy_drain(): await trio.sleep_forever()",
    "shields itself in drain": "async def asyncapy_drain():\n  with trio.CancelScope(shield=True): await trio.sleep(9)",
    "raises in shutdown": "def asyncapy_shutdown(): raise ValueError('a slip')",
    "hangs in shutdown": "async def asyncapy_shutdown(): await trio.sleep_forever()",
}

WAYS = {**IMPORTS, **{name: f"import trio\n@hookimpl\n{source}" for name, source in HOOKS.items()}}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_plugin_is_named_and_the_others_serve(site: Site, way: str) -> None:
    site.install("broken", WAYS[way])
    site.install("well", WELL)
    done = site.run("-c", PROGRAM)
    assert done.stdout.splitlines() == EXPECTED, done.stderr
    assert done.returncode == 0
    complaints = [line for line in done.stderr.splitlines() if "[ERROR]" in line or "quarantined" in line]
    assert complaints
    assert all("'broken'" in line for line in complaints)
