"""Telling a Ctrl+C from a KeyboardInterrupt that code has raised by hand.

The first ends the program, the second is a failure of the code that raised it.
"""

from __future__ import annotations

import signal
import threading
import traceback
from types import TracebackType


def is_interrupt(error: BaseException) -> bool:
    """Return True for the KeyboardInterrupt that the process's SIGINT handler raises, such as trio's.

    Such an exception has passed through a frame of that handler. Python calls signal handlers in the main thread only.
    """
    if not issubclass(type(error), KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True  # written in C: it leaves no frame
    code = getattr(handler, "__code__", None) or getattr(getattr(handler, "__call__", None), "__code__", None)  # noqa: B004  # an object that is called
    return code is not None and any(frame.f_code is code for frame, _ in traceback.walk_tb(_traceback(error)))


def _traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception, whose class may have an attribute of that name."""
    found: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return found
