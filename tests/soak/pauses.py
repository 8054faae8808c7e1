"""`Pauses`: measures how long an event loop ran no task that was due."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

STEP = 0.05


@dataclass
class Pauses:
    """The pauses of one event loop.

    Attributes:
        longest: the longest pause so far, in seconds.
        scope: cancels `watch`.
    """

    longest: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def watch(self) -> None:
        """Sleep again and again, and note by how much each sleep is too long."""
        with self.scope:
            while True:
                due = trio.current_time() + STEP
                await trio.sleep_until(due)
                self.longest = max(self.longest, trio.current_time() - due)
