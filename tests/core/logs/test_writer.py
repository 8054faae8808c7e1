from __future__ import annotations

import contextlib
import io
import logging
import logging.config
from typing import Any

import pytest
import trio

from asyncapy_core.logs import LineFormatter, SessionLog
from asyncapy_core.logs.console import ProgramHandler
from asyncapy_core.logs.writer import ServerLogger, program_logs

FORMAT = "[%(levelname)s] %(message)s"


class Kept(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def server_logger(level: int = logging.INFO, line_format: str = FORMAT, datefmt: str = "") -> ServerLogger:
    logger = ServerLogger()
    logger.setLevel(level)
    logger.console.setFormatter(LineFormatter(line_format, datefmt))
    return logger


def captured(logger: ServerLogger) -> io.StringIO:
    """Redirect the console of the logger into a stream."""
    stream = io.StringIO()
    logger.console.setStream(stream)
    return stream


def handler_of(name: str | None) -> Kept:
    kept = Kept()
    logging.getLogger(name).addHandler(kept)
    return kept


# Each server by itself


def test_a_server_logs_in_the_format_it_was_given() -> None:
    logger = server_logger(line_format="%(asctime)s|%(levelname)s|%(message)s", datefmt="at %d/%m/%Y")
    stream = captured(logger)
    record = logger.makeRecord("asyncapy.server", logging.INFO, __file__, 1, "hello", (), None)
    record.created = 0.0
    logger.handle(record)
    assert stream.getvalue() in ("at 01/01/1970|INFO|hello\n", "at 31/12/1969|INFO|hello\n")


def test_a_server_logs_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    server_logger().info("hello")
    assert capsys.readouterr() == ("", "[INFO] hello\n")


def test_each_server_has_a_logger_of_its_own() -> None:
    loud, quiet = server_logger(logging.DEBUG), server_logger(logging.ERROR, "quiet %(message)s")
    streams = captured(loud), captured(quiet)
    loud.debug("one")
    quiet.debug("two")
    quiet.error("three")
    assert streams[0].getvalue() == "[DEBUG] one\n"
    assert streams[1].getvalue() == "quiet three\n"


def test_the_level_and_formats_of_a_server_affect_no_other_logger() -> None:
    loggers = [logging.getLogger(name) for name in (None, "asyncapy", "asyncapy.server", "asyncapy.plugins")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    logger = server_logger(logging.DEBUG)
    stream = captured(logger)
    logger.critical("mine")
    assert [(each.level, list(each.handlers)) for each in loggers] == before
    assert logging.getLogger("asyncapy.server") is not logger
    assert stream.getvalue() == "[CRITICAL] mine\n"


def test_a_level_that_changes_is_heeded_from_then_on() -> None:
    logger = server_logger(line_format="%(message)s")
    stream = captured(logger)
    logger.debug("not yet")
    logger.setLevel(logging.DEBUG)
    logger.debug("now")
    logger.setLevel(logging.INFO)
    logger.debug("no longer")
    logging.disable(logging.INFO)
    try:
        logger.info("nothing at all")
    finally:
        logging.disable(logging.NOTSET)
    logger.info("again")
    assert stream.getvalue() == "now\nagain\n"


def test_each_line_of_a_session_begins_with_its_id() -> None:
    logger = server_logger(logging.DEBUG)
    stream = captured(logger)
    log = SessionLog(logger, "7fd5fab0")
    log.info("{Client handler} %s of %d", "one", 2)
    log.debug("100%%")
    log.error("no arguments, 100%")
    assert stream.getvalue().splitlines() == [
        "[INFO] (7fd5fab0) {Client handler} one of 2",
        "[DEBUG] (7fd5fab0) 100%%",
        "[ERROR] (7fd5fab0) no arguments, 100%",
    ]


# The loggers above


@pytest.mark.parametrize("name", ["asyncapy", "asyncapy.server", None])
def test_a_handler_of_the_application_gets_the_records_and_the_console_none(name: str | None) -> None:
    logger = server_logger()
    stream, kept = captured(logger), handler_of(name)
    logger.info("hello %s", "you")
    assert kept.lines == ["hello you"]
    assert kept.records[0].name == "asyncapy.server"
    assert stream.getvalue() == ""


def test_a_server_with_a_format_of_its_own_writes_as_well() -> None:
    logger = server_logger()
    logger.console.steps_back = False
    stream, kept = captured(logger), handler_of("asyncapy")
    logger.info("hello")
    assert (kept.lines, stream.getvalue()) == (["hello"], "[INFO] hello\n")


def test_a_handler_that_was_added_to_the_log_of_a_server_gets_its_records_beside_the_console() -> None:
    logger, kept = server_logger(), Kept()
    logger.addHandler(kept)
    stream = captured(logger)
    logger.info("hello")
    assert (kept.lines, stream.getvalue()) == (["hello"], "[INFO] hello\n")


@pytest.mark.parametrize("at", ["asyncapy", "asyncapy.server", "itself"])
def test_a_logger_that_does_not_propagate_keeps_records_from_those_above(at: str) -> None:
    logger = server_logger()
    stream, kept = captured(logger), handler_of(None)
    (logger if at == "itself" else logging.getLogger(at)).propagate = False
    logger.info("hello")
    assert (kept.lines, stream.getvalue()) == ([], "[INFO] hello\n")


def test_the_handler_of_a_program_that_logs_before_it_configures_any_counts_for_nothing() -> None:
    logger = server_logger()
    stream = captured(logger)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        logging.basicConfig()
        logger.error("hello")
    assert (errors.getvalue(), stream.getvalue()) == ("", "[ERROR] hello\n")


@pytest.mark.parametrize("option", ["format", "datefmt", "stream"])
def test_a_handler_with_a_format_or_a_stream_of_its_own_counts(option: str) -> None:
    logger, other = server_logger(), io.StringIO()
    stream = captured(logger)
    options: dict[str, Any] = {option: other if option == "stream" else "%(message)s"}
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        logging.basicConfig(**options)
        logger.error("hello")
    assert "hello" in errors.getvalue() + other.getvalue()
    assert stream.getvalue() == ""


def test_a_handler_of_python_counts_below_the_root_logger() -> None:
    logger = server_logger()
    stream = captured(logger)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
        logging.getLogger("asyncapy").addHandler(handler)
        logger.error("hello")
    assert (errors.getvalue(), stream.getvalue()) == ("ERROR:asyncapy.server:hello\n", "")


def test_a_handler_that_does_nothing_counts_for_nothing() -> None:
    logger = server_logger()
    stream = captured(logger)
    logging.getLogger("asyncapy").addHandler(logging.NullHandler())
    logger.info("hello")
    assert stream.getvalue() == "[INFO] hello\n"


def test_the_level_of_a_handler_above_holds() -> None:
    logger, kept = server_logger(), handler_of("asyncapy")
    kept.setLevel(logging.ERROR)
    logger.info("one")
    logger.error("two")
    assert kept.lines == ["two"]


@pytest.mark.parametrize("name", ["asyncapy", "asyncapy.server"])
def test_the_level_of_a_logger_above_holds_for_servers_without_a_level_of_their_own(name: str) -> None:
    follows, own = server_logger(logging.NOTSET), server_logger(logging.ERROR)
    assert follows.getEffectiveLevel() == logging.INFO
    assert [follows.isEnabledFor(level) for level in (10, 20)] == [False, True]
    logging.getLogger(name).setLevel(logging.DEBUG)
    assert follows.getEffectiveLevel() == logging.DEBUG
    assert [follows.isEnabledFor(level) for level in (9, 10)] == [False, True]
    assert [own.isEnabledFor(level) for level in (30, 40)] == [False, True]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.CRITICAL])
def test_the_level_of_the_root_logger_has_no_effect(level: int) -> None:
    logging.getLogger().setLevel(level)
    logger = server_logger(logging.NOTSET)
    assert logger.getEffectiveLevel() == logging.INFO
    assert [logger.isEnabledFor(each) for each in (10, 20)] == [False, True]


def test_the_filters_of_the_logger_of_all_servers_hold() -> None:
    logger, kept = server_logger(), handler_of("asyncapy")
    logging.getLogger("asyncapy.server").addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("a secret")
    logger.info("hello")
    assert kept.lines == ["hello"]


def test_filters_that_do_not_let_pass_ask_no_further() -> None:
    logger, asked = server_logger(), []
    logging.getLogger("asyncapy.server").addFilter(lambda record: bool(asked.append(record)))  # type: ignore[func-returns-value]
    logger.addFilter(lambda record: False)
    logger.info("hello")
    assert not asked


CONFIGURATIONS: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"disable_existing_loggers": False}, True),
    ({"loggers": {"asyncapy": {"level": "INFO"}}}, True),
]


@pytest.mark.parametrize(("configuration", "enabled"), CONFIGURATIONS, ids=str)
def test_a_configuration_disables_servers_as_other_loggers_that_exist(
    configuration: dict[str, Any], enabled: bool
) -> None:
    logger = server_logger()
    stream = captured(logger)
    logging.config.dictConfig({"version": 1, **configuration})
    logger.critical("hello")
    assert logger.isEnabledFor(logging.CRITICAL) is enabled
    assert stream.getvalue() == ("[CRITICAL] hello\n" if enabled else "")


# The program


def test_the_records_of_a_program_are_on_the_console_of_its_server() -> None:
    logger = server_logger()
    stream = captured(logger)
    with program_logs(logger, logging.INFO):
        assert logging.getLogger().level == logging.INFO
        logging.getLogger("shop").info("sold %d", 2)
        logging.getLogger("shop").debug("not shown")
        logging.info("from the root")  # noqa: LOG015  # as programs do
        logger.info("once")
    assert stream.getvalue() == "[INFO] sold 2\n[INFO] from the root\n[INFO] once\n"
    assert logging.getLogger().handlers == []
    assert logging.getLogger().level == logging.WARNING


def test_the_level_of_the_console_holds_for_the_records_of_a_program() -> None:
    logger = server_logger()
    stream = captured(logger)
    logger.console.setLevel(logging.ERROR)
    with program_logs(logger, logging.INFO):
        for log in (logging.getLogger("shop"), logger):
            log.warning("not shown")
            log.error("shown")
    assert stream.getvalue() == "[ERROR] shown\n" * 2


def test_a_level_that_the_program_has_set_stays() -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    logger = server_logger()
    stream = captured(logger)
    with program_logs(logger, logging.INFO):
        logging.getLogger("shop").debug("shown")
    assert stream.getvalue() == "[DEBUG] shown\n"
    assert logging.getLogger().level == logging.DEBUG


def test_a_root_logger_with_a_handler_is_left_alone() -> None:
    kept, logger = handler_of(None), server_logger()
    stream = captured(logger)
    with program_logs(logger, logging.INFO):
        assert logging.getLogger().handlers == [kept]
        logging.getLogger("shop").info("not shown at the level WARNING")
        logging.getLogger("shop").warning("shown")
    assert kept.lines == ["shown"]
    assert stream.getvalue() == ""


def test_the_handler_of_a_program_that_has_logged_before_is_replaced_for_the_run() -> None:
    logger = server_logger()
    stream = captured(logger)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        logging.basicConfig()
        handlers = logging.getLogger().handlers[:]
        with program_logs(logger, logging.INFO):
            logging.getLogger("shop").warning("sold")
        assert logging.getLogger().handlers == handlers
    assert (errors.getvalue(), stream.getvalue()) == ("", "[WARNING] sold\n")


def test_a_program_that_has_chosen_a_level_keeps_its_handler() -> None:
    logger = server_logger()
    stream = captured(logger)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        logging.basicConfig(level=logging.INFO)
        with program_logs(logger, logging.INFO):
            logging.getLogger("shop").info("sold")
            logger.info("hello")
    assert errors.getvalue() == "INFO:shop:sold\n"
    assert stream.getvalue() == "[INFO] hello\n", "in the documented form, and once"


def test_a_logger_of_the_program_with_a_handler_of_its_own_writes_once() -> None:
    logger, kept = server_logger(), handler_of("shop")
    stream = captured(logger)
    with program_logs(logger, logging.INFO):
        logging.getLogger("shop.orders").warning("sold")
    assert (kept.lines, stream.getvalue()) == (["sold"], "")


def test_a_second_server_leaves_the_handler_of_the_first_in_place() -> None:
    one, two = server_logger(), server_logger()
    streams = captured(one), captured(two)
    with program_logs(one, logging.INFO):
        with program_logs(two, logging.INFO):
            logging.getLogger("shop").info("sold")
        assert [type(each) for each in logging.getLogger().handlers] == [ProgramHandler]
        two.info("hello")
    assert [stream.getvalue() for stream in streams] == ["[INFO] sold\n", "[INFO] hello\n"]


def test_a_program_that_configures_the_root_logger_in_the_meantime_keeps_its_configuration() -> None:
    logger = server_logger()
    with program_logs(logger, logging.INFO):
        logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    assert logging.getLogger().handlers == []
    assert logging.getLogger().level == logging.ERROR


def test_records_of_loggers_that_are_not_registered_are_written() -> None:
    logger = server_logger()
    stream = captured(logger)
    with program_logs(logger, logging.INFO):
        logging.getLogger().handle(logging.makeLogRecord({"name": "other.process", "levelno": 30, "msg": "hello"}))
    assert "hello" in stream.getvalue()
    assert "other.process" not in logging.root.manager.loggerDict


# The thread


async def test_handlers_run_in_a_thread_while_a_server_serves_and_all_records_are_written_at_its_end() -> None:
    logger, threads = server_logger(), []

    class Threads(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            threads.append(record.threadName)
            names.add(__import__("threading").current_thread().name)

    names: set[str] = set()
    kept = Threads()
    logging.getLogger("asyncapy").addHandler(kept)
    async with logger.in_background():
        logger.info("hello")
    assert (kept.lines, names) == (["hello"], {"asyncapy log"})
    logger.threaded = False
    names.clear()
    async with logger.in_background():
        logger.info("again")
        assert kept.lines == ["hello", "again"], "at once"
    assert names == {"MainThread"}


async def test_a_record_for_the_thread_has_its_texts_already() -> None:
    logger, kept = server_logger(), handler_of("asyncapy")
    values = [1]
    async with logger.in_background():
        logger.info("%s", values)
        values.append(2)
        try:
            raise ValueError("as asked")
        except ValueError:
            logger.exception("failed")
        logger.info("%d", "no number")
    one, failed, wrong = kept.records
    assert (one.getMessage(), one.args) == ("[1]", None)
    assert failed.exc_info is None
    assert failed.exc_text is not None
    assert failed.exc_text.endswith("ValueError: as asked")
    assert failed.getMessage() == "failed"
    assert "A log line cannot be formatted" in wrong.getMessage()
    assert "test_writer.py" in wrong.getMessage()


async def test_records_of_the_program_go_through_the_thread_too() -> None:
    logger, stream = server_logger(), io.StringIO()
    logger.console.setStream(stream)
    with program_logs(logger, logging.INFO):
        async with logger.in_background():
            logging.getLogger("shop").info("sold %d", 2)
            logging.getLogger("shop").info("%d", "no number")
            assert stream.getvalue() == ""
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[INFO] sold 2"
    assert "A log line cannot be formatted" in lines[1]


async def test_a_handler_above_that_raises_costs_its_lines_alone() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("as asked")

    logging.getLogger("asyncapy").addHandler(Broken())
    logger, kept = server_logger(), handler_of(None)
    async with logger.in_background():
        logger.info("one")
        logger.info("two")
    assert {"one", "two"} <= set(kept.lines)
    assert [line for line in kept.lines if "A log handler failed: ValueError (as asked)" in line]


async def test_a_lost_line_is_counted_once() -> None:
    logger, kept = server_logger(), handler_of("asyncapy")
    release = trio.Event()

    class Slow(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if len(self.records) == 1:
                trio.from_thread.run(release.wait, trio_token=token)

    token = trio.lowlevel.current_trio_token()
    slow = Slow()
    logging.getLogger("asyncapy").addHandler(slow)
    async with logger.in_background():
        logger.info("first")
        while not slow.records:  # noqa: ASYNC110  # the thread has no event
            await trio.sleep(0.005)
        for number in range(5010):
            logger.info("%d", number)
        release.set()
        while len(kept.records) < 5001:  # noqa: ASYNC110  # as above
            await trio.sleep(0.005)
        logger.info("last")
    assert kept.lines[-2:] == ["{Server} 10 log lines were lost: they could not be written in time", "last"]
    assert len(kept.lines) == 5003
