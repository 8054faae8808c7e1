"""`DisconnectWatch`: notices connections that broke while a handler runs, when no task reads from them."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

import trio

CHECK_SECONDS: Final = 0.05
"""The time between two checks."""


class Connected(Protocol):
    """A connection to check."""

    def fileno(self) -> int:
        """Return the file descriptor of its socket, or -1 if it is closed."""

    @property
    def broken(self) -> bool:
        """Whether a write has failed."""


C = TypeVar("C", bound=Connected)


class DisconnectWatch(Generic[C]):
    """Checks connections as long as some are busy; an idle server has no wake-ups.

    Args:
        busy: returns the connections to check.
        report: called with each connection that broke.

    Attributes:
        asleep: whether `wake` must be called when a connection becomes busy.
    """

    def __init__(self, busy: Callable[[], list[C]], report: Callable[[C], None]) -> None:
        self._busy = busy
        self._report = report
        self._woken = trio.Event()
        self.asleep: bool = True

    def wake(self) -> None:
        """Start checking."""
        self.asleep = False
        self._woken.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self._woken.wait()
            await trio.sleep(CHECK_SECONDS)
            if not self._check():
                self.asleep = True
                self._woken = trio.Event()

    def _check(self) -> bool:
        """Report the connections that broke; return False if there was none to check."""
        busy = self._busy()
        for connection in find_broken(busy):
            self._report(connection)
        return bool(busy)


def find_broken(connections: Iterable[C]) -> list[C]:
    """Return the connections that the peer has reset, or to which a write has failed; not those that it half-closed."""
    broken, by_descriptor = [], {}
    for connection in connections:
        if connection.broken:
            broken.append(connection)
        elif (descriptor := connection.fileno()) != -1:
            by_descriptor[descriptor] = connection
    if not by_descriptor or sys.platform == "win32" or not hasattr(select, "poll"):
        return broken
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, 0)  # errors and hang-ups are always reported
    return broken + [by_descriptor[descriptor] for descriptor, _ in poll.poll(0)]
