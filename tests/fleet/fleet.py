"""Restarts two servers in turn under load, behind a real HAProxy and without a proxy: see `make fleet`.

With version 23, no request is lost or handled twice, and each drain takes less than a second. Version 22 is shown for
comparison.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import trio
import trustme
from haproxy import Haproxy, documented
from ports import free_port
from rolling import Calls, Fleet, Restart, roll

from asyncapy.client import Pool

DRAIN_SECONDS = 1.0
"""The most seconds of a drain; a handler takes 2 ms."""

Run = Callable[[Path, int], Awaitable[tuple[Calls, list[Restart]]]]


async def behind_haproxy(folder: Path, restarts: int, version: Literal[22, 23] = 23) -> tuple[Calls, list[Restart]]:
    """Restart servers behind an HAProxy with the configuration of the documentation."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "api.pem"))
    ports, port = {"one": free_port(), "two": free_port()}, free_port()
    text = documented(folder / "api.pem", port, list(ports.values()))
    with Fleet(folder, ports, "127.0.0.1") as fleet, Haproxy(folder, text, port) as haproxy:
        haproxy.wait_for(one="UP", two="UP")
        async with Pool("127.0.0.1", port, ca_file=folder / "ca.pem", version=version) as pool:
            return await roll(fleet, pool, restarts, lambda name: haproxy.wait_for(**{name: "UP"}))


async def without_proxy(folder: Path, restarts: int, version: Literal[22, 23] = 23) -> tuple[Calls, list[Restart]]:
    """Restart servers to which the pool connects itself."""
    ports = {"one": free_port(), "two": free_port()}
    with Fleet(folder, ports) as fleet:
        hosts = [("127.0.0.1", port) for port in ports.values()]
        async with Pool(hosts, 0, tls=False, version=version) as pool:
            return await roll(fleet, pool, restarts, lambda name: None)


def faults(calls: Calls, restarts: list[Restart]) -> list[str]:
    """Return a line for each restart in which requests were lost or handled twice."""
    found = [f"restart {number}: {each}" for number, each in enumerate(restarts, 1) if each.lost or each.twice]
    return [*found, *(f"request {request}: {error}" for request, error in list(calls.failed.items())[:5])]


def show(title: str, calls: Calls, restarts: list[Restart]) -> None:
    """Print a table of the restarts."""
    print(f"\n{title}: {calls.number:,} requests, {calls.answered:,} answered")
    print(f"{'restart':>7}  {'server':6}  {'drain, s':>8}  {'requests':>8}  {'lost':>5}  {'twice':>5}")
    for number, each in enumerate(restarts, 1):
        print(f"{number:>7}  {each.server:6}  {each.drain:>8.3f}  {each.requests:>8,}  {each.lost:>5}  {each.twice:>5}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=6)
    options = parser.parse_args()
    found = []
    runs: dict[str, Run] = {
        "Version 23 behind HAProxy": behind_haproxy,
        "Version 23, a Pool with two hosts": without_proxy,
        "Version 22 behind HAProxy, for comparison": functools.partial(behind_haproxy, version=22),
    }
    for title, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            calls, restarts = trio.run(run, Path(folder), options.restarts)
        show(title, calls, restarts)
        if not isinstance(run, functools.partial):
            found += [f"{title}: {fault}" for fault in faults(calls, restarts)]
            found += [f"{title}: a drain of {each.drain:.3f} s" for each in restarts if each.drain >= DRAIN_SECONDS]
    print("\n" + ("\n".join(found) or "Everything is as it should be."))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
