from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core.logs import FailureLog, RateLimited, SessionLog, describe, escape_for_log
from asyncapy_core.logs.failures import PLACES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        (b"\xff\x00abc", r"\xff\x00abc"),
        (bytearray(b"\r\n"), r"\r\n"),
        ("\r\n\x1b[2J\u2028", r"\r\n\x1b[2J\u2028"),
        (ValueError("bad\nline"), r"bad\nline"),
        ("\ud800", r"\ud800"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64 + "..."),
        ("x" * 1_000_000, "x" * 64 + "..."),
        (12, "12"),
    ],
)
def test_what_a_peer_sent_is_shown_as_one_harmless_line(text: object, expected: str) -> None:
    assert escape_for_log(text) == expected


@given(st.text() | st.binary() | st.integers())
def test_whatever_is_shown_is_short_printable_ascii(text: Any) -> None:
    result = escape_for_log(text)
    assert result.isascii()
    assert result.isprintable()
    assert len(result.removesuffix("...")) <= 64
    assert len(result) <= 67


def test_a_repeated_event_is_worth_a_line_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    should_log = RateLimited()
    assert [should_log(), should_log()] == [True, False]
    now += 0.99
    assert not should_log()
    now += 0.01
    assert [should_log(), should_log()] == [True, False]


def test_the_first_event_is_worth_a_line_even_right_after_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    assert RateLimited(3600)()


# Failures


class Clock:
    """A replacement for `time.monotonic`; tests set ``now``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Reports:
    """A FailureLog, and the lines that it has logged."""

    def __init__(self, level: int = logging.INFO) -> None:
        self.lines: list[str] = []
        logger = logging.Logger("test", level)  # noqa: LOG001  # a registered logger would be shared
        logger.addFilter(self._keep)
        self._log = SessionLog(logger, "UUID")
        self._failures = FailureLog()

    def _keep(self, record: logging.LogRecord) -> bool:
        self.lines.append(f"[{record.levelname}] {record.getMessage()}")
        return False

    def fail(self, error: BaseException, subject: str = "{API Parser} Handler 'read'") -> None:
        try:
            raise error
        except BaseException as raised:
            self._failures.report(self._log, subject, raised)

    def fail_elsewhere(self, error: BaseException) -> None:
        try:
            raise error
        except BaseException as raised:
            self._failures.report(self._log, "{API Parser} Handler 'read'", raised)

    def take(self, level: str) -> list[str]:
        taken = [line for line in self.lines if line.startswith(f"[{level}]")]
        self.lines = [line for line in self.lines if line not in taken]
        return taken


def test_a_place_has_a_line_a_second_that_counts_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reports = Clock(monkeypatch), Reports()
    for _ in range(5):
        reports.fail(ValueError("no"))
    (line,) = reports.take("ERROR")
    assert line.startswith("[ERROR] (UUID) {API Parser} Handler 'read' failed: ValueError (no) at ")
    assert line.endswith(f"{__file__.encode('unicode_escape').decode()}:{Reports.fail.__code__.co_firstlineno + 2}")
    clock.now += 1
    reports.fail(ValueError("no"))
    (line,) = reports.take("ERROR")
    assert line.endswith("; 4 more like this were not logged")
    clock.now += 1
    reports.fail(ValueError("no"))
    (line,) = reports.take("ERROR")
    assert "more like this" not in line


def test_other_places_kinds_and_handlers_have_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    reports = Reports()
    reports.fail(ValueError("no"))
    reports.fail(TypeError("no"))
    reports.fail(ValueError("no"), "{API Parser} Handler 'write'")
    reports.fail_elsewhere(ValueError("no"))
    assert len(reports.take("ERROR")) == 4


def test_a_place_has_a_traceback_a_minute_without_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reports = Clock(monkeypatch), Reports()
    for _ in range(59):
        reports.fail(ValueError("a secret"))
        clock.now += 1
    (frame,) = reports.take("INFO")
    assert frame.endswith(" in fail: raise error")
    clock.now += 1
    reports.fail(ValueError("a secret"))
    assert len(reports.take("INFO")) == 1


def test_a_level_above_info_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    reports = Reports(logging.ERROR)
    reports.fail(ValueError("no"))
    assert len(reports.lines) == 1


def test_at_debug_each_failure_has_its_whole_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    reports = Reports(logging.DEBUG)
    for _ in range(3):
        reports.fail(ValueError("bad\nline"))
    assert len(reports.take("ERROR")) == 3
    debug = reports.take("DEBUG")
    assert len([line for line in debug if "Traceback" in line]) == 3
    assert all(line.isascii() and line.isprintable() for line in debug)


def test_at_debug_a_text_of_any_length_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    reports = Reports(logging.DEBUG)
    reports.fail(ValueError("x" * 1_000_000))
    assert max(map(len, reports.lines)) < 1100


def test_so_many_places_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    reports = Reports()
    for number in range(PLACES + 1):
        reports.fail(ValueError("no"), f"{{API Parser}} Handler '{number}'")
    reports.fail(ValueError("no"), f"{{API Parser}} Handler '{PLACES}'")
    assert len(reports.take("ERROR")) == PLACES + 1
    reports.fail(ValueError("no"), "{API Parser} Handler '0'")
    assert len(reports.take("ERROR")) == 1, "the oldest place was dropped"


def test_a_group_is_described_by_its_first_leaf() -> None:
    group = ExceptionGroup("all", [ExceptionGroup("inner", [ValueError("one"), OSError("two")]), TypeError()])
    assert describe(group) == "ValueError (one) and 1 more"
    assert describe(ValueError("\x1b[2J" + "x" * 100)).startswith(r"ValueError (\x1b[2Jxxx")


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    "fields",
    [
        {"a": [1] * 1001},
        {"a": [[1]] * 501},
        {"a": {str(number): [] for number in range(1001)}},
        {"a": "ab " * 1000},
        {"a": "secret " * 1000},
        {str(number): number for number in range(1001)},
        {"a": [{"b": "x"}] * 600},
    ],
    ids=lambda fields: repr(fields)[:20],
)
def test_a_message_is_hidden_if_the_packet_has_too_many_values(fields: dict[str, Any]) -> None:
    assert describe(ValueError("the key is secret"), fields) == "ValueError ([...])"


def test_a_message_is_hidden_if_it_takes_long_to_search() -> None:
    text, fields = "x" * 100_000, {str(number): 1000 + number for number in range(41)}
    assert describe(ValueError(text), {"a": 1000}).startswith("ValueError (xxx")
    assert describe(ValueError(text), fields) == "ValueError ([...])"
    assert describe(ValueError(text[:97_000]), fields).startswith("ValueError (xxx")
    assert describe(ValueError(text), {}).startswith("ValueError (xxx")


def test_the_values_of_a_packet_are_hidden_at_any_depth() -> None:
    fields = {"a": [1, {"secret-key": (b"other-key", "of two words")}], "b": ["x"] * 400}
    error = ValueError("got secret-key, other-key and two words")
    assert describe(error, fields) == "ValueError (got [...], [...] and two [...])"


def test_an_exception_without_a_text_is_described_by_its_type() -> None:
    assert describe(Silent()) == "Silent (a Silent without a text)"
