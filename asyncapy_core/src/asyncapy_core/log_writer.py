"""A server's own logger, which hands its records to a thread while the server serves, so that no log holds up the loop.

Knows no server: `ServerLogger.in_background` is entered for as long as one serves.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import select
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
"""The most records that wait for the thread; those beyond it are lost, and counted."""

GATHER_SECONDS: Final = 0.01
"""How long records gather before the thread writes them: to wake it for each costs more than to write it."""

STOP_SECONDS: Final = 1.0
"""How long the end of a server waits for its last lines to be written."""

PIECE: Final = 4096
"""The most bytes written at a time: a writable pipe takes so many at once, and does not mix them with others."""

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
    logger.addHandler(ConsoleHandler(logger))
    adjust_logger(logger, level, line_format, datefmt)
    return logger


def adjust_logger(logger: logging.Logger, level: int, line_format: str, datefmt: str) -> None:
    """Give a server's logger another level, and its own handler other formats."""
    logger.setLevel(level)
    for handler in logger.handlers:
        if isinstance(handler, ConsoleHandler):
            handler.setFormatter(logging.Formatter(line_format, datefmt))


class ServerLogger(logging.Logger):
    """A logger whose handlers run in a thread while its server serves, and whose handlers and filters may fail.

    Filters of the logger itself run where a line is logged.

    Attributes:
        gathering: whether further records follow at once, so that a handler may hold back its lines until `flush`.
        give_up: set when lines that cannot be written are to be lost rather than waited for.
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
        """Compare the level each time: a logger that stands in no registry is not told when levels change."""
        return not self.disabled and self.manager.disable < level >= self.level

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record through the filters on to the handlers; a filter that fails loses its line."""
        self._call(super().handle, record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a record for the thread, or write it where there is none.

        The thread's own records, which come from a handler that logs, are lost: each would make another.
        """
        if self._background is None:
            self.write(record)
        elif threading.get_ident() != self._writer:
            self._background.handle(record)

    def write(self, record: logging.LogRecord) -> None:
        """Call each handler; one that fails keeps the record from no other."""
        for handler in tuple(self.handlers):
            if record.levelno >= handler.level:
                self._call(handler.handle, record)

    def flush(self) -> None:
        """Write the lines that are held back."""
        for handler in tuple(self.handlers):
            if isinstance(handler, ConsoleHandler):
                self._call(handler.flush)

    def begin_writing(self) -> None:
        """Note that the current thread calls the handlers from now on."""
        self._writer = threading.get_ident()

    @asynccontextmanager
    async def in_background(self) -> AsyncIterator[None]:
        """Call the handlers in a thread of its own for the length of a block, then wait until its lines are written."""
        listener = _Listener(self)
        self.give_up.clear()
        listener.start()
        self._background = background = _Queue(listener.records)
        try:
            yield
        finally:
            finish = functools.partial(listener.finish, background, self.give_up)
            with trio.CancelScope(shield=True):  # a limiter of its own: threads left behind may have all other tokens
                written = await trio.to_thread.run_sync(finish, limiter=trio.CapacityLimiter(1))
            self._background = None
            self._writer = 0
            self.gathering = False
            if not written:
                for handler in self.handlers:
                    handler.createLock()  # one that hangs keeps its lock, which the end of the program waits for

    def forget_thread(self) -> None:
        """Write without a thread from now on: a forked process has none."""
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
    """Writes to standard error: whole lines, as many as there is room for, so that its thread can be ended.

    It writes to the descriptor, around the buffer of the stream: a thread that blocks inside that buffer keeps its
    lock, which a forked process and the end of the interpreter wait for.

    Args:
        logger: the logger that it belongs to.
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
        """Write the lines that are held back; count those that cannot be written, and say so before the next."""
        with self.lock:  # type: ignore[union-attr]  # it has one, from its base
            lines, self._lines = self._lines, []
            if not lines:
                return
            if self._lost:
                lines.insert(0, self.format(_lines_lost(self._lost)) + self.terminator)
            try:
                descriptor = self.stream.fileno()
            except (AttributeError, OSError, ValueError):  # no file behind it
                self.stream.write("".join(lines))
                self.stream.flush()
                return
            self._write(descriptor, lines)

    def forget_lines(self) -> None:
        """Drop the lines that are held back: in a forked process they are the other's to write."""
        self._lines = []

    def _write(self, descriptor: int, lines: list[str]) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        encoded = [line.encode(encoding, "backslashreplace") for line in lines]
        written = 0
        try:
            while written < len(encoded):
                size, last = len(encoded[written]), written + 1
                while last < len(encoded) and size + len(encoded[last]) <= PIECE:
                    size += len(encoded[last])
                    last += 1
                if not self._write_all(descriptor, b"".join(encoded[written:last])):
                    break
                written, self._lost = last, 0
        finally:
            self._lost += len(encoded) - written

    def _write_all(self, descriptor: int, data: bytes) -> bool:
        """Write bytes when there is room for them; return False to give up."""
        while data:
            if not self._wait_for_room(descriptor):
                return False
            with suppress(BlockingIOError):
                data = data[os.write(descriptor, data[:PIECE]) :]
        return True

    def _wait_for_room(self, descriptor: int) -> bool:
        """Return True when the descriptor can be written to without blocking, False to give up."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while not poll.poll(LOOK_SECONDS * 1000):
            if self._logger.give_up.is_set():
                return False
        return True


class _Queue(QueueHandler):
    """Queues records with their text; counts those for which there is no room."""

    def __init__(self, records: queue.SimpleQueue[Any]) -> None:
        super().__init__(records)
        self._records = records
        self._lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Put the text in place of the arguments, which may change before the thread looks at them."""
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
        self.tell_lost()
        self._records.put(record)

    def tell_lost(self) -> None:
        """Queue a line about those that were lost, if any."""
        if self._lost:
            self._records.put(_lines_lost(self._lost))
            self._lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        """Queue a line about one that cannot be formatted."""
        self.enqueue(
            _line(logging.ERROR, "{Server} A log line cannot be formatted, at %s:%d", record.pathname, record.lineno)
        )


class _Listener(QueueListener):
    """The thread that writes the queued records, those that have gathered in one go."""

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
            record.set()  # everything queued before it is written

    def finish(self, background: _Queue, give_up: threading.Event) -> bool:
        """Write the queued records, within `STOP_SECONDS`, and end the thread; return False if a handler blocks it."""
        written = threading.Event()
        self._finishing.set()
        background.tell_lost()
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


atexit.register(_give_up)  # before logging's own function, which waits for the lock of each handler
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
