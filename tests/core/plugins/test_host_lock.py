"""The plugins of a process, used by several threads, across a fork, and by plugins that are being imported."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from asyncapy_core.errors import PluginError
from asyncapy_core.plugins import host_lock
from asyncapy_core.plugins.host_lock import HOST_LOCK

if TYPE_CHECKING:
    from core.plugins.conftest import Site

THREADS = """
import json, threading
from asyncapy_core import Filters, Server
from asyncapy_core.client import Client
from asyncapy_core.plugins import default_manager

outcomes = []
begin = threading.Barrier(4)

def run(use):
    begin.wait()
    try:
        outcomes.append(use())
    except BaseException as error:
        outcomes.append(repr(error))

def use_client():
    return "client" if Client(tls=False) else ""

threads = [threading.Thread(target=run, args=[use]) for use in USES]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
names = sorted(default_manager().filters)
print(json.dumps([outcomes, names, len([codec.name for codec in default_manager().codecs()])]))
"""

OURS = ["APIFactory", "Fields", "HasFields", "Ip", "Rate"]


@pytest.mark.parametrize(
    ("uses", "outcome"),
    [
        ("[use_client] * 4", ["client"] * 4),
        ("[lambda: Filters.Fields.__name__] * 4", ["Fields"] * 4),
        ("[lambda: id(default_manager())] * 4", None),
        ("[lambda: len(Server().plugins.codecs())] * 4", [2] * 4),
        ("[lambda: [each.state for each in default_manager().plugins].count('found')] * 4", [0] * 4),
    ],
    ids=["client", "filter", "manager", "server", "records"],
)
def test_four_threads_that_use_plugins_first_at_the_same_time_all_get_them(
    site: Site, uses: str, outcome: list[object] | None
) -> None:
    for name in ("slow_one", "slow_two"):
        site.install(name, "import time; time.sleep(0.2)")
    outcomes, filters, codecs = json.loads(site.prints(THREADS.replace("USES", uses)))
    assert outcomes == (outcome or [outcomes[0]] * 4)
    assert (filters, codecs) == (OURS, 2)


FORK = """
import os, sys, threading
from asyncapy_core import Filters

importing = threading.Event()
sys.modules["note"] = importing
thread = threading.Thread(target=lambda: Filters.Fields)
thread.start()
importing.wait()
child = os.fork()
os.write(1, f"{Filters.Slow.__name__} {Filters.Fields.__name__}\\n".encode())
if child:
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

SLOW = """
import sys, time
sys.modules["note"].set()
time.sleep(0.5)

class Slow(Filter):
    def check(self, c, p):
        return True

@hookimpl
def asyncapy_filters():
    return {"Slow": Slow}
"""


def test_a_process_that_is_forked_while_another_thread_imports_plugins_has_them(site: Site) -> None:
    site.install("slow", SLOW)
    assert site.prints(FORK) == "Slow Fields\n" * 2


def test_a_process_that_is_forked_twice_while_another_thread_imports_plugins_has_them(site: Site) -> None:
    site.install("slow", SLOW)
    twice = FORK.replace("child = os.fork()", "child = os.fork() or os.fork()")
    assert site.prints(twice) == "Slow Fields\n" * 3


def test_a_thread_that_waits_too_long_before_a_fork_leaves_its_child_a_free_lock(site: Site) -> None:
    program = """
    import os, sys, threading
    from asyncapy_core import Filters
    from asyncapy_core.plugins import host_lock

    host_lock.FORK_SECONDS = 0.1
    owned, done = threading.Event(), threading.Event()
    def own():
        with host_lock.HOST_LOCK:
            owned.set()
            done.wait()
    thread = threading.Thread(target=own)
    thread.start()
    owned.wait()
    child = os.fork()
    if not child:
        print(Filters.Fields.__name__, flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    done.set()
    thread.join()
    print(status, Filters.Fields.__name__)
    """
    assert site.prints(program) == "Fields\n0 Fields\n"


def test_a_plugin_may_fork_while_it_is_imported(site: Site) -> None:
    child = "print(Filters.Fields.__name__, flush=True); os._exit(0)"
    site.install("forking", f"import os\nif not os.fork():\n    {child}\nos.wait()\n")
    assert site.prints("from asyncapy_core import Filters; print(Filters.Ip.__name__)") == "Fields\nIp\n"


def test_a_wait_for_another_thread_ends_with_an_error_that_names_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_lock, "WAIT_SECONDS", 0.01)
    owned, done = threading.Event(), threading.Event()

    def own() -> None:
        with HOST_LOCK:
            monkeypatch.setattr(HOST_LOCK, "activity", "importing plugin 'slow' of slow 1.0")
            owned.set()
            done.wait()

    thread = threading.Thread(target=own)
    thread.start()
    owned.wait()
    try:
        with (
            pytest.raises(
                PluginError, match=r"another thread is importing plugin 'slow' of slow 1\.0, and has not fin"
            ),
            HOST_LOCK,
        ):
            pass
    finally:
        done.set()
        thread.join()


def test_two_threads_that_wait_for_each_others_import_do_not_wait_for_ever(site: Site) -> None:
    """One imports plugins; the other imports a module that a plugin imports, and that uses a filter."""
    site.install(
        "aaa", "import sys; sys.modules['note'].importing.set(); sys.modules['note'].other.wait(); import shared"
    )
    (site.folder / "shared.py").write_text(
        "import sys; note = sys.modules['note']; note.other.set(); note.importing.wait()\n"
        "from asyncapy_core import Filters; FIELDS = Filters.Fields\n"
    )
    program = """
    import sys, threading, types
    from asyncapy_core import Filters
    from asyncapy_core.errors import PluginError
    from asyncapy_core.plugins import host_lock

    host_lock.WAIT_SECONDS = 0.5
    note = sys.modules["note"] = types.SimpleNamespace(importing=threading.Event(), other=threading.Event())
    thread = threading.Thread(target=lambda: Filters.Fields)
    thread.start()
    note.importing.wait()
    try:
        import shared
    except PluginError as error:
        print(error)
    thread.join()
    import shared
    print(shared.FIELDS.__name__)
    """
    complaint, name = site.prints(program).splitlines()
    assert complaint.startswith("another thread is importing plugin 'aaa' of aaa 1.0")
    assert name == "Fields"


# Plugins that use the host while it imports or calls them


CLIENT = "@hookimpl\ndef {hook}():\n    from asyncapy_core.client import Client\n    Client(tls=False)\n    return {{}}"


def states(site: Site) -> dict[str, str]:
    program = """
    import json
    from asyncapy_core.plugins import default_manager
    default_manager().load_all()
    print(json.dumps({each.name: f"{each.state} {each.reason}".strip() for each in default_manager().plugins}))
    """
    found: dict[str, str] = json.loads(site.prints(program))
    return {
        name: state
        for name, state in found.items()
        if name not in {"codecs", "filters", "limits", "metrics", "redis", "sqlite", "typed"}
    }


USES = {
    "filter": "ONLY = Filters.Fields(a=None)",
    "server": "SERVER = Server(); SERVER.add_handler(Filters.Ip('::1'))",
    "client": "from asyncapy_core.client import Client; CLIENT = Client(tls=False)",
    "store": "import asyncapy_core\nSTORE = asyncapy_core.APIKeyFactory(store='sqlite:///keys.db')",
    "filter_in_hook": "@hookimpl\ndef asyncapy_filters():\n    return {'Mine': type('Mine', (Filters.Fields,), {})}",
    "client_in_hook": CLIENT.format(hook="asyncapy_filters"),
    "client_in_its_own_hook": CLIENT.format(hook="asyncapy_codecs"),
}
"""Sources of plugins that use other plugins while they are imported or called."""


@pytest.mark.parametrize("prefix", ["aaa", "zzz"])
def test_a_plugin_may_use_others_while_it_is_imported_or_called(site: Site, prefix: str) -> None:
    for name, source in USES.items():
        site.install(f"{prefix}_{name}", source)
    assert states(site) == {f"{prefix}_{name}": "loaded" for name in USES}


@pytest.mark.parametrize(("one", "two"), [("aaa", "bbb"), ("bbb", "aaa")])
def test_a_plugin_gets_a_filter_of_another_that_gets_one_of_a_third_in_any_order(
    site: Site, one: str, two: str
) -> None:
    hook = "@hookimpl\ndef asyncapy_filters():\n    return {{'{0}': type('{0}', ({1},), {{}})}}"
    site.install(one, hook.format("One", "Filters.Fields"))
    site.install(two, hook.format("Two", "Filters.One"))
    assert states(site) == {one: "loaded", two: "loaded"}
    assert site.prints("from asyncapy_core import Filters; print(Filters.Two.__mro__[1].__name__)") == "One\n"


def test_a_plugin_that_uses_its_own_filter_while_it_is_imported_is_quarantined_with_the_reason(site: Site) -> None:
    site.install("aaa", "Filters.Mine\n@hookimpl\ndef asyncapy_filters():\n    return {'Mine': Filters.Fields}")
    (reason,) = states(site).values()
    assert reason.startswith(
        "quarantined import failed with UnknownFilter: no plugin provides a filter 'Mine' while plugin 'aaa' of aaa "
        "1.0 is being imported or collected (found: APIFactory, Fields, HasFields, Ip, Rate)"
    )


def test_a_plugin_that_fails_inside_the_import_of_another_is_tried_again_and_imported_twice_at_most(site: Site) -> None:
    site.install("aaa", "[Filters.Fields for _ in range(5)]")
    site.install("bbb", "print('bbb is imported', flush=True)\nimport aaa\naaa.LATER\n")
    (site.folder / "aaa.py").write_text((site.folder / "aaa.py").read_text() + "\nLATER = 1\n")
    program = """
    from asyncapy_core.plugins import default_manager
    print([each.state for each in default_manager().plugins if each.name in ("aaa", "bbb")])
    """
    assert site.prints(program) == "bbb is imported\n" * 2 + "['loaded', 'loaded']\n"
