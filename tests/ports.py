"""Free ports for programs that cannot report the port that the system assigned to them."""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 20_000, 32_767
"""The range is below the ephemeral ports of Linux, so no other program gets a port while its server restarts."""


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    chance = random.SystemRandom()  # Hypothesis seeds the shared generator identically in all workers
    while True:
        port = chance.randint(FIRST, LAST)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
