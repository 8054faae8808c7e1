from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis_server import PROGRAM, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests that do not stop it; each takes a prefix of its own."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed; .ci/run installs it")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()
