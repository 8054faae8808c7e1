"""Log lines in the documented form: ``(SESSION UUID) {Part} text``; peer data escaped and cut.

Knows nothing of servers or sessions; a server hands it its settings, a session its id.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import MutableMapping
from typing import Any, Final

SHOWN_BYTES: Final = 64
"""At most so much of what a peer sent appears in a log line."""


def server_logger(level: int, line_format: str, datefmt: str) -> logging.Logger:
    """Return a logger of one server's own, which writes to standard error.

    It stands in no registry and hands nothing on, so that its level and formats affect no other logger.

    Raises:
        ValueError: ``line_format`` is not a %-style logging format.
    """
    logger = _Logger("asyncapy.server")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler())
    adjust_logger(logger, level, line_format, datefmt)
    return logger


def adjust_logger(logger: logging.Logger, level: int, line_format: str, datefmt: str) -> None:
    """Give a server's logger another level and other formats."""
    logger.setLevel(level)
    for handler in logger.handlers:
        handler.setFormatter(logging.Formatter(line_format, datefmt))


class _Logger(logging.Logger):
    """A logger that stands in no registry, and so is not told when a level changes that it has looked up before."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return not self.disabled and self.manager.disable < level >= self.level


class SessionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that puts the session's UUID at the head of each line."""

    def __init__(self, logger: logging.Logger, session_id: object) -> None:
        super().__init__(logger, None)
        self._session_id = session_id

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return f"({self._session_id}) {msg}", kwargs


class RateLimited:
    """Says of a repeated event whether it is worth another line: at most one a second."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def shown(text: object) -> str:
    """Return what a peer sent, or an error that may quote it, as one harmless line of at most 64 bytes."""
    raw = text.decode("latin-1") if isinstance(text, (bytes, bytearray)) else _text(text)
    escaped = raw[:SHOWN_BYTES].encode("unicode_escape").decode("ascii")
    cut = escaped[:SHOWN_BYTES]
    return cut + "..." if len(raw) > SHOWN_BYTES or len(escaped) > SHOWN_BYTES else cut


def _text(value: object) -> str:
    """Return ``str(value)``, or what it is where that fails: some exceptions have no text that can be had."""
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} without a text"


def describe(error: BaseException) -> str:
    """Return an exception as one harmless line: its type, its message, cut and escaped, and where it was raised."""
    more = ""
    while isinstance(error, BaseExceptionGroup):
        more = f" and {len(error.exceptions) - 1} more" if len(error.exceptions) > 1 else more
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__} ({shown(error)}){where}{more}"
