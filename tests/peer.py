"""A peer written to the text of WIRE.md with nothing but `struct`, so that it shares no mistake with the code it tests."""

from __future__ import annotations

import json
import struct
from typing import Any

import trio

JSON, ZIPROTO = 0, 1


def packet(encoding: int, body: bytes, *, version: int = 22) -> bytes:
    """P(e, body) of HOSTILE.md: length (4 bytes, big endian), version, encoding, body."""
    return struct.pack(">IBB", len(body) + 2, version, encoding) + body


def json_packet(**fields: Any) -> bytes:
    return packet(JSON, json.dumps(fields).encode())


def failure(code: str) -> dict[str, str]:
    """The reply that the server makes itself."""
    return {"status": "failure", "error": code}


class Peer:
    """A raw connection to a server."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Peer:
        return cls(await trio.open_tcp_stream(host, port, happy_eyeballs_delay=1))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_bytewise(self, data: bytes) -> None:
        for index in range(len(data)):
            await self.stream.send_all(data[index : index + 1])
            await trio.testing.wait_all_tasks_blocked()

    async def read(self, count: int) -> bytes:
        """Read exactly so many bytes; fewer at the end of the stream."""
        with trio.fail_after(10):
            while len(self._buffer) < count:
                data = await self.stream.receive_some()
                if not data:
                    break
                self._buffer += data
        result, self._buffer = self._buffer[:count], self._buffer[count:]
        return result

    async def reply(self) -> tuple[int, bytes] | None:
        """Read one packet and return its encoding and payload, or None when the server has closed."""
        header = await self.read(6)
        if not header:
            return None
        length, version, encoding = struct.unpack(">IBB", header)
        assert version == 22
        body = await self.read(length - 2)
        assert len(body) == length - 2, "the server closed in the middle of a packet"
        return encoding, body

    async def json(self) -> dict[str, Any] | None:
        """Read one JSON packet and return its fields, or None when the server has closed."""
        reply = await self.reply()
        if reply is None:
            return None
        assert reply[0] == JSON
        fields: dict[str, Any] = json.loads(reply[1])
        return fields

    async def ask(self, **fields: Any) -> dict[str, Any] | None:
        await self.send(json_packet(**fields))
        return await self.json()

    async def closed(self) -> bool:
        """Whether the server closes, with nothing more to read."""
        return await self.read(1) == b""

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.stream.aclose()
