"""Limits that servers share, over real servers of Redis and Valkey: exact ones, leases, and stores that are away."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import pytest
import redis
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer

from asyncapy import Failure, Server
from asyncapy.client import AsyncClient
from asyncapy.errors import ConfigError, PluginError, RateLimited, Unavailable
from asyncapy_core.routing.filter import check
from asyncapy_core.testing import Detached, serving
from asyncapy_limits import Rate, batching, scripts
from asyncapy_limits.batching import batcher_of, leave_all
from asyncapy_limits.limit import Limit
from asyncapy_limits.stores import open_store
from asyncapy_limits.window import Window

VERSIONS = pytest.mark.parametrize("version", [22, 23])


@pytest.fixture
def limit_servers(
    redis_server: RedisServer, store_servers: Callable[[str, str], tuple[int, ...]]
) -> Callable[[], tuple[int, ...]]:
    """Return a function that starts two server processes that share their limits, and returns their ports."""
    return lambda: store_servers("limits", f"{redis_server.url}?prefix={uuid.uuid4().hex}")


async def passed(port: int, operation: str, number: int, version: Literal[22, 23] = 23) -> int:
    """Send requests, many at a time, and return the number of those that passed."""
    count = 0

    async def send(client: AsyncClient, requests: int) -> None:
        nonlocal count
        for _ in range(requests):
            reply = await client.request({"op": operation})
            if "passed" in reply:
                count += 1
            else:
                assert reply["error"] == "ERR_RATE_LIMITED"
                assert reply["retry_after"] > 0

    async with (
        AsyncClient("127.0.0.1", port, tls=False, version=version, timeout=60) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(send, client, number // 20)
    return count


@VERSIONS
async def test_two_servers_pass_exactly_the_packets_of_a_small_limit(
    limit_servers: Callable[[], tuple[int, ...]], version: Literal[22, 23]
) -> None:
    counts: list[int] = []

    async def add(port: int) -> None:
        counts.append(await passed(port, "few", 100, version))

    async with trio.open_nursery() as nursery:
        for port in limit_servers():
            nursery.start_soon(add, port)
    assert sum(counts) == 30


async def test_two_servers_pass_the_packets_of_a_large_limit_with_an_error_of_5_percent(
    limit_servers: Callable[[], tuple[int, ...]], redis_server: RedisServer
) -> None:
    first, second = limit_servers()
    before = redis_server.calls("eval")
    total = await passed(first, "many", 200) + await passed(second, "many", 2400)
    assert 1900 <= total <= 2100
    assert await passed(second, "many", 20) == 0
    asked = redis_server.calls("eval") - before
    assert asked < total / 10


def rate(server: RedisServer, text: str, **options: Any) -> Rate:
    return Rate(text, shared="test", store=f"{server.url}?prefix={uuid.uuid4().hex}&timeout=0.5", **options)


async def asked(filter: Rate, address: str = "192.0.2.1", **fields: Any) -> str:
    """Return what becomes of a packet: it passes, or it gets an error code."""
    peer = Detached(address, server=Server(port=0))
    try:
        await check(filter, peer.client, peer.packet(fields))
    except Failure as failure:
        return failure.code
    return "passes"


async def test_subjects_are_apart_and_names_and_limits_are(redis_server: RedisServer) -> None:
    store = f"{redis_server.url}?prefix={uuid.uuid4().hex}"
    limits = [Rate("1/hour", shared="a", store=store), Rate("1/hour", shared="b", store=store)]
    limits.append(Rate("1/minute", shared="a", store=store))
    for filter in limits:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert await asked(filter, address) == "passes"
            assert await asked(filter, address) == "ERR_RATE_LIMITED"
    assert await asked(limits[0], "2001:db8::2") == "ERR_RATE_LIMITED"
    assert await asked(Rate("1/hour", shared="a", store=store)) == "ERR_RATE_LIMITED"


async def test_a_function_gives_the_subject_plain_or_async(redis_server: RedisServer) -> None:
    async def user(client: Any, packet: Any) -> Any:
        return packet.get("user")

    for by in (user, lambda c, p: p.get("user")):
        filter = rate(redis_server, "1/hour", by=by)
        assert [await asked(filter, user="a") for _ in range(2)] == ["passes", "ERR_RATE_LIMITED"]
        assert [await asked(filter) for _ in range(3)] == ["passes"] * 3


async def test_the_names_in_the_store_expire_and_hold_no_address(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    filter = Rate("2/minute", shared="test", store=f"{redis_server.url}?prefix={prefix}")
    await asked(filter, "192.0.2.77")
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        names = client.keys(f"{prefix}:*")
        assert isinstance(names, list)
        assert len(names) == 2
        for name in names:
            assert 0 < client.ttl(name) <= 61
            assert "192.0.2" not in name


async def test_what_the_store_refuses_is_not_asked_again_before_its_time(redis_server: RedisServer) -> None:
    filter = rate(redis_server, "1/hour")
    await asked(filter)
    await asked(filter)
    before = redis_server.calls("eval")
    assert [await asked(filter) for _ in range(50)] == ["ERR_RATE_LIMITED"] * 50
    assert redis_server.calls("eval") == before


async def test_packets_that_wait_together_share_a_round_trip(redis_server: RedisServer) -> None:
    filter = rate(redis_server, "60/hour")
    await asked(filter)
    before, results = redis_server.calls("eval"), []

    async def ask() -> None:
        results.append(await asked(filter))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert results.count("passes") == 59
    assert results.count("ERR_RATE_LIMITED") == 41
    assert redis_server.calls("eval") - before < 10


async def test_a_packet_that_is_cancelled_while_it_waits_leaves_the_others_alone(redis_server: RedisServer) -> None:
    filter = rate(redis_server, "60/hour")
    with trio.move_on_after(0) as scope:
        await asked(filter)
    assert scope.cancelled_caught
    assert await asked(filter) == "passes"


async def test_the_size_of_a_lease_depends_on_the_number_of_servers(redis_server: RedisServer) -> None:
    filter = rate(redis_server, "1000/hour")
    store = filter._sharing._store
    assert store is not None
    batcher = batcher_of(store)
    assert await asked(filter) == "passes"
    windows = filter._sharing._windows.get()
    assert windows is not None
    window = windows[store]
    sizes = {}
    for servers in (0, 1, 2, 10, 11):
        batcher.servers = servers
        sizes[servers] = window.size
    assert sizes == {0: 0, 1: 50, 2: 25, 10: 5, 11: 0}


async def test_a_server_that_ends_is_counted_no_more(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    filter = Rate("1000/hour", shared="test", store=f"{redis_server.url}?prefix={prefix}")
    server = Server(port=0)

    @server.add_handler(filter)
    async def echo(client: Any, packet: Any) -> Mapping[str, Any]:
        return dict(packet)

    with redis.Redis(port=redis_server.port) as client:
        async with serving(server) as running, running.client() as peer:
            assert await peer.request({"a": 1}) == {"a": 1}
            assert client.zcard(f"{prefix}:servers") == 1
        assert client.zcard(f"{prefix}:servers") == 0
    await leave_all()


@pytest.mark.parametrize("fail_open", [True, False])
@pytest.mark.parametrize("fault", ["stop", "freeze"])
@VERSIONS
async def test_while_the_store_is_away_a_server_counts_by_itself_or_answers_that_it_is(
    own_redis: RedisServer, fail_open: bool, fault: str, version: Literal[22, 23]
) -> None:
    server = Server(port=0)

    @server.operation("limited", rate(own_redis, "4/hour", fail_open=fail_open))
    async def limited(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"passed": True}

    @server.operation("free")
    async def free(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"free": True}

    async with (
        serving(server) as running,
        running.client(version=version, raise_failures=True) as client,
        running.client(version=version, raise_failures=True) as other,
    ):
        assert await client.request({"op": "limited"}) == {"passed": True}
        getattr(own_redis, fault)()
        answers: list[str] = []

        async def ask() -> None:
            for _ in range(5):
                try:
                    await client.request({"op": "limited"})
                except (RateLimited, Unavailable) as error:
                    answers.append(error.code)
                else:
                    answers.append("passes")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with trio.fail_after(0.4):  # less than the timeout of the store: the loop goes on
                for _ in range(10):
                    assert await other.request({"op": "free"}) == {"free": True}
        assert answers == (["passes"] * 4 + ["ERR_RATE_LIMITED"] if fail_open else ["ERR_UNAVAILABLE"] * 5)
        own_redis.thaw() if fault == "freeze" else own_redis.start()
        await answering(client)


async def answering(client: AsyncClient) -> None:
    """Ask until the store counts the packets: 4 an hour pass, one of them has."""
    with trio.fail_after(20):
        while True:
            try:
                await client.request({"op": "limited"})
            except (RateLimited, Unavailable):
                await trio.lowlevel.checkpoint()
            else:
                return


async def test_a_store_that_is_away_at_the_start_delays_no_second_packet(own_redis: RedisServer) -> None:
    own_redis.freeze()
    filter = rate(own_redis, "9/hour")
    assert await asked(filter) == "passes"
    with trio.fail_after(0.4):  # less than the timeout of the store
        assert [await asked(filter) for _ in range(10)] == ["passes"] * 8 + ["ERR_RATE_LIMITED"] * 2


async def test_a_store_that_answers_with_errors_is_away(own_redis: RedisServer) -> None:
    filter = rate(own_redis, "9/hour", fail_open=False)
    with redis.Redis(port=own_redis.port) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert await asked(filter) == "ERR_UNAVAILABLE"
        client.execute_command("REPLICAOF", "NO", "ONE")
    with trio.fail_after(20):
        while await asked(filter) != "passes":
            await trio.lowlevel.checkpoint()


async def test_a_lease_passes_packets_while_the_store_is_away(own_redis: RedisServer) -> None:
    filter = rate(own_redis, "1000/hour", fail_open=False)
    for _ in range(3):
        assert await asked(filter) == "passes"
    with trio.fail_after(5):
        while held(filter) < 40:
            await trio.lowlevel.checkpoint()
    own_redis.stop()
    assert [await asked(filter) for _ in range(40)] == ["passes"] * 40


def held(filter: Rate) -> int:
    """Return the packets of the only lease."""
    windows = filter._sharing._windows.get()
    assert windows is not None
    ((window),) = windows.values()
    (lease,) = [*window._leases._new.values()]
    return lease._packets


def test_each_run_of_trio_asks_by_itself(redis_server: RedisServer) -> None:
    filter = rate(redis_server, "3/hour")
    assert [trio.run(asked, filter) for _ in range(4)] == ["passes"] * 3 + ["ERR_RATE_LIMITED"]


async def test_the_option_of_the_plugin_names_the_store_of_a_server(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?prefix={uuid.uuid4().hex}"
    replies = []
    for _ in range(2):
        server = Server(port=0, plugin_options={"limits": {"store": url}})

        @server.add_handler(Rate("3/hour", shared="api"))
        async def echo(client: Any, packet: Any) -> Mapping[str, Any]:
            return {"passed": True}

        async with serving(server) as running, running.client() as client:
            replies += ["passed" in await client.request({"a": 1}) for _ in range(2)]
    assert replies == [True, True, True, False]


@pytest.mark.parametrize("required", [False, True])
async def test_without_a_store_the_start_says_where_to_name_one(required: bool) -> None:
    server = Server(port=0, plugins_require=["limits"] if required else [])

    @server.add_handler(Rate("3/hour") & Rate("3/hour", shared="api"))
    async def echo(client: Any, packet: Any) -> None: ...

    advice = r"shared='api'\) of the handler 'echo' needs a store: set store = redis://"
    if required:
        with pytest.raises(PluginError, match=advice):
            async with serving(server):
                pass
    else:
        async with serving(server) as running:
            assert re.search(advice, "\n".join(running.log))


async def test_without_a_store_a_guard_passes_nothing_and_the_log_says_where_to_name_one() -> None:
    server = Server(port=0)
    server.guard(Rate("3/hour", shared="api"))
    async with serving(server) as running:
        async with running.client() as client:
            assert (await client.request({"a": 1}))["error"] == "ERR_NO_HANDLER"
        assert any("no store for Rate(shared='api'): set store = redis://" in line for line in running.log)


@pytest.mark.parametrize(
    "url",
    ["localhost", "sqlite:///a.db", "redis+cluster://a", "redis://:hunter2@h:port/0", "redis://:hunter2@h?timeout=x",
     "redis://:hunter2@h?timeout=0", "redis://:hunter2@h?timeout=nan", "redis://:hunter2@h?bogus=1", "redis://[::1",
     ""],
)  # fmt: skip
async def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="is no store for rate limits; write redis://") as caught:
        Rate("1/second", shared="a", store=url)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="is no store for rate limits; write redis://") as told:
        async with serving(Server(port=0, plugin_options={"limits": {"store": url}})):
            pass
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"store": "redis://localhost"}, ValueError, "give shared='NAME' too, under which servers count together"),
        ({"shared": ""}, ValueError, "give a name, under which servers count together"),
        ({"shared": True}, TypeError, r"shared=True\): give a text, the name under which"),
    ],
)
def test_wrong_arguments_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Rate("1/second", **options)


def test_without_redis_py_a_store_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "asyncapy_limits.store", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'asyncapy-limits\[redis\]'"):
        open_store("redis://localhost:3")


def test_one_url_is_one_store() -> None:
    store = open_store("redis://localhost:1")
    assert open_store("redis://localhost:1") is store
    assert open_store("redis://localhost:2") is not store


limits = st.lists(st.builds(Limit, st.integers(1, 40), st.integers(100, 10_000)), min_size=1, max_size=3)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits, st.lists(st.integers(1, 5), max_size=40))
def test_the_script_counts_as_the_window_in_memory(
    redis_server: RedisServer, limits: list[Limit], wanted: list[int]
) -> None:
    window, key = Window(limits, 10), uuid.uuid4().hex
    terms = [term for limit in limits for term in (limit.count, limit.period)]
    with redis.Redis(port=redis_server.port) as client:
        for number in wanted:
            reply: Any = client.eval(scripts.TAKE, 1, key, number, *terms)
            waits = [window.take("a", 0) for _ in range(number)]
            assert reply[0] == waits.count(0)
            if not reply[0]:
                assert float(reply[1]) == pytest.approx(waits[0], abs=10)


async def test_an_unknown_exception_of_the_task_leaves_no_packet_waiting(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filter = rate(redis_server, "9/hour", fail_open=False)
    store = filter._sharing._store

    def fail(*arguments: Any) -> Awaitable[Any]:
        raise LookupError

    monkeypatch.setattr(store, "run", fail)
    assert [await asked(filter) for _ in range(2)] == ["ERR_UNAVAILABLE"] * 2
    assert "is not asked any more" in caplog.text
    assert batching.PAUSE < 1
