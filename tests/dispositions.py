"""What signals mean to the programs that tests start, whatever they mean to the tests.

A program inherits which signals are ignored: SIGHUP from ``nohup``, SIGINT from a shell that is not interactive and
starts something with ``&``. A signal that has a handler instead means to the program what it means by default.
"""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def let_programs_have_default_signals() -> None:
    """Replace what is ignored by handlers, and unblock what is blocked; ctrl+c becomes Python's own."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
