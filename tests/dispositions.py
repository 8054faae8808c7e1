"""Default signal dispositions for the programs that tests start.

A program inherits ignored signals from its parent: ``nohup`` ignores SIGHUP, and a shell that is not interactive
ignores SIGINT in a command that ends with ``&``. A program does not inherit handlers; it starts with default actions.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def give_programs_default_signals() -> None:
    """Install handlers for ignored signals, KeyboardInterrupt for SIGINT, and unblock blocked signals."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
