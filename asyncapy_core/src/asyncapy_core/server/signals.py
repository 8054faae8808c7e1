"""Signals: the first SIGINT or SIGTERM asks a program to stop, the second ends it at once; SIGHUP asks it to reload."""

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
    """Call ``stop()`` in the trio loop on the first signal; on the second let the signal do what it does by default.

    SIGHUP calls ``reload()`` in the trio loop, as often as it comes.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    token = trio.lowlevel.current_trio_token()
    process = os.getpid()

    def ask(signum: int, frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        tell(stop, signum)

    def hang_up(signum: int, frame: FrameType | None) -> None:
        tell(reload, signum)

    def tell(function: Callable[[], None], signum: int) -> None:
        if os.getpid() == process:
            with contextlib.suppress(trio.RunFinishedError):  # then it has ended
                token.run_sync_soon(function, idempotent=True)
        else:  # a forked process has no server, and the signal means to it what it does by default
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    before = {number: signal.signal(number, ask) for number in STOPPING}
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None was not installed from Python
