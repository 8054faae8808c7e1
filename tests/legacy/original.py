"""AsyncAPY 0.5 as a program: ``original.py server PORT TIMEOUT``, or ``original.py client PORT ENCODING``.

It runs in an environment of its own (`make legacy`), and uses nothing but the documented interface of 0.5. The client
sends the packets that it reads from standard input, a line of JSON each, and prints each reply, or null at the end of
the connection.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from asyncapy import Packet, Server
from asyncapy.client import Client


def serve(port: int, timeout: int) -> None:
    server = Server(port=port, timeout=timeout)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        if "silent" not in packet:
            await client.send(Packet(packet.dict_payload, encoding=packet.encoding))

    server.start()


def call(port: int, encoding: str) -> None:
    client = Client(tls=False, encoding=encoding, timeout=10)
    client.connect("127.0.0.1", port)
    for line in sys.stdin:
        client.send(json.loads(line))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it prints each packet
                reply = client.receive()
        except Exception:  # 0.5 decodes the payload of an empty packet then
            reply = None
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        call(int(sys.argv[2]), sys.argv[3])
