"""The exceptions of AsyncAPY, in one hierarchy. Programming mistakes are plain ``TypeError`` and ``ValueError``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

__all__ = [
    "AlreadyAnswered",
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
    "Failure",
    "FailureReply",
    "Forbidden",
    "HandlerFailed",
    "HeaderRefused",
    "InvalidFields",
    "InvalidHeader",
    "InvalidReply",
    "KeyStoreError",
    "KeyStoreUnavailable",
    "MalformedPacket",
    "NoHandlerFound",
    "NoReply",
    "NotConnected",
    "PacketTooLarge",
    "PluginCollision",
    "PluginError",
    "ProtocolError",
    "RateLimited",
    "RemoteError",
    "ReplyTimeout",
    "RequestMalformed",
    "RequestTooLarge",
    "ServerBusy",
    "ServerDisconnected",
    "SessionLimitReached",
    "SessionTimedOut",
    "StopPropagation",
    "StreamOverflow",
    "Unauthorized",
    "Unavailable",
    "UnexpectedEnd",
    "UnknownCodec",
    "UnknownFilter",
    "UnknownKeyStore",
    "VersionTooOld",
]


class ErrorCode(StrEnum):
    """The ``error`` field of an error reply (docs/protocol.md, "Replies of the server")."""

    REQUEST_MALFORMED = "ERR_REQUEST_MALFORMED"
    HEADER_INVALID = "ERR_HEADER_INVALID"
    TIMED_OUT = "ERR_TIMED_OUT"
    SESSION_LIMIT_REACHED = "ERR_SESSION_LIMIT_REACHED"
    PACKET_TOO_LARGE = "ERR_PACKET_TOO_LARGE"
    SERVER_BUSY = "ERR_SERVER_BUSY"
    NO_HANDLER = "ERR_NO_HANDLER"
    HANDLER_FAILED = "ERR_HANDLER_FAILED"
    NO_REPLY = "ERR_NO_REPLY"
    UNAUTHORIZED = "ERR_UNAUTHORIZED"
    FORBIDDEN = "ERR_FORBIDDEN"
    INVALID = "ERR_INVALID"
    RATE_LIMITED = "ERR_RATE_LIMITED"
    UNAVAILABLE = "ERR_UNAVAILABLE"


class AsyncAPYError(Exception):
    """The root of all exceptions of AsyncAPY."""


class StopPropagation(AsyncAPYError):
    """Raised by `Packet.stop_propagation`: no handler of a later group sees the packet."""


_OWN_FIELDS: Final = frozenset({"status", "error"})


class Failure(AsyncAPYError):
    """Raised by a handler, a filter or a guard: the answer is a failure, and no later handler gets the packet.

    The reply is ``{"status": "failure", "error": CODE}`` and the further fields (docs/answers.md). Nothing is logged:
    this is no error of the program.

    Args:
        code: the ``error`` field, such as ``"ERR_NOT_FOUND"``; an `ErrorCode` where one of them fits.
        fields: further fields of the reply. ``detail`` is a text for people.

    Raises:
        TypeError: the code is not a string.
        ValueError: the code is empty, or a field is called ``status`` or ``error``.
    """

    def __init__(self, code: str, /, **fields: Any) -> None:
        if not isinstance(code, str):
            raise TypeError(f"the code of a Failure is a string, such as 'ERR_NOT_FOUND'; got {code!r}")
        if not code:
            raise ValueError("the code of a Failure is empty; write one such as 'ERR_NOT_FOUND'")
        if reserved := _OWN_FIELDS & fields.keys():
            raise ValueError(f"a Failure sets the field {min(reserved)!r} itself; choose another name")
        super().__init__(code)
        self.code: str = str(code)
        self.fields: dict[str, Any] = fields

    def __str__(self) -> str:
        return f"{self.code}: {self.fields['detail']}" if "detail" in self.fields else self.code


class ProtocolError(AsyncAPYError):
    """The peer broke a rule of docs/protocol.md.

    Args:
        args: the message.
        number: see the attribute.
        wire_id: see the attribute.

    Attributes:
        code: the code of the error reply.
        number: in version 23, the number of the REQUEST with the fault; 0 if it has no valid number, or is no REQUEST.
        wire_id: the Content-Encoding of that REQUEST, which may be that of no codec.
    """

    code = ErrorCode.REQUEST_MALFORMED

    def __init__(self, *args: object, number: int = 0, wire_id: int = 0) -> None:
        super().__init__(*args)
        self.number: int = number
        self.wire_id: int = wire_id


class MalformedPacket(ProtocolError):
    """A packet is shorter than the minimum, or its payload is not a map in the announced encoding.

    In version 23 also: a packet has a payload, and its kind has none.
    """


class InvalidHeader(ProtocolError):
    """The protocol version is not that of the session, or no codec claims the encoding id.

    In version 23 also: the kind is unknown or not for this side, or the number is wrong.
    """

    code = ErrorCode.HEADER_INVALID


class PacketTooLarge(ProtocolError):
    """A header announces more than ``max_packet`` bytes, in version 23 more than ``max_packet`` + 5."""

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


class AlreadyAnswered(AsyncAPYError, RuntimeError):
    """A handler answered a packet that may have no further answer; nothing was sent."""


class RemoteError(AsyncAPYError):
    """The root of the exceptions of clients. The message gives the cause and the remedy."""


class NotConnected(RemoteError, ConnectionError):
    """The client is not connected, or could not connect; the request was not sent, or the server has not read it."""


class ServerDisconnected(RemoteError, ConnectionLost):
    """The server closed the connection before a whole reply had arrived."""


class ReplyTimeout(RemoteError, TimeoutError):
    """No whole reply arrived within the client's timeout."""


class InvalidReply(RemoteError):
    """The server sent bytes that are not a valid packet for this client."""


class StreamOverflow(RemoteError):
    """A stream was cancelled, as its consumer took the parts more slowly than the server sent them."""


class VersionTooOld(RemoteError):
    """The connection has version 22 of the protocol, which has no streams and no events."""


class FailureReply(RemoteError):
    """The server answered a request with a failure: ``{"status": "failure", "error": CODE}`` and further fields.

    Attributes:
        code: the ``error`` field, an `ErrorCode` where it is one of docs/protocol.md's.
        fields: the further fields, such as ``detail``.
    """

    def __init__(self, message: str, code: str = "", fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code: str = code
        self.fields: dict[str, Any] = dict(fields or {})


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


class NoReply(FailureReply):
    """ERR_NO_REPLY: the handler on the server sent no answer, and ``replies`` of the server is ``"one"``."""


class Unauthorized(FailureReply):
    """ERR_UNAUTHORIZED: a key is missing or not valid."""


class Forbidden(FailureReply):
    """ERR_FORBIDDEN: the key is valid, but not for this."""


class InvalidFields(FailureReply):
    """ERR_INVALID: the fields of the packet are wrong; ``fields["fields"]`` says where."""


class RateLimited(FailureReply):
    """ERR_RATE_LIMITED: too many requests; ``fields["retry_after"]`` is a number of seconds."""


class Unavailable(FailureReply):
    """ERR_UNAVAILABLE: a part that the server needs cannot be reached; nothing was done, so try again."""
