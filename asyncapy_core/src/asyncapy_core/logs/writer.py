"""The logger of a server. While the server serves, a thread calls the handlers: logging never blocks the loop."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import trio

from asyncapy_core.defaults import LOGGING_LEVEL
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs.console import (
    ConsoleHandler,
    ProgramHandler,
    application_handlers,
    is_default,
    lines_lost,
    plain_record,
)
from asyncapy_core.logs.failures import RateLimited, describe
from asyncapy_core.logs.session_log import SERVER

QUEUED_RECORDS: Final = 5000
"""The most records that wait for the thread; further ones are dropped and counted."""

GATHER_SECONDS: Final = 0.01
"""The delay before the thread writes, so that one wake-up writes many records: a wake-up costs more than a write."""

STOP_SECONDS: Final = 1.0
"""How long a server that ends waits until its last lines are written."""

Call = Callable[[logging.LogRecord], object]
_loggers: weakref.WeakSet[ServerLogger] = weakref.WeakSet()


class ServerLogger(logging.Logger):
    """A logger whose handlers run in a thread while its server serves. Handlers and filters may raise.

    It is not registered with the logging module, so that the settings of a server affect no other server. It is below
    the registered logger of the same name, whose handlers, filters, level and ``disabled`` hold for all servers. Its
    `ConsoleHandler` writes to standard error if the application has configured no handler.

    Filters of loggers run in the thread that logs.

    Attributes:
        console: the handler that writes to standard error, one of ``handlers``.
        threaded: whether a thread calls the handlers while the server serves; set before it serves.
    """

    def __init__(self) -> None:
        super().__init__(SERVER)
        self._all_servers = logging.getLogger(SERVER)
        self._everything = logging.getLogger("asyncapy")
        self.parent: logging.Logger | None = self._all_servers
        self.console: ConsoleHandler = ConsoleHandler()
        self.addHandler(self.console)
        self.threaded: bool = True
        self._background: _Background | None = None
        self._called: logging.Handler | None = None
        self._should_log = RateLimited(60)
        _loggers.add(self)

    def getEffectiveLevel(self) -> int:  # noqa: N802  # the standard library's name
        """Return the level of this logger, or that of the loggers above, or the default of ``logging_level``.

        The level of the root logger has no effect: programs set it for records of their own.
        """
        return self.level or self._all_servers.level or self._everything.level or LOGGING_LEVEL

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        """Compare the level without a cache: the logging module clears the caches of registered loggers only."""
        if self.disabled or self._all_servers.disabled or self.manager.disable >= level:
            return False
        return level >= (self.level or self._all_servers.level or self._everything.level or LOGGING_LEVEL)

    def filter(self, record: logging.LogRecord) -> Any:
        """Apply the filters of this logger, then those of the registered one."""
        passed: Any = super().filter(record)
        if passed and self._all_servers.filters:
            passed = self._all_servers.filter(record if passed is True else passed)
        return passed

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record through the filters to the handlers. A filter that raises drops the record."""
        self.guard(super().handle, record)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802  # the standard library's name
        self.call(self.write, record)

    def call(self, function: Call, record: logging.LogRecord) -> None:
        """Have the thread call a function with a record, or call it if there is no thread.

        Records that a handler logs in the thread are dropped: each would cause another.
        """
        background = self._background  # it ends while other threads log
        if background is None:
            self.guard(function, record)
        elif not background.is_current():
            background.put(function, record)

    def write(self, record: logging.LogRecord) -> None:
        """Call each handler, also after one that raised."""
        above = application_handlers(self._all_servers) if self.propagate else []
        for handler in (*self.handlers, *above):
            if record.levelno >= handler.level and not (above and handler is self.console and self.console.steps_back):
                self._called = handler
                self.guard(handler.handle, record)
        self._called = None

    @asynccontextmanager
    async def in_background(self) -> AsyncIterator[None]:
        """Call the handlers in a thread during the block, then wait until the thread has written its lines."""
        self.console.give_up.clear()
        if not self.threaded:
            yield
            return
        self._background = background = _Background(self)
        background.start()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                limiter = trio.CapacityLimiter(1)  # abandoned threads may hold all tokens of the default one
                written = await trio.to_thread.run_sync(background.finish, limiter=limiter)
            blocked = self._called
            self.forget_thread()
            if not written and blocked is not None:
                blocked.createLock()  # it keeps its lock, and logging.shutdown waits for it

    def forget_thread(self) -> None:
        """Call handlers without a thread: it has ended, or a forked process has none."""
        self._background = None
        self._called = None
        self.console.gathering = False

    def guard(self, function: Callable[..., object], *args: object) -> None:
        """Call a function, and log its failure."""
        try:
            function(*args)
        except BaseException as error:  # a log handler may raise anything
            if is_interrupt(error):
                raise
            if self._should_log():
                line, background = "{Server} A log handler failed: %s", self._background
                record = plain_record(logging.ERROR, line, describe(error))
                self.write(record) if background is None else background.put(self.write, record)


class _Background:
    """A queue of calls, and the thread that does them, in batches. Calls beyond `QUEUED_RECORDS` are counted only."""

    def __init__(self, logger: ServerLogger) -> None:
        self._logger = logger
        self._calls = queue.SimpleQueue[Any]()
        self._lost = 0
        self._lock = threading.RLock()  # a signal handler may log while its thread holds it
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asyncapy log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_current(self) -> bool:
        """Return True in the thread."""
        return threading.get_ident() == self._thread.ident

    def put(self, function: Call, record: logging.LogRecord) -> None:
        """Queue a call of a function with a record, which is formatted now: its arguments may change."""
        if self._calls.qsize() >= QUEUED_RECORDS:
            with self._lock:
                self._lost += 1
            return
        if self._lost:
            self._report_lost()
        try:
            _format(record)
        except Exception:  # of an argument
            text = "{Server} A log line cannot be formatted, at %s:%d"
            record = plain_record(logging.ERROR, text, record.pathname, record.lineno)
        self._calls.put((function, record))

    def finish(self) -> bool:
        """Do the queued calls, within `STOP_SECONDS`, and end the thread; return False if a handler blocks it."""
        self._finishing.set()
        self._report_lost()
        self._calls.put(None)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._logger.console.give_up.set()
            self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _report_lost(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:  # no other thread has reported them
            self._calls.put((self._logger.write, lines_lost(lost)))

    def _run(self) -> None:
        logger, console = self._logger, self._logger.console
        while (call := self._calls.get()) is not None or not self._calls.empty():
            if call is None:
                self._calls.put(None)  # behind the lines that were queued in the meantime
                continue
            if not console.gathering:
                self._finishing.wait(GATHER_SECONDS)
            console.gathering = not self._calls.empty()
            logger.guard(*call)
            if not console.gathering:
                logger.guard(console.flush)
        console.gathering = False
        logger.guard(console.flush)


def _format(record: logging.LogRecord) -> None:
    """Replace the arguments and the exception of a record by their texts."""
    record.msg, record.args = record.getMessage(), None
    if record.exc_info:
        record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
        record.exc_info = None


@contextmanager
def program_logs(log: ServerLogger, level: int) -> Iterator[None]:
    """Write the records of all loggers to the console of a server during the block, if the application has no handler.

    Args:
        log: the logger of the server.
        level: the level of the root logger during the block, unless the application has set one.
    """
    root = logging.getLogger()
    replaced, before = list(root.handlers), root.level
    configured = [each for each in replaced if not isinstance(each, logging.NullHandler)]
    if configured and (before != logging.WARNING or not all(map(is_default, configured))):
        yield
        return
    handler = ProgramHandler(log.console, log.call)
    for each in replaced:
        root.removeHandler(each)
    root.addHandler(handler)
    if before == logging.WARNING:  # that of a logging module that is not configured
        root.setLevel(level)
    try:
        yield
    finally:
        if handler in root.handlers:
            root.removeHandler(handler)
            for each in replaced:
                root.addHandler(each)
        if before == logging.WARNING and root.level == level:
            root.setLevel(before)
        handler.close()


def _give_up() -> None:
    for logger in _loggers:
        logger.console.give_up.set()


def _forget_threads() -> None:
    for logger in _loggers:
        logger.forget_thread()
        logger.console.forget_lines()


atexit.register(_give_up)  # runs before logging.shutdown, which waits for the lock of each handler
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
