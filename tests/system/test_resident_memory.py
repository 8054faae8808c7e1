"""The memory of the process after large packets: what was freed goes back to the operating system."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path

from peer import JSON, packet
from program import Program, running

from asyncapy_core.server.heap import TRIM_SECONDS

ECHO_LATER = """
server = Server(port=0, session_limit=1000)

@server.add_handler()
async def echo(client, packet):
    if "later" in packet:
        await trio.sleep(packet["later"])
    await client.send({"count": len(packet)})

server.start()
"""
MEBI = 1024 * 1024
HALF = struct.pack(">IBB", MEBI, 22, JSON) + b"x" * 990_000
MAPS = packet(JSON, b'{"a":[' + b"{}," * 349_000 + b"{}]}")


def resident(program: Program) -> int:
    """Return the bytes of memory that the process occupies."""
    return int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[1]) * 4096


def settled(program: Program, most: int) -> int:
    """Return the occupied memory once it is at most ``most``, or after ten periods."""
    with program.connect() as caller:
        end = time.monotonic() + 10 * TRIM_SECONDS
        while resident(program) > most and time.monotonic() < end:
            caller.ask(later=0.1)
    return resident(program)


def test_memory_returns_after_half_packets_and_dense_packets(tmp_path: Path) -> None:
    with running(tmp_path, ECHO_LATER) as program:
        with program.connect() as caller:
            caller.ask(a=1)
        before = resident(program)
        for _ in range(10):
            half = [socket.create_connection(("127.0.0.1", program.port), 10) for _ in range(50)]
            for each in half:
                each.sendall(HALF)
            for each in half:
                each.close()
        assert settled(program, before + 20 * MEBI) < before + 20 * MEBI
        with contextlib.ExitStack() as stack:
            idle = [stack.enter_context(program.connect()) for _ in range(15)]
            for caller in idle:
                caller.socket.sendall(MAPS)
                assert caller.receive() == {"count": 1}
            assert settled(program, before + 20 * MEBI) < before + 20 * MEBI
            for caller in idle:
                assert caller.ask(a=1) == {"count": 1}
