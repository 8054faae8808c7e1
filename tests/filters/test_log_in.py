"""`Filters.APIFactory` with ``once``: the first packet of a session carries the key."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from asyncapy.filters import Filter, Filters
from asyncapy_core import APIKeyFactory, Client, Failure, Handler, KeyRecord, MemoryKeyStore, Packet, Server
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.routing.filter import check
from asyncapy_core.server.explain import explain_packet
from asyncapy_core.testing import Detached
from asyncapy_filters import APIFactory


class Store(MemoryKeyStore):
    """A store that counts the reads, and can be away."""

    reads = 0
    is_away = False

    def peek(self, digest: str) -> None:
        return None

    def get(self, digest: str) -> KeyRecord:
        self.reads += 1
        if self.is_away:
            raise KeyStoreUnavailable("away")
        return super().get(digest)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def factory(store: Store) -> APIKeyFactory:
    return APIKeyFactory(store=store)


async def nothing(client: Client, packet: Packet) -> None: ...


async def passes(filter: Filter, peer: Detached, **fields: Any) -> bool:
    return await check(filter, peer.client, peer.packet(fields))


async def test_the_first_packet_carries_the_key_and_later_ones_need_none(factory: APIKeyFactory, store: Store) -> None:
    filter, peer, other = APIFactory(factory, "key", once=True), Detached(), Detached()
    key = factory.issue({"owner": "alice"})
    assert not await passes(filter, peer, a=1)
    assert await passes(filter, peer, key=key)
    for fields in ({"a": 1}, {}, {"key": None}, {"key": key}):
        packet = peer.packet(fields)
        assert await Handler(nothing, [filter]).check(peer.client, packet)
        assert packet.context["api_key"].metadata == {"owner": "alice"}
    assert store.reads == 1
    assert not await passes(filter, other, a=1)


@pytest.mark.parametrize("wrong", ["wrong", "", 5, True, 1.5, ["x"], {"key": 1}, "k" * 4097, "\ud800"], ids=repr)
async def test_another_value_of_the_field_does_not_pass_and_ends_the_log_in(factory: APIKeyFactory, wrong: Any) -> None:
    filter, peer, key = APIFactory(factory, "key", once=True), Detached(), factory.issue()
    assert await passes(filter, peer, key=key)
    assert not await passes(filter, peer, key=wrong)
    assert not await passes(filter, peer, a=1)
    assert not peer.closed
    assert await passes(filter, peer, key=key)
    assert await passes(filter, peer, a=1)


async def test_filters_with_one_factory_share_the_log_in(factory: APIKeyFactory) -> None:
    peer = Detached()
    filter, same, other = (APIFactory(factory, name, once=True) for name in ("key", "key", "token"))
    assert await passes(filter, peer, key=factory.issue())
    assert await passes(same, peer, a=1)
    assert await passes(other, peer, a=1)
    assert not await passes(APIFactory(factory, "key"), peer, a=1), "without once, each packet needs the key"
    assert not await passes(APIFactory(APIKeyFactory(), "key", once=True), peer, a=1)


async def test_a_wrong_key_is_looked_up_once_for_a_packet(factory: APIKeyFactory, store: Store) -> None:
    peer = Detached()
    for number in (1, 2):
        packet = peer.packet({"key": "wrong"})
        for _ in range(3):
            assert not await check(APIFactory(factory, "key", once=True), peer.client, packet)
        assert store.reads == number


async def test_who_is_not_logged_in_is_told_on_request_and_by_guards(factory: APIKeyFactory) -> None:
    silent, told, neither = (APIFactory(factory, "key", tell=tell, once=True) for tell in (False, True, None))
    key = factory.issue()
    for filter in (told, neither.as_guard(), (neither & Filters.HasFields(a=None)).as_guard()):
        for fields in ({}, {"key": "wrong"}, {"key": 5}):
            with pytest.raises(Failure, match=r"^ERR_UNAUTHORIZED$"):
                await passes(filter, Detached(), **fields)
        peer = Detached()
        assert await passes(filter, peer, key=key, a=1)
        assert await passes(filter, peer, a=1)
    for filter in (silent, silent.as_guard(), neither):
        assert not await passes(filter, Detached(), key="wrong")


async def test_it_combines_with_others(factory: APIKeyFactory) -> None:
    devices = APIKeyFactory()
    either = APIFactory(factory, "key", once=True) | APIFactory(devices, "device", once=True)
    peer, other = Detached(), Detached()
    public = ~APIFactory(factory, "key", once=True)
    assert await passes(public, peer)
    assert await passes(either, peer, device=devices.issue())
    assert await passes(either, peer)
    assert await passes(either, other, key=factory.issue())
    assert await passes(either, other)
    assert not await passes(public, other)
    assert await passes(public, peer)


async def test_a_store_that_is_away_is_unavailable_to_the_client_and_a_line_in_the_log(
    factory: APIKeyFactory, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    filter, peer, key = APIFactory(factory, "key", once=True), Detached(), factory.issue()
    assert not await passes(filter, peer)
    store.is_away = True
    assert not await passes(filter, peer), "no store is asked about it"
    for _ in range(2):
        with pytest.raises(Failure, match=r"^ERR_UNAVAILABLE$") as caught:
            await passes(filter, peer, key=key)
        assert isinstance(caught.value.__cause__, KeyStoreUnavailable)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "{API Parser} API keys cannot be checked: away" in line
    store.is_away = False
    assert await passes(filter, peer, key=key)


async def test_a_revoked_key_passes_no_packet(factory: APIKeyFactory) -> None:
    filter, peer, key = APIFactory(factory, "key", once=True), Detached(), factory.issue()
    assert await passes(filter, peer, key=key)
    factory.revoke(key)
    assert not await passes(filter, peer)
    assert not await passes(filter, peer, key=key)


async def test_its_check_is_always_async(factory: APIKeyFactory) -> None:
    assert inspect.iscoroutinefunction(APIFactory(factory, "key", once=True).check)
    assert Handler(nothing, [APIFactory(factory, "key", once=True)]).is_async


def test_it_is_equal_to_filters_that_decide_alike_only(factory: APIKeyFactory) -> None:
    assert APIFactory(factory, "key", once=True) == APIFactory(factory, "key", once=True)
    assert APIFactory(factory, "key", once=True) != APIFactory(factory, "key")
    assert hash(APIFactory(factory, "key", once=True)) == hash(APIFactory(factory, "key", once=True))
    assert repr(APIFactory(factory, "key", once=True)) == "APIFactory(<APIKeyFactory>, 'key', once=True)"


async def test_a_packet_is_explained_as_the_first_of_its_session(factory: APIKeyFactory) -> None:
    server, key = Server(), factory.issue()

    @server.add_handler(Filters.HasFields(never=None), APIFactory(factory, "key", once=True))
    async def first(client: Client, packet: Packet) -> None: ...

    @server.add_handler(APIFactory(factory, "token", once=True))
    async def second(client: Client, packet: Packet) -> None: ...

    @server.add_handler(APIFactory(factory, "key", once=True), group=1)
    async def third(client: Client, packet: Packet) -> None: ...

    @server.add_handler(APIFactory(factory, "token", once=True), group=1)
    async def taken(client: Client, packet: Packet) -> None: ...

    @server.add_handler(APIFactory(factory, "token", tell=True, once=True), group=2)
    async def logged_in(client: Client, packet: Packet) -> None: ...

    async def explained(**fields: Any) -> dict[str, tuple[bool, bool, str]]:
        verdicts = await explain_packet(server, fields)
        return {verdict.handler: (verdict.passes, verdict.runs, verdict.answer) for verdict in verdicts}

    for _ in range(2):
        assert await explained(key=key) == {
            "first": (False, False, ""),
            "second": (False, False, ""),
            "third": (True, True, ""),
            "taken": (True, False, ""),
            "logged_in": (True, True, ""),
        }
        assert await explained(a=1) == {
            "first": (False, False, ""),
            "second": (False, False, ""),
            "third": (False, False, ""),
            "taken": (False, False, ""),
            "logged_in": (False, False, "ERR_UNAUTHORIZED"),
        }
