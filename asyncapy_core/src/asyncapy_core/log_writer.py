"""A server's own logger, which hands its records to a thread while the server serves, so that no log holds up the loop.

Knows no server: `ServerLogger.in_background` is entered for as long as one serves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final

import trio

from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import RateLimited, describe

QUEUED_RECORDS: Final = 5000
"""The most records that wait for the thread; those beyond it are lost, and counted."""

STOP_SECONDS: Final = 1.0
"""How long the end of a server waits for its last lines to be written."""

PIECE: Final = 1024
"""Characters written at a time: a pipe that is writable takes 4096 bytes without blocking."""

LOOK_SECONDS: Final = 0.1
"""How often a writer that waits for room looks whether it is to give up."""

_loggers: weakref.WeakSet[ServerLogger] = weakref.WeakSet()


def server_logger(level: int, line_format: str, datefmt: str) -> ServerLogger:
    """Return a logger of one server's own, which writes to standard error.

    It stands in no registry and does not propagate, so that its level and formats affect no other logger.

    Raises:
        ValueError: ``line_format`` is not a %-style logging format.
    """
    logger = ServerLogger("asyncapy.server")
    logger.propagate = False
    logger.addHandler(ConsoleHandler(logger.give_up))
    adjust_logger(logger, level, line_format, datefmt)
    return logger


def adjust_logger(logger: logging.Logger, level: int, line_format: str, datefmt: str) -> None:
    """Give a server's logger another level and other formats."""
    logger.setLevel(level)
    for handler in logger.handlers:
        handler.setFormatter(logging.Formatter(line_format, datefmt))


class ServerLogger(logging.Logger):
    """A logger whose handlers run in a thread while its server serves, and whose handlers and filters may fail.

    Filters of the logger itself run where a line is logged.

    Attributes:
        give_up: set when lines that cannot be written are to be lost rather than waited for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.give_up = threading.Event()
        self._background: _Queue | None = None
        self._should_log = RateLimited(60)
        _loggers.add(self)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        """Compare the level each time: a logger that stands in no registry is not told when levels change."""
        return not self.disabled and self.manager.disable < level >= self.level

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record through the filters on to the handlers; a filter that fails loses its line."""
        self._call(super().handle, record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a record for the thread, or write it where there is none."""
        if self._background is None:
            self.write(record)
        else:
            self._background.handle(record)

    def write(self, record: logging.LogRecord) -> None:
        """Call each handler; one that fails keeps the record from no other."""
        for handler in tuple(self.handlers):
            if record.levelno >= handler.level:
                self._call(handler.handle, record)

    @asynccontextmanager
    async def in_background(self) -> AsyncIterator[None]:
        """Call the handlers in a thread of its own for the length of a block, then wait until its lines are written."""
        records = queue.Queue[Any](QUEUED_RECORDS)
        listener = _Listener(records, self.write)
        self.give_up.clear()
        self._background = _Queue(records)
        listener.start()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                written = await trio.to_thread.run_sync(listener.finish, self.give_up)
            self._background = None
            if not written:
                for handler in self.handlers:
                    handler.createLock()  # one that hangs keeps its lock, which the end of the program waits for

    def forget_thread(self) -> None:
        """Write without a thread from now on: a forked process has none."""
        self._background = None

    def _call(self, function: Callable[[logging.LogRecord], object], record: logging.LogRecord) -> None:
        try:
            function(record)
        except BaseException as error:  # a log handler may raise anything
            if is_interrupt(error):
                raise
            if self._should_log():
                self.callHandlers(_line(logging.ERROR, "{Server} A log handler failed: %s", describe(error)))


class ConsoleHandler(logging.StreamHandler[Any]):
    """Writes to standard error, in pieces that are written when there is room, so that its thread can be ended.

    Args:
        give_up: when set, a line for which there is no room is lost.
    """

    def __init__(self, give_up: threading.Event) -> None:
        super().__init__()
        self._give_up = give_up

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record) + self.terminator
        for start in range(0, len(text), PIECE):
            if not self._wait_for_room():
                return
            self.stream.write(text[start : start + PIECE])
            self.flush()

    def _wait_for_room(self) -> bool:
        """Return True when the stream can be written to without blocking, False to give up."""
        try:
            descriptor = self.stream.fileno()
            poll = select.poll()
        except (AttributeError, OSError, ValueError):  # no file behind it, or a system without poll
            return True
        poll.register(descriptor, select.POLLOUT)
        while not poll.poll(LOOK_SECONDS * 1000):
            if self._give_up.is_set():
                return False
        return True


class _Queue(QueueHandler):
    """Formats records and queues them; counts those for which there is no room."""

    def __init__(self, records: queue.Queue[Any]) -> None:
        super().__init__(records)
        self._lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                self.queue.put_nowait(
                    _line(logging.WARNING, "{Server} %d log lines were lost: the log is not written", self._lost)
                )
                self._lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a line about one that cannot be formatted."""
        self.enqueue(
            _line(logging.ERROR, "{Server} A log line cannot be formatted, at %s:%d", record.pathname, record.lineno)
        )


class _Listener(QueueListener):
    """The thread that writes what is queued."""

    def __init__(self, records: queue.Queue[Any], write: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(records)
        self._records = records
        self._write = write

    def handle(self, record: Any) -> None:
        if isinstance(record, threading.Event):
            record.set()  # everything queued before it is written
        else:
            self._write(record)

    def finish(self, give_up: threading.Event) -> bool:
        """Write what is queued, within `STOP_SECONDS`, and end the thread; return False where a handler blocks it."""
        written = threading.Event()
        while True:
            try:
                self._records.put_nowait(written)
                break
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._records.get_nowait()
        if not written.wait(STOP_SECONDS):
            give_up.set()
            if not written.wait(STOP_SECONDS):
                return False
        self.stop()
        return True


def _line(level: int, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("asyncapy.server", level, "", 0, message % values, None, None)


def _forget_threads() -> None:
    for logger in _loggers:
        logger.forget_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
