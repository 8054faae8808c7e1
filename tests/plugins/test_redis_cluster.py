"""The Redis store on a cluster of three masters."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis
from redis_server import Cluster, RedisServer, is_up

from asyncapy_core import APIKeyFactory, KeyStore
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_core.testing import KeyStoreContract
from asyncapy_redis import RedisKeyStore

SHORT = 0.5
LONG = 30.0
SLACK = 0.25


@pytest.fixture(scope="module")
def cluster(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(redis_program, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class TestRedisCluster(KeyStoreContract):
    stale_seconds = 0.5

    @pytest.fixture(autouse=True)
    def _prefix(self, cluster: Cluster) -> None:
        self.url = f"{cluster.url}?prefix={uuid.uuid4()}"

    def open(self) -> KeyStore:
        assert self.url is not None
        return RedisKeyStore.from_url(self.url)


def within(seconds: float, call: Callable[[], object]) -> None:
    """Repeat a call until the store is available."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except KeyStoreUnavailable:
            assert time.monotonic() < deadline, f"no recovery within {seconds} s"
            time.sleep(0.05)


def names_on(node: RedisServer, prefix: str) -> list[str]:
    with redis.Redis(port=node.port, decode_responses=True) as client:
        return [str(name) for name in client.keys(f"{prefix}:key:*")]


def count_tracking(client: redis.Redis) -> int:
    return int(client.info("clients")["tracking_clients"])


def heat(cluster: Cluster, factory: APIKeyFactory, *, number: int = 12) -> list[str]:
    """Issue keys, and check them until all masters send notices of changes."""
    keys = [factory.issue() for _ in range(number)]
    for key in keys * 2:
        assert key in factory
    for node in cluster.nodes[:3]:
        node.until(lambda client: count_tracking(client) == 1)
    return keys


def test_keys_are_spread_over_all_masters(cluster: Cluster) -> None:
    with closing(RedisKeyStore(cluster.url, prefix="spread")) as store:
        factory = APIKeyFactory(store=store)
        keys = {factory.issue() for _ in range(120)}
        on_nodes = [names_on(node, "spread") for node in cluster.nodes]
        assert all(len(names) > 10 for names in on_nodes)
        listed = {name.rpartition(":")[2] for names in on_nodes for name in names}
        assert listed == {digest(key) for key in keys}
        assert len(factory.records()) == 120


def test_a_key_on_any_master_ends_at_once_when_another_server_revokes_it(cluster: Cluster) -> None:
    with (
        closing(RedisKeyStore(cluster.url, prefix="ends", recall_seconds=LONG)) as store,
        closing(RedisKeyStore(cluster.url, prefix="ends")) as direct,
    ):
        factory = APIKeyFactory(store=store)
        keys = heat(cluster, factory, number=30)
        assert all(names_on(node, "ends") for node in cluster.nodes)
        for key in keys:
            APIKeyFactory(store=direct).revoke(key)
        deadline = time.monotonic() + 10
        while any(key in factory for key in keys):
            assert time.monotonic() < deadline


def test_hot_keys_are_kept_without_asking_while_all_masters_answer(cluster: Cluster) -> None:
    with closing(RedisKeyStore(cluster.url, prefix="hot", recall_seconds=SHORT)) as store:
        factory = APIKeyFactory(store=store)
        keys = heat(cluster, factory)

        def use(seconds: float) -> int:
            before, end = sum(node.calls("get") for node in cluster.nodes), time.monotonic() + seconds
            while time.monotonic() < end:
                assert all(key in factory for key in keys)
            return sum(node.calls("get") for node in cluster.nodes) - before

        use(2 * SHORT)
        assert use(3 * SHORT) <= len(keys)  # one for each key, if the machine was busy
        cluster.nodes[2].freeze()  # the keys of the others fall back, too
        frozen = time.monotonic()
        try:
            while any(store.peek(digest(key)) for key in keys):
                assert time.monotonic() < frozen + SHORT + SLACK
        finally:
            cluster.nodes[2].thaw()


def test_when_a_master_dies_its_replica_takes_over(redis_program: str, tmp_path: Path) -> None:
    with (
        Cluster(redis_program, tmp_path) as cluster,
        closing(RedisKeyStore(cluster.nodes_url, recall_seconds=SHORT)) as store,
    ):
        factory = APIKeyFactory(store=store)
        replica = cluster.add_replica()
        keys = heat(cluster, factory)
        with redis.Redis(port=cluster.nodes[0].port) as client:
            assert client.wait(1, 5000) == 1
        cluster.nodes[0].kill()
        replica.until(lambda client: client.info("replication")["role"] == "master", 20)
        replica.until(is_up)
        for key in keys:
            within(10, partial(factory.get, key))
        revoked = [key for key in keys if factory.reissue(key)]
        assert not any(key in factory for key in revoked)
        for each in (*cluster.nodes[1:3], replica):
            each.until(lambda client: count_tracking(client) == 1)


def test_a_master_that_joins_ends_the_notices_until_it_has_keys(
    redis_program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Slots can move to it at any time."""
    caplog.set_level(logging.DEBUG)
    with (
        Cluster(redis_program, tmp_path) as cluster,
        closing(RedisKeyStore(cluster.url, recall_seconds=SHORT)) as store,
    ):
        factory = APIKeyFactory(store=store)
        keys = heat(cluster, factory)
        node = cluster.add_node()
        cluster.nodes[1].until(lambda client: "4 masters, 3 of them with keys" in caplog.text)
        assert all(key in factory for key in keys)
        move_a_slot(cluster, node)
        for each in cluster.nodes:
            each.until(lambda client: count_tracking(client) == 1)
        assert all(key in factory for key in keys)


def move_a_slot(cluster: Cluster, target: RedisServer) -> None:
    """Move slot 0, which has no keys, from the first node to another."""
    with redis.Redis(port=target.port) as client:
        new = client.cluster("MYID").decode()
    for node in (target, *cluster.nodes[:3]):
        with redis.Redis(port=node.port) as client:
            client.execute_command("CLUSTER SETSLOT", 0, "NODE", new)
