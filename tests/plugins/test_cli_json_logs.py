"""The log format ``json``: each record is one line of ASCII with all fields, whatever it contains."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy import Server
from asyncapy_cli.json_logs import JsonFormatter


def parsed(**values: object) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": "hello", "created": 0.25, **values})
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    found: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return found


def test_a_line_has_the_time_in_utc_the_level_the_logger_and_the_message_in_this_order() -> None:
    found = parsed()
    assert found == {"time": "1970-01-01T00:00:00.250Z", "level": "INFO", "logger": "shop", "message": "hello"}
    assert list(found) == ["time", "level", "logger", "message"]


def test_a_server_writes_json_lines_by_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(log_format="json")
    server.log.warning("hello %s", "you", extra={"order": 5})
    found = json.loads(capsys.readouterr().err)
    del found["time"]
    assert found == {"level": "WARNING", "logger": "asyncapy.server", "message": "hello you", "order": 5}


def test_the_session_is_a_field_and_not_in_the_message() -> None:
    found = parsed(session="UUID", address="::1", version=23, msg="(UUID) {Client handler} %s", args=("(UUID) twice",))
    assert found["message"] == "{Client handler} (UUID) twice"
    assert (found["session"], found["address"], found["version"]) == ("UUID", "::1", 23)


@given(st.text())
def test_any_text_can_be_parsed_back(text: str) -> None:
    found = parsed(msg="%s", args=(text,), note=text)
    assert (found["message"], found["note"]) == (text, text)


HOSTILE = {
    "lines": 'one\ntwo\r\nthree\u2028four\x85"}\n{"level": "CRITICAL", "message": "forged"}',
    "control characters": "\x00\x1b[2J\x7f\x9b\u202e",
    "surrogates": "\ud800 \udfff \udc80",
    "1 MiB": "\N{SNOWMAN}" * 2**20,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_stays_in_its_line(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        found = parsed(msg=text, note=text, exc_info=sys.exc_info(), stack_info=text)
    assert (found["level"], found["message"], found["note"], found["stack"]) == ("INFO", text, text, text)
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith(f"ValueError: {text}")


def test_an_exception_that_was_formatted_before_is_a_field_too() -> None:
    assert parsed(exc_text="Traceback: as asked")["exception"] == "Traceback: as asked"


def test_a_message_that_is_a_dict_sets_no_field() -> None:
    record = logging.makeLogRecord({"msg": {"level": "CRITICAL", "session": "forged"}, "levelname": "INFO"})
    found = json.loads(JsonFormatter().format(record))
    assert (found["level"], found.get("session")) == ("INFO", None)
    assert found["message"] == "{'level': 'CRITICAL', 'session': 'forged'}"
    assert record.msg == {"level": "CRITICAL", "session": "forged"}, "as other handlers get it"


@pytest.mark.parametrize("name", ["time", "level", "logger", "exception", "stack"])
def test_a_field_of_a_record_replaces_none_of_the_line(name: str) -> None:
    assert parsed(**{name: "forged"}).get(name) != "forged"


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("as asked")


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


ROUND: list[Any] = [1]
ROUND.append(ROUND)

ODD: dict[str, tuple[object, object]] = {
    "NaN": (float("nan"), "nan"),
    "infinity": (float("-inf"), "-inf"),
    "cyclic": (ROUND, "[1, [...]]"),
    "without a text": (Mute(), "__could_not_encode__"),
    "huge": (10**5000, "a int without a text"),
    "deep": (nested(100_000), "a list without a text"),
    "keys": ({(1, 2): 3}, "{(1, 2): 3}"),
    "date": (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "2026-01-01T00:00:00+00:00"),
    "structure": ({"a": [1, None, 2.5, True]}, {"a": [1, None, 2.5, True]}),
}


@pytest.mark.parametrize(("value", "shown"), ODD.values(), ids=ODD)
def test_a_value_that_json_lacks_is_a_text_and_the_others_stay(value: object, shown: object) -> None:
    found = parsed(odd=value, even={"a": [1]})
    assert found["even"] == {"a": [1]}
    assert found["odd"] == shown
    assert found["message"] == "hello"


def test_a_name_that_is_no_text_becomes_one() -> None:
    record = logging.makeLogRecord({"msg": "hello"})
    vars(record)[(1, 2)] = "odd"  # type: ignore[index]  # as ``extra`` can
    found = json.loads(JsonFormatter().format(record))
    assert found["(1, 2)"] == "odd"
