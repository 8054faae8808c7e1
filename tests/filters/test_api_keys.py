from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy.filters import Filter, Filters
from asyncapy_core import APIKeyFactory, Failure, Handler, KeyRecord, MemoryKeyStore, Packet, Server
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.routing.filter import check
from asyncapy_core.testing import Detached, serving
from asyncapy_filters import APIFactory

CLIENT = Detached().client


class Blocking(MemoryKeyStore):
    blocking = True
    timeout = 5.0


async def nothing(client: Any, packet: Any) -> None: ...


async def passes(factory: APIKeyFactory, fields: dict[str, Any], field_name: str = "key") -> bool:
    """Return whether the filter passes a packet with these fields."""
    return await Handler(nothing, [APIFactory(factory, field_name)]).check(CLIENT, Packet(fields))


STORES = pytest.mark.parametrize("store", [MemoryKeyStore, Blocking])


@STORES
async def test_a_packet_with_a_valid_key_passes(store: type[MemoryKeyStore]) -> None:
    factory = APIKeyFactory(store=store())
    key = factory.issue({"plan": "gold"})
    assert await passes(factory, {"key": key})
    assert await passes(factory, {"key": key, "more": 1})
    assert await passes(factory, {"other name": key}, "other name")


@STORES
@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "", "x" * 32, b"x" * 32, [], ["x"], {}, {"key": 1}, "\ud800", "k" * 1_000_000],
    ids=lambda value: f"{type(value).__name__}",
)
async def test_a_field_that_holds_anything_else_does_not_pass_and_raises_nothing(
    store: type[MemoryKeyStore], value: Any
) -> None:
    factory = APIKeyFactory(store=store())
    factory.issue()
    assert not await passes(factory, {"key": value})


@STORES
async def test_a_packet_without_the_field_does_not_pass(store: type[MemoryKeyStore]) -> None:
    factory = APIKeyFactory(store=store())
    assert not await passes(factory, {})
    assert not await passes(factory, {"Key": factory.issue()})


@STORES
async def test_a_key_that_was_revoked_reissued_or_expired_does_not_pass(store: type[MemoryKeyStore]) -> None:
    factory = APIKeyFactory(store=store())
    revoked, old = factory.issue(), factory.issue()
    assert await passes(factory, {"key": revoked})
    factory.revoke(revoked)
    assert not await passes(factory, {"key": revoked})
    new = factory.reissue(old)
    assert not await passes(factory, {"key": old})
    assert await passes(factory, {"key": new})


@given(
    st.none() | st.text() | st.binary() | st.integers() | st.lists(st.text()) | st.dictionaries(st.text(), st.text())
)
def test_nothing_that_was_not_issued_passes(value: Any) -> None:
    factory = APIKeyFactory()
    factory.issue()
    assert APIFactory(factory, "key").check(CLIENT, Packet({"key": value})) is False


async def test_a_key_that_is_absurdly_long_is_not_looked_up() -> None:
    class Counting(MemoryKeyStore):
        looked_up = 0

        def get(self, digest: str) -> KeyRecord:
            self.looked_up += 1
            return super().get(digest)

    store = Counting()
    factory = APIKeyFactory(store=store)
    assert not await passes(factory, {"key": "k" * 4097})
    assert store.looked_up == 0
    assert not await passes(factory, {"key": "k" * 4096})
    assert store.looked_up == 1


def test_a_store_that_blocks_makes_the_check_async_and_no_other_does() -> None:
    assert not inspect.iscoroutinefunction(APIFactory(APIKeyFactory(), "key").check)
    assert inspect.iscoroutinefunction(APIFactory(APIKeyFactory(store=Blocking()), "key").check)
    assert not Handler(nothing, [APIFactory(APIKeyFactory(), "key")]).is_async
    assert Handler(nothing, [~APIFactory(APIKeyFactory(store=Blocking()), "key")]).is_async


async def test_a_store_that_is_away_lets_nobody_pass_and_neither_does_the_inverse() -> None:
    class AwayInMemory(MemoryKeyStore):
        def get(self, digest: str) -> KeyRecord:
            raise KeyStoreUnavailable("away")

    class Away(Blocking):
        def get(self, digest: str) -> KeyRecord:
            raise KeyStoreUnavailable("away")

        def peek(self, digest: str) -> None:
            return None

    for store in (Away(), AwayInMemory()):
        filter = APIFactory(APIKeyFactory(store=store), "key")
        for each in (filter, ~filter):
            with pytest.raises(Failure, match=r"^ERR_UNAVAILABLE$") as caught:
                await Handler(nothing, [each]).check(CLIENT, Packet({"key": "x" * 32}))
            assert isinstance(caught.value.__cause__, KeyStoreUnavailable)


@STORES
async def test_the_record_of_the_key_is_in_the_context(store: type[MemoryKeyStore]) -> None:
    factory = APIKeyFactory(store=store())
    packet = Packet({"key": factory.issue({"owner": "alice"}), "op": "read"})
    filter = APIFactory(factory, "key")
    assert not await Handler(nothing, [filter, Filters.Fields(other=None)]).check(CLIENT, packet)
    assert packet.context == {}, "the handler does not get the packet"
    assert await Handler(nothing, [Filters.HasFields(op=None), filter]).check(CLIENT, packet)
    record = packet.context["api_key"]
    assert isinstance(record, KeyRecord)
    assert record.metadata == {"owner": "alice"}


@STORES
@pytest.mark.parametrize("once", [False, True])
async def test_filters_behind_it_find_the_record_in_the_memo_of_the_packet(
    store: type[MemoryKeyStore], once: bool
) -> None:
    class Owner(Filter):
        def check(self, c: Any, p: Any) -> bool:
            record: KeyRecord = p.memo["api_key"]
            return record.metadata == {"owner": "alice"}

    factory = APIKeyFactory(store=store())
    server = Server(port=0, logging_level="CRITICAL")

    @server.add_handler(APIFactory(factory, "key", once=once), Owner())
    async def echo(client: Any, packet: Any) -> dict[str, Any]:
        return {"passed": True}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"key": await factory.aissue({"owner": "alice"})}) == {"passed": True}
        assert "error" in await client.request({"key": await factory.aissue({"owner": "bob"})})


async def test_handlers_with_equal_filters_ask_once_for_a_packet() -> None:
    class Counting(Blocking):
        looked_up = 0

        def get(self, digest: str) -> KeyRecord:
            self.looked_up += 1
            return super().get(digest)

        def peek(self, digest: str) -> None:
            return None

    store = Counting()
    factory = APIKeyFactory(store=store)
    for key, valid in ((factory.issue(), True), ("wrong", False)):
        packet = Packet({"key": key})
        for tell in (None, False, None):
            assert await check(APIFactory(factory, "key", tell=tell), CLIENT, packet) is valid
    assert store.looked_up == 2


@STORES
async def test_a_wrong_key_is_told_on_request_and_by_guards(store: type[MemoryKeyStore]) -> None:
    factory = APIKeyFactory(store=store())
    key = factory.issue()
    silent, told = APIFactory(factory, "key", tell=False), APIFactory(factory, "key", tell=True)
    neither = APIFactory(factory, "key")
    ip = Filters.Ip("192.0.2.1")
    telling: list[Filter] = [told, neither.as_guard(), (neither | ip).as_guard(), (neither & ip).as_guard()]
    for filter in telling:
        for fields in ({}, {"key": "wrong"}, {"key": 5}):
            with pytest.raises(Failure, match=r"^ERR_UNAUTHORIZED$"):
                await check(filter, CLIENT, Packet(fields))
    for filter in (silent, silent.as_guard(), neither, (~neither).as_guard().operands[0]):  # type: ignore[attr-defined]  # a Not
        assert not await check(filter, CLIENT, Packet({"key": "wrong"}))
        assert await check(filter, CLIENT, Packet({"key": key}))
    assert len({silent, told, neither}) == 3


async def test_a_subclass_with_storage_of_its_own_is_asked() -> None:
    class Own(APIKeyFactory):
        def get(self, key: str) -> dict[str, Any]:
            if key != "sesame":
                raise KeyError(key)
            return {}

    assert await passes(Own(), {"key": "sesame"})
    assert not await passes(Own(), {"key": "barley"})


def test_it_is_a_documented_filter() -> None:
    factory = APIKeyFactory()
    filter = Filters.APIFactory(factory, "key")
    assert isinstance(filter, APIFactory)
    assert isinstance(filter, Filter)
    assert (filter.factory, filter.field_name) == (factory, "key")


@pytest.mark.parametrize("factory", [None, "key", APIKeyFactory, {}], ids=repr)
def test_what_is_no_factory_is_a_type_error(factory: Any) -> None:
    with pytest.raises(TypeError, match="the factory must be an APIKeyFactory; got"):
        APIFactory(factory, "key")


@pytest.mark.parametrize("name", [None, 5, b"key", ["key"]], ids=repr)
def test_a_field_name_that_is_no_string_is_a_value_error(name: Any) -> None:
    with pytest.raises(ValueError, match="field_name must be the name of a field; got"):
        APIFactory(APIKeyFactory(), name)


def test_filters_are_equal_when_they_ask_one_factory_about_one_field() -> None:
    factory, other = APIKeyFactory(), APIKeyFactory()

    class Stricter(APIFactory):
        pass

    assert APIFactory(factory, "key") == APIFactory(factory, "key")
    assert hash(APIFactory(factory, "key")) == hash(APIFactory(factory, "key"))
    for different in (APIFactory(other, "key"), APIFactory(factory, "token"), Stricter(factory, "key"), "key"):
        assert APIFactory(factory, "key") != different
        assert different != APIFactory(factory, "key")


def test_no_key_is_in_its_repr() -> None:
    factory = APIKeyFactory()
    key = factory.issue()
    assert key not in repr(APIFactory(factory, "key"))
    assert repr(APIFactory(factory, "key")) == "APIFactory(<APIKeyFactory>, 'key')"
