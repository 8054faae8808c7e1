"""Log lines as JSON: the log format ``json``."""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

NAMES: Final = {
    "asctime": "time",
    "levelname": "level",
    "name": "logger",
    "exc_info": "exception",
    "stack_info": "stack",
}


class JsonFormatter(_JsonFormatter):
    """Formats a record as one JSON object: the time in UTC, the level, the logger, the message and all other fields.

    The fields are those of `asyncapy_core.logs.FIELDS` and of the argument ``extra``, as far as the record has them. A
    message does not repeat the session, which is a field.
    """

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields=NAMES,
            reserved_attrs=[*RESERVED_ATTRS, *NAMES.values()],  # a field cannot replace these
            json_serializer=_as_json,
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # the standard library's name
        """Return the time in ISO 8601, in UTC, with milliseconds."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        session = getattr(record, "session", None)
        record.message = record.message.removeprefix(f"({session}) ")
        super().add_fields(log_data, record, message_dict)


def _as_json(value: dict[str, Any], **options: Any) -> str:
    """Return an object as JSON, with a text for each value that JSON does not have, such as NaN."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except (TypeError, ValueError, RecursionError):  # of a value in the argument ``extra``
        return json.dumps({str(name): each if _is_plain(each) else repr(each) for name, each in value.items()})


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
