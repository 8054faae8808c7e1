from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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


PROGRAM_OF_A_SERVER = Path(__file__).with_name("key_server.py")


@pytest.fixture(scope="module")
def key_servers() -> Iterator[Callable[[str], tuple[int, ...]]]:
    """Return a function that starts two servers over one store, each a process, and returns their ports."""
    processes: list[subprocess.Popen[str]] = []

    def start(store: str) -> tuple[int, ...]:
        command = [sys.executable, str(PROGRAM_OF_A_SERVER), store]
        pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        processes.extend(pair)
        return tuple(int(process.stdout.readline()) for process in pair if process.stdout is not None)

    yield start
    for process in processes:
        process.communicate(timeout=20)
    assert [process.returncode for process in processes] == [0] * len(processes)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may stop it."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed; .ci/run installs it")
    with RedisServer(tmp_path) as server:
        yield server
