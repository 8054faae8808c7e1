"""TLS: server contexts from certificate files, and a `Transport` that encrypts.

OpenSSL works on two memory buffers, so that received data can be read, and data that fits can be sent, without waiting.
The caller keeps the deadlines, as with any transport.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncapy_core.errors import ConfigError, ConnectionLost
from asyncapy_core.net.transport import Woken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncapy_core.net.transport import SocketTransport

RECORD: Final = 16 * 1024 + 256
"""The least size of a read: a whole TLS record."""

NAME_KINDS: Final = ("DNS", "email", "URI")
"""The kinds of subject alternative names in `PeerCertificate.names`, as the ssl module spells them."""

MAX_AHEAD: Final = 64 * 1024
"""The most bytes that are encrypted before the socket accepts them."""

MAX_WITHOUT_DATA: Final = 64 * 1024
"""The most bytes of records in a row without data, such as KeyUpdate. A record with data has about 16 KiB at most."""

MAX_UNSENT: Final = 256 * 1024
"""The most encrypted bytes that wait for the socket. Beyond `MAX_AHEAD`, they are answers to records of the peer."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The names in a verified certificate.

    Attributes:
        subject: the subject by attribute, such as ``{"commonName": "alice"}``; may be empty.
        names: the subject alternative names by kind: ``DNS``, ``email`` and ``URI``, each a tuple, perhaps empty.
    """

    subject: Mapping[str, str]
    names: Mapping[str, tuple[str, ...]]


def server_context(
    cert: str | os.PathLike[str], key: str | os.PathLike[str] | None, client_ca: str | os.PathLike[str] | None
) -> ssl.SSLContext:
    """Return the TLS context of a server: TLS 1.2 or later, with client certificates if ``client_ca`` is given.

    Args:
        cert: a PEM file with the server's certificate and its chain.
        key: a PEM file with the private key; None if it is in ``cert``.
        client_ca: a PEM file with the CAs of clients' certificates; None to request no certificate.

    Raises:
        ConfigError: a file cannot be read or used; the message names the file and the remedy.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    for setting, path in (("tls_cert", cert), ("tls_key", key), ("tls_client_ca", client_ca)):
        if path is not None and (reason := _unreadable(path)):
            raise ConfigError(f"{setting} is {os.fspath(path)!r}: {reason}; give a file in PEM form")
    try:
        context.load_cert_chain(cert, key, _refuse_to_ask)
    except OSError as error:
        where = f"{os.fspath(cert)!r}" if key is None else f"{os.fspath(cert)!r} and {os.fspath(key)!r}"
        raise ConfigError(
            f"no certificate and key in {where}: {_reason(error)}; tls_cert has to begin with the server's "
            "certificate, and tls_key (or the same file) to hold its key, both in PEM form"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise ConfigError(
                f"tls_client_ca is {os.fspath(client_ca)!r}: {_reason(error)}; give CA certificates in PEM form"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsTransport:
    """A `Transport` that encrypts another one. Call `handshake` first.

    Encrypted data waits in OpenSSL's buffer, and the part that the socket has not accepted in ``_unsent``. ``_ahead``
    counts the bytes of plain data that are encrypted and not yet reported as sent: a sender that was told 0 sends the
    same bytes again, at the start of its next data, as `Outbox` does.

    Args:
        transport: the plain connection.
        context: the TLS context of the server.

    Attributes:
        heard: whether the peer has sent anything in the handshake.
    """

    __slots__ = (
        "_ahead",
        "_close_sent",
        "_incoming",
        "_outgoing",
        "_tls",
        "_transport",
        "_unsent",
        "_without_data",
        "heard",
    )

    def __init__(self, transport: SocketTransport, context: ssl.SSLContext) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent: bytes | memoryview = b""
        self._ahead = 0
        self._close_sent = False
        self._without_data = 0
        self.heard: bool = False

    async def handshake(self) -> None:
        """Do the TLS handshake.

        Raises:
            ConnectionLost: the handshake failed; the peer gets a TLS alert if there is one for the reason.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._push_all()
                if data := await self._transport.receive(RECORD):
                    self.heard = True
                    self._incoming.write(data)
                else:
                    raise ConnectionLost("the TLS handshake failed: the peer closed the connection") from None
            except ssl.SSLError as error:
                with contextlib.suppress(ConnectionLost):  # the peer has left
                    self._push()
                raise ConnectionLost(f"the TLS handshake failed: {error.reason or error}") from error
            else:
                return await self._push_all()

    @property
    def peer(self) -> PeerCertificate | None:
        """The verified certificate of the peer; None if the server requests none.

        Raises:
            ConnectionLost: the certificate cannot be read, or its subject has two values for one attribute.
        """
        try:
            certificate: Any = self._tls.getpeercert()
        except ValueError as error:  # a name is not UTF-8
            raise ConnectionLost(f"the certificate of the peer cannot be read: {error}") from error
        if not certificate:
            return None
        subject: dict[str, str] = {}
        for part in certificate.get("subject", ()):
            for attribute, value in part:
                if attribute in subject:
                    raise ConnectionLost(f"the certificate of the peer has two values for {attribute} in its subject")
                subject[attribute] = value
        found = certificate.get("subjectAltName", ())
        names = {kind: tuple(value for each, value in found if each == kind) for kind in NAME_KINDS}
        return PeerCertificate(subject, names)

    async def receive(self, size: int) -> bytes:
        """Receive data; see `Transport.receive`. Raises `Woken` also for half a record: a wake may have been missed."""
        if self._close_sent:
            return await self._transport.receive(size)  # plain bytes, which the caller drops
        if (data := self._decrypt(size)) is None:
            await self._transport.wait_readable()
            data = self.receive_now(size)
        if data is None:
            raise Woken("no complete TLS record was received")
        return data

    def receive_now(self, size: int) -> bytes | None:
        """Receive data, with at most one read from the socket; see `Transport.receive_now`.

        Raises:
            ConnectionLost: the connection broke, or the peer sends records without data, or reads no answers to them.
        """
        if self._close_sent:
            return self._transport.receive_now(size)
        if (data := self._decrypt(size)) is None:
            received = self._transport.receive_now(max(size, RECORD))
            if not received:
                return received
            self._incoming.write(received)
            data = self._decrypt(size)
            self._without_data = self._without_data + len(received) if data is None else 0
            if self._without_data > MAX_WITHOUT_DATA:
                raise ConnectionLost(f"{self._without_data} bytes of TLS records without data; at most 64 KiB are read")
        if self._outgoing.pending:
            self._send_answers()
        return data

    def _decrypt(self, size: int) -> bytes | None:
        """Return decrypted data; ``b""`` after the peer's close_notify, None if more records are needed."""
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise ConnectionLost(f"the TLS session broke: {error.reason or error}") from error

    def _send_answers(self) -> None:
        """Send alerts and answers of TLS itself; they are bounded, as the peer may not read them."""
        if not self._push() and len(self._unsent) + self._outgoing.pending > MAX_UNSENT:
            raise ConnectionLost("the peer does not read the answers to its TLS records")

    def send_now(self, data: bytes | memoryview) -> int:
        """Send data; see `Transport.send_now`. Encrypted data counts as sent when the socket has accepted all of it."""
        if not self._ahead:
            self._ahead = self._encrypt(data)
        if self._push():
            sent, self._ahead = self._ahead, 0
            return sent
        return 0

    async def send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            if not self._ahead:
                self._ahead = self._encrypt(rest)
            await self._push_all()
            rest = rest[self._ahead :]
            self._ahead = 0

    def send_eof(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # do not wait for the peer's close_notify
            self._tls.unwrap()
        self._close_sent = True
        with contextlib.suppress(ConnectionLost):  # the peer has left
            self._push()
        self._transport.send_eof()

    def fileno(self) -> int:
        return self._transport.fileno()

    def wake(self) -> None:
        self._transport.wake()

    def abort(self) -> None:
        self._transport.abort()

    def _encrypt(self, data: bytes | memoryview) -> int:
        try:
            return self._tls.write(data[:MAX_AHEAD])
        except ssl.SSLError as error:
            raise ConnectionLost(f"the TLS session broke: {error.reason or error}") from error

    def _push(self) -> bool:
        """Send encrypted data as far as the socket accepts it; return True if it accepted all."""
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = self._outgoing.read()
            sent = self._transport.send_now(self._unsent)
            if not sent:
                return False
            self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""
        return True

    async def _push_all(self) -> None:
        while not self._push():
            await self._transport.wait_writable()


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error)


def _unreadable(path: str | os.PathLike[str]) -> str:
    """Return the reason why a file cannot be read, or ``""``."""
    try:
        with open(path, "rb"):  # noqa: PTH123  # a path of any kind
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _refuse_to_ask() -> NoReturn:
    raise ConfigError("tls_key is encrypted, which is not supported; give a key file without a password")
