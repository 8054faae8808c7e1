"""Logs of ``asyncapy serve``: as JSON, by a configuration of the logging module, and those of the program itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import Serving, ask, run, serving

SHOP = """
import logging
from asyncapy import Server

server = Server(port=0)
shop = logging.getLogger("shop")


@server.add_handler()
async def sell(client, packet):
    logging.info("sold %s", packet["a"])
    shop.info("of the shop")
    await server.run_sync_task(shop.info, "in a thread")
    await client.send(packet)
    if packet["a"] == "fail":
        try:
            raise KeyError(packet["a"])
        except KeyError:
            shop.exception("caught", extra={"order": 5})
        raise RuntimeError("as asked")
"""

FORM = r"\[(?:DEBUG|INFO|WARNING|ERROR)\] \d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M "
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
HOSTILE = '\x1b[2J"}\n[INFO] forged\u2028\ud800'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def sold(server: Serving, *values: str) -> list[str]:
    """Send packets, and return all lines when the server has ended."""
    for value in values:
        assert ask(server.port, a=value) == {"a": value}
    assert server.end() == 0
    return [line.removesuffix("\n") for line in server.lines]


def as_json(lines: list[str]) -> list[dict[str, Any]]:
    """Parse all lines, each of which has to be JSON."""
    return [json.loads(line) for line in lines]


def test_the_lines_of_a_program_have_the_documented_form_and_their_session(folder: Path) -> None:
    with serving(folder, "shop") as server:
        lines = sold(server, "2")
    logged = [line for line in lines if re.match(FORM, line)]
    for text in ("sold 2", "of the shop", "in a thread"):
        assert [line for line in logged if re.fullmatch(rf"{FORM}\({UUID}\) {text}", line)], text


def test_json_lines_have_the_fields_and_the_exceptions_whatever_a_peer_has_sent(folder: Path) -> None:
    with serving(folder, "shop.py", "--log-format", "json", "--measure", "true") as server:
        server.wait_for("Serving on")
        lines = as_json(sold(server, "fail", HOSTILE.replace("\ud800", "")))
    by_message = {line["message"]: line for line in lines}
    (started, _) = [line for line in lines if "New session started" in line["message"]]
    whose = {name: started[name] for name in ("session", "address")}
    assert whose["address"] == "127.0.0.1"
    caught = by_message["caught"]
    assert caught.items() >= {**whose, "level": "ERROR", "logger": "shop", "order": 5, "version": 22}.items()
    assert caught["exception"].endswith("KeyError: 'fail'")
    (failed,) = [line for line in lines if "failed for 127.0.0.1" in line["message"]]
    assert failed.items() >= {**whose, "logger": "asyncapy.server", "handler": "sell"}.items()
    assert failed["code"] == "ERR_HANDLER_FAILED"
    assert 0 <= failed["duration"] < 60
    assert "sold " + HOSTILE.replace("\ud800", "") in by_message
    assert not [line for line in lines if line["message"].startswith(f"({whose['session']})")]


def test_json_is_a_setting_as_others(folder: Path) -> None:
    (folder / "server.toml").write_text('[AsyncAPY]\nlog_format = "json"\n')
    with serving(folder, "shop", "--config", "server.toml") as server:
        assert as_json(sold(server, "1"))
    (folder / "server.toml").write_text('[AsyncAPY]\nlog_format = "jason"\n')
    for command in (("serve", "shop", "--config"), ("config", "check")):
        done = run(folder, *command, "server.toml")
        assert done.returncode == 1
        assert done.stderr.startswith("asyncapy: log_format is 'jason', but no installed distribution has this format")


PLUGIN = """
import logging
from asyncapy_core import hookimpl

log = logging.getLogger(__name__)


@hookimpl
def asyncapy_setup(server, options):
    log.info("set up %s", "soon")
    logging.getLogger("asyncapy.plugins.odd").debug("not shown")
    server.log.warning("{odd} for the log of the server")


@hookimpl
async def asyncapy_shutdown(server, options):
    log.info("shut down")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_plugin_logs_has_the_form_of_all_lines(folder: Path, log_format: str) -> None:
    metadata = folder / "odd-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[asyncapy]\nodd = odd_plugin\n")
    (folder / "odd_plugin.py").write_text(PLUGIN)
    with serving(folder, "shop", "--log-format", log_format) as server:
        server.wait_for("Serving on")
        lines = sold(server)
    if log_format == "json":
        found = [(line["logger"], line["message"]) for line in as_json(lines)]
        wanted = ["set up soon", "shut down"]
        assert [text for logger, text in found if logger == "odd_plugin"] == wanted
        assert ("asyncapy.server", "{odd} for the log of the server") in found
    else:
        for text in ("set up soon", "shut down", r"\{odd\} for the log of the server"):
            assert [line for line in lines if re.fullmatch(FORM + text, line)], text
    assert "not shown" not in "".join(lines)


# --log-config

FORMAT = "%(levelname)s|%(name)s|%(session)s|%(message)s"

TOML = f"""
[formatters.fields]
class = "asyncapy_core.logs.LineFormatter"
format = "{FORMAT}"

[formatters.json]
"()" = "asyncapy_cli.json_logs.JsonFormatter"

[handlers.file]
class = "logging.handlers.RotatingFileHandler"
filename = "server.log"
maxBytes = 2000
backupCount = 100
formatter = "json"

[handlers.console]
class = "logging.StreamHandler"
formatter = "fields"

[loggers.asyncapy]
handlers = ["file"]
level = "DEBUG"

[loggers.shop]
level = "INFO"

[root]
handlers = ["console"]
"""

JSON_CONFIG = {
    "version": 1,
    "filters": {"session": {"()": "asyncapy_core.logs.SessionFilter"}},
    "formatters": {"fields": {"format": FORMAT}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "fields", "filters": ["session"]}},
    "loggers": {"shop": {"handlers": ["console"], "level": "INFO"}},
}

INI = """
[loggers]
keys = root, server

[handlers]
keys = console, file

[formatters]
keys = plain

[logger_root]
handlers = console

[logger_server]
qualname = asyncapy.server
handlers = console, file
propagate = 0

[handler_console]
class = StreamHandler
formatter = plain

[handler_file]
class = FileHandler
level = ERROR
args = ("server.log",)
formatter = plain

[formatter_plain]
format = %(levelname)s|%(message)s
"""


def test_a_toml_file_configures_all_loggers_and_a_rotated_file_loses_no_line(folder: Path) -> None:
    (folder / "log.toml").write_text(TOML)
    with serving(folder, "shop", "--log-config", "log.toml") as server:
        server.wait_for(r"\|-\|\{Server\} Serving on")
        lines = sold(server, *map(str, range(30)))
    assert not [line for line in lines if re.match(FORM, line)], "the console of the server has no line"
    assert "INFO|shop|-|of the shop" in lines, "the file of the configuration decides about the fields"
    files = list(folder.glob("server.log*"))
    assert len(files) > 3
    found = [line for file in files for line in as_json(file.read_text().splitlines())]
    assert {line["logger"] for line in found} == {"asyncapy.server"}
    called = [line for line in found if line["message"].endswith("Calling 'sell' in group 0")]
    assert len(called) == 30
    assert {line["handler"] for line in called} == {"sell"}


def test_a_json_file_configures_a_logger_of_the_program_and_the_server_writes_as_before(folder: Path) -> None:
    (folder / "log.json").write_text(json.dumps(JSON_CONFIG), "utf-8-sig")
    with serving(folder, "shop", "--log-config", "log.json") as server:
        lines = sold(server, "2")
    assert [line for line in lines if re.match(rf"{FORM}\{{Client handler\}} New session started", line)]
    assert [line for line in lines if re.fullmatch(rf"{FORM}\({UUID}\) sold 2", line)]
    for text in ("of the shop", "in a thread"):
        assert [line for line in lines if re.fullmatch(rf"INFO\|shop\|{UUID}\|{text}", line)], text
        assert len([line for line in lines if text in line]) == 1


def test_an_ini_file_configures_loggers_too(folder: Path) -> None:
    (folder / "log.ini").write_text(INI)
    with serving(folder, "shop", "--log-config", "log.ini") as server:
        lines = sold(server, "fail")
    assert any(line.startswith("INFO|{Client handler} New session started") for line in lines)
    assert not [line for line in lines if re.match(FORM, line)]
    (failed,) = (folder / "server.log").read_text().splitlines()
    assert re.match(rf"ERROR\|\({UUID}\) \{{API Parser\}} Handler 'sell' failed for 127.0.0.1: ", failed)


WRONG = {
    ("log.toml", "[handlers\n"): "log.toml is no log configuration: TOMLDecodeError: ",
    ("log.json", "{"): "log.json is no log configuration: JSONDecodeError: ",
    ("log.json", "[]"): "log.json has to be an object with the keys version, formatters, ",
    ("log.json", "[" * 100_000): "log.json is no log configuration: RecursionError: ",
    ("log.toml", "[logger.shop]\n"): "log.toml has the unknown key 'logger'; did you mean 'loggers'?",
    ("log.toml", "[loggers.shop]\nlevle = 1\n"): "log.toml has the unknown key 'levle' in loggers.shop; did you mean ",
    ("log.toml", "[root]\nzzz = 1\n"): "log.toml has the unknown key 'zzz' in root; keys: level, handlers, ",
    ("log.toml", "version = 2\n"): "log.toml is no log configuration: ValueError: Unsupported version: 2",
    (
        "log.toml",
        "[handlers.x]\nclass = 'nothing.Like'\n",
    ): "log.toml is no log configuration: ValueError: Unable to configure handler 'x' (ValueError: Cannot resolve",
    ("log.ini", "[loggers]\nkeys = root\n"): "log.ini is no log configuration: KeyError: 'formatters'",
    ("log.ini", "no section\n"): "log.ini is no log configuration: MissingSectionHeaderError: ",
    ("log.yaml", ""): "the log configuration log.yaml is YAML, which is not supported; write it as TOML or JSON",
}


@pytest.mark.parametrize(("file", "message"), WRONG.items(), ids=str)
def test_a_file_that_is_no_log_configuration_is_one_line(folder: Path, file: tuple[str, str], message: str) -> None:
    name, text = file
    (folder / name).write_text(text)
    done = run(folder, "serve", "shop", "--log-config", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"asyncapy: {message}")
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_read_is_one_line(folder: Path) -> None:
    done = run(folder, "serve", "shop", "--log-config", "none.toml")
    assert (done.returncode, done.stderr) == (
        1,
        "asyncapy: the log configuration none.toml cannot be read: No such file or directory\n",
    )
    (folder / "log.toml").write_bytes(b"\xff")
    done = run(folder, "serve", "shop", "--log-config", "log.toml")
    assert (done.returncode, done.stderr.startswith("asyncapy: log.toml is not UTF-8: ")) == (1, True)


@pytest.mark.parametrize("option", ["--log-format", "--console-format", "--datefmt"])
def test_a_log_configuration_and_a_format_exclude_each_other(folder: Path, option: str) -> None:
    done = run(folder, "serve", "shop", "--log-config", "log.toml", option, "text")
    assert done.returncode == 2
    assert f"--log-config has the formats of log lines; leave out {option}" in done.stderr
