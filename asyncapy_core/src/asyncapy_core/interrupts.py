"""`is_interrupt`: a Ctrl+C, or a KeyboardInterrupt that code has raised by hand.

The first ends the program; the second is a failure of that code. `is_from_signal` is the same for any signal.
"""

from __future__ import annotations

import signal
import threading
import traceback

from asyncapy_core.foreign.inspection import is_a, read_traceback


def is_interrupt(error: BaseException) -> bool:
    """Return True for a KeyboardInterrupt raised by the SIGINT handler of the process, such as trio's.

    The traceback of such an exception has a frame of that handler. Python runs signal handlers in the main thread only.
    """
    if not is_a(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True  # written in C: it leaves no frame
    return _passed_through({_code(handler)}, error)


def is_from_signal(error: BaseException) -> bool:
    """Return True for an exception raised by a signal handler: a Ctrl+C, or SystemExit raised by a SIGTERM handler."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if is_interrupt(error):
        return True
    return _passed_through({_code(signal.getsignal(number)) for number in signal.valid_signals()}, error)


def _code(handler: object) -> object:
    return getattr(handler, "__code__", None) or getattr(getattr(handler, "__call__", None), "__code__", None)  # noqa: B004  # a callable object


def _passed_through(codes: set[object], error: BaseException) -> bool:
    """Return True if the traceback of an exception has a frame of one of these code objects."""
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(read_traceback(error)))
