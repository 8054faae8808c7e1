"""Measure the commands of the key store on a cluster of three masters with a million keys: `make bench-cluster`.

The program starts the masters on free ports, with the settings for keys that the documentation names. For each kind of
call it prints the number of commands that the masters executed, the time of the slowest one and of the slowest of
99.99 %, both from SLOWLOG, and the time of a call as its caller sees it. A slowest command above 5 ms ends it with
status 1.
"""

import argparse
import contextlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import redis

from asyncapy.util import APIKeyFactory
from asyncapy_core import KeyRecord
from asyncapy_core.keys.factory import digest
from asyncapy_redis import RedisKeyStore, scripts
from asyncapy_redis.layout import Layout, encode, expiry

MASTERS = 3
LIMIT = 0.005
BATCH = 2000
SLOTS = 16384


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def cluster(program: str, folder: Path) -> Iterator[list[redis.Redis]]:
    """Run a cluster for the length of a ``with`` block, and yield a client for each master."""
    ports = [free_port() for _ in range(MASTERS)]
    buses = [free_port() for _ in range(MASTERS)]
    processes = []
    try:
        for port, bus in zip(ports, buses, strict=True):
            (folder / str(port)).mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--appendonly", "yes", "--save", ""]
            slowlog = ["--slowlog-log-slower-than", "0", "--slowlog-max-len", "2000000"]
            command = [program, "--port", str(port), "--dir", str(folder / str(port)), *options, *slowlog]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            with contextlib.suppress(PermissionError):  # SLOWLOG counts the time for which another process has the core
                os.sched_setscheduler(processes[-1].pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        clients = [redis.Redis(port=port) for port in ports]
        for number, client in enumerate(clients):
            wait_for(client, bool)
            first, after = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            cluster_command(client, "SET-CONFIG-EPOCH", number + 1)
            cluster_command(client, "ADDSLOTSRANGE", first, after - 1)
            cluster_command(client, "MEET", "127.0.0.1", ports[0], buses[0])
        for client in clients:
            wait_for(client, lambda info: info["cluster_size"] == str(MASTERS) and info["cluster_state"] == "ok")
        yield clients
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cluster_command(client: redis.Redis, name: str, *arguments: str | int) -> Any:
    return client.execute_command(f"CLUSTER {name}", *arguments)  # type: ignore[no-untyped-call]  # redis-py does not type it


def wait_for(client: redis.Redis, condition: Callable[[dict[str, str]], bool]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.ConnectionError):
            if condition(cluster_command(client, "INFO")):
                return
        time.sleep(0.05)
    sys.exit("the cluster did not start")


def load(port: int, number: int) -> list[str]:
    """Issue this number of keys, a tenth of which expires in a year, by pipelines. Return every hundredth key."""
    layout, sample, now = Layout("asyncapy"), [], time.time()
    with redis.RedisCluster("127.0.0.1", port) as client:
        for start in range(0, number, BATCH):
            pipeline = client.pipeline()
            for count in range(start, min(start + BATCH, number)):
                key = f"{random.getrandbits(192):048x}"
                expires = now + 365 * 86400 if count % 10 == 0 else None
                record = KeyRecord(f"{count:016x}", {"owner": f"user {count}", "plan": "gold"}, now, expires)
                keys = [layout.record(digest(key)), layout.index(digest(key))]
                values = [record.id, encode(record), expiry(expires), digest(key)]
                pipeline.execute_command("EVAL", scripts.ADD, 2, *keys, *values)
                if count % 100 == 0:
                    sample.append(key)
            pipeline.execute()
    return sample


def check(factory: APIKeyFactory, key: str) -> None:
    if key not in factory:
        sys.exit("a key was lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--program", default="redis-server", help="redis-server or valkey-server, or its path")
    options = parser.parse_args()
    program = shutil.which(options.program)
    if program is None:
        sys.exit(f"{options.program} is not installed: apt-get install redis-server")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    slowest: list[float] = []
    with tempfile.TemporaryDirectory() as name, cluster(program, Path(name)) as masters:

        def measure(kind: str, calls: list[Callable[[], object]]) -> list[Any]:
            for master in masters:
                master.slowlog_reset()
            results, times = list[Any](), list[float]()
            for call in calls:
                began = time.perf_counter()
                results.append(call())
                times.append(time.perf_counter() - began)
            logged = [entry for master in masters for entry in master.slowlog_get(-1)]
            commands = [entry for entry in logged if not entry["command"].startswith(b"SLOWLOG")]
            commands.sort(key=lambda entry: int(entry["duration"]))
            worst, typical = commands[-1], commands[int(len(commands) * 0.9999) - 1]
            slowest.append(worst["duration"] / 1e6)
            print(
                f"{kind:10} {len(calls):6,} calls, median {statistics.median(times) * 1e3:9.2f} ms, "
                f"{len(commands):9,} commands, slowest {worst['duration'] / 1e3:6.2f} ms "
                f"({worst['command'].split()[0].decode()}), 99.99 % {typical['duration'] / 1e3:6.2f} ms"
            )
            return results

        port = int(masters[0].connection_pool.connection_kwargs["port"])
        began = time.monotonic()
        sample = load(port, options.keys)
        random.shuffle(sample)
        seconds = time.monotonic() - began
        for master in masters:
            master.slowlog_reset()
        sizes = [master.dbsize() for master in masters]
        memory = sum(int(master.info("memory")["used_memory"]) for master in masters) >> 20
        print(f"{version}\n{options.keys:,} keys in {seconds:.0f} s; {sizes} names; {memory} MiB")

        url = f"redis+cluster://127.0.0.1:{port}"
        with contextlib.closing(RedisKeyStore(url, recall_seconds=0, timeout=30)) as store:
            factory = APIKeyFactory(store=store)
            number = min(options.calls, len(sample) // 4)
            issued = measure("issue", [lambda: factory.issue({"plan": "gold"})] * number)
            measure("check", [partial(check, factory, key) for key in sample])
            measure("update", [partial(factory.update, key, {"plan": "silver"}) for key in sample[:number]])
            measure("reissue", [partial(factory.reissue, key) for key in sample[:number]])
            measure("revoke", [partial(factory.revoke, key) for key in issued])
            ids = [factory.describe(key).id for key in sample[number : number + number // 10]]
            measure("revoke_id", [partial(factory.revoke_id, key_id) for key_id in ids])
            (count,) = measure("list", [lambda: sum(1 for _ in store.records())])
            (purged,) = measure("purge", [lambda: store.purge(time.time() + 366 * 86400)])
            (again,) = measure("purge", [lambda: store.purge(time.time())])
            print(f"{count:,} keys listed, {purged:,} purged, then {again}")
    if max(slowest) > LIMIT:
        sys.exit(f"the slowest command took {max(slowest) * 1e3:.2f} ms, more than {LIMIT * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
