"""A peer of version 23, which sends and reads packets over a stream; it shares no code with the package."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, NamedTuple, Self

import trio

KINDS = ["REQUEST", "REPLY", "PART", "END", "FAILURE", "EVENT", "CANCEL", "PING", "PONG", "LEAVING"]


def numbered(kind: str, number: int, fields: Any = None, *, encoding: int = 0, payload: bytes | None = None) -> bytes:
    """Return a packet; ``fields`` are sent as JSON."""
    if payload is None:
        payload = b"" if fields is None else json.dumps(fields).encode()
    header = bytes((23, encoding, KINDS.index(kind))) + number.to_bytes(4, "big")
    return (len(header) + len(payload)).to_bytes(4, "big") + header + payload


class Answer(NamedTuple):
    """A packet from the server; the fields are None without a payload, and bytes in another encoding than JSON."""

    kind: str
    number: int
    fields: Any
    encoding: int = 0


class NumberedPeer:
    """One connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._number = 0

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> NumberedPeer:
        return cls(await trio.open_tcp_stream(host, port))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def request(self, **fields: Any) -> int:
        """Send a request, and return its number."""
        self._number += 1
        await self.send(numbered("REQUEST", self._number, fields))
        return self._number

    async def cancel(self, number: int) -> None:
        """Send a CANCEL."""
        await self.send(numbered("CANCEL", number))

    async def ping(self, number: int = 1) -> None:
        """Send a PING, and read its PONG: the server has handled the packets before."""
        await self.send(numbered("PING", number))
        assert await self.read() == Answer("PONG", number, None)

    async def half_close(self) -> None:
        """Shut down the sending side."""
        await self.stream.send_eof()

    async def reset(self) -> None:
        """Reset the connection: the server gets a RST."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def ask(self, **fields: Any) -> list[Answer]:
        """Send a request, and return its answers, the last one included."""
        number = await self.request(**fields)
        return await self.answers(number)

    async def answers(self, number: int) -> list[Answer]:
        """Return the packets up to the last answer to a request; all of them must answer it."""
        answers: list[Answer] = []
        while not answers or answers[-1].kind == "PART":
            answer = await self.read()
            assert answer is not None
            assert answer.number == number, answer
            answers.append(answer)
        return answers

    async def read(self, seconds: float = 10) -> Answer | None:
        """Return the next packet, or None at the end of the stream."""
        with trio.fail_after(seconds):
            while (answer := self._next()) is None:
                data = await self.stream.receive_some(65536)
                if not data:
                    assert not self._buffer, "the stream ends within a packet"
                    return None
                self._buffer += data
            return answer

    async def read_all(self) -> list[Answer]:
        """Return all packets up to the end of the stream."""
        answers = []
        while (answer := await self.read()) is not None:
            answers.append(answer)
        return answers

    def _next(self) -> Answer | None:
        end = 4 + int.from_bytes(self._buffer[:4], "big")
        if len(self._buffer) < 4 or len(self._buffer) < end:
            return None
        packet = bytes(self._buffer[:end])
        del self._buffer[:end]
        version, encoding, kind = packet[4:7]
        assert version == 23, packet[:16]
        body = packet[11:]
        fields = None if not body else json.loads(body) if encoding == 0 else body
        return Answer(KINDS[kind], int.from_bytes(packet[7:11], "big"), fields, encoding)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.stream.aclose()
