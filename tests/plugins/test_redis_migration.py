"""Keys in the layout of development versions of 0.6.0: two hashes for all keys."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from redis_server import Cluster, RedisServer

from asyncapy_cli.main import main
from asyncapy_core import APIKeyFactory, KeyRecord
from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.factory import digest
from asyncapy_redis import RedisKeyStore, migration
from asyncapy_redis.layout import encode

KEYS = {f"key number {number}": number for number in range(40)}
OLD, OLD_IDS = "{asyncapy}:keys", "{asyncapy}:ids"


def fill(client: redis.Redis) -> None:
    """Store keys as the earlier version did; one of them has expired."""
    for key, number in KEYS.items():
        expires = {0: 1.0, 1: time.time() + 1000}.get(number)
        client.hset(OLD, digest(key), encode(KeyRecord(f"id-{number}", {"n": number}, float(number), expires)))
        client.hset(OLD_IDS, f"id-{number}", digest(key))


@pytest.fixture
def store(own_redis: RedisServer) -> Iterator[RedisKeyStore]:
    with redis.Redis(port=own_redis.port) as client:
        fill(client)
    with closing(RedisKeyStore(own_redis.url, recall_seconds=0)) as store:
        yield store


def check_moved(store: RedisKeyStore) -> None:
    factory = APIKeyFactory(store=store)
    assert [key in factory for key in KEYS] == [number != 0 for number in KEYS.values()]
    assert [record.metadata["n"] for record in factory.records()] == list(range(1, 40))
    factory.update_id("id-5", {"n": "changed"})
    new = factory.reissue_id("id-5")
    assert factory.get(new) == {"n": "changed"}
    factory.revoke_id("id-5")
    assert new not in factory
    assert factory.purge() == 1


def test_a_store_refuses_to_work_until_the_keys_were_moved(
    own_redis: RedisServer, store: RedisKeyStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = APIKeyFactory(store=store)
    for call in (
        factory.issue,
        factory.records,
        lambda: factory.get("key number 3"),
        lambda: factory.revoke_id("id-3"),
    ):
        with pytest.raises(KeyStoreError, match=r"has 40 keys in the layout of a development version; .*keys migrate"):
            call()
    for output in ("40 keys moved", "0 keys moved"):
        monkeypatch.setattr(sys, "argv", ["asyncapy", "keys", "migrate", "--store", own_redis.url])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert output in capsys.readouterr().err
    check_moved(store)
    with redis.Redis(port=own_redis.port, decode_responses=True) as client:
        assert not client.exists(OLD, OLD_IDS, "{asyncapy}:migrating")
        assert client.ttl(f"asyncapy:key:{{{digest('key number 1')[:2]}}}:{digest('key number 1')}") > 900


def test_an_interrupted_migration_is_continued(
    own_redis: RedisServer, store: RedisKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script, left = store._client.run_script, [20]

    def fail(script: str, *arguments: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return run_script(script, *arguments)  # type: ignore[arg-type]  # the arguments of the caller

    with monkeypatch.context() as patch:
        patch.setattr(store._client, "run_script", fail)
        with pytest.raises(KeyboardInterrupt):
            store.migrate()
    with redis.Redis(port=own_redis.port) as client:
        client.delete("{asyncapy}:migrating")  # as after a minute
        assert client.hlen(OLD) == 40
    assert store.migrate() == 40
    check_moved(store)


def test_two_processes_do_not_migrate_the_same_keys(
    own_redis: RedisServer, store: RedisKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    move = migration._move

    def move_and_try(*arguments: object) -> int:
        with closing(RedisKeyStore(own_redis.url)) as other, pytest.raises(KeyStoreError) as caught:
            other.migrate()
        refused.append(str(caught.value))
        return move(*arguments)  # type: ignore[arg-type]  # the arguments of the caller

    monkeypatch.setattr(migration, "_move", move_and_try)
    assert store.migrate() == 40
    assert refused
    assert all("another process migrates these keys" in message for message in refused)


def test_what_is_no_record_is_left_and_named(
    own_redis: RedisServer, store: RedisKeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis(port=own_redis.port) as client:
        client.hset(OLD, b"\xff not a digest", b"\xff")
        client.hset(OLD, digest("damaged"), b"id-damaged\n1.0\n\n{")
        client.hset(OLD_IDS, "id-damaged", digest("damaged"))
        assert store.migrate() == 41
        assert client.hkeys(OLD) == [b"\xff not a digest"]
        assert "which is not the digest of a key" in caplog.text
        client.delete(OLD)
    assert store.find("id-damaged") == digest("damaged")
    store.remove(digest("damaged"))
    check_moved(store)


def test_keys_are_moved_on_a_cluster(redis_program: str, tmp_path: Path) -> None:
    with Cluster(redis_program, tmp_path) as cluster, closing(RedisKeyStore(cluster.url, recall_seconds=0)) as store:
        client = redis.RedisCluster("127.0.0.1", cluster.nodes[0].port)
        fill(client)  # type: ignore[arg-type]  # it has the same methods
        client.close()
        assert store.migrate() == 40
        check_moved(store)
