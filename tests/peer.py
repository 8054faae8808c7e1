"""A peer written to docs/protocol.md with `struct` alone, so that it shares no mistake with the code under test."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import Any, Literal, Self

import trio
import trio.testing

JSON, ZIPROTO = 0, 1


def packet(encoding: int, body: bytes, *, version: int = 22) -> bytes:
    """A packet: length (4 bytes, big endian), version, encoding, body."""
    return struct.pack(">IBB", len(body) + 2, version, encoding) + body


def json_packet(**fields: Any) -> bytes:
    return packet(JSON, json.dumps(fields).encode())


def framed(encoding: int, body: bytes, *, header_size: int = 4, byteorder: Literal["big", "little"] = "big") -> bytes:
    """A packet whose Content-Length header has this size and byte order."""
    return (len(body) + 2).to_bytes(header_size, byteorder) + bytes((22, encoding)) + body


def zi_map(**fields: str) -> bytes:
    """A ZiProto map of at most 15 fields; each name and value has at most 31 bytes."""
    texts = [text.encode() for pair in fields.items() for text in pair]
    return bytes((0x80 | len(fields),)) + b"".join(bytes((0xA0 | len(text),)) + text for text in texts)


def zi_packet(**fields: str) -> bytes:
    return packet(ZIPROTO, zi_map(**fields))


def failure(code: str) -> dict[str, str]:
    """The fields of an error reply of the server."""
    return {"status": "failure", "error": code}


class Peer:
    """A raw connection to a server."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream: Any = stream
        self._buffer = b""

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Peer:
        return cls(await trio.open_tcp_stream(host, port, happy_eyeballs_delay=1))

    @classmethod
    async def connect_tls(cls, port: int, context: ssl.SSLContext) -> Peer:
        """Connect and do the TLS handshake."""
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1")
        try:
            await stream.do_handshake()
        except BaseException:  # close the connection after any exception, also a cancellation
            await trio.aclose_forcefully(stream)
            raise
        return cls(stream)

    @classmethod
    async def connect_unix(cls, path: str) -> Peer:
        return cls(await trio.open_unix_socket(path))

    @classmethod
    async def connect_from(cls, local: str, port: int, *, receive_buffer: int | None = None) -> Peer:
        """Connect from an address of the loopback network.

        Args:
            local: the address to bind to.
            port: the port of the server.
            receive_buffer: bytes of the receive buffer of the socket; None for the default.
        """
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.bind((local, 0))
        await sock.connect(("127.0.0.1", port))
        return cls(trio.SocketStream(sock))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_bytewise(self, data: bytes) -> None:
        for index in range(len(data)):
            await self.stream.send_all(data[index : index + 1])
            await trio.testing.wait_all_tasks_blocked()

    async def read(self, count: int) -> bytes:
        """Read this number of bytes; fewer if the stream ends before."""
        with trio.fail_after(10):
            while len(self._buffer) < count:
                data = await self.stream.receive_some()
                if not data:
                    break
                self._buffer += data
        result, self._buffer = self._buffer[:count], self._buffer[count:]
        return result

    async def reply(self) -> tuple[int, bytes] | None:
        """Read one packet and return its encoding and payload, or None at the end of the stream."""
        header = await self.read(6)
        if not header:
            return None
        assert len(header) == 6, "the server closed in the middle of a header"
        length, version, encoding = struct.unpack(">IBB", header)
        assert version == 22
        body = await self.read(length - 2)
        assert len(body) == length - 2, "the server closed in the middle of a packet"
        return encoding, body

    async def json(self) -> dict[str, Any] | None:
        """Read one JSON packet and return its fields, or None at the end of the stream."""
        reply = await self.reply()
        if reply is None:
            return None
        assert reply[0] == JSON
        fields: dict[str, Any] = json.loads(reply[1])
        return fields

    async def failure(self, encoding: int = JSON) -> str:
        """Read an error reply of the server, which has two fields in this encoding, and return its code."""
        reply = await self.reply()
        assert reply is not None, "the server closed the connection without a reply"
        assert reply[0] == encoding
        if encoding == JSON:
            pairs = json.loads(reply[1], object_pairs_hook=list)
            assert [key for key, _ in pairs] == ["status", "error"]
            assert pairs[0][1] == "failure"
            return str(pairs[1][1])
        head = b"\x82\xa6status\xa7failure\xa5error"
        assert reply[1].startswith(head)
        code = reply[1][len(head) + 1 :]
        assert reply[1][len(head)] == 0xA0 | len(code)
        return code.decode()

    async def half_close(self) -> None:
        """Shut down the sending side of the connection."""
        await self.stream.send_eof()

    async def reset(self) -> None:
        """Reset the connection: the server gets a RST."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def ask(self, **fields: Any) -> dict[str, Any] | None:
        await self.send(json_packet(**fields))
        return await self.json()

    async def closed(self) -> bool:
        """Return whether the next read returns the end of the stream."""
        return await self.read(1) == b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self.stream.aclose()
