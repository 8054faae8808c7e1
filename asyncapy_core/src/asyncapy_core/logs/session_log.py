"""Records of sessions: their lines in the documented form, ``(SESSION UUID) {Part} text``, and their fields."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Literal

from asyncapy_core.defaults import CONSOLE_FORMAT, DATEFMT

SERVER: Final = "asyncapy.server"
"""The name of the loggers of servers."""

FIELDS: Final = ("session", "address", "version", "handler", "code", "duration")
"""The attributes that records of a server have, as far as they are known: the UUID of the session, the address of the
peer, the version of the protocol, the name of the handler, the code of the failure, and seconds."""


class SessionLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that puts the session's UUID at the head of each line, and adds `fields` to each record.

    Attributes:
        address: the address of the peer.
        version: the version of the protocol, or None until it is known.
        begun: whether the session has begun: with its first byte.
    """

    def __init__(self, logger: logging.Logger, session_id: object, address: str = "") -> None:
        super().__init__(logger, None)
        self.address: str = address
        self.version: int | None = None
        self._session_id = session_id
        self._session: str | None = None
        self._began = time.monotonic()
        self.begun: bool = False
        self._level = logging.DEBUG

    @property
    def fields(self) -> dict[str, object]:
        """The `FIELDS` of the session, for the argument ``extra`` of a logger."""
        if self._session is None:
            self._session = str(self._session_id)  # once, as it takes as long as the rest of a line
        fields: dict[str, object] = {"session": self._session, "address": self.address}
        if self.version is not None:
            fields["version"] = self.version
        return fields

    def begin(self, level: int) -> None:
        """Log that the session has begun.

        Args:
            level: the level of this line, and of that of the end.
        """
        self.begun, self._level = True, level
        if self.logger.isEnabledFor(level):
            line, fields = "{Client handler} New session started, UUID is %s, address is %s", self.fields
            self._emit(line, (self._session, self.address), fields)

    def end(self, line: str, *args: object) -> None:
        """Log that the session has ended, with its duration; at DEBUG if it has not begun."""
        if self.logger.isEnabledFor(self._level):
            fields = self.fields
            fields["duration"] = round(time.monotonic() - self._began, 6)
            self._emit(f"({self._session}) {line}", args, fields)

    def _emit(self, line: str, args: tuple[object, ...], fields: dict[str, object]) -> None:
        """Log a line of a session. To find the caller, as the logging module does, takes half of the time."""
        record = self.logger.makeRecord(self.logger.name, self._level, __file__, 0, line, args, None)
        vars(record).update(fields)
        self.logger.handle(record)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        fields = self.fields
        extra = kwargs.get("extra")
        kwargs["extra"] = {**fields, **extra} if extra else fields
        return f"({self._session}) {msg}", kwargs


_current: ContextVar[SessionLog] = ContextVar("log")
"""The log of the session for which a task works, or the thread that it has started."""


def begin_log(log: SessionLog) -> None:
    """Note that the current task, and the tasks and threads that it starts, work for a session."""
    _current.set(log)


class LineFormatter(logging.Formatter):
    """Formats records as the documented lines.

    The format may use all `FIELDS`; those that a record lacks are "-". The UUID of a session is at the head of the
    message also for records that its handlers log with loggers of their own.

    Args:
        fmt: the format, by default the documented one.
        datefmt: the format of the time, by default the documented one.
        style: as for `logging.Formatter`.
        defaults: values of further fields that a record may lack.

    Raises:
        ValueError: ``fmt`` is not a format in this style.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        fmt = CONSOLE_FORMAT if fmt is None else fmt
        missing = {**{name: "-" for name in FIELDS if name in fmt}, **(defaults or {})}
        super().__init__(fmt, DATEFMT if datefmt is None else datefmt, style, defaults=missing or None)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the standard library's name
        if record.name != SERVER and (session := getattr(record, "session", None)) is not None:
            head = f"({session}) "
            record.message = head + record.message.removeprefix(head)
        return super().formatMessage(record)


class SessionFilter(logging.Filter):
    """Lets all records pass, and adds the `FIELDS` of a session to those that its handlers log with other loggers."""

    def filter(self, record: logging.LogRecord) -> bool:
        log = _current.get(None)
        if log is not None:
            for name, value in log.fields.items():
                vars(record).setdefault(name, value)
        return True
