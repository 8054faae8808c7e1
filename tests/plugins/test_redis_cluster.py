"""The Redis store on a cluster of three masters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from redis_server import Cluster, RedisServer

from asyncapy_core import APIKeyFactory, KeyStore
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


def names_on(node: RedisServer, prefix: str) -> list[str]:
    with redis.Redis(port=node.port, decode_responses=True) as client:
        return [str(name) for name in client.keys(f"{prefix}:key:*")]


def test_keys_are_spread_over_all_masters(cluster: Cluster) -> None:
    with closing(RedisKeyStore(cluster.url, prefix="spread")) as store:
        factory = APIKeyFactory(store=store)
        keys = {factory.issue() for _ in range(120)}
        on_nodes = [names_on(node, "spread") for node in cluster.nodes]
        assert all(len(names) > 10 for names in on_nodes)
        listed = {name.rpartition(":")[2] for names in on_nodes for name in names}
        assert listed == {digest(key) for key in keys}
        assert len(factory.records()) == 120
