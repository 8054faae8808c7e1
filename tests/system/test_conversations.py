"""The conversations in tests/vectors/conversations-23.json, with a real server, in whole pieces and byte by byte."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Serve, Start
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.errors import Failure

FOLDER = Path(__file__).parents[1] / "vectors"
FILE: dict[str, Any] = json.loads((FOLDER / "conversations-23.json").read_text("utf-8"))
CONVERSATIONS: list[dict[str, Any]] = FILE["conversations"]


async def echo(client: Any, packet: Any) -> Any:
    return dict(packet.fields)


async def nothing(client: Any, packet: Any) -> None: ...


async def count(client: Any, packet: Any) -> Any:
    for number in range(packet["n"]):
        yield {"number": number}


async def hang(client: Any, packet: Any) -> None:
    await trio.sleep_forever()


async def slow(client: Any, packet: Any) -> Any:
    await trio.sleep(0.2)
    return dict(packet.fields)


async def gone(client: Any, packet: Any) -> None:
    raise Failure("ERR_GONE", id=7)


async def break_(client: Any, packet: Any) -> None:
    await client.send({"number": 0})
    raise ValueError("a mistake")


async def push(client: Any, packet: Any) -> None:
    await client.session.send({"news": 1})


async def close(client: Any, packet: Any) -> None:
    await client.close()


ALL: list[Any] = [echo, nothing, count, hang, slow, gone, break_, push, close]
HANDLERS = {handler.__name__.rstrip("_"): handler for handler in ALL}


def server_of(conversation: dict[str, Any]) -> Server:
    """A server with the settings and the handlers of a conversation."""
    server = Server(port=0, **conversation["settings"])
    for name in conversation["handlers"]:
        server.operation(name)(HANDLERS[name])
    return server


def name_of(conversation: dict[str, Any]) -> str:
    name: str = conversation["name"]
    return name


class Player:
    """The client of a conversation."""

    def __init__(self, stream: trio.SocketStream, conversation: dict[str, Any], *, bytewise: bool) -> None:
        self._stream = stream
        self._settings = conversation["settings"]
        self._bytewise = bytewise
        self._received = b""
        self._not_before = 0.0

    async def play(self, step: dict[str, Any]) -> None:
        if "client" in step:
            await self._send(bytes.fromhex(step["client"]))
        elif "server" in step:
            packets = [await self._packet() for _ in step["server"]]
            assert trio.current_time() >= self._not_before
            if step.get("order") == "any":
                assert Counter(packets) == Counter(step["server"])
            else:
                assert packets == step["server"]
        elif "silence" in step:
            self._not_before = trio.current_time() + step["silence"]
        elif step["end"] == "client":
            await self._stream.send_eof()
        else:
            assert (self._received, await self._stream.receive_some()) == (b"", b"")

    async def _send(self, data: bytes) -> None:
        for index in range(0, len(data), 1 if self._bytewise else len(data)):
            await self._stream.send_all(data[index:][: 1 if self._bytewise else None])
            await wait_all_tasks_blocked()

    async def _packet(self) -> str:
        """Read one packet of any version, in hexadecimal."""
        header = await self._read(self._settings["header_size"])
        return (header + await self._read(int.from_bytes(header, self._settings["byteorder"]))).hex()

    async def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            data = await self._stream.receive_some()
            assert data, f"the server has sent {self._received!r} and the end of the stream"
            self._received += data
        result, self._received = self._received[:size], self._received[size:]
        return result


async def hold(stream: trio.SocketStream, conversation: dict[str, Any], *, bytewise: bool) -> None:
    """Play all steps."""
    player = Player(stream, conversation, bytewise=bytewise)
    async with stream:
        for step in conversation["steps"]:
            await player.play(step)


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=name_of)
async def test_a_server_holds_a_conversation(
    asyncapy_server: Start, autojump_clock: MockClock, conversation: dict[str, Any], bytewise: bool
) -> None:
    running = await asyncapy_server(server_of(conversation))
    await hold(await running.connect(), conversation, bytewise=bytewise)
    assert not running.server.sessions


QUICK = [each for each in CONVERSATIONS if not any("silence" in step for step in each["steps"])]
"""The conversations that do not take a minute in real time."""


@pytest.mark.parametrize("conversation", QUICK, ids=name_of)
async def test_a_server_holds_a_conversation_over_tcp(serve: Serve, conversation: dict[str, Any]) -> None:
    running = await serve(server_of(conversation))
    with trio.fail_after(10):
        await hold(await trio.open_tcp_stream("127.0.0.1", running.port), conversation, bytewise=False)
    await running.settle()


def test_each_conversation_has_a_name_of_its_own_and_uses_its_handlers() -> None:
    names = [name_of(conversation) for conversation in CONVERSATIONS]
    assert len(set(names)) == len(names)
    assert set(FILE["handlers"]) == set(HANDLERS)
    for conversation in CONVERSATIONS:
        assert set(conversation["handlers"]) <= set(HANDLERS)
        assert conversation["steps"][-1] == {"end": "server"}, "nothing follows unnoticed"


def test_the_description_of_the_file_has_each_of_its_keys() -> None:
    described = set(re.findall(r"`(\w+)`", (FOLDER / "README.md").read_text("utf-8")))
    for conversation in CONVERSATIONS:
        keys = {*conversation, *conversation["settings"], *(key for step in conversation["steps"] for key in step)}
        assert keys <= described, keys - described
