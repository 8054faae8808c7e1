"""A peer of version 23, which sends and reads packets over a stream; it shares no code with the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    """A packet from the server; the fields are None without a payload."""

    kind: str
    number: int
    fields: Any


class NumberedPeer:
    """One connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._buffer = b""
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
            while not (answers := list(self._whole(1))):
                data = await self.stream.receive_some(65536)
                if not data:
                    assert not self._buffer, "the stream ends within a packet"
                    return None
                self._buffer += data
            return answers[0]

    async def read_all(self) -> list[Answer]:
        """Return all packets up to the end of the stream."""
        answers = []
        while (answer := await self.read()) is not None:
            answers.append(answer)
        return answers

    def _whole(self, most: int) -> Iterator[Answer]:
        for _ in range(most):
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < 4 or len(self._buffer) < end:
                return
            packet, self._buffer = self._buffer[:end], self._buffer[end:]
            version, _, kind = packet[4:7]
            assert version == 23, packet[:16]
            yield Answer(
                KINDS[kind], int.from_bytes(packet[7:11], "big"), json.loads(packet[11:]) if packet[11:] else None
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.stream.aclose()
