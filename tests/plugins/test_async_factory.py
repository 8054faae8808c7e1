"""The factory over each store: async twins, expiry, public ids, and any value that a peer sends as its key."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import failure, json_packet
from redis_server import SERVERS, RedisServer, SharedRedis

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, KeyRecord, MemoryKeyStore, Server
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_redis import RedisAPIKeyFactory, RedisKeyStore

PASSED, REFUSED = {"passed": True}, failure("ERR_NO_HANDLER")
UNAVAILABLE = failure("ERR_UNAVAILABLE")


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def factory(request: pytest.FixtureRequest, tmp_path: Path, shared_redis: SharedRedis) -> Iterator[APIKeyFactory]:
    """A factory over each store, made from a URL as documented."""
    url = "memory://"
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'keys.db'}"
    elif request.param != "memory":
        url = f"{shared_redis(request.param).url}?prefix={uuid.uuid4()}"
    factory = APIKeyFactory(store=url)
    yield factory
    factory.close()


class Held(MemoryKeyStore):
    """A store that blocks until ``free`` is set."""

    blocking = True
    timeout = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.calls = 0

    def _wait(self) -> None:
        self.calls += 1
        assert self.free.wait(10)

    def add(self, digest: str, record: KeyRecord) -> None:
        self._wait()
        super().add(digest, record)

    def get(self, digest: str) -> KeyRecord:
        self._wait()
        return super().get(digest)

    def peek(self, digest: str) -> KeyRecord | None:
        return None


class DictFactory(APIKeyFactory):
    """A factory with storage of its own, as documented: five methods and a dictionary."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}

    def issue(self, metadata: dict[str, Any] | None = None) -> str:  # type: ignore[override]  # the documented signature
        key = f"shelf-{len(self.keys)}"
        self.keys[key] = metadata or {}
        return key

    def get(self, key: str) -> dict[str, Any]:
        return self.keys[key]

    def reissue(self, key: str) -> str:
        new = self.issue(self.keys[key])
        del self.keys[key]
        return new

    def revoke(self, key: str) -> None:
        del self.keys[key]

    def update(self, key: str, metadata: dict[str, Any]) -> None:
        self.get(key)
        self.keys[key] = metadata


def guarded(factory: APIKeyFactory) -> Server:
    server = Server(port=0, max_packet=4 * 1024 * 1024)

    @server.add_handler(Filters.APIFactory(factory, "key"))
    async def secret(client: Any, packet: Any) -> None:
        await client.send(PASSED)

    return server


async def test_the_async_twins_do_what_the_plain_methods_do(factory: APIKeyFactory) -> None:
    key = await factory.aissue({"plan": "gold"}, expires_in=60)
    assert factory.describe(key).expires is not None
    assert await factory.aget(key) == factory.get(key) == {"plan": "gold"}
    assert await factory.acontains(key)
    await factory.aupdate(key, {"plan": "silver"})
    assert await factory.acontains(key)
    new = await factory.areissue(key)
    assert not await factory.acontains(key)
    assert await factory.aget(new) == {"plan": "silver"}
    await factory.arevoke(new)
    assert not await factory.acontains(new)
    assert new not in factory
    for call in (factory.aget, factory.areissue, factory.arevoke, lambda key: factory.aupdate(key, {})):
        with pytest.raises(KeyError, match="no such API key"):
            await call(new)


async def test_anything_may_be_asked_for(factory: APIKeyFactory) -> None:
    for key in (None, 1, b"key", ["key"], {"key": 1}, 1.5, "", "\ud800", "\0", "k" * 1_000_000):
        assert not await factory.acontains(key)
        assert key not in factory


async def test_many_tasks_use_one_factory(factory: APIKeyFactory) -> None:
    keys: list[str] = []

    async def use(number: int) -> None:
        key = await factory.aissue({"n": number})
        assert await factory.aget(key) == {"n": number}
        if number % 2:
            key = await factory.areissue(key)
        assert await factory.acontains(key)
        keys.append(key)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(use, number)
    assert len(factory.records()) == len(set(keys)) == 30


def test_a_key_expires_when_its_time_has_come(factory: APIKeyFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10_000_000_000.25
    monkeypatch.setattr(time, "time", lambda: now)
    key, record = factory.issue_with_record({"plan": "gold"}, expires_in=10)
    stays = factory.issue()
    assert (record.issued, record.expires) == (now, now + 10)
    now += 9.99
    assert key in factory
    assert factory.purge() == 0
    now += 0.01
    for call in (factory.get, factory.reissue, factory.revoke, lambda key: factory.update(key, {})):
        with pytest.raises(KeyError, match="no such API key"):
            call(key)
    with pytest.raises(KeyError):
        factory.record(record.id)
    assert key not in factory
    assert [each.id for each in factory.records()] == [factory.describe(stays).id]
    assert factory.purge() == 1
    with pytest.raises(KeyError, match="no API key has the id"):
        factory.revoke_id(record.id)
    assert stays in factory


async def test_a_key_that_is_recalled_expires_on_time(factory: APIKeyFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    key = await factory.aissue(expires_in=10)
    assert await factory.acontains(key)
    now += 10
    assert not await factory.acontains(key)


def test_a_key_keeps_its_id_and_expiry_when_it_is_reissued(factory: APIKeyFactory) -> None:
    key, record = factory.issue_with_record({"plan": "gold"}, expires_in=60)
    assert factory.describe(factory.reissue(key)) == record


def test_keys_are_managed_by_their_public_id(factory: APIKeyFactory) -> None:
    key, record = factory.issue_with_record({"plan": "gold"})
    other = factory.issue()
    assert factory.record(record.id) == record
    assert {each.id for each in factory.records()} == {record.id, factory.describe(other).id}
    factory.update_id(record.id, {"plan": "silver"})
    assert factory.get(key) == {"plan": "silver"}
    new = factory.reissue_id(record.id)
    assert key not in factory
    assert factory.get(new) == {"plan": "silver"}
    factory.revoke_id(record.id)
    assert new not in factory
    assert other in factory
    for call in (factory.record, factory.reissue_id, factory.revoke_id, lambda key_id: factory.update_id(key_id, {})):
        with pytest.raises(KeyError, match=f"no API key has the id '{record.id}'"):
            call(record.id)


async def test_a_store_that_hangs_holds_up_no_other_task_and_is_unavailable_in_time() -> None:
    store = Held()
    factory = APIKeyFactory(store=store)
    key = await factory.aissue()
    store.free.clear()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.005)
            ticks += 1

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            for call in (factory.acontains, factory.aget):
                began, ticks = trio.current_time(), 0
                with pytest.raises(KeyStoreUnavailable, match=r"did not answer within 0\.2 s"):
                    await call(key)
                assert trio.current_time() - began >= 0.19
                assert ticks > 2
            nursery.cancel_scope.cancel()
    finally:
        store.free.set()
    assert await factory.acontains(key)


@pytest.mark.parametrize("name", ["areissue", "arevoke", "aupdate"])
async def test_a_change_that_was_reported_as_failed_is_not_made_afterwards(name: str) -> None:
    """A late reissue would be the worst: no caller would have the new key, and the old one would be invalid."""
    store = Held()
    factory = APIKeyFactory(store=store)
    key, record = factory.issue_with_record({"plan": "gold"})
    store.free.clear()
    try:
        with pytest.raises(KeyStoreUnavailable):
            await getattr(factory, name)(key, *([{"plan": "silver"}] if name == "aupdate" else []))
    finally:
        store.free.set()
    with trio.fail_after(5):
        while factory._run_of_trio.calls.running:  # noqa: ASYNC110  # until the abandoned thread has ended
            await trio.sleep(0.005)
    assert factory.records() == [record]
    assert key in factory


async def test_a_store_that_hangs_is_asked_by_a_few_threads_only_and_serves_when_it_is_back() -> None:
    store = Held()
    factory = APIKeyFactory(store=store)
    key = await factory.aissue()
    store.free.clear()
    before = store.calls
    failures: list[float] = []

    async def ask() -> None:
        began = trio.current_time()
        with pytest.raises(KeyStoreUnavailable):
            await factory.acontains(key)
        failures.append(trio.current_time() - began)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert len(failures) == 200
        assert max(failures) < 2, "one after the other, the calls would take five seconds"
        assert store.calls - before <= 8
    finally:
        store.free.set()
    assert await factory.acontains(key)


async def test_a_hanging_store_behind_a_filter_fails_closed_and_holds_up_nobody(serve: Serve) -> None:
    store = Held()
    store.timeout = 1.0
    factory = APIKeyFactory(store=store)
    key = await factory.aissue()
    server = guarded(factory)

    @server.add_handler(Filters.Fields(ping=None))
    async def public(client: Any, packet: Any) -> None:
        await client.send({"pong": True})

    running = await serve(server)
    async with await running.connect() as one, await running.connect() as other:
        assert await one.ask(key=key) == PASSED
        store.free.clear()
        try:
            await one.send(json_packet(key=key))
            for _ in range(5):
                assert await other.ask(ping=1) == {"pong": True}
            assert factory._run_of_trio.calls.running == 1, "the call of the store still runs"
            assert await one.json() == UNAVAILABLE
        finally:
            store.free.set()
        assert await one.ask(key=key) == PASSED
    assert len(running.logged("API keys cannot be checked")) == 1


async def test_a_documented_subclass_serves_as_a_factory_and_in_a_filter(serve: Serve) -> None:
    factory = DictFactory()
    key = factory.issue({"plan": "gold"})
    assert key in factory
    assert "other" not in factory
    assert 1 not in factory
    running = await serve(guarded(factory))
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == PASSED
        assert await peer.ask(key="other") == REFUSED
        new = factory.reissue(key)
        assert await peer.ask(key=key) == REFUSED
        assert await peer.ask(key=new) == PASSED
    assert not running.logged("[ERROR]")


async def test_a_documented_subclass_has_the_async_twins() -> None:
    factory = DictFactory()
    key = await factory.aissue({"plan": "gold"})
    assert await factory.acontains(key)
    await factory.aupdate(key, {"plan": "silver"})
    new = await factory.areissue(key)
    assert not await factory.acontains(key)
    assert await factory.aget(new) == {"plan": "silver"}
    await factory.arevoke(new)
    assert not await factory.acontains(new)


async def test_whatever_a_peer_sends_as_its_key_does_not_pass_and_raises_nothing(
    serve: Serve, factory: APIKeyFactory
) -> None:
    key = await factory.aissue()
    running = await serve(guarded(factory))
    strange: list[dict[str, Any]] = [
        {"other": key},
        {"key": [key]},
        {"key": {"key": key}},
        {"key": None},
        {"key": 1},
        {"key": 1.5},
        {"key": True},
        {"key": ""},
        {"key": key + "\0"},
        {"key": key[:-1]},
        {"key": key.swapcase()},
        {"key": " " + key},
        {"key": "\U0001f600" * 100},
        {"key": "k" * 1_000_000},
        {"key": key * 40_000},
    ]
    async with await running.connect() as peer:
        for fields in strange:
            assert await peer.ask(**fields) == REFUSED
            assert await peer.ask(key=key) == PASSED
    assert not running.logged("[ERROR]")
    assert not running.logged("[WARNING]")


async def test_an_absurdly_long_key_is_not_looked_up(serve: Serve) -> None:
    store = Held()
    factory = APIKeyFactory(size=1024, store=store)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == PASSED
        before = store.calls
        assert await peer.ask(key="k" * 100_000) == REFUSED
        assert store.calls == before


def test_the_redis_factory_is_an_api_key_factory_with_the_documented_parameters(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url, 16)
    assert isinstance(factory, APIKeyFactory)
    assert len(factory.issue()) == 16
    factory.close()
    with pytest.raises(ValueError, match="size must be 8 to 1024"):
        RedisAPIKeyFactory(redis_server.url, size=4)


def test_two_prefixes_share_a_redis_and_no_keys(redis_server: RedisServer) -> None:
    one, other = (RedisAPIKeyFactory(redis_server.url, prefix=f"{uuid.uuid4()}") for _ in range(2))
    key = one.issue()
    assert key in one
    assert key not in other
    assert other.records() == []
    one.close()
    other.close()


async def test_what_a_server_does_itself_it_knows_at_once(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url, recall_seconds=60)
    key = await factory.aissue({"plan": "gold"})
    assert await factory.acontains(key)
    await factory.aupdate(key, {"plan": "silver"})
    assert await factory.aget(key) == {"plan": "silver"}
    new = await factory.areissue(key)
    assert not await factory.acontains(key)
    assert await factory.acontains(new)
    factory.revoke_id(factory.describe(new).id)
    assert not await factory.acontains(new)
    factory.close()


def test_a_recalled_record_is_the_callers_own(redis_server: RedisServer) -> None:
    store = RedisKeyStore(redis_server.url, prefix=f"{uuid.uuid4()}")
    store.add(digest("a key"), KeyRecord("id", {"list": [1]}))
    store.get(digest("a key")).metadata["list"].append(2)
    recalled = store.peek(digest("a key"))
    assert recalled is not None
    assert recalled.metadata == {"list": [1]}
    store.close()
