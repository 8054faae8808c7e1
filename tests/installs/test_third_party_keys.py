"""A key factory of a third party, whose `get` waits for files, in a server with core, codecs and filters only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Install, Program, Start

SERVER = """
import threading

from acme_keys import FolderKeys
from asyncapy_core import Filters, Server

class NotingKeys(FolderKeys):
    look_ups = 0

    def get(self, key):
        self.look_ups += 1
        return {{**super().get(key), "main": threading.current_thread() is threading.main_thread()}}

keys = NotingKeys({folder!r})
server = Server(port=0)

@server.add_handler(Filters.HasFields(read=None), Filters.APIFactory(keys, "key", tell=True))
@server.add_handler(Filters.HasFields(member=None), Filters.APIFactory(keys, "key", tell=True, once=True))
async def welcome(client, packet):
    return {{**packet.context["api_key"].metadata, "look_ups": keys.look_ups}}

@server.add_handler(Filters.HasFields(ping=None))
async def ping(client, packet):
    return {{"pong": packet["ping"]}}

server.start()
"""

UNAUTHORIZED = {"status": "failure", "error": "ERR_UNAUTHORIZED"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sesame").write_text('{"owner": "alice"}')
    return tmp_path


@pytest.fixture
def server(install: Install, start: Start, folder: Path) -> Program:
    environment = install("asyncapy-core", "asyncapy-codecs", "asyncapy-filters", "acme-keys")
    return start(environment, SERVER.format(folder=str(folder)))


def test_the_mapping_of_get_is_the_metadata_of_the_record_and_looked_up_once(server: Program, call: Call) -> None:
    caller = call(server)
    for number in (1, 2):
        welcome = {"owner": "alice", "main": False, "look_ups": number}
        assert caller.ask_json(read=1, key="sesame") == welcome
    assert caller.ask_json(read=1, key="barley") == UNAUTHORIZED
    assert caller.ask_json(read=1, key="../sesame") == UNAUTHORIZED
    assert caller.ask_json(read=1) == UNAUTHORIZED


def test_a_get_that_waits_runs_in_a_thread_and_delays_no_other_client(
    server: Program, call: Call, folder: Path
) -> None:
    os.mkfifo(folder / "slow")
    waiting, other = call(server), call(server)
    waiting.send(0, json.dumps({"read": 1, "key": "slow"}).encode())
    for number in range(5):
        assert other.ask_json(ping=number) == {"pong": number}
    assert other.ask_json(read=1, key="sesame") == {"owner": "alice", "main": False, "look_ups": 2}
    (folder / "slow").write_text('{"owner": "bob"}')
    assert waiting.json() == {"owner": "bob", "main": False, "look_ups": 2}


def test_a_session_that_is_logged_in_ends_when_get_finds_its_key_no_more(
    server: Program, call: Call, folder: Path
) -> None:
    caller = call(server)
    assert caller.ask_json(member=1) == UNAUTHORIZED
    assert caller.ask_json(member=1, key="sesame")["owner"] == "alice"
    assert caller.ask_json(member=1)["owner"] == "alice"
    (folder / "sesame").unlink()
    assert caller.reply() is None
    assert call(server).ask_json(member=1, key="sesame") == UNAUTHORIZED
