"""Ports for programs that have to be told one, because they cannot say which they were given."""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 20_000, 32_767
"""These are below those that Linux gives out by itself, so that nobody else gets one while a server is away."""


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    chance = random.SystemRandom()  # Hypothesis seeds the usual one alike in all workers
    while True:
        port = chance.randint(FIRST, LAST)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
