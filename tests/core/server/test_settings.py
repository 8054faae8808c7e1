from __future__ import annotations

import configparser
import inspect
import logging
import os
from collections.abc import Sequence
from typing import Any, get_type_hints

import pytest
import trio
from conftest import Serve, Start
from peer import Peer
from trio.testing import MockClock

from asyncapy_core import PluginManager, Server, ServerConfig
from asyncapy_core.errors import ConfigError
from asyncapy_core.server.settings import FurtherSettings, ServerSettings, Setting

Path = str | os.PathLike[str]
Texts = str | Sequence[str]
WIDER: dict[str, Any] = {
    "addr": Texts,
    "logging_level": int | str,
    "tls_cert": Path | None,
    "tls_key": Path | None,
    "tls_client_ca": Path | None,
    "proxy_protocol_from": Texts,
    "plugins_allow": Texts | None,
    "plugins_deny": Texts,
    "plugins_require": Texts,
}
"""Settings that may be given as values of further types, which `ServerConfig` converts."""
EXAMPLES: dict[str, list[Any]] = {
    "addr": ["localhost", ["::1", "127.0.0.1"], ("::1",)],
    "logging_level": [10, "DEBUG"],
    "tls_cert": [None, "a.pem", os.PathLike],
    "tls_key": [None, "a.pem", os.PathLike],
    "tls_client_ca": [None, "a.pem", os.PathLike],
    "proxy_protocol_from": ["10.0.0.0/8, unix", ["10.0.0.0/8"], ("unix",)],
    "plugins_allow": [None, "a, b", ["a"], ("a",)],
    "plugins_deny": ["a, b", ["a"], ("a",)],
    "plugins_require": ["a, b", ["a"], ("a",)],
}


class _Path(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "a.pem"


def test_the_keyword_arguments_of_configure_are_the_settings_with_their_types() -> None:
    fields = {name: WIDER.get(name, field.annotation) for name, field in ServerConfig.model_fields.items()}
    assert get_type_hints(ServerSettings) == fields


def test_no_keyword_argument_is_required() -> None:
    assert not ServerSettings.__required_keys__
    assert not FurtherSettings.__required_keys__


@pytest.mark.parametrize("name", WIDER)
def test_a_setting_accepts_all_types_of_its_keyword_argument(name: str) -> None:
    for example in EXAMPLES[name]:
        value = _Path() if example is os.PathLike else example
        settings = {"tls_cert": "a.pem", name: value} if name.startswith("tls_") else {name: value}
        ServerConfig.model_validate(settings)


def test_the_settings_that_a_server_has_no_parameter_for_are_its_further_settings() -> None:
    parameters = set(inspect.signature(Server).parameters)
    assert set(FurtherSettings.__annotations__) == ServerConfig.model_fields.keys() - parameters


def test_the_parameters_of_a_server_have_the_types_of_its_settings() -> None:
    parameters = inspect.signature(Server).parameters
    further = FurtherSettings.__annotations__
    named = [name for name in ServerSettings.__annotations__ if name not in further]
    assert named
    for name in named:
        annotation = ServerSettings.__annotations__[name].__forward_arg__
        assert parameters[name].annotation.removesuffix(" | None") == annotation, name


def test_a_server_takes_further_settings_and_configure_takes_all() -> None:
    server = Server(max_packet=100, plugins=PluginManager(discover=False))
    server.configure(max_packet=200, timeout=3, byteorder="little")
    assert (server.config.max_packet, server.config.timeout, server.config.byteorder) == (200, 3, "little")


def server_with_defaults() -> Server:
    return Server(plugins=PluginManager(discover=False))


@pytest.mark.parametrize("name", ServerConfig.model_fields)
def test_each_setting_can_be_read_and_set_as_an_attribute(name: str) -> None:
    values = {
        "addr": "::1",
        "logging_level": 30,
        "console_format": "%(message)s",
        "datefmt": "%H",
        "log_format": "text",
        "header_size": 2,
        "byteorder": "little",
        "cancel_on_disconnect": True,
        "measure": True,
        "describe": True,
        "replies": "one",
        "tls_key": None,
        "tls_client_ca": None,
        "tls_cert": "a.pem",
        "proxy_protocol_from": ["unix"],
        "plugins_allow": ["a"],
        "plugins_deny": ["a"],
        "plugins_require": ["a"],
    }
    server = server_with_defaults()
    assert getattr(server, name) == getattr(ServerConfig(), name)
    value = values.get(name, 1000)
    setattr(server, name, value)
    assert getattr(server, name) == value == getattr(server.config, name)


def test_the_class_has_an_attribute_for_each_setting_and_no_other() -> None:
    attributes = {name for name in dir(Server) if isinstance(getattr(Server, name), (Setting, property))}
    others = {"config", "cfg_parser", "handlers", "guards", "overrides", "sessions"}
    assert attributes - others == ServerConfig.model_fields.keys()


def test_an_attribute_is_validated_like_an_argument_and_a_wrong_value_changes_nothing() -> None:
    server = server_with_defaults()
    with pytest.raises(ConfigError, match="timeout is -1, from the argument timeout"):
        server.timeout = -1
    with pytest.raises(ConfigError, match="port is 'eighty'"):
        server.port = "eighty"  # type: ignore[assignment]  # the mistake
    assert (server.timeout, server.port) == (60, 8081)


def test_an_attribute_precedes_the_environment_and_outlives_another_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCAPY_TIMEOUT", "7")
    server = server_with_defaults()
    assert server.timeout == 7
    server.timeout = 8
    server.port = 1500
    assert (server.timeout, server.port) == (8, 1500)


def test_the_level_of_the_logger_follows_its_attribute() -> None:
    server = server_with_defaults()
    server.logging_level = "DEBUG"
    assert server.logging_level == server.log.level == logging.DEBUG


def test_the_configparser_can_be_read() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[AsyncAPY]\ntimeout = 5\n")
    server = Server(cfg_parser=parser, plugins=PluginManager(discover=False))
    assert server.cfg_parser is parser
    assert server.timeout == 5


@pytest.mark.parametrize("name", ["config", "cfg_parser"])
def test_attributes_that_are_no_settings_refuse_to_be_set(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(server_with_defaults(), name, "config.ini")


def test_a_setting_before_the_constructor_of_the_base_class_is_an_error() -> None:
    class Early(Server):
        def __init__(self) -> None:
            self.timeout = 5
            super().__init__()

    with pytest.raises(RuntimeError, match=r"timeout is set before super\(\).__init__\(\)"):
        Early()


def test_a_setting_as_an_attribute_of_a_subclass_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Quick\.timeout is a class attribute"):

        class Quick(Server):
            timeout = 5


async def test_a_setting_is_not_changed_while_the_server_serves(serve: Serve) -> None:
    running = await serve()
    for name in ("timeout", "port", "max_packet"):
        with pytest.raises(RuntimeError, match="this server is serving"):
            setattr(running.server, name, 100)
        assert getattr(running.server, name) != 100


async def test_a_setting_that_was_set_as_an_attribute_is_in_effect(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = Server()
    server.timeout = 5
    running = await asyncapy_server(server)
    began = trio.current_time()
    async with Peer(await running.connect()) as peer:
        assert await peer.failure() == "ERR_TIMED_OUT"
    assert trio.current_time() - began == pytest.approx(5)
