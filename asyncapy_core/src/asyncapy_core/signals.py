"""Signals: the first SIGINT or SIGTERM asks a program to stop, the second ends it at once; SIGHUP asks it to reload."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import trio

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def obey_signals(stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """Call ``stop()`` in the trio loop on the first signal; on the second let the signal do what it does by default.

    SIGHUP calls ``reload()`` in the trio loop, as often as it comes.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    token = trio.lowlevel.current_trio_token()

    def ask(signum: int, frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        token.run_sync_soon(stop, idempotent=True)

    def hang_up(signum: int, frame: FrameType | None) -> None:
        token.run_sync_soon(reload, idempotent=True)

    before = {number: signal.signal(number, ask) for number in STOPPING}
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
