"""Tools for the authors of key stores on a disk or a network.

`RecordCache`, hooks for `os.fork`, the options that the URLs of such stores share, and records as texts.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.cache import RecordCache
from asyncapy_core.keys.forking import ForkAware, watch_forks
from asyncapy_core.keys.store import KeyRecord

__all__ = [
    "Finding",
    "ForkAware",
    "Recall",
    "RecordCache",
    "check_timeout",
    "checked_record",
    "metadata_text",
    "skip_damaged",
    "take_seconds",
    "watch_forks",
]

log: logging.Logger = logging.getLogger("asyncapy.keys")

LONGEST_TIMEOUT: Final = 3600.0
"""Seconds."""

DEEPEST: Final = 100
"""The most levels of metadata."""

T = TypeVar("T")

Recall = RecordCache
"""The name of `RecordCache` before 0.6; kept for existing plugins."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact about a key store, for ``asyncapy keys doctor``, which calls the method ``examine`` of a store.

    ``examine`` takes no arguments, changes nothing, and returns an iterable of findings.

    Attributes:
        text: the fact; for a problem, with the remedy.
        is_problem: whether keys can be lost, or keys that were revoked can pass.
    """

    text: str
    is_problem: bool = False


def check_timeout(seconds: float) -> None:
    """Raise KeyStoreError unless a timeout is more than 0 and at most `LONGEST_TIMEOUT` seconds."""
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise KeyStoreError(f"timeout is {seconds!r}; it must be more than 0 and at most {LONGEST_TIMEOUT:g} seconds")


def take_seconds(options: dict[str, str], where: str) -> dict[str, float]:
    """Remove ``timeout`` and ``recall_seconds`` from the options of a URL, and return those given, as numbers.

    Args:
        options: the options, by name; the two are removed.
        where: the URL without its secrets, for the message.

    Raises:
        KeyStoreError: one of them is not a number.
    """
    try:
        return {name: float(options.pop(name)) for name in ("timeout", "recall_seconds") if name in options}
    except ValueError as error:
        raise KeyStoreError(f"{where}: timeout and recall_seconds are numbers of seconds: {error}") from error


def metadata_text(metadata: dict[str, Any]) -> str:
    """Return metadata as JSON.

    Raises:
        KeyStoreError: a value is not JSON, or nested more than `DEEPEST` levels deep.
    """
    try:
        text = json.dumps(metadata, allow_nan=False)
        _check_depth(text, metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise KeyStoreError(f"this metadata cannot be kept, as it is not JSON: {error}") from error
    return text


def checked_record(name: str, *, key_id: object, metadata: object, issued: object, expires: object) -> KeyRecord:
    """Return a record from stored values, which another program may have written.

    Args:
        name: where the record is, for the message.
        key_id: a text, or its UTF-8.
        metadata: a JSON object as a text, or its UTF-8.
        issued: a finite number, or its text.
        expires: a finite number, its text, or None.

    Raises:
        KeyStoreError: a value is of another kind; the message has the name.
    """
    try:
        text = _text(metadata)
        fields = json.loads(text, parse_constant=_refuse_constant)
        _check_depth(text, fields)
        if not isinstance(fields, dict):
            raise ValueError(f"its metadata is a {type(fields).__name__}, not a JSON object")
        return KeyRecord(_text(key_id), fields, _finite(issued), None if expires is None else _finite(expires))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise KeyStoreError(f"{name} is damaged: {reason}") from error


def skip_damaged(stored: Iterable[T], read: Callable[[T], tuple[str, KeyRecord]]) -> Iterator[tuple[str, KeyRecord]]:
    """Yield digests and records, and log a warning for each that is damaged.

    Args:
        stored: the stored values of each record.
        read: returns digest and record; raises KeyStoreError for a damaged one.
    """
    for values in stored:
        try:
            found = read(values)
        except KeyStoreError as error:
            log.warning("{Key store} %s", error)
        else:
            yield found


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise ValueError(f"it has a {type(value).__name__} in place of a text")
    return value


def _finite(value: object) -> float:
    number = value if isinstance(value, (int, float)) else float(_text(value))
    if not math.isfinite(number):
        raise ValueError(f"it has the time {number}")
    return float(number)


def _check_depth(text: str, value: object) -> None:
    """Raise ValueError for a value that is nested too deep to be copied, which Python does by recursion."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def _children(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"its metadata has {name}, which is not JSON")
