"""Log lines as JSON: the log format ``json``."""

from __future__ import annotations

import copy
import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

from asyncapy_core.logs import safe_str

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
    message does not repeat the session, which is a field. A message that is a dict is logged as its text: it may come
    from a peer, and would set any field.
    """

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields=NAMES,
            reserved_attrs=[*RESERVED_ATTRS, *NAMES.values()],  # a field cannot replace these
            json_serializer=_as_json,
        )

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, dict):
            record = copy.copy(record)  # other handlers get it as well
            record.msg, record.args = record.getMessage(), None
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # the standard library's name
        """Return the time in ISO 8601, in UTC, with milliseconds."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        session = getattr(record, "session", None)
        record.message = record.message.removeprefix(f"({session}) ")
        super().add_fields(log_data, record, message_dict)


def _as_json(fields: dict[str, Any], **options: Any) -> str:
    """Return fields as JSON, with a text for each value that JSON does not have, such as NaN."""
    try:
        return json.dumps(fields, allow_nan=False, **options)
    except Exception:  # of a value in the argument ``extra``, which may be any object
        return json.dumps({safe_str(name): _as_plain(value, options) for name, value in fields.items()})


def _as_plain(value: object, options: dict[str, Any]) -> Any:
    """Return a value as JSON has it, or a text that describes it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, **options))
    except Exception:  # as above
        return safe_str(value)
