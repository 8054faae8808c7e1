"""Default values, bounds and forms that constructors, `ServerConfig` and the wire format share. Imports no pydantic."""

from __future__ import annotations

import re
from typing import Final, Literal

ADDR: Final = "127.0.0.1"
PORT: Final = 8081
BUF: Final = 1024
LOGGING_LEVEL: Final = 20  # logging.INFO
CONSOLE_FORMAT: Final = "[%(levelname)s] %(asctime)s %(message)s"
DATEFMT: Final = "%d/%m/%Y %H:%M:%S %p"
LOG_FORMAT: Final = "text"
TIMEOUT: Final = 60
HEADER_SIZE: Final = 4
BYTEORDER: Final[Literal["big", "little"]] = "big"
SESSION_LIMIT: Final = 0
MAX_PACKET: Final = 1024 * 1024

MAX_REPLY: Final = 16 * 1024 * 1024
"""The largest Content-Length that clients accept in a reply."""

MIN_PACKET: Final = 5
"""The smallest Content-Length: version, encoding and a payload of three bytes (docs/protocol.md, "A packet")."""

PLUGIN_NAME: Final = re.compile(r"[\w.-]+")
"""The name of a plugin: the characters that the specification of entry points recommends."""


def split_list(text: str) -> list[str]:
    """Return the items of a list that is written as text: separated by commas or lines, as is usual in INI files."""
    return [part.strip() for part in re.split("[,\n]", text) if part.strip()]
