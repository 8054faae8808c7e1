from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any, get_type_hints

import pytest

from asyncapy_core import PluginManager, Server, ServerConfig
from asyncapy_core.server.settings import FurtherSettings, ServerSettings

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
