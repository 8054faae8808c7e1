from __future__ import annotations

import logging

import pytest

from asyncapy_core.logs.console import LineFormatter


def formatted(line_format: str, **values: object) -> str:
    record = logging.makeLogRecord({"name": "shop", "msg": "hello", "levelname": "INFO", **values})
    return LineFormatter(line_format, "%H").format(record)


@pytest.mark.parametrize("line_format", ["plain", "{message}"])
def test_a_format_that_is_none_is_a_value_error(line_format: str) -> None:
    with pytest.raises(ValueError, match="format"):
        LineFormatter(line_format, "")


def test_a_format_may_use_the_fields_also_of_records_that_lack_them() -> None:
    line_format = "%(message)s %(session)s %(address)s %(version)s %(handler)s %(code)s %(duration)s"
    assert formatted(line_format, name="asyncapy.server") == "hello - - - - - -"
    values = {"address": "::1", "version": 23, "handler": "read", "code": "ERR_NO_HANDLER", "duration": 0.5}
    assert formatted(line_format, name="asyncapy.server", session="UUID", **values) == (
        "hello UUID ::1 23 read ERR_NO_HANDLER 0.5"
    )


def test_a_record_of_the_program_has_its_session_at_its_head_once() -> None:
    assert formatted("[%(levelname)s] %(message)s") == "[INFO] hello"
    assert formatted("[%(levelname)s] %(message)s", session="UUID") == "[INFO] (UUID) hello"
    assert formatted("[%(levelname)s] %(message)s", session="UUID", msg="(UUID) hello") == "[INFO] (UUID) hello"


def test_the_lines_of_a_server_are_as_they_are_documented() -> None:
    text = "{Client handler} New session started, UUID is UUID, address is ::1"
    assert formatted("%(message)s", name="asyncapy.server", msg=text, session="UUID") == text
