"""Programs that tests start have default signal dispositions, even if the test run ignores or blocks signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

IGNORING = """
import signal, subprocess, sys

PROGRAM = '''
import signal
print([number.name for number in signal.Signals if signal.getsignal(number) is signal.SIG_IGN])
print([number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())])
'''

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGQUIT])
if sys.argv[1:]:
    sys.path.insert(0, sys.argv[1])
    from dispositions import give_programs_default_signals
    give_programs_default_signals()
subprocess.run([sys.executable, "-c", PROGRAM])
"""


def signals_of_a_grandchild(*arguments: str) -> list[str]:
    """Return the ignored and the blocked signals of a program whose parent ignores and blocks some signals."""
    command = [sys.executable, "-c", IGNORING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_a_program_inherits_no_ignored_and_no_blocked_signals() -> None:
    ignored, blocked = signals_of_a_grandchild()
    assert {"SIGHUP", "SIGINT", "SIGTERM"} <= set(eval(ignored))
    assert eval(blocked) == ["SIGQUIT"]
    assert signals_of_a_grandchild(str(TESTS)) == ["['SIGPIPE', 'SIGXFSZ']", "[]"]
