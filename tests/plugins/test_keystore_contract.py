"""The contract suite of `asyncapy_core.testing`, over each store."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from redis_server import RedisServer

from asyncapy_core import KeyStore, MemoryKeyStore
from asyncapy_core.testing import KeyStoreContract
from asyncapy_redis import RedisKeyStore
from asyncapy_sqlite import SQLiteKeyStore


class TestMemoryKeyStore(KeyStoreContract):
    def open(self) -> KeyStore:
        return MemoryKeyStore()


class TestSQLiteKeyStore(KeyStoreContract):
    stale_seconds = 0.5

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'keys.db'}"

    def open(self) -> KeyStore:
        assert self.url is not None
        return SQLiteKeyStore.from_url(self.url)


class TestRedisKeyStore(KeyStoreContract):
    stale_seconds = 0.5

    @pytest.fixture(autouse=True)
    def _prefix(self, redis_server: RedisServer) -> None:
        self.url = f"{redis_server.url}?prefix={uuid.uuid4()}"

    def open(self) -> KeyStore:
        assert self.url is not None
        return RedisKeyStore.from_url(self.url)
