"""Failures as log lines, with data of peers and texts of exceptions escaped and cut, and limits on repeated lines."""

from __future__ import annotations

import itertools
import logging
import re
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any, Final

from asyncapy_core.foreign.inspection import class_name, first_leaf, is_readable, qualified_class_name, read_traceback

LOGGED_BYTES: Final = 64
"""The most bytes of a peer's data in one log line."""

PLACES: Final = 256
"""The most places in a `FailureLog`; the place with the oldest failure is dropped first."""

FRAMES: Final = 20
"""The most frames of one traceback at INFO, the innermost ones."""

HIDDEN: Final = "[...]"
"""Replaces a value of a packet in a log line."""

MIN_VALUE: Final = 4
"""The least characters of a hidden value: a shorter one is in many words, and no secret."""

VALUES: Final = 1000
"""The most values of a packet that are searched for in a message, to bound the time. If a packet has more, the whole
message is hidden."""

MAX_COMPARED: Final = 4_000_000
"""The most characters of a message times the values that are searched for in it. Beyond it, the message is hidden."""

MAX_SHOWN: Final = 100
"""The most exceptions in one traceback: those of groups, causes and contexts."""

DEBUG_CHARACTERS: Final = 1000
"""The most characters of one line of a traceback at DEBUG: the text of an exception may have any length."""


class Mistake(TypeError):
    """A mistake in a program, such as a wrong return value. The message has no data of peers, and is logged whole."""


class RateLimited:
    """Limits a repeated event to one log line in ``seconds``; call it for each event."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class FailureLog:
    """Logs failures of handlers, filters and codecs: for each place, a line a second and a traceback a minute.

    A place is a function, the type of the exception, and the line that raised it. A line counts the failures since the
    last one. The traceback, at INFO, has files, lines and source, but not the message of the exception, which may quote
    a payload or a key.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[object, ...], _Place] = OrderedDict()

    def report(
        self,
        log: logging.LoggerAdapter[logging.Logger],
        subject: str,
        error: BaseException,
        fields: Mapping[str, Any] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log a failure.

        Args:
            log: the log of the session.
            subject: the failed part, such as ``"{API Parser} Handler 'read'"``.
            error: the exception.
            fields: the fields of the packet, of which no value is logged: they may be keys.
            extra: further `FIELDS` of the records.
        """
        leaf, _ = first_leaf(error)
        place = self._place((subject, qualified_class_name(leaf), *_raised_at(leaf)))
        address = getattr(log, "address", "")
        failed = f"failed for {address}" if address else "failed"
        if log.isEnabledFor(logging.DEBUG):
            log.error("%s %s: %s", subject, failed, describe(error, fields), extra=extra)
            hide = _hides(fields)
            for line in traceback_of(error).splitlines() or _stack(leaf):
                log.debug("{API Parser} %s", _escaped(hide(line)[:DEBUG_CHARACTERS]), extra=extra)
            return
        if not place.line():
            place.unlogged += 1
            return
        more = f"; {place.unlogged} more like this were not logged" if place.unlogged else ""
        place.unlogged = 0
        log.error("%s %s: %s%s", subject, failed, describe(error, fields), more, extra=extra)
        if place.traceback():
            for line in _stack(leaf):
                log.info("{API Parser} %s", line, extra=extra)

    def _place(self, key: tuple[object, ...]) -> _Place:
        place = self._places.setdefault(key, _Place())
        self._places.move_to_end(key)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        return place


class _Place:
    """The log limits of one place, and the number of failures without a line."""

    __slots__ = ("line", "traceback", "unlogged")

    def __init__(self) -> None:
        self.line = RateLimited(1)
        self.traceback = RateLimited(60)
        self.unlogged = 0


def escape_for_log(text: object) -> str:
    """Return peer data, or an error that may quote it, as one line of at most 64 printable ASCII characters."""
    raw = text.decode("latin-1") if isinstance(text, (bytes, bytearray)) else safe_str(text)
    escaped = _escaped(raw[:LOGGED_BYTES])
    cut = escaped[:LOGGED_BYTES]
    return cut + "..." if len(raw) > LOGGED_BYTES or len(escaped) > LOGGED_BYTES else cut


def describe(error: BaseException, fields: Mapping[str, Any] | None = None) -> str:
    """Return an exception as one line: its type, its message, cut and escaped, and the line that raised it.

    Values of the fields of a packet in the message are replaced by ``HIDDEN``: they may be keys.
    """
    try:
        return _described(error, fields)
    except BaseException:  # every method of an exception may raise
        return "an exception that cannot be described"


def _described(error: BaseException, fields: Mapping[str, Any] | None) -> str:
    leaf, others = first_leaf(error)
    if type(leaf) is Mistake:
        return f"TypeError ({_escaped(str(leaf))})"
    code, line = _raised_at(leaf)
    where = f" at {_escaped(code.co_filename)}:{line}" if code is not None else ""
    more = f" and {others} more" if others else ""
    message = escape_for_log(_hides(fields)(safe_str(leaf)))
    return f"{escape_for_log(class_name(leaf))} ({message}){where}{more}"


def _hides(fields: Mapping[str, Any] | None) -> Callable[[str], str]:
    """Return a function that replaces the values of the fields of a packet in a text by `HIDDEN`.

    It replaces the whole text if the packet has too many values, or if the text is too long.
    """
    if not fields:
        return lambda text: text
    found = _texts(fields)
    values = None if found is None else sorted(found, key=len, reverse=True)

    def hide(text: str) -> str:
        if values is None or len(text) * len(values) > MAX_COMPARED:
            return HIDDEN
        for value in values:
            text = text.replace(value, HIDDEN)
        return text

    return hide


def _texts(fields: Mapping[str, Any]) -> set[str] | None:
    """Return the strings and numbers in the fields of a packet, at any depth, and the words of the strings.

    The words are found also where the message has escaped the rest of the string. Return None if there are more than
    `VALUES` of them, short ones included.
    """
    found: list[str] = []
    values = deque[object](fields.values())
    while values:
        value = values.popleft()
        if isinstance(value, Mapping):
            values.extend(itertools.islice(itertools.chain(value, value.values()), VALUES + 1))
        elif isinstance(value, (list, tuple)):
            values.extend(value[: VALUES + 1])
        elif isinstance(value, (str, bytes, int, float)):
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            words = (match[0] for match in re.finditer(r"\w+", text))
            found.extend(itertools.islice(itertools.chain((text,), words), VALUES + 1))
        if len(found) + len(values) > VALUES:
            return None
    return {each for each in found if len(each) >= MIN_VALUE}


def _raised_at(error: BaseException) -> tuple[CodeType | None, int]:
    """Return the code object and the line that raised an exception."""
    code, line = None, 0
    for frame, number in traceback.walk_tb(read_traceback(error)):
        code, line = frame.f_code, number
    return code, line


def _stack(error: BaseException) -> Iterator[str]:
    """Return the lines of a traceback, escaped, without the message of the exception."""
    for frame in traceback.StackSummary.extract(traceback.walk_tb(read_traceback(error)), limit=-FRAMES):
        yield _escaped(f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}")


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def safe_str(value: object) -> str:
    """Return ``str(value)``, or the name of its type if that raises."""
    try:
        return str.__str__(str(value))  # a plain string, and not an instance of a subclass
    except BaseException:  # foreign code may raise anything
        return f"a {class_name(value)} without a text"


def reason_of(error: BaseException) -> str:
    """Return an exception of foreign code as its type and its message."""
    name = "TypeError" if type(error) is Mistake else class_name(error)
    return f"{name}: {safe_str(error)}"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception of foreign code; nothing if the exception cannot be read, or is too long."""
    try:
        if not is_readable(error, MAX_SHOWN):
            return ""
        return "".join(traceback.format_exception(type(error), error, read_traceback(error)))
    except Exception:  # such as its notes
        return ""
