"""A stand-in for AsyncAPY 0.5, with the arguments of `original.py`; it shares no code with the package.

0.5 is not on PyPI. `make legacy` runs the same tests with 0.5 itself. The server does as that one:

* It takes the first bytes that it receives for a whole packet. If they are not, it drops them, and waits for as many
  bytes as the header announces, until its timeout.
* It handles one packet, and closes the connection.
* It answers another version than 22 with ERR_HEADER_INVALID, in version 22.
"""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import sys
from typing import Any

import ziproto

BUFFER = 1024
CODECS: list[Any] = [json, ziproto]


def packed(fields: Any, encoding: int) -> bytes:
    payload = ziproto.encode(fields) if encoding else json.dumps(fields).encode()
    return struct.pack(">IBB", len(payload) + 2, 22, encoding) + payload


def unpacked(payload: bytes, encoding: int) -> Any:
    return ziproto.decode(payload) if encoding else json.loads(payload)


class Session(socketserver.BaseRequestHandler):
    """One connection of the server."""

    request: socket.socket
    timeout: float

    def handle(self) -> None:
        self.request.settimeout(self.timeout)
        try:
            data = self._packet()
            if data is not None:
                self._answer(data)
        except TimeoutError:
            self._fail("ERR_TIMED_OUT")

    def _packet(self) -> bytes | None:
        """Return all bytes behind Content-Length, or None at the end of the stream."""
        data = self.request.recv(BUFFER)
        while data and len(data) < 4:
            data += self.request.recv(1)
        if not data:
            return None
        (length,) = struct.unpack(">I", data[:4])
        if len(data) == 4 + length:
            return data[4:]
        data = b""
        while len(data) < length:
            received = self.request.recv(BUFFER)
            if not received:
                return None
            data += received
        return data

    def _answer(self, data: bytes) -> None:
        if len(data) < 5:
            return self._fail("ERR_REQUEST_MALFORMED")
        version, encoding = data[:2]
        if version != 22 or encoding not in (0, 1):
            return self._fail("ERR_HEADER_INVALID")
        try:
            fields = unpacked(data[2:], encoding)
        except Exception:
            return self._fail("ERR_REQUEST_MALFORMED", encoding)
        if "silent" not in fields:
            self.request.sendall(packed(fields, encoding))
        return None

    def _fail(self, code: str, encoding: int = 0) -> None:
        self.request.sendall(packed({"status": "failure", "error": code}, encoding))


def serve(port: int, timeout: int) -> None:
    Session.timeout = timeout
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Session) as server:
        server.serve_forever()


def call(port: int, encoding: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        stream = connection.makefile("rb")
        for line in sys.stdin:
            connection.sendall(packed(json.loads(line), encoding))
            header = stream.read(4)
            reply = None
            if header:
                body = stream.read(*struct.unpack(">I", header))
                assert tuple(body[:2]) == (22, encoding), body[:2]
                reply = unpacked(body[2:], encoding)
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        call(int(sys.argv[2]), ["json", "ziproto"].index(sys.argv[3]))
