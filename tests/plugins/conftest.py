from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis_server import SERVERS, RedisServer, SharedRedis


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRedis]:
    """Return ``shared_redis(program)``, a server that tests share.

    A test that uses it does not stop it, and has a key prefix of its own.
    """
    started: dict[str, RedisServer] = {}

    def give(program: str) -> RedisServer:
        if program not in started:
            started[program] = RedisServer(program, tmp_path_factory.mktemp(program))
            started[program].start()
        return started[program]

    yield give
    for server in started.values():
        server.stop()


@pytest.fixture(scope="session", params=SERVERS)
def redis_program(request: pytest.FixtureRequest) -> str:
    """The name of an installed server with the Redis protocol."""
    return str(request.param)


@pytest.fixture(scope="session")
def redis_server(redis_program: str, shared_redis: SharedRedis) -> RedisServer:
    """The shared server, for tests that do not stop it."""
    return shared_redis(redis_program)


PROGRAM_OF_A_SERVER = Path(__file__).with_name("store_server.py")


@pytest.fixture(scope="module")
def store_servers() -> Iterator[Callable[[str, str], tuple[int, ...]]]:
    """Return ``start(kind, store)``: it starts two servers that share a store, and returns their ports."""
    processes: list[subprocess.Popen[str]] = []

    def start(kind: str, store: str) -> tuple[int, ...]:
        command = [sys.executable, str(PROGRAM_OF_A_SERVER), kind, store]
        pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        processes.extend(pair)
        return tuple(int(process.stdout.readline()) for process in pair if process.stdout is not None)

    yield start
    for process in processes:
        process.communicate(timeout=20)
    assert [process.returncode for process in processes] == [0] * len(processes)


@pytest.fixture
def own_redis(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may stop it."""
    with RedisServer(redis_program, tmp_path) as server:
        yield server
