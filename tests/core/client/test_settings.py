from __future__ import annotations

import inspect

from asyncapy_core.client import AsyncClient
from asyncapy_core.client.settings import ClientSettings, SessionSettings


def test_the_settings_of_a_pool_are_the_keyword_arguments_of_its_clients() -> None:
    parameters = inspect.signature(AsyncClient).parameters.values()
    keywords = {each.name: each.annotation for each in parameters if each.kind is each.KEYWORD_ONLY}
    settings = {name: hint.__forward_arg__ for name, hint in ClientSettings.__annotations__.items()}
    assert settings == keywords
    assert not ClientSettings.__required_keys__


def test_a_client_in_memory_takes_all_settings_but_its_stream() -> None:
    assert ClientSettings.__annotations__.keys() - SessionSettings.__annotations__.keys() == {"open_stream"}
