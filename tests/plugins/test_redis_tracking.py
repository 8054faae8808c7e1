"""Notices of changed keys: a revoked key ends at once, a hot one costs no round trip, a lost connection keeps none."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from redis_server import RedisServer
from tcp_proxy import TcpProxy

from asyncapy_core import APIKeyFactory, WatchableKeyStore
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_core.storage import RecordCache
from asyncapy_redis import RedisAPIKeyFactory, RedisKeyStore, tracking
from asyncapy_redis.connecting import parse
from asyncapy_redis.links import Links

LONG = 30.0
"""A ``recall_seconds`` for which no test waits."""

SHORT = 0.5
SLACK = 0.25
"""Seconds that a busy machine may add."""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition does not hold after {seconds} s"
        time.sleep(0.005)


def is_tracked(client: redis.Redis) -> bool:
    return int(client.info("clients")["tracking_clients"]) == 1


def is_not_tracked(client: redis.Redis) -> bool:
    return int(client.info("clients")["tracking_clients"]) == 0


def heat(factory: APIKeyFactory, server: RedisServer) -> str:
    """Issue a key, and check it until the server sends notices of changes."""
    key = factory.issue({"plan": "gold"})
    assert key in factory
    assert key in factory
    server.until(is_tracked)
    return key


@pytest.fixture
def direct(own_redis: RedisServer) -> Iterator[APIKeyFactory]:
    """A factory of another server process."""
    with closing(RedisAPIKeyFactory(own_redis.url)) as factory:
        yield factory


@pytest.fixture
def proxied(own_redis: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy(own_redis.port) as proxy:
        yield proxy


def test_a_key_that_another_server_revokes_ends_at_once(own_redis: RedisServer, direct: APIKeyFactory) -> None:
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=LONG)) as factory:
        key = heat(factory, own_redis)
        direct.revoke(key)
        until(lambda: key not in factory)


def test_a_key_that_another_server_changes_has_its_new_metadata_at_once(
    own_redis: RedisServer, direct: APIKeyFactory
) -> None:
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=LONG)) as factory:
        key = heat(factory, own_redis)
        direct.update(key, {"plan": "silver"})
        store = factory.key_store
        assert store is not None
        until(lambda: (store.peek(digest(key)) or store.get(digest(key))).metadata == {"plan": "silver"})
        new = direct.reissue(key)
        until(lambda: key not in factory)
        assert new in factory


def test_all_keys_end_at_once_when_redis_is_emptied(own_redis: RedisServer) -> None:
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=LONG)) as factory:
        key = heat(factory, own_redis)
        with redis.Redis(port=own_redis.port) as client:
            client.flushall()
        until(lambda: key not in factory)


def test_a_hot_key_is_kept_without_asking(own_redis: RedisServer) -> None:
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=SHORT)) as factory:
        key = heat(factory, own_redis)
        end = time.monotonic() + SHORT  # a record that was read before the notices began is read once more
        while time.monotonic() < end:
            assert key in factory
        before, end = own_redis.calls("get"), time.monotonic() + 3 * SHORT
        while time.monotonic() < end:
            assert key in factory
        assert own_redis.calls("get") - before <= 1  # one, if the machine was busy


def test_the_keys_of_other_prefixes_cause_no_notice(own_redis: RedisServer, direct: APIKeyFactory) -> None:
    changes: list[str | None] = []
    with closing(RedisKeyStore(own_redis.url, prefix="other")) as store:
        store.watch(changes.append)
        own_redis.until(is_tracked)
        direct.revoke(direct.issue())
        with closing(RedisAPIKeyFactory(own_redis.url, prefix="other")) as other:
            key = other.issue()
        until(lambda: digest(key) in changes)
    assert {change for change in changes if change is not None} == {digest(key)}


def silence(proxy: TcpProxy) -> None:
    proxy.delay = 60


def cut(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.cut()


@pytest.mark.parametrize("fail", [silence, cut])
def test_a_hot_key_passes_no_longer_than_recall_seconds_after_the_connection_fails(
    own_redis: RedisServer, proxied: TcpProxy, direct: APIKeyFactory, fail: Callable[[TcpProxy], None]
) -> None:
    url = f"redis://127.0.0.1:{proxied.port}/0"
    with closing(RedisKeyStore(url, recall_seconds=SHORT)) as store:
        factory = APIKeyFactory(store=store)
        key = heat(factory, own_redis)
        end = time.monotonic() + SHORT
        while time.monotonic() < end:
            assert key in factory
        fail(proxied)
        failed = time.monotonic()
        direct.revoke(key)
        while store.peek(digest(key)) is not None:
            assert time.monotonic() < failed + SHORT + SLACK
        with pytest.raises(KeyStoreUnavailable):
            factory.get(key)
        proxied.cut()  # also drops the delayed data


def test_a_change_during_an_interruption_is_not_missed(
    own_redis: RedisServer, proxied: TcpProxy, direct: APIKeyFactory
) -> None:
    """After the interruption, notices confirm no record that was read before it."""
    url = f"redis://127.0.0.1:{proxied.port}/0"
    with closing(RedisAPIKeyFactory(url, recall_seconds=2)) as factory:
        key = heat(factory, own_redis)
        cut(proxied)
        direct.revoke(key)
        revoked = time.monotonic()
        own_redis.until(is_not_tracked)
        proxied.accept()
        own_redis.until(is_tracked)
        store = factory.key_store
        assert store is not None
        while store.peek(digest(key)) is not None:
            assert time.monotonic() < revoked + 2 + SLACK
        until(lambda: not passes(factory, key))


def passes(factory: APIKeyFactory, key: str) -> bool:
    try:
        return key in factory
    except KeyStoreUnavailable:
        return True  # it is not decided yet


def test_notices_come_again_after_a_restart(own_redis: RedisServer, direct: APIKeyFactory) -> None:
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=LONG)) as factory:
        key = heat(factory, own_redis)
        own_redis.stop()
        own_redis.start()
        own_redis.until(is_tracked)
        until(lambda: not revoke(direct, key))
        until(lambda: key not in factory)


def revoke(factory: APIKeyFactory, key: str) -> bool:
    """Revoke a key, and return whether this has to be tried again."""
    try:
        factory.revoke(key)
    except KeyStoreUnavailable:
        return True
    return False


NEEDED = "role|eval|get|mget|set|del|rename|pexpireat|hget|hset|hdel|hlen|hscan"
"""The commands that the README lists."""


def limited(server: RedisServer, *more: str) -> str:
    """Make a user that may run the documented commands only, and return the URL with it."""
    with redis.Redis(port=server.port) as client:
        commands = ["-@all", *(f"+{command}" for command in NEEDED.split("|")), *more]
        client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["asyncapy:*"], commands=commands)
    return f"redis://limited:secret@127.0.0.1:{server.port}/0"


def test_a_user_with_the_documented_commands_needs_no_others(own_redis: RedisServer) -> None:
    with closing(RedisAPIKeyFactory(limited(own_redis, "+hello"))) as factory:
        key, record = factory.issue_with_record(expires_in=1000)
        factory.update(key, {"plan": "gold"})
        key = factory.reissue(key)
        assert [each.id for each in factory.records()] == [record.id]
        factory.revoke_id(record.id)
        factory.issue(expires_in=0.001)
        until(lambda: factory.purge() == 1)


def test_a_server_that_refuses_notices_is_asked_again_as_often_as_before_and_logged_once(
    own_redis: RedisServer, direct: APIKeyFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tracking, "REFUSED_INTERVAL", 0.05)
    with closing(RedisAPIKeyFactory(limited(own_redis, "+hello", "+ping"), recall_seconds=0.2)) as factory:
        key = factory.issue()
        assert key in factory
        assert key in factory
        own_redis.until(lambda client: refusals(client) >= 3)
        assert key in factory
        direct.revoke(key)
        revoked = time.monotonic()
        while key in factory:
            assert time.monotonic() < revoked + 0.2 + SLACK
    lines = [record.getMessage() for record in caplog.records if "notices" in record.getMessage()]
    assert len(lines) == 1
    assert "refuses notices of changed keys; a record is cached for recall_seconds" in lines[0]
    assert "secret" not in lines[0]


def refusals(client: redis.Redis) -> int:
    stats = client.info("commandstats")
    return sum(int(each["rejected_calls"]) for name, each in stats.items() if name.startswith("cmdstat_client"))


def test_no_record_is_kept_before_all_masters_send_notices(own_redis: RedisServer, proxied: TcpProxy) -> None:
    proxied.delay = 60
    cache, stopping = RecordCache(SHORT), threading.Event()
    options = parse(own_redis.url, 10).options | {"protocol": 3}
    servers = [redis.Redis(port=port, **options) for port in (own_redis.port, proxied.port)]
    connections = [server.connection_pool.make_connection() for server in servers]
    links = Links(connections, weakref.ref(cache), stopping, prefix="a", interval=0.01, is_cluster=False)

    def follow() -> None:
        with contextlib.suppress(redis.RedisError):
            links.follow()

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: own_redis.calls("role") >= 3)
    assert cache._confirmed == RecordCache(SHORT)._confirmed
    proxied.cut()
    proxied.delay = 0
    thread.join(10)
    assert not thread.is_alive()
    for server in servers:
        server.close()


@pytest.mark.parametrize("recall", [0, SHORT])
def test_watchers_learn_of_changes_and_of_interruptions(
    own_redis: RedisServer, proxied: TcpProxy, direct: APIKeyFactory, recall: float
) -> None:
    changes: list[str | None] = []
    with closing(RedisKeyStore(f"redis://127.0.0.1:{proxied.port}/0", recall_seconds=recall)) as store:
        assert isinstance(store, WatchableKeyStore)
        end = store.watch(changes.append)
        own_redis.until(is_tracked)
        key = direct.issue()
        until(lambda: digest(key) in changes)
        changes.clear()
        direct.revoke(key)
        until(lambda: changes == [digest(key)])
        cut(proxied)
        until(lambda: changes.count(None) >= 2)
        end()
        changes.clear()
        proxied.accept()
        own_redis.until(is_tracked)
        direct.issue()
    assert changes == []


@pytest.mark.parametrize("recall", [0, SHORT])
def test_a_key_that_is_looked_up_once_starts_no_thread(own_redis: RedisServer, recall: float) -> None:
    before = threading.active_count()
    with closing(RedisAPIKeyFactory(own_redis.url, recall_seconds=recall)) as factory:
        key = factory.issue()
        assert key in factory
        assert recall or key in factory  # without a cache, another time
        assert threading.active_count() == before
        own_redis.until(is_not_tracked)


def test_a_closed_store_has_no_connection_and_no_thread(own_redis: RedisServer) -> None:
    before = threading.active_count()
    factory = RedisAPIKeyFactory(own_redis.url, recall_seconds=LONG)
    key = heat(factory, own_redis)
    factory.close()
    assert threading.active_count() == before
    own_redis.until(is_not_tracked)
    assert key in factory  # from the cache, and without another thread
    assert threading.active_count() == before


def test_a_store_that_is_dropped_has_no_connection_and_no_thread(own_redis: RedisServer) -> None:
    before = threading.active_count()
    factory = RedisAPIKeyFactory(own_redis.url, recall_seconds=SHORT)
    heat(factory, own_redis)
    del factory
    gc.collect()
    until(lambda: threading.active_count() == before)
    own_redis.until(is_not_tracked)


ENDS = """
import sys
from asyncapy_core import APIKeyFactory
import redis
factory = APIKeyFactory(store=sys.argv[1])
key = factory.issue()
assert key in factory and key in factory
with redis.Redis.from_url(sys.argv[1].partition("?")[0]) as client:
    while not client.info("clients")["tracking_clients"]:
        pass
print("over", flush=True)
"""

FORKS = """
import os, sys, time
import redis
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
admin = redis.Redis.from_url(sys.argv[1].partition("?")[0])
key = factory.issue()

def heat(number):
    assert key in factory and key in factory
    with redis.Redis.from_url(sys.argv[1].partition("?")[0]) as client:
        while client.info("clients")["tracking_clients"] != number:
            pass

heat(1)
hot, hot_in_child = os.pipe()
pid = os.fork()
if pid == 0:
    heat(2)
    os.write(hot_in_child, b"hot")
    deadline = time.monotonic() + 10
    while key in factory and time.monotonic() < deadline:
        pass
    print(key in factory, flush=True)
    factory.close()
    os._exit(0)
os.read(hot, 3)
factory.revoke(key)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), key in factory)
factory.close()
"""


def run(program: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, url], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_process_that_leaves_its_store_open_ends(own_redis: RedisServer) -> None:
    assert run(ENDS, f"{own_redis.url}?recall_seconds={LONG}") == "over\n"
    own_redis.until(is_not_tracked)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_each_get_notices_after_a_fork(own_redis: RedisServer) -> None:
    assert run(FORKS, f"{own_redis.url}?recall_seconds={LONG}&prefix={uuid.uuid4()}") == "False\n0 False\n"
