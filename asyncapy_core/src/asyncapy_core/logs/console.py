"""The output of logs on standard error: of a server, and of the program that runs it.

It is a last resort, like that of the logging module: it gets no record that a handler of the application gets.
"""

from __future__ import annotations

import copy
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from asyncapy_core.logs.session_log import SERVER, SessionFilter

MAX_WRITE: Final = 4096
"""The most bytes of one write, PIPE_BUF of Linux: a writable pipe takes as many without blocking, and undivided."""

POLL_SECONDS: Final = 0.1
"""How often a writer that waits for room checks ``give_up``."""


class ConsoleHandler(logging.StreamHandler[Any]):
    """Writes whole lines to standard error, when it can do so without blocking.

    It writes to the file descriptor and not through the stream's buffer: a thread that blocks inside the buffer keeps
    the buffer's lock, for which a forked process and the end of the interpreter would wait.

    Attributes:
        gathering: whether more records follow at once, so that lines are held back until `flush`.
        give_up: set to drop lines that cannot be written now.
        steps_back: whether it gets no record that a handler of the application gets.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lost = 0
        super().__init__()
        self.gathering: bool = False
        self.give_up: threading.Event = threading.Event()
        self.steps_back: bool = True

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record) + self.terminator)
        if not self.gathering:
            self.flush()

    def flush(self) -> None:
        """Write the lines held back. Count those that cannot be written; the next line reports them."""
        with self.lock:  # type: ignore[union-attr]  # set by the base class
            lines, self._lines = self._lines, []
            if not lines:
                return
            if self._lost:
                lines.insert(0, self.format(lines_lost(self._lost)) + self.terminator)
            try:
                descriptor = self.stream.fileno()
            except (AttributeError, OSError, ValueError):  # the stream has no file
                self.stream.write("".join(lines))
                self.stream.flush()
                return
            self._write(descriptor, lines)

    def forget_lines(self) -> None:
        """Drop the lines held back: after a fork, the parent writes them."""
        self._lines = []
        self.gathering = False

    def _write(self, descriptor: int, lines: list[str]) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        encoded = [line.encode(encoding, "backslashreplace") for line in lines]
        written = 0
        try:
            while written < len(encoded):
                size, last = len(encoded[written]), written + 1
                while last < len(encoded) and size + len(encoded[last]) <= MAX_WRITE:
                    size += len(encoded[last])
                    last += 1
                if not self._write_all(descriptor, b"".join(encoded[written:last])):
                    break
                written, self._lost = last, 0
        finally:
            self._lost += len(encoded) - written

    def _write_all(self, descriptor: int, data: bytes) -> bool:
        """Write all bytes, each piece when there is room for it; return False after ``give_up``."""
        while data:
            if not self._wait_for_room(descriptor):
                return False
            with suppress(BlockingIOError):
                data = data[os.write(descriptor, data[:MAX_WRITE]) :]
        return True

    def _wait_for_room(self, descriptor: int) -> bool:
        """Return True when the descriptor is writable, False after ``give_up``."""
        if sys.platform == "win32" or not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while not poll.poll(POLL_SECONDS * 1000):
            if self.give_up.is_set():
                return False
        return True


class ProgramHandler(logging.Handler):
    """A handler of the root logger that writes the records of a program to the console of its server.

    Args:
        console: the console.
        call: calls a function with a record, in the thread of the server's log while there is one.
    """

    def __init__(
        self,
        console: ConsoleHandler,
        call: Callable[[Callable[[logging.LogRecord], object], logging.LogRecord], None],
    ) -> None:
        super().__init__()
        self.addFilter(SessionFilter())
        self._console = console
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < self._console.level:
            return
        logger = logging.root.manager.loggerDict.get(record.name)
        if not application_handlers(logger if isinstance(logger, logging.Logger) else logging.root):
            self._call(self._console.handle, copy.copy(record))  # the call changes it


def application_handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Return the handlers that get the records of a logger, if the application has configured any of them.

    Handlers that do nothing are none of these, nor is the handler that the logging module gives the root logger when a
    program logs before it has configured any.
    """
    found: list[logging.Handler] = []
    configured = False
    current: logging.Logger | None = logger
    while current is not None:
        for handler in tuple(current.handlers):
            if not isinstance(handler, (ConsoleHandler, ProgramHandler, logging.NullHandler)):
                found.append(handler)
                configured = configured or not (current is logging.root and is_default(handler))
        current = current.parent if current.propagate else None
    return found if configured else []


def is_default(handler: logging.Handler) -> bool:
    """Return True for a handler of the root logger as `logging.basicConfig` makes it without a format."""
    formatter: Any = handler.formatter
    return type(handler) is logging.StreamHandler and (
        (handler.stream is sys.stderr or handler.stream is sys.__stderr__)
        and type(formatter) is logging.Formatter
        and (formatter._fmt, formatter.datefmt) == (logging.BASIC_FORMAT, None)  # noqa: SLF001  # no public attribute
    )


def plain_record(level: int, message: str, *values: object) -> logging.LogRecord:
    """Return a record of a server that belongs to no line of code."""
    return logging.LogRecord(SERVER, level, "", 0, message % values, None, None)


def lines_lost(number: int) -> logging.LogRecord:
    """Return a record for a number of lines that were not written."""
    return plain_record(logging.WARNING, "{Server} %d log lines were lost: they could not be written in time", number)
