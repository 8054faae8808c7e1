"""Close names for packets without a handler: which, and how much time they may take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asyncapy import Client, Packet, Router, Server
from asyncapy.filters import Filters
from asyncapy_core.routing.handler import Handler
from asyncapy_core.routing.suggestions import LONGEST, SHARE, Suggestions
from asyncapy_core.testing import serving


async def handler(client: Client, packet: Packet) -> dict[str, int]:
    return {"ok": 1}


def server_of(*names: str, **settings: Any) -> Server:
    server = Server(port=0, **settings)
    for name in names:
        server.operation(name)(handler)
    return server


class Clock:
    """A clock on which each comparison takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_close_names_are_suggested_and_others_are_not() -> None:
    server = server_of("books.read", "films.write")
    suggest = Suggestions(lambda: server.handlers, lambda: 0.0)
    assert suggest(Packet({"op": "books.reed"})) == {
        "detail": "there is no such operation; did you mean books.read?",
        "operations": ["books.read"],
    }
    assert suggest(Packet({"op": "zzz"})) == {
        "detail": "there is no such operation; the field 'op' has the name of one"
    }


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"a": 1}, "the packet has no field 'op'"),
        ({"op": 7}, "the field 'op' is not a string, the name of an operation"),
        ({"op": None}, "the field 'op' is not a string, the name of an operation"),
        ({"op": "books.read"}, "the filters of this operation do not let the packet pass"),
        ({"op": "books.reed" + "x" * LONGEST}, "there is no such operation; the field 'op' has the name of one"),
    ],
)
def test_the_reason_is_given_without_values_of_the_packet(fields: Any, detail: str) -> None:
    server = server_of("books.read")
    suggest = Suggestions(lambda: server.handlers, lambda: 0.0)
    assert suggest(Packet(fields)) == {"detail": detail}


def test_names_of_another_field_are_found_there() -> None:
    server, router = server_of("books.read"), Router(field="call")
    router.operation("films.read")(handler)
    server.include(router)
    suggest = Suggestions(lambda: server.handlers, lambda: 0.0)
    found = suggest(Packet({"call": "films.rea"}))
    assert found is not None
    assert found["operations"] == ["films.read"]
    assert suggest(Packet({"x": 1})) == {"detail": "the packet has no field 'op' or 'call'"}


def test_nothing_is_said_where_there_are_no_operations() -> None:
    server = Server(port=0)
    server.register_handler(handler, Filters.HasFields(a=None))
    assert Suggestions(lambda: server.handlers)(Packet({"op": "x"})) is None


def test_names_are_compared_in_a_small_part_of_the_time_only() -> None:
    server, clock = server_of("books.read"), Clock()
    suggest = Suggestions(lambda: server.handlers, clock)
    first, second = (suggest(Packet({"op": "books.reed"})) for _ in range(2))
    assert first is not None
    assert "operations" in first
    assert second is not None
    assert "operations" not in second
    clock.now += 1 / SHARE
    assert "operations" in (suggest(Packet({"op": "books.reed"})) or {})


class Group(tuple[Handler, ...]):
    """The handlers of a group, which counts how often they are looked at."""

    __slots__ = ()
    looked_at = 0

    def __iter__(self) -> Iterator[Handler]:
        type(self).looked_at += 1
        return super().__iter__()


def test_the_handlers_are_looked_at_once_until_they_change() -> None:
    server = server_of("books.read")
    groups = {0: Group(server.handlers[0])}
    suggest = Suggestions(lambda: groups, lambda: 0.0)
    for _ in range(3):
        assert "books.read" in (suggest(Packet({"op": "books.reed"})) or {})["operations"]
    assert Group.looked_at == 1
    server.operation("films.read")(handler)
    groups[0] = Group(server.handlers[0])
    assert (suggest(Packet({"op": "films.reed"})) or {})["operations"] == ["films.read"]


@pytest.mark.parametrize("version", [22, 23])
@pytest.mark.parametrize("grouped", [False, True])
async def test_a_server_that_describes_itself_sends_them(version: Any, grouped: bool) -> None:
    server = server_of("books.read", describe=True)
    if grouped:
        server.operation("films", group=1)(handler)
    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "books.reed"}) == {
            "status": "failure",
            "error": "ERR_NO_HANDLER",
            "detail": "there is no such operation; did you mean books.read?",
            "operations": ["books.read"],
        }
        assert await client.request({"op": "books.read"}) == {"ok": 1}


@pytest.mark.parametrize("version", [22, 23])
async def test_a_server_that_does_not_describe_itself_sends_none(version: Any) -> None:
    async with serving(server_of("books.read")) as running, running.client(version=version) as client:
        assert await client.request({"op": "books.reed"}) == {"status": "failure", "error": "ERR_NO_HANDLER"}


@pytest.mark.parametrize("version", [22, 23])
async def test_a_packet_that_a_guard_refuses_is_told_no_names(version: Any) -> None:
    server = server_of("books.read", describe=True)
    server.guard(Filters.HasFields(key="secret"))
    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "books.reed"}) == {"status": "failure", "error": "ERR_NO_HANDLER"}
        assert "operations" in await client.request({"op": "books.reed", "key": "secret"})
