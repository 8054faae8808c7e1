"""An exception of a signal handler in the import or a hook of a plugin reaches the program, and no plugin is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from core.plugins.conftest import Site

INTERRUPTED = """
import pathlib, signal

def interrupt():
    marker = pathlib.Path("interrupted")
    if not marker.exists():
        marker.touch()
        signal.raise_signal(signal.SIGUSR1 if signal.getsignal(signal.SIGUSR1) else signal.SIGINT)

class Late(Filter):
    def check(self, c, p):
        return True
"""
IN_THE_IMPORT = INTERRUPTED + "interrupt()\n@hookimpl\ndef asyncapy_filters():\n    return {'Late': Late}"
IN_THE_HOOK = INTERRUPTED + "@hookimpl\ndef asyncapy_filters():\n    interrupt()\n    return {'Late': Late}"
IN_CODECS = f"{INTERRUPTED}@hookimpl\ndef asyncapy_filters():\n    return {{'Late': Late}}\n"
IN_CODECS += "@hookimpl\ndef asyncapy_codecs():\n    interrupt()\n    return []"

PROGRAM = """
import signal, sys
from asyncapy_core import Filters
from asyncapy_core.client import Client
from asyncapy_core.plugins import default_manager

HANDLER
try:
    Filters.Late
    Client(tls=False)
except BaseException as error:
    print(type(error).__name__)
print(Filters.Late.__name__, Filters.Fields.__name__, Client(tls=False) is not None)
print({each.state for each in default_manager().plugins})
"""

HANDLERS = {
    "KeyboardInterrupt": "",
    "SystemExit": "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))",
    "TimeoutError": "def late(*_):\n    raise TimeoutError\nsignal.signal(signal.SIGUSR1, late)",
}


@pytest.mark.parametrize("name", ["aaa", "zzz"])
@pytest.mark.parametrize("source", [IN_THE_IMPORT, IN_THE_HOOK, IN_CODECS], ids=["import", "hook", "codecs"])
def test_after_ctrl_c_the_next_use_of_plugins_tries_again(site: Site, name: str, source: str) -> None:
    site.install(name, source)
    assert site.prints(PROGRAM.replace("HANDLER", "")) == "KeyboardInterrupt\nLate Fields True\n{'loaded'}\n"


@pytest.mark.parametrize("error", ["SystemExit", "TimeoutError"])
@pytest.mark.parametrize("source", [IN_THE_IMPORT, IN_THE_HOOK], ids=["import", "hook"])
def test_an_exception_of_another_signal_handler_is_no_failure_of_the_plugin(
    site: Site, source: str, error: str
) -> None:
    site.install("aaa", source)
    assert site.prints(PROGRAM.replace("HANDLER", HANDLERS[error])) == f"{error}\nLate Fields True\n{{'loaded'}}\n"


def test_ctrl_c_in_an_import_inside_another_ends_both_and_the_next_use_tries_again(site: Site) -> None:
    site.install("aaa", "Filters.Late")
    site.install("bbb", IN_THE_IMPORT)
    assert site.prints(PROGRAM.replace("HANDLER", "")) == "KeyboardInterrupt\nLate Fields True\n{'loaded'}\n"


def test_ctrl_c_in_a_trio_program_and_in_a_setup_reaches_the_program(site: Site) -> None:
    site.install("aaa", IN_THE_IMPORT)
    program = """
    import trio
    from asyncapy_core import Server

    server = Server(port=0)

    async def main():
        try:
            await server.serve()
        except KeyboardInterrupt:
            print("interrupted")
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            print("serving", [each.state for each in server.plugins.plugins if each.name == "aaa"])
            server.stop()

    trio.run(main)
    """
    assert site.prints(program) == "interrupted\nserving ['loaded']\n"


def test_sigterm_in_a_setup_ends_the_program_as_its_handler_wants(site: Site) -> None:
    site.install("aaa", "import signal\n@hookimpl\ndef asyncapy_setup():\n    signal.raise_signal(signal.SIGUSR1)")
    program = "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\nimport asyncapy\nasyncapy."
    done = site.run("-c", f"{program}Server(port=0).start()")
    assert (done.returncode, "failed in setup" in done.stderr) == (7, False)
