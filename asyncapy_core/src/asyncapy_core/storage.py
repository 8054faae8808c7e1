"""Tools for the authors of key stores on a disk or a network.

`RecordCache`, hooks for `os.fork`, the options that the URLs of such stores share, and metadata as text.
"""

from __future__ import annotations

import json
from typing import Any, Final

from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.cache import RecordCache
from asyncapy_core.keys.forking import ForkAware, watch_forks

__all__ = ["ForkAware", "Recall", "RecordCache", "check_timeout", "metadata_text", "take_seconds", "watch_forks"]

LONGEST_TIMEOUT: Final = 3600.0
"""Seconds."""

Recall = RecordCache
"""The name of `RecordCache` before 0.6; kept for existing plugins."""


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
        KeyStoreError: a value is not JSON.
    """
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise KeyStoreError(f"this metadata cannot be kept, as it is not JSON: {error}") from error
