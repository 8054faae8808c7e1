"""Redis stopped, frozen, slow and cut off, behind a busy server: no key passes, no task waits, and all recovers."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from conftest import Running, Serve
from peer import Peer, failure, json_packet
from ports import free_port
from redis.crc import key_slot
from redis_server import RedisServer
from tcp_proxy import TcpProxy

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, KeyRecord, Server
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_redis import RedisAPIKeyFactory, RedisKeyStore

RECALL = 0.5
PASSED, PONG, REFUSED = {"passed": True}, {"pong": True}, failure("ERR_NO_HANDLER")
UNAVAILABLE = failure("ERR_UNAVAILABLE")
SLOWEST = 3.0
"""Seconds in which each request is answered. The bound is 1 s; a busy machine adds to it."""


def guarded(factory: APIKeyFactory) -> Server:
    """A server with a handler that requires a key, and one that does not."""
    server = Server(port=0)

    @server.add_handler(Filters.APIFactory(factory, "key"))
    async def secret(client: Any, packet: Any) -> None:
        await client.send(PASSED)

    @server.add_handler(Filters.Fields(ping=None))
    async def public(client: Any, packet: Any) -> None:
        await client.send(PONG)

    return server


@dataclass
class Answer:
    asked: float
    took: float
    passed: bool


@dataclass
class Traffic:
    """The answers to clients that send a key all the time, and to a client that needs none."""

    answers: list[Answer] = field(default_factory=list)
    pings: list[Answer] = field(default_factory=list)
    over: bool = False

    async def ask(self, peer: Peer, key: str) -> None:
        while not self.over:
            asked = trio.current_time()
            reply = await peer.ask(key=key)
            assert reply in (PASSED, UNAVAILABLE), "the key is valid"
            self.answers.append(Answer(asked, trio.current_time() - asked, reply == PASSED))
            await trio.sleep(0.01)

    async def ping(self, peer: Peer) -> None:
        while not self.over:
            asked = trio.current_time()
            assert await peer.ask(ping=1) == PONG
            self.pings.append(Answer(asked, trio.current_time() - asked, passed=True))
            await trio.sleep(0.01)

    async def until(self, *, passed: bool, within: float, took: float = 0) -> float:
        """Wait until a packet that is sent from now on passes or is refused, and return the seconds until then.

        Packets that were answered in less than ``took`` seconds do not count.
        """
        since = trio.current_time()
        with trio.move_on_after(within):
            while not any(  # noqa: ASYNC110  # an answer has no event
                answer.asked >= since and answer.passed is passed and answer.took >= took
                for answer in reversed(self.answers)
            ):
                await trio.sleep(0.005)
            return trio.current_time() - since
        raise AssertionError(f"for {within} s no packet was {'passed' if passed else 'refused'}")

    def between(self, begin: float, end: float) -> list[Answer]:
        """Return the answers to packets that were sent and answered in this time."""
        return [answer for answer in self.answers if answer.asked >= begin and answer.asked + answer.took <= end]

    @property
    def slowest(self) -> Answer:
        return max(self.answers, key=lambda answer: answer.took)

    @property
    def pings_meanwhile(self) -> int:
        """The number of pings that were sent and answered during the slowest request with a key."""
        begin, end = self.slowest.asked, self.slowest.asked + self.slowest.took
        return len([ping for ping in self.pings if ping.asked >= begin and ping.asked + ping.took <= end])


@asynccontextmanager
async def traffic(running: Running, key: str, *, clients: int = 2) -> AsyncIterator[Traffic]:
    seen = Traffic()
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await running.connect()) for _ in range(clients + 1)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.ping, peers[0])
            for peer in peers[1:]:
                nursery.start_soon(seen.ask, peer, key)
            await seen.until(passed=True, within=5)
            yield seen
            seen.over = True


@pytest.fixture
def proxied(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy(redis_server.port) as proxy:
        yield proxy


def through(proxy: TcpProxy, **options: Any) -> RedisAPIKeyFactory:
    return RedisAPIKeyFactory(f"redis://127.0.0.1:{proxy.port}/0", **options)


@pytest.mark.parametrize(("how", "recall"), [("stopped", RECALL), ("stopped", 0), ("frozen", RECALL)])
async def test_while_redis_is_away_no_key_passes_and_the_rest_goes_on(
    serve: Serve, own_redis: RedisServer, how: str, recall: float, caplog: pytest.LogCaptureFixture
) -> None:
    leave, come_back = {
        "stopped": (own_redis.stop, own_redis.start),
        "frozen": (own_redis.freeze, own_redis.thaw),
    }[how]
    factory = RedisAPIKeyFactory(own_redis.url, recall_seconds=recall)
    key = await factory.aissue({"plan": "gold"})
    running = await serve(guarded(factory))
    async with traffic(running, key) as seen:
        await trio.to_thread.run_sync(leave)
        left = trio.current_time()
        await trio.sleep(1.8)
        coming = trio.current_time()
        await trio.to_thread.run_sync(come_back)
        await seen.until(passed=True, within=10)
    away = seen.between(left + recall + 0.05, coming)
    assert away
    assert not [answer for answer in away if answer.passed]
    assert seen.slowest.took < SLOWEST
    if how == "frozen":
        assert seen.pings_meanwhile > 2
    assert 1 <= len(running.logged("API keys cannot be checked")) <= trio.current_time() - left + 1.5
    assert not [line for line in running.lines if "[ERROR]" in line and "API keys cannot be checked" not in line]
    assert not [each for each in caplog.records if each.levelno > 20 and not each.name.startswith("asyncapy.server")]
    factory.close()


async def test_redis_that_is_away_is_not_asked_for_each_packet(
    serve: Serve, proxied: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    connect = socket.socket.connect

    def count(sock: socket.socket, address: Any) -> None:
        nonlocal attempts
        attempts += address[1] == proxied.port
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", count)
    factory = through(proxied)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with traffic(running, key, clients=4) as seen:
        proxied.refuse()
        proxied.cut()
        await seen.until(passed=False, within=10)
        began, before = trio.current_time(), attempts
        await trio.sleep(1)
        refused = [answer for answer in seen.answers if answer.asked > began and not answer.passed]
        assert len(refused) > 3 * (attempts - before) > 0
        proxied.accept()
        await seen.until(passed=True, within=10)
    factory.close()


async def test_when_redis_takes_two_seconds_a_key_is_refused_after_one(serve: Serve, proxied: TcpProxy) -> None:
    factory = through(proxied)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with traffic(running, key, clients=12) as seen:
        proxied.delay = 2.0
        slow = trio.current_time()
        await trio.sleep(2.2)
        fast = trio.current_time()
        proxied.delay = 0.0
        await seen.until(passed=True, within=10)
    away = seen.between(slow + RECALL + 0.05, fast)
    assert not [answer for answer in away if answer.passed]
    waited = [answer for answer in seen.answers if answer.took > 0.9]
    assert len(waited) >= 12, "no request waited for Redis"
    assert not [answer for answer in waited if answer.passed and answer.asked + answer.took < fast]
    assert seen.slowest.took < SLOWEST
    assert seen.pings_meanwhile > 2
    factory.close()


async def test_a_valid_key_passes_while_many_clients_send_wrong_ones(serve: Serve, proxied: TcpProxy) -> None:
    """With 8 threads and 40 ms for each look-up, the wrong keys of 400 clients take twice the timeout of the store."""
    factory = through(proxied)
    keys = [await factory.aissue() for _ in range(3)]
    running = await serve(guarded(factory))
    proxied.delay = 0.02
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await running.connect()) for _ in range(400)]
        for peer in peers:
            await peer.send(json_packet(key="wrong"))
        async with await running.connect() as valid:
            for key in keys:
                assert await valid.ask(key=key) == PASSED
        for peer in peers:
            assert await peer.json() == REFUSED
    assert not running.logged("API keys cannot be checked")
    factory.close()


async def test_a_valid_key_does_not_wait_for_the_wrong_keys_of_another_network(serve: Serve, proxied: TcpProxy) -> None:
    factory = through(proxied)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    proxied.delay = 0.02
    refused, ten_refused = 0, trio.Event()

    async def attack(peer: Peer) -> None:
        nonlocal refused
        await peer.send(json_packet(key="wrong"))
        assert await peer.json() == REFUSED
        refused += 1
        if refused == 10:
            ten_refused.set()

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        peers = [
            await stack.enter_async_context(await Peer.connect_from("127.0.0.2", running.port)) for _ in range(800)
        ]
        for peer in peers:
            nursery.start_soon(attack, peer)
        async with await running.connect() as valid:
            await ten_refused.wait()
            before = refused
            assert await valid.ask(key=key) == PASSED
            assert refused - before < 500, "the key is looked up in one of the next calls"
        nursery.cancel_scope.cancel()
    factory.close()


async def test_checks_wait_for_a_connection(proxied: TcpProxy) -> None:
    with closing(RedisKeyStore.from_url(f"redis://127.0.0.1:{proxied.port}/0?max_connections=2&timeout=1")) as store:
        factory = APIKeyFactory(store=store)
        keys = [factory.issue() for _ in range(60)]
        before = proxied.accepted
        proxied.delay = 0.03
        passed: list[bool] = []

        async def check(key: str) -> None:
            passed.append(await factory.acontains(key))

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(check, key)
        assert passed == [True] * 60
        assert proxied.accepted - before <= 1


def test_callers_of_the_plain_methods_wait_for_a_connection(proxied: TcpProxy) -> None:
    url = f"redis://127.0.0.1:{proxied.port}/0?max_connections=2&timeout=5&recall_seconds=0"
    with closing(RedisKeyStore.from_url(url)) as store, ThreadPoolExecutor(40) as pool:
        factory = APIKeyFactory(store=store)
        key = factory.issue()
        proxied.delay = 0.01
        assert list(pool.map(factory.__contains__, [key] * 40)) == [True] * 40
        assert proxied.accepted <= 2


def test_a_caller_waits_for_a_connection_no_longer_than_the_timeout(proxied: TcpProxy) -> None:
    url = f"redis://127.0.0.1:{proxied.port}/0?max_connections=1&timeout=0.3&socket_timeout=5"
    with closing(RedisKeyStore.from_url(url)) as store, ThreadPoolExecutor(1) as pool:
        factory = APIKeyFactory(store=store)
        key = factory.issue()
        proxied.delay = 0.6
        first = pool.submit(factory.get, key)
        while store._client._free._value:
            time.sleep(0.001)
        with pytest.raises(KeyStoreUnavailable, match=r"all 1 connections have been in use for 0\.3 s"):
            factory.issue()
        assert first.result(10) == {}


async def test_redis_that_is_slow_but_within_the_bound_serves(serve: Serve, proxied: TcpProxy) -> None:
    factory = through(proxied, recall_seconds=0)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with traffic(running, key) as seen:
        proxied.cut()
        proxied.delay = 0.1
        await seen.until(passed=True, within=10, took=0.2)  # a new connection may take too long, and refuse some first
        settled = trio.current_time()
        await trio.sleep(0.8)
        later = seen.between(settled, trio.current_time())
        assert later
        assert all(answer.passed for answer in later)
        assert max(answer.took for answer in later) > 0.2, "no request waited for Redis"
        proxied.delay = 0.0
    assert seen.pings_meanwhile > 2
    factory.close()


async def test_connections_that_are_cut_in_the_middle_of_traffic_are_made_anew(serve: Serve, proxied: TcpProxy) -> None:
    factory = through(proxied, recall_seconds=0)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with traffic(running, key, clients=4) as seen:
        for _ in range(3):
            before = proxied.accepted
            assert proxied.cut() > 0
            await seen.until(passed=True, within=10)
            assert proxied.accepted > before
    assert seen.slowest.took < SLOWEST
    factory.close()


async def test_a_connection_that_broke_while_nobody_asked_costs_no_packet(serve: Serve, proxied: TcpProxy) -> None:
    factory = through(proxied, recall_seconds=0)
    key = await factory.aissue()
    running = await serve(guarded(factory))
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == PASSED
        assert proxied.cut() > 0
        await trio.sleep(0.1)
        assert await peer.ask(key=key) == PASSED
    factory.close()


def test_a_caller_of_the_plain_methods_waits_no_longer_than_the_bound(proxied: TcpProxy) -> None:
    factory = through(proxied, timeout=0.3)
    key = factory.issue()
    proxied.delay = 2.0
    calls: list[Callable[[], object]] = [lambda: key in factory, lambda: factory.reissue(key), factory.issue]
    for call in calls:
        with pytest.raises(KeyStoreUnavailable):
            call()
        time.sleep(0.26)  # longer than the pause before the next attempt
    factory.close()


def test_a_change_of_which_the_answer_was_lost_is_not_made_twice(redis_server: RedisServer, proxied: TcpProxy) -> None:
    factory = through(proxied, timeout=0.3)
    key = factory.issue({"plan": "gold"})
    before = redis_server.calls("eval")
    proxied.delay = 0.4
    with pytest.raises(KeyStoreUnavailable):
        factory.revoke(key)
    proxied.delay = 0.0
    time.sleep(0.5)
    direct = RedisAPIKeyFactory(redis_server.url)
    assert redis_server.calls("eval") - before <= 1
    assert factory.records() == direct.records()
    factory.close()
    direct.close()


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
async def test_a_factory_can_be_made_while_redis_is_away(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}" + ("/mymaster" if "sentinel" in scheme else "")
    factory = RedisAPIKeyFactory(url)
    for _ in range(2):
        with pytest.raises(KeyStoreUnavailable, match=r"127\.0\.0\.1.*; no key passes until"):
            await factory.acontains("x" * 32)
    with pytest.raises(KeyStoreUnavailable):
        factory.issue()
    factory.close()


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
async def test_the_error_of_redis_that_is_away_is_short_and_says_why(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}" + ("/mymaster" if "sentinel" in scheme else "")
    with pytest.raises(KeyStoreUnavailable) as caught:
        RedisAPIKeyFactory(url).issue()
    message = str(caught.value)
    assert len(message) < 250
    assert "\n" not in message
    assert " object at 0x" not in message


def test_a_factory_made_while_redis_was_away_works_when_it_is_there(own_redis: RedisServer) -> None:
    own_redis.stop()
    factory = RedisAPIKeyFactory(own_redis.url)
    with pytest.raises(KeyStoreUnavailable):
        factory.issue()
    own_redis.start()
    time.sleep(0.26)  # longer than the pause before the next attempt
    assert factory.issue() in factory
    factory.close()


async def test_a_hot_key_costs_no_round_trip(serve: Serve, redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url)
    key = await factory.aissue()
    assert await factory.acontains(key)
    began, before = time.monotonic(), redis_server.calls("get")
    for _ in range(2000):
        assert await factory.acontains(key)
    assert redis_server.calls("get") - before <= (time.monotonic() - began) / RECALL + 1

    running = await serve(guarded(factory))
    async with await running.connect() as peer:
        began, before = time.monotonic(), redis_server.calls("get")
        for _ in range(20):
            await peer.send(json_packet(key=key) * 100)
            assert [await peer.json() for _ in range(100)] == [PASSED] * 100
        assert redis_server.calls("get") - before <= (time.monotonic() - began) / RECALL + 1
    factory.close()


async def test_a_key_that_is_not_recalled_costs_one_round_trip(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url, recall_seconds=0)
    key = await factory.aissue()
    before = redis_server.calls("get")
    for _ in range(50):
        assert await factory.acontains(key)
    assert redis_server.calls("get") - before == 50
    factory.close()


def test_redis_holds_digests_and_no_keys(own_redis: RedisServer) -> None:
    factory = RedisAPIKeyFactory(own_redis.url)
    first, record = factory.issue_with_record({"plan": "gold"}, expires_in=60)
    second = factory.reissue(factory.issue())
    assert first in factory
    dump = ""
    with redis.Redis(port=own_redis.port, decode_responses=True) as client:
        for name in client.keys("*"):
            dump += f"{name} {client.get(name) if ':key:' in name else client.hgetall(name)}"
    assert digest(first) in dump
    assert digest(second) in dump
    assert record.id in dump
    assert first not in dump
    assert second not in dump
    factory.close()


def test_a_record_and_the_index_of_its_id_are_in_one_hash_slot(own_redis: RedisServer) -> None:
    factory = RedisAPIKeyFactory(own_redis.url, prefix="my keys")
    key = factory.issue()
    for _ in range(5):
        key = factory.reissue(key)
    tag = f"{{{digest(key)[:2]}}}"
    with redis.Redis(port=own_redis.port, decode_responses=True) as client:
        assert sorted(client.keys("*")) == [f"my keys:ids:{tag}", f"my keys:key:{tag}:{digest(key)}"]
    factory.close()


def test_keys_are_spread_over_many_hash_slots(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url, prefix="spread")
    keys = [factory.issue() for _ in range(100)]
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        slots = {key_slot(name.encode()) for name in client.keys("spread:key:*")}
    assert len(slots) == len({digest(key)[:2] for key in keys}) > 40
    factory.close()


def test_redis_deletes_a_record_at_its_expiry(redis_server: RedisServer) -> None:
    factory = RedisAPIKeyFactory(redis_server.url, prefix="expiry")
    key, record = factory.issue_with_record(expires_in=1000)
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        for _ in range(2):
            assert record.expires is not None
            (name,) = client.keys("expiry:key:*")
            assert 0 <= client.pexpiretime(name) / 1000 - record.expires <= 0.001
            factory.update(key, {"plan": "gold"})
            key = factory.reissue(key)
        client.delete(name)
    factory.close()


def test_a_prefix_with_a_brace_is_refused() -> None:
    for prefix in ("{keys}", "a{b", "a}b"):
        with pytest.raises(KeyStoreError, match=r"has a brace; write one without"):
            RedisKeyStore("redis://localhost", prefix=prefix)


def test_digests_of_different_hash_slots_are_refused() -> None:
    with closing(RedisKeyStore(f"redis://127.0.0.1:{free_port()}")) as store:
        assert store.can_replace("3f" + "0" * 62, "3f" + "1" * 62)
        assert not store.can_replace("3f" + "0" * 62, "40" + "0" * 62)
        with pytest.raises(ValueError, match="different hash slots"):
            store.replace("3f" + "0" * 62, "40" + "0" * 62)
        for call in (store.get, store.remove, lambda name: store.add(name, KeyRecord("id"))):
            with pytest.raises(ValueError, match="'a key' is no digest"):
                call("a key")


def name_of(key: str) -> str:
    """Return the name of the record of a key in Redis."""
    return f"asyncapy:key:{{{digest(key)[:2]}}}:{digest(key)}"


DAMAGED = (
    b"",
    b"id",
    b"id\n1.0\n\n{",
    b"id\nnow\n\n{}",
    b"id\nnan\n\n{}",
    b"id\n1.0\nnan\n{}",
    b"id\n1.0\ninf\n{}",
    b"id\n1.0\n\n[]",
    b'id\n1.0\n\n{"a": NaN}',
    b'id\n1.0\n\n{"a": "\xff"}',
    b"\xff\n1.0\n\n{}",
    b"id\n1.0\n\n" + b"[" * 100_000,
)


def test_a_damaged_record_is_skipped_in_lists_and_named(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    factory = RedisAPIKeyFactory(own_redis.url, recall_seconds=0)
    (key, record), other = factory.issue_with_record(), factory.issue()
    factory.issue(expires_in=0.001)
    time.sleep(0.002)
    with redis.Redis(port=own_redis.port) as client:
        client.set(name_of(key), f"{record.id}\n1.0\n\n{{".encode())
        client.hset("asyncapy:ids:{00}", b"\xff", b"\xff")
        client.set(b"asyncapy:key:{00}:\xff", b"\xff")
    assert [each.id for each in factory.records()] == [factory.describe(other).id]
    assert f"the record of key '{record.id}' (revoke it by its id) is damaged" in caplog.text
    assert r"the record of digest '\\xff' in Redis is damaged, or of another program" in caplog.text
    assert factory.purge() == 1
    factory.revoke_id(record.id)
    with pytest.raises(KeyError):
        factory.get(key)
    factory.close()


def test_what_is_not_a_record_of_ours_is_a_clear_error(own_redis: RedisServer) -> None:
    factory = RedisAPIKeyFactory(own_redis.url)
    key = factory.issue({"plan": "gold"})
    with redis.Redis(port=own_redis.port, decode_responses=True) as client:
        for damaged in DAMAGED:
            client.set(name_of(key), damaged)
            with pytest.raises(KeyStoreError, match="damaged"):
                factory.get(key)
        client.delete(name_of(key))
        client.hset(name_of(key), "a", "field")
        with pytest.raises(KeyStoreError, match="WRONGTYPE"):
            factory.get(key)
    factory.close()


@pytest.mark.parametrize(
    "query",
    [
        "spam=1",
        "timeout=soon",
        "timeout=0",
        "timeout=-1",
        "timeout=nan",
        "timeout=inf",
        "recall_seconds=-1",
        "recall_seconds=nan",
    ],
)
@pytest.mark.parametrize(
    "base", ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/m", "redis+cluster://127.0.0.1:1"]
)
def test_a_wrong_option_in_a_url_is_a_clear_error(base: str, query: str) -> None:
    with pytest.raises(KeyStoreError, match=query.partition("=")[0]) as caught:
        RedisKeyStore.from_url(f"{base}?{query}").get(digest("a key"))
    assert not isinstance(caught.value, KeyStoreUnavailable)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("socket_timeout=soon", "Invalid value for 'socket_timeout'"),
        ("socket_timeout=-1", "socket_timeout as a number from 0"),
        ("socket_connect_timeout=nan", "socket_connect_timeout as a number from 0"),
        ("max_connections=many", "Invalid value for 'max_connections'"),
        ("protocol=7", r"protocol (must be either|as) 2 or 3"),
        ("ssl_ca_certs=ca.pem", "write rediss instead of redis"),
        ("decode_responses=no", "no option decode_responses"),
        ("retry_on_timeout=yes", "no option retry_on_timeout"),
        ("connection_pool=1", "no option connection_pool"),
        ("single_connection_client=1", "no option single_connection_client"),
        ("read_from_replicas=no", "no option read_from_replicas"),
    ],
)
@pytest.mark.parametrize("base", ["redis://host", "redis+sentinel://host/m", "redis+cluster://host"])
def test_an_option_of_connections_that_cannot_be_used_is_a_clear_error(base: str, query: str, message: str) -> None:
    with pytest.raises(KeyStoreError, match=message):
        RedisKeyStore.from_url(f"{base}?{query}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rediss://host?ssl_cert_reqs=some", "some"),
        ("redis://host?sentinel_password=x", "no option sentinel_password"),
        ("redis+cluster://host/1", "a cluster has only one"),
        ("redis+cluster://host?db=1", "a cluster has only one"),
        ("redis://one,two", "write one HOST:PORT"),
        ("redis://host/keys", "scheme://user:password@host:port/db"),
        ("redis+sentinel://host/m/keys", "scheme://user:password@host:port/db"),
    ],
)
def test_a_url_that_fits_no_topology_is_a_clear_error(url: str, message: str) -> None:
    with pytest.raises(KeyStoreError, match=message):
        RedisKeyStore.from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:port",
        "redis://127.0.0.1:99999",
        "redis://[::1",
        "redis+sentinel://127.0.0.1:1",
        "http://host",
    ],
)
def test_a_wrong_url_is_a_clear_error(url: str) -> None:
    with pytest.raises(KeyStoreError, match=r"redis\+sentinel://|is not a Redis URL"):
        RedisKeyStore(url).get(digest("a key"))


@pytest.mark.parametrize(
    "credentials",
    [":hunter2@", "user:hunter2@", ":hunter2/x@", ":hunter2#x@", ":x#hunter2@", ":hunter2?x@", ":x?hunter2@"],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster", "http"])
def test_a_password_in_a_url_is_in_no_message(scheme: str, credentials: str) -> None:
    """Even if a special character in it is not escaped as %2F, %23 or %3F."""
    url = (
        f"{scheme}://{credentials}127.0.0.1:1/mymaster"
        if "sentinel" in scheme
        else f"{scheme}://{credentials}127.0.0.1:1"
    )
    with pytest.raises(KeyStoreError) as caught:
        RedisKeyStore(url).get(digest("a key"))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_a_clear_error_without_it(tmp_path: Path, redis_program: str) -> None:
    with RedisServer(redis_program, tmp_path, "--requirepass", "swordfish") as server:
        right = RedisAPIKeyFactory(f"redis://:swordfish@127.0.0.1:{server.port}/0")
        key = right.issue()
        assert key in right
        wrong = RedisAPIKeyFactory(f"redis://:hunter2@127.0.0.1:{server.port}/0")
        with pytest.raises(KeyStoreError, match="password") as caught:
            wrong.get(key)
        assert not [
            line for line in traceback.format_exception(caught.value) if "hunter2" in line or "swordfish" in line
        ]
        for each in (right, wrong):
            assert "hunter2" not in repr(each) + repr(each.key_store)
            assert "swordfish" not in repr(each) + repr(each.key_store)
            each.close()
