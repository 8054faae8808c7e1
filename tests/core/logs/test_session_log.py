from __future__ import annotations

import logging
import logging.config
import re
from configparser import ConfigParser
from contextvars import copy_context

import pytest
import trio
from records import Records

from asyncapy_core.logs import FIELDS, LineFormatter, SessionFilter, SessionLog, begin_log


def session_log(level: int = logging.INFO) -> tuple[SessionLog, list[logging.LogRecord]]:
    records = Records(passes=False)
    logger = logging.Logger("test", level)  # noqa: LOG001  # a registered logger would be shared
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


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_a_session_begins_with_its_line_and_ends_with_its_duration(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log, records = session_log(logging.DEBUG)
    assert not log.begun
    log.begin(level)
    assert log.begun
    now += 2.5000004
    log.end("{Client handler} The client has left: %s", "so")
    assert [record.getMessage() for record in records] == [
        "{Client handler} New session started, UUID is UUID, address is 192.0.2.1",
        "(UUID) {Client handler} The client has left: so",
    ]
    assert [record.levelno for record in records] == [level, level]
    assert fields_of(records[0]) == {"session": "UUID", "address": "192.0.2.1"}
    assert fields_of(records[1]) == {"session": "UUID", "address": "192.0.2.1", "duration": 2.5}


def test_a_session_has_no_line_above_info() -> None:
    log, records = session_log(logging.WARNING)
    log.begin(logging.INFO)
    log.end("over")
    assert records == []


def test_a_session_that_never_began_ends_at_debug() -> None:
    log, records = session_log(logging.DEBUG)
    log.end("over")
    assert [record.levelno for record in records] == [logging.DEBUG]


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


# The documented lines

KEPT = {"disable_existing_loggers": False}


def formatted(line_format: str, **values: object) -> str:
    record = logging.makeLogRecord({"name": "shop", "msg": "hello", "levelname": "INFO", **values})
    return LineFormatter(line_format, "%H").format(record)


@pytest.mark.parametrize("line_format", ["plain", "{message}"])
def test_a_format_that_is_none_is_a_value_error(line_format: str) -> None:
    with pytest.raises(ValueError, match="format"):
        LineFormatter(line_format, "")


def test_the_documented_format_is_the_default() -> None:
    record = logging.makeLogRecord({"name": "shop", "msg": "hello", "levelname": "INFO", "created": 1e9})
    assert re.fullmatch(r"\[INFO\] 0[89]/09/2001 \d\d:\d\d:40 [AP]M hello", LineFormatter().format(record))


CONFIGURATION = """
[loggers]
keys = root
[handlers]
keys = kept
[formatters]
keys = fields
[logger_root]
handlers = kept
[handler_kept]
class = StreamHandler
formatter = fields
[formatter_fields]
class = asyncapy_core.logs.LineFormatter
format = %(message)s %(session)s
"""


def test_configurations_of_the_logging_module_can_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ConfigParser(interpolation=None)
    parser.read_string(CONFIGURATION)
    logging.config.fileConfig(parser, disable_existing_loggers=False)
    logging.warning("one")  # noqa: LOG015  # the root logger is configured
    formatters = {
        "class": {"class": "asyncapy_core.logs.LineFormatter", "format": "{message} {session} {code}", "style": "{"},
        "()": {"()": "asyncapy_core.logs.LineFormatter", "fmt": "%(message)s %(session)s %(x)s", "defaults": {"x": 1}},
    }
    for name, formatter in formatters.items():
        handlers = {"kept": {"class": "logging.StreamHandler", "formatter": name}}
        root = {"handlers": ["kept"]}
        logging.config.dictConfig(
            {"version": 1, "formatters": {name: formatter}, "handlers": handlers, "root": root, **KEPT}
        )
        logging.warning(name)  # noqa: LOG015  # as above
    assert capsys.readouterr().err == "one -\nclass - -\n() - 1\n"


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
