"""The kinds of the packets of version 23, and who sends each (docs/protocol.md, "Version 23")."""

from __future__ import annotations

from enum import Enum, IntEnum, auto, unique
from typing import Final


@unique
class Kind(IntEnum):
    """The kind of a packet: the value of its Kind byte."""

    REQUEST = 0
    REPLY = 1
    PART = 2
    END = 3
    FAILURE = 4
    EVENT = 5
    CANCEL = 6
    PING = 7
    PONG = 8
    LEAVING = 9


class Role(Enum):
    """The side of a connection that receives the packets."""

    SERVER = auto()
    CLIENT = auto()


RECEIVED: Final = {
    Role.SERVER: frozenset({Kind.REQUEST, Kind.CANCEL, Kind.PING, Kind.PONG}),
    Role.CLIENT: frozenset(Kind) - {Kind.REQUEST, Kind.CANCEL},
}
"""The kinds that a server and a client may receive."""

WITH_PAYLOAD: Final = frozenset({Kind.REQUEST, Kind.REPLY, Kind.PART, Kind.FAILURE, Kind.EVENT})
"""The kinds whose payload is a map."""

WITHOUT_PAYLOAD: Final = frozenset({Kind.END, Kind.CANCEL, Kind.PING, Kind.LEAVING})
"""The kinds that have no payload. A PONG may have one."""

FIRST_SKIPPED: Final = 128
"""A receiver skips packets of this kind and of higher kinds; the others that it does not know are errors."""

MAX_NUMBER: Final = 2**32 - 1
"""The highest number of a packet."""
