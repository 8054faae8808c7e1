from __future__ import annotations

import logging
from contextvars import copy_context

import pytest
import trio

from asyncapy_core.logs import FIELDS, SessionFilter, SessionLog, begin_log


class Records(logging.Filter):
    """Keeps the records of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.all.append(record)
        return False


def session_log(level: int = logging.INFO) -> tuple[SessionLog, list[logging.LogRecord]]:
    logger, records = logging.Logger("test", level), Records()  # noqa: LOG001  # a registered logger would be shared
    logger.addFilter(records)
    return SessionLog(logger, "UUID", "192.0.2.1"), records.all


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in FIELDS if (value := vars(record).get(name)) is not None}


def test_each_record_has_the_session_and_the_address() -> None:
    log, (records) = session_log()
    log.info("hello")
    log.warning("hello", extra={"handler": "read", "order": 5})
    assert [fields_of(record) for record in records] == [
        {"session": "UUID", "address": "192.0.2.1"},
        {"session": "UUID", "address": "192.0.2.1", "handler": "read"},
    ]
    assert vars(records[1])["order"] == 5


def test_records_have_the_version_when_it_is_known() -> None:
    log, records = session_log()
    log.version = 23
    log.info("hello")
    assert fields_of(records[0])["version"] == 23


def test_a_session_begins_with_its_line_and_ends_with_its_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log, records = session_log()
    log.begin()
    now += 2.5000004
    log.end("{Client handler} The client has left: %s", "so")
    assert [record.getMessage() for record in records] == [
        "{Client handler} New session started, UUID is UUID, address is 192.0.2.1",
        "(UUID) {Client handler} The client has left: so",
    ]
    assert [record.levelno for record in records] == [logging.INFO, logging.INFO]
    assert fields_of(records[0]) == {"session": "UUID", "address": "192.0.2.1"}
    assert fields_of(records[1]) == {"session": "UUID", "address": "192.0.2.1", "duration": 2.5}


def test_a_session_has_no_line_above_info() -> None:
    log, records = session_log(logging.WARNING)
    log.begin()
    log.end("over")
    assert records == []


def filtered(**values: object) -> dict[str, object]:
    record = logging.makeLogRecord(values)
    assert SessionFilter().filter(record)
    return fields_of(record)


async def test_a_record_of_another_logger_gets_the_fields_of_the_session_for_which_a_task_works() -> None:
    log, _ = session_log()
    seen: list[dict[str, object]] = []

    async def work() -> None:
        begin_log(log)
        seen.append(filtered())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(below)
        seen.append(await trio.to_thread.run_sync(filtered))

    async def below() -> None:
        await trio.lowlevel.checkpoint()
        seen.append(filtered())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
    assert seen == [{"session": "UUID", "address": "192.0.2.1"}] * 3
    assert filtered() == {}


def test_fields_that_a_record_has_stay() -> None:
    log, _ = session_log()

    def work() -> dict[str, object]:
        begin_log(log)
        return filtered(session="mine")

    assert copy_context().run(work) == {"session": "mine", "address": "192.0.2.1"}
