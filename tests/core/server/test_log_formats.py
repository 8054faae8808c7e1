from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncapy_core import Server
from asyncapy_core.errors import ConfigError
from asyncapy_core.logs import LineFormatter

Provide = Callable[[str, str], None]

LOUD = """
    class Loud(logging.Formatter):
        def format(self, record):
            return record.getMessage().upper()
"""


@pytest.fixture
def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provide]:
    """Return ``provide(distribution, source)``, which installs a distribution with a log format ``loud``."""
    before = set(sys.modules)

    def provide(distribution: str, source: str) -> None:
        info = tmp_path / distribution / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[asyncapy.log_formats]\nloud = log_format_of_{distribution}:Loud\n")
        text = f"import logging\n{textwrap.dedent(source)}"
        (info.parent / f"log_format_of_{distribution}.py").write_text(text)
        monkeypatch.syspath_prepend(str(info.parent))

    yield provide
    for name in set(sys.modules) - before:
        if name.startswith("log_format_of_"):
            del sys.modules[name]


def test_an_installed_distribution_provides_a_format_by_an_entry_point(provide: Provide) -> None:
    provide("one", LOUD)
    formatter = Server(log_format="loud").log.console.formatter
    assert formatter is not None
    assert formatter.format(logging.makeLogRecord({"msg": "hello"})) == "HELLO"


def test_a_format_that_is_not_named_is_not_imported(provide: Provide) -> None:
    provide("one", "raise RuntimeError('as asked')")
    assert isinstance(Server().log.console.formatter, LineFormatter)
    assert isinstance(Server(log_format="text").log.console.formatter, LineFormatter)


def test_a_format_that_is_not_installed_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(ConfigError) as caught:
        Server(log_format="loud")
    assert str(caught.value) == (
        "log_format is 'loud', but no installed distribution has this format; 'json' is in asyncapy-cli: "
        "pip install asyncapy-cli"
    )


def test_a_format_of_two_distributions_is_an_error_that_names_both(provide: Provide) -> None:
    provide("one", LOUD)
    provide("two", LOUD)
    with pytest.raises(ConfigError, match="log_format is 'loud', which one and two provide; uninstall one of them"):
        Server(log_format="loud")


BROKEN = {
    "raise RuntimeError('as asked')": "of one cannot be used: RuntimeError: as asked",
    "import nothing_like_it": "of one cannot be used: ModuleNotFoundError: No module named 'nothing_like_it'",
    "raise SystemExit('as asked')": "of one cannot be used: SystemExit: as asked",
    "Quiet = 1": "of one cannot be used: AttributeError: module 'log_format_of_one' has no attribute 'Loud'",
    "def Loud(): return 1": "of one cannot be used: it returns an object of type int instead of a logging.Formatter",
    "def Loud(one): ...": r"of one cannot be used: TypeError: Loud\(\) missing 1 required positional argument",
    "Loud = 1": "of one cannot be used: TypeError: 'int' object is not callable",
}


@pytest.mark.parametrize(("source", "message"), BROKEN.items())
def test_a_format_that_cannot_be_used_is_an_error(provide: Provide, source: str, message: str) -> None:
    provide("one", source)
    with pytest.raises(ConfigError, match=f"^log_format 'loud' {message}"):
        Server(log_format="loud")


def test_a_name_that_is_no_name_of_an_entry_point_is_an_error(provide: Provide) -> None:
    provide("one", LOUD)
    info = Path(sys.path[0]) / "one-1.0.dist-info" / "entry_points.txt"
    info.write_text("[asyncapy.log_formats]\nlo ud = log_format_of_one:Loud\n")
    with pytest.raises(ConfigError, match="cannot be used: its name 'lo ud' has other characters"):
        Server(log_format="lo ud")


@pytest.mark.parametrize("setting", ["console_format", "datefmt", "log_format"])
def test_a_server_with_a_format_of_its_own_writes_whatever_the_application_has_configured(
    provide: Provide, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide("one", LOUD)
    value = "loud" if setting == "log_format" else "%(message)s"
    server = Server()
    assert server.log.console.steps_back
    setattr(server, setting, value)
    assert not server.log.console.steps_back
    monkeypatch.setenv(f"ASYNCAPY_{setting.upper()}", value)
    assert not Server().log.console.steps_back


def test_a_server_without_a_level_of_its_own_has_that_of_the_loggers_above() -> None:
    server = Server()
    assert (server.log.level, server.log.getEffectiveLevel()) == (logging.NOTSET, logging.INFO)
    server.configure(logging_level="INFO")
    assert server.log.level == logging.INFO
