"""Signals: the first SIGINT or SIGTERM stops the server, the second ends the program at once; SIGHUP reloads."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import trio

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handle_signals(stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """Call ``stop()`` in the trio loop on the first signal, and restore the default action for the second.

    Each SIGHUP calls ``reload()`` in the trio loop. Outside the main thread this does nothing, as Python runs no signal
    handlers there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    token = trio.lowlevel.current_trio_token()
    process = os.getpid()

    def on_stop(signum: int, frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        call_soon(stop, signum)

    def on_hang_up(signum: int, frame: FrameType | None) -> None:
        call_soon(reload, signum)

    def call_soon(function: Callable[[], None], signum: int) -> None:
        if os.getpid() == process:
            with contextlib.suppress(trio.RunFinishedError):  # the server has ended
                token.run_sync_soon(function, idempotent=True)
        else:  # a forked process has no server: apply the default action
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    before = {number: signal.signal(number, on_stop) for number in STOPPING}
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, on_hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: installed by C code
