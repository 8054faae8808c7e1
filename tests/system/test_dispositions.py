"""Programs that tests start take signals as they do from a terminal, however the tests were started."""

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
    from dispositions import let_programs_have_default_signals
    let_programs_have_default_signals()
subprocess.run([sys.executable, "-c", PROGRAM])
"""


def started_by_who_ignores_signals(*arguments: str) -> list[str]:
    command = [sys.executable, "-c", IGNORING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_a_program_does_not_inherit_which_signals_are_ignored_or_blocked() -> None:
    ignored, blocked = started_by_who_ignores_signals()
    assert {"SIGHUP", "SIGINT", "SIGTERM"} <= set(eval(ignored))
    assert eval(blocked) == ["SIGQUIT"]
    assert started_by_who_ignores_signals(str(TESTS)) == ["['SIGPIPE', 'SIGXFSZ']", "[]"]
