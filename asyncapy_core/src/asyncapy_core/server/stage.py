"""`Stage`: the part of its life that a connection is in."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """The stages of a connection, in their order."""

    OPEN = 0
    """Packets are read and sent."""
    CLOSING = 1
    """No further output is accepted; pending output is sent."""
    LINGERING = 2
    """The connection is half-closed, and read until the peer has closed it as well."""
    CLOSED = 3
    """Nothing is sent or read any more."""
