"""A real redis-server for tests, on a free port, which can be stopped and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROGRAM = shutil.which("redis-server")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """Keeps its data in a folder, so that it is there again after a restart."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def _command(self) -> list[str]:
        assert PROGRAM is not None
        kept = ["--dir", str(self._folder), "--appendonly", "yes", "--save", ""]
        return [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", *kept, *self._options]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    return  # it wants a password, so it is there
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, "redis-server did not start"
                    time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """End it without a farewell."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def freeze(self) -> None:
        """Have it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def calls(self, command: str) -> int:
        """How often this command was called."""
        with redis.Redis(port=self.port) as client:
            stats: dict[str, dict[str, int]] = client.info("commandstats")
            return stats.get(f"cmdstat_{command}", {}).get("calls", 0)

    def until(self, condition: Callable[[redis.Redis], bool], seconds: float = 10) -> None:
        """Wait for something that Redis does in its own time."""
        deadline = time.monotonic() + seconds
        with redis.Redis(port=self.port, decode_responses=True) as client:
            while not condition(client):
                assert time.monotonic() < deadline, f"not so within {seconds} s"
                time.sleep(0.02)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Sentinel(RedisServer):
    """A ``redis-server --sentinel`` that watches one master under the name ``mymaster``."""

    def __init__(self, folder: Path, master: RedisServer, *options: str, master_port: int | None = None) -> None:
        super().__init__(folder, *options)
        self._folder.mkdir(exist_ok=True)
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"""
            port {self.port}
            bind 127.0.0.1
            dir {folder}
            sentinel monitor mymaster 127.0.0.1 {master_port or master.port} 1
            sentinel down-after-milliseconds mymaster 500
            sentinel failover-timeout mymaster 3000
            """
        )

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/mymaster/0"

    @property
    def _command(self) -> list[str]:
        assert PROGRAM is not None
        return [PROGRAM, str(self._configuration), *self._options, "--sentinel"]
