"""The exceptions of AsyncAPY, in one hierarchy. Programming mistakes are plain ``TypeError`` and ``ValueError``."""

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
    """The ``error`` field of an error reply of the server (docs/protocol.md, "Replies of the server")."""

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
    """The peer broke a rule of docs/protocol.md.

    Attributes:
        code: the code of the error reply.
    """

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
    """The root of the exceptions of codecs."""


class DecodeError(CodecError):
    """The bytes are not a valid payload of this encoding."""


class EncodeError(CodecError, ValueError):
    """A value cannot be encoded, or the payload does not fit into a packet."""


class BrokenCodec(MalformedPacket, CodecError):
    """A codec raised a foreign exception, or returned no map. The peer gets ERR_REQUEST_MALFORMED."""


class UnknownCodec(CodecError, LookupError):
    """No installed codec has this name."""


class ConfigError(AsyncAPYError, ValueError):
    """A setting has a wrong value; the message names the setting, its source and the allowed values."""


class PluginError(AsyncAPYError):
    """A plugin could not be loaded, or broke a rule of the plugin API."""


class PluginCollision(PluginError):
    """Two plugins provide the same codec name, wire id, filter or URL scheme; neither is used."""


class UnknownFilter(PluginError, AttributeError):
    """No installed plugin provides a filter of this name."""


class UnknownKeyStore(PluginError, ValueError):
    """No installed plugin provides a key store for this URL scheme."""


class KeyStoreError(AsyncAPYError):
    """A call to a key store failed; issued keys are not lost."""


class KeyStoreUnavailable(KeyStoreError):
    """A key store cannot be reached, or does not answer in time; no key passes until it does."""


class BindError(AsyncAPYError, OSError):
    """The server cannot listen on an address."""


class UnexpectedEnd(AsyncAPYError, RuntimeError):
    """A server ended without `Server.stop`, a signal or a cancellation: other code cancelled its tasks."""


class ConnectionLost(AsyncAPYError, ConnectionError):
    """The other side has closed the connection, or the connection broke."""


class ClientDisconnected(ConnectionLost):
    """A handler sent to a client that has left, or whose connection was closed before.

    If a handler lets it through, and ``client`` is the handler's own client, the session ends without an error line.

    Attributes:
        client: the client that was sent to.
    """

    def __init__(self, message: str, client: object = None) -> None:
        super().__init__(message)
        self.client = client


class RemoteError(AsyncAPYError):
    """The root of the exceptions of clients. The message gives the cause and the remedy."""


class NotConnected(RemoteError, ConnectionError):
    """The client is not connected, or could not connect; the request was not sent."""


class ServerDisconnected(RemoteError, ConnectionLost):
    """The server closed the connection before a whole reply had arrived."""


class ReplyTimeout(RemoteError, TimeoutError):
    """No whole reply arrived within the client's timeout."""


class InvalidReply(RemoteError):
    """The server sent bytes that are not a valid packet for this client."""


class FailureReply(RemoteError):
    """The server answered a request with a failure: ``{"status": "failure", "error": CODE}``.

    Attributes:
        code: the ``error`` field, an `ErrorCode` where it is one of docs/protocol.md's.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RequestMalformed(FailureReply):
    """ERR_REQUEST_MALFORMED: the server could not decode the packet; it closes the connection."""


class HeaderRefused(FailureReply):
    """ERR_HEADER_INVALID: the server does not support this version or encoding; it closes the connection."""


class SessionTimedOut(FailureReply):
    """ERR_TIMED_OUT: no whole packet reached the server in time; it closes the connection."""


class SessionLimitReached(FailureReply):
    """ERR_SESSION_LIMIT_REACHED: this address has too many sessions; the server closes the connection."""


class RequestTooLarge(FailureReply):
    """ERR_PACKET_TOO_LARGE: the packet is larger than the server accepts; it closes the connection."""


class ServerBusy(FailureReply):
    """ERR_SERVER_BUSY: the server has too many connections; it closes this one."""


class NoHandlerFound(FailureReply):
    """ERR_NO_HANDLER: no handler matches the packet, or a guard refused it; the session goes on."""


class HandlerFailed(FailureReply):
    """ERR_HANDLER_FAILED: the handler on the server raised an exception; the session goes on."""
