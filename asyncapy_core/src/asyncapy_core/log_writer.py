"""The logger of a server. While the server serves, a thread writes its records: logging never blocks the loop."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import select
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final

import trio

from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import RateLimited, describe

QUEUED_RECORDS: Final = 5000
"""The most records that wait for the thread; further ones are dropped and counted."""

GATHER_SECONDS: Final = 0.01
"""The delay before the thread writes, so that one wake-up writes many records: a wake-up costs more than a write."""

STOP_SECONDS: Final = 1.0
"""How long a server that ends waits until its last lines are written."""

MAX_WRITE: Final = 4096
"""The most bytes of one write, PIPE_BUF of Linux: a writable pipe takes as many without blocking, and undivided."""

POLL_SECONDS: Final = 0.1
"""How often a writer that waits for room checks ``give_up``."""

_loggers: weakref.WeakSet[ServerLogger] = weakref.WeakSet()


def server_logger(level: int, line_format: str, datefmt: str) -> ServerLogger:
    """Return a logger for one server, which writes to standard error.

    It is not registered with the logging module and does not propagate: its settings affect no other logger.

    Raises:
        ValueError: ``line_format`` is not a %-style logging format.
    """
    logger = ServerLogger("asyncapy.server")
    logger.propagate = False
    logger.addHandler(ConsoleHandler(logger))
    adjust_logger(logger, level, line_format, datefmt)
    return logger


def adjust_logger(logger: logging.Logger, level: int, line_format: str, datefmt: str) -> None:
    """Set the level of a server's logger, and the formats of its `ConsoleHandler`."""
    logger.setLevel(level)
    for handler in logger.handlers:
        if isinstance(handler, ConsoleHandler):
            handler.setFormatter(logging.Formatter(line_format, datefmt))


class ServerLogger(logging.Logger):
    """A logger whose handlers run in a thread while its server serves. Handlers and filters may raise.

    Filters of the logger itself run in the thread that logs.

    Attributes:
        gathering: whether more records follow at once, so that a handler may hold back lines until `flush`.
        give_up: set to drop lines that cannot be written now.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gathering: bool = False
        self.give_up: threading.Event = threading.Event()
        self._background: _Queue | None = None
        self._writer = 0
        self._should_log = RateLimited(60)
        _loggers.add(self)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        """Compare the level without a cache: the logging module clears the caches of registered loggers only."""
        return not self.disabled and self.manager.disable < level >= self.level

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record through the filters to the handlers. A filter that raises drops the record."""
        self._call(super().handle, record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a record for the thread, or write it if there is no thread.

        Records that a handler logs in the thread are dropped: each would cause another.
        """
        if self._background is None:
            self.write(record)
        elif threading.get_ident() != self._writer:
            self._background.handle(record)

    def write(self, record: logging.LogRecord) -> None:
        """Call each handler, also after one that raised."""
        for handler in tuple(self.handlers):
            if record.levelno >= handler.level:
                self._call(handler.handle, record)

    def flush(self) -> None:
        """Write the lines that handlers hold back."""
        for handler in tuple(self.handlers):
            if isinstance(handler, ConsoleHandler):
                self._call(handler.flush)

    def begin_writing(self) -> None:
        """Note that the current thread is the one that calls the handlers."""
        self._writer = threading.get_ident()

    @asynccontextmanager
    async def in_background(self) -> AsyncIterator[None]:
        """Call the handlers in a thread during the block, then wait until the thread has written its lines."""
        listener = _Listener(self)
        self.give_up.clear()
        listener.start()
        self._background = background = _Queue(listener.records)
        try:
            yield
        finally:
            finish = functools.partial(listener.finish, background, self.give_up)
            with trio.CancelScope(
                shield=True
            ):  # its own limiter: abandoned threads may hold all tokens of the default one
                written = await trio.to_thread.run_sync(finish, limiter=trio.CapacityLimiter(1))
            self._background = None
            self._writer = 0
            self.gathering = False
            if not written:
                for handler in self.handlers:
                    handler.createLock()  # a blocked handler keeps its lock, and logging.shutdown waits for it

    def forget_thread(self) -> None:
        """Write without a thread: a forked process has none."""
        self._background = None
        self._writer = 0
        self.gathering = False
        for handler in self.handlers:
            if isinstance(handler, ConsoleHandler):
                handler.forget_lines()

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except BaseException as error:  # a log handler may raise anything
            if is_interrupt(error):
                raise
            if self._should_log():
                line = _line(logging.ERROR, "{Server} A log handler failed: %s", describe(error))
                self.write(line) if self._background is None else self._background.enqueue(line)


class ConsoleHandler(logging.StreamHandler[Any]):
    """Writes whole lines to standard error, when it can do so without blocking.

    It writes to the file descriptor and not through the stream's buffer: a thread that blocks inside the buffer keeps
    the buffer's lock, for which a forked process and the end of the interpreter would wait.

    Args:
        logger: the logger of this handler.
    """

    def __init__(self, logger: ServerLogger) -> None:
        self._lines: list[str] = []
        self._lost = 0
        super().__init__()
        self._logger = weakref.proxy(logger)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record) + self.terminator)
        if not self._logger.gathering:
            self.flush()

    def flush(self) -> None:
        """Write the lines held back. Count those that cannot be written; the next line reports them."""
        with self.lock:  # type: ignore[union-attr]  # set by the base class
            lines, self._lines = self._lines, []
            if not lines:
                return
            if self._lost:
                lines.insert(0, self.format(_lines_lost(self._lost)) + self.terminator)
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
            if self._logger.give_up.is_set():
                return False
        return True


class _Queue(QueueHandler):
    """Queues formatted records, and counts those dropped because the queue was full."""

    def __init__(self, records: queue.SimpleQueue[Any]) -> None:
        super().__init__(records)
        self._records = records
        self._lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Format the message now: its arguments may change before the thread formats it."""
        if record.exc_info or record.stack_info:
            prepared: logging.LogRecord = super().prepare(record)
            return prepared
        record.msg = record.getMessage()
        record.args = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._records.qsize() >= QUEUED_RECORDS:
            self._lost += 1
            return
        self.report_lost()
        self._records.put(record)

    def report_lost(self) -> None:
        """Queue a line with the number of dropped records, if any."""
        if self._lost:
            self._records.put(_lines_lost(self._lost))
            self._lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a line about a record that cannot be formatted."""
        self.enqueue(
            _line(logging.ERROR, "{Server} A log line cannot be formatted, at %s:%d", record.pathname, record.lineno)
        )


class _Listener(QueueListener):
    """The thread that writes the queued records, in batches."""

    def __init__(self, logger: ServerLogger) -> None:
        self.records = queue.SimpleQueue[Any]()
        super().__init__(self.records)
        self._logger = logger
        self._finishing = threading.Event()

    def handle(self, record: Any) -> None:
        logger = self._logger
        logger.begin_writing()
        if not logger.gathering:
            self._finishing.wait(GATHER_SECONDS)
        logger.gathering = not self.records.empty()
        if not isinstance(record, threading.Event):
            logger.write(record)
        if not logger.gathering:
            logger.flush()
        if isinstance(record, threading.Event):
            record.set()  # all records before it are written

    def finish(self, background: _Queue, give_up: threading.Event) -> bool:
        """Write the queued records, within `STOP_SECONDS`, and end the thread; return False if a handler blocks it."""
        written = threading.Event()
        self._finishing.set()
        background.report_lost()
        self.records.put(written)
        if not written.wait(STOP_SECONDS):
            give_up.set()
            if not written.wait(STOP_SECONDS):
                return False
        self.stop()
        return True


def _line(level: int, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("asyncapy.server", level, "", 0, message % values, None, None)


def _lines_lost(number: int) -> logging.LogRecord:
    return _line(logging.WARNING, "{Server} %d log lines were lost: they could not be written in time", number)


def _give_up() -> None:
    for logger in _loggers:
        logger.give_up.set()


def _forget_threads() -> None:
    for logger in _loggers:
        logger.forget_thread()


atexit.register(_give_up)  # runs before logging.shutdown, which waits for the lock of each handler
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
