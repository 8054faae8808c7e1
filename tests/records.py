"""`Records`: keeps the records of a logger."""

from __future__ import annotations

import logging
from typing import Any

from asyncapy_core.logs import FIELDS


class Records(logging.Filter):
    """Keeps the records of a logger.

    Args:
        passes: whether they go on to the handlers of the logger.
    """

    def __init__(self, *, passes: bool = True) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []
        self._passes = passes

    def filter(self, record: logging.LogRecord) -> bool:
        self.all.append(record)
        return self._passes

    def fields(self, text: str) -> dict[str, Any]:
        """Return the fields of the first record with this text."""
        record = next(record for record in self.all if text in record.getMessage())
        return {name: value for name in FIELDS if (value := vars(record).get(name)) is not None}
