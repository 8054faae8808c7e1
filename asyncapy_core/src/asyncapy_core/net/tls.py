"""TLS over a plain transport: certificates to contexts, and a `Transport` that encrypts.

Knows nothing of packets. OpenSSL works on two buffers in memory, so that what has come can be read, and what fits can
be sent, without waiting; whoever uses it keeps the deadlines, as with any transport.
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
"""Bytes to ask of the socket at least: a whole TLS record."""

NAME_KINDS: Final = ("DNS", "email", "URI")
"""The kinds of subject alternative names that are offered, as the ssl module names them."""

AT_ONCE: Final = 64 * 1024
"""Bytes that are encrypted before the socket has taken them."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a verified certificate says of its peer.

    Attributes:
        subject: its subject by attribute, such as ``{"commonName": "alice"}``; empty for one that has names alone.
        names: its subject alternative names by kind: ``DNS``, ``email`` and ``URI``, each a tuple, perhaps empty.
    """

    subject: Mapping[str, str]
    names: Mapping[str, tuple[str, ...]]


def server_context(
    cert: str | os.PathLike[str], key: str | os.PathLike[str] | None, client_ca: str | os.PathLike[str] | None
) -> ssl.SSLContext:
    """Return a context for a server: TLS 1.2 or later, and clients have to show a certificate where their CA is given.

    Args:
        cert: a PEM file with the certificate and the chain behind it.
        key: a PEM file with its private key; None when that stands in the same file.
        client_ca: a PEM file with the CAs that clients' certificates have to be from, or None to ask for none.

    Raises:
        ConfigError: a file cannot be read, or does not fit; the message says which, and what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
    """`Transport` that encrypts what goes through another one; `handshake` comes before everything else.

    What is encrypted waits in OpenSSL's buffer and then, in part, in ``_unsent``, in this order, whoever sends it.
    ``_ahead`` is how many bytes of data are encrypted and not yet reported as sent: whoever was told that none were
    offers the same bytes again, at the head of what it sends next, as `Outbox` does.

    Args:
        transport: the bytes of the peer.
        context: the server's certificate, and what is demanded of the peer's.
    """

    __slots__ = ("_ahead", "_incoming", "_outgoing", "_said_goodbye", "_tls", "_transport", "_unsent")

    def __init__(self, transport: SocketTransport, context: ssl.SSLContext) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent: bytes | memoryview = b""
        self._ahead = 0
        self._said_goodbye = False

    async def handshake(self) -> None:
        """Agree with the peer on keys.

        Raises:
            ConnectionLost: that failed; the peer was told why, as far as TLS has words for it.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._push_all()
                if data := await self._transport.receive(RECORD):
                    self._incoming.write(data)
                else:
                    raise ConnectionLost("no TLS session: the peer left in the middle of the handshake") from None
            except ssl.SSLError as error:
                with contextlib.suppress(ConnectionLost):  # the peer has gone: it needs no telling
                    self._push()
                raise ConnectionLost(f"no TLS session: {error.reason or error}") from error
            else:
                return await self._push_all()

    @property
    def peer(self) -> PeerCertificate | None:
        """What the peer's certificate says, if one was asked for and verified.

        Raises:
            ConnectionLost: it cannot be read, or its subject has two values for one attribute.
        """
        try:
            certificate: Any = self._tls.getpeercert()
        except ValueError as error:  # names that are not UTF-8, wherever they stand in it
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
        """As `Transport.receive`; `Woken` also when bytes came that are no data yet, as a wake may have gone by."""
        if self._said_goodbye:
            return await self._transport.receive(size)  # nobody reads it any more
        if (data := self.receive_now(size)) is None:
            await self._transport.wait_readable()
            data = self.receive_now(size)
        if data is None:
            raise Woken("no whole record has come")
        return data

    def receive_now(self, size: int) -> bytes | None:
        if self._said_goodbye:
            return self._transport.receive_now(size)
        while True:
            try:
                data = self._tls.read(size)
            except ssl.SSLWantReadError:
                coming = self._transport.receive_now(max(size, RECORD))
                if not coming:
                    self._push()  # what TLS itself has to say
                    return coming
                self._incoming.write(coming)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ConnectionLost(f"the TLS session broke: {error.reason or error}") from error
            else:
                return data

    def send_now(self, data: bytes | memoryview) -> int:
        """As `Transport.send_now`. What was encrypted once counts as sent when the socket has taken all of it."""
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
        with contextlib.suppress(ssl.SSLError):  # the peer's own goodbye is not waited for
            self._tls.unwrap()
        self._said_goodbye = True
        with contextlib.suppress(ConnectionLost):  # the peer has gone: it needs no telling
            self._push()
        self._transport.send_eof()

    def wake(self) -> None:
        self._transport.wake()

    def abort(self) -> None:
        self._transport.abort()

    def _encrypt(self, data: bytes | memoryview) -> int:
        try:
            return self._tls.write(data[:AT_ONCE])
        except ssl.SSLError as error:
            raise ConnectionLost(f"the TLS session broke: {error.reason or error}") from error

    def _push(self) -> bool:
        """Hand what is encrypted to the socket, as far as it takes it; say whether it took all."""
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
    """Return why a file cannot be read, or nothing."""
    try:
        with open(path, "rb"):  # noqa: PTH123  # a path of any kind
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _refuse_to_ask() -> NoReturn:
    raise ConfigError("tls_key is encrypted, and a server asks for no password; give a key file without one")
