"""Every exception that AsyncAPY raises of its own, in one hierarchy.

Knows nothing of the rest of the package. Mistakes of the programmer stay plain ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AsyncAPYError",
    "BindError",
    "BrokenCodec",
    "ClientDisconnected",
    "CodecError",
    "ConfigError",
    "ConnectionLost",
    "DecodeError",
    "EncodeError",
    "ErrorCode",
    "FailureReply",
    "HandlerFailed",
    "HeaderRefused",
    "InvalidHeader",
    "InvalidReply",
    "KeyStoreError",
    "KeyStoreUnavailable",
    "MalformedPacket",
    "NoHandlerFound",
    "NotConnected",
    "PacketTooLarge",
    "PluginCollision",
    "PluginError",
    "ProtocolError",
    "RemoteError",
    "ReplyTimeout",
    "RequestMalformed",
    "RequestTooLarge",
    "ServerBusy",
    "ServerDisconnected",
    "SessionLimitReached",
    "SessionTimedOut",
    "StopPropagation",
    "UnexpectedEnd",
    "UnknownCodec",
    "UnknownFilter",
    "UnknownKeyStore",
]


class ErrorCode(StrEnum):
    """The ``error`` field of a reply that the server makes itself (docs/protocol.md, "Replies of the server")."""

    REQUEST_MALFORMED = "ERR_REQUEST_MALFORMED"
    HEADER_INVALID = "ERR_HEADER_INVALID"
    TIMED_OUT = "ERR_TIMED_OUT"
    SESSION_LIMIT_REACHED = "ERR_SESSION_LIMIT_REACHED"
    PACKET_TOO_LARGE = "ERR_PACKET_TOO_LARGE"
    SERVER_BUSY = "ERR_SERVER_BUSY"
    NO_HANDLER = "ERR_NO_HANDLER"
    HANDLER_FAILED = "ERR_HANDLER_FAILED"


class AsyncAPYError(Exception):
    """The root of all exceptions of AsyncAPY."""


class StopPropagation(AsyncAPYError):
    """Raised by `Packet.stop_propagation`: no handler of a later group sees the packet."""


class ProtocolError(AsyncAPYError):
    """The peer broke a rule of docs/protocol.md; ``code`` is what it is told."""

    code = ErrorCode.REQUEST_MALFORMED


class MalformedPacket(ProtocolError):
    """A packet is shorter than the minimum, or its payload is not a map in the announced encoding."""


class InvalidHeader(ProtocolError):
    """The protocol version is not 22, or no codec claims the encoding id."""

    code = ErrorCode.HEADER_INVALID


class PacketTooLarge(ProtocolError):
    """A header announces more than ``max_packet`` bytes."""

    code = ErrorCode.PACKET_TOO_LARGE


class CodecError(AsyncAPYError):
    """A codec could not do what it was asked."""


class DecodeError(CodecError):
    """Bytes are not a payload of this encoding."""


class EncodeError(CodecError, ValueError):
    """A value cannot be carried by this encoding, or does not fit into a packet."""


class BrokenCodec(MalformedPacket, CodecError):
    """A codec raised what no codec may raise, or returned no map; the peer is told that its packet is malformed."""


class UnknownCodec(CodecError, LookupError):
    """No installed codec has this name."""


class ConfigError(AsyncAPYError, ValueError):
    """A setting has a wrong value; the message names the setting, its source and what is allowed."""


class PluginError(AsyncAPYError):
    """A plugin could not be loaded, or did what no plugin may do."""


class PluginCollision(PluginError):
    """Two plugins claim the same name, wire id, filter or URL scheme; neither gets it."""


class UnknownFilter(PluginError, AttributeError):
    """No installed plugin provides a filter of this name."""


class UnknownKeyStore(PluginError, ValueError):
    """No installed plugin provides a key store for this URL scheme."""


class KeyStoreError(AsyncAPYError):
    """A key store could not do what it was asked; no key that was issued before is lost."""


class KeyStoreUnavailable(KeyStoreError):
    """A key store cannot be reached, or does not answer in time; no key passes until it does."""


class BindError(AsyncAPYError, OSError):
    """The server cannot listen on the address it was given."""


class UnexpectedEnd(AsyncAPYError, RuntimeError):
    """A server ended although nobody told it to: its tasks were cancelled by something that is not its own."""


class ConnectionLost(AsyncAPYError, ConnectionError):
    """The other side has left."""


class ClientDisconnected(ConnectionLost):
    """A handler sent to a client that has left, or that was closed before.

    A handler that lets it through ends its session quietly, if that is the ``client`` it was called for.
    """

    def __init__(self, message: str, client: object = None) -> None:
        super().__init__(message)
        self.client = client


class RemoteError(AsyncAPYError):
    """A client cannot go on: the message says what happened and what to do."""


class NotConnected(RemoteError, ConnectionError):
    """The client has not been connected, or was disconnected."""


class ServerDisconnected(RemoteError, ConnectionLost):
    """The server closed the connection before a whole reply had arrived."""


class ReplyTimeout(RemoteError, TimeoutError):
    """No whole reply arrived within the client's timeout."""


class InvalidReply(RemoteError):
    """What the server sent is not an AsyncAProto packet that this client understands."""


class FailureReply(RemoteError):
    """The server answered a request with a failure: ``{"status": "failure", "error": CODE}``.

    Attributes:
        code: the ``error`` field, an `ErrorCode` where it is one of docs/protocol.md's.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RequestMalformed(FailureReply):
    """ERR_REQUEST_MALFORMED: the server could not read the packet; it closes the connection."""


class HeaderRefused(FailureReply):
    """ERR_HEADER_INVALID: the server does not know this version or encoding; it closes the connection."""


class SessionTimedOut(FailureReply):
    """ERR_TIMED_OUT: no whole packet reached the server in time; it closes the connection."""


class SessionLimitReached(FailureReply):
    """ERR_SESSION_LIMIT_REACHED: this address has as many sessions as it may have; the server closes the connection."""


class RequestTooLarge(FailureReply):
    """ERR_PACKET_TOO_LARGE: the packet is larger than the server accepts; it closes the connection."""


class ServerBusy(FailureReply):
    """ERR_SERVER_BUSY: the server has as many connections as it may have; it closes the connection."""


class NoHandlerFound(FailureReply):
    """ERR_NO_HANDLER: no handler of the server wants such a packet, or none may have it; the session goes on."""


class HandlerFailed(FailureReply):
    """ERR_HANDLER_FAILED: the handler on the server raised an exception; the session goes on."""
