"""Failure replies as exceptions (docs/protocol.md, "Replies of the server")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asyncapy_core.errors import (
    ErrorCode,
    FailureReply,
    HandlerFailed,
    HeaderRefused,
    NoHandlerFound,
    RequestMalformed,
    RequestTooLarge,
    ServerBusy,
    SessionLimitReached,
    SessionTimedOut,
)
from asyncapy_core.logs import escape_for_log

_MEANINGS: Final[dict[str, tuple[type[FailureReply], str]]] = {
    ErrorCode.REQUEST_MALFORMED: (RequestMalformed, "the server could not decode the packet"),
    ErrorCode.HEADER_INVALID: (HeaderRefused, "the server does not support this protocol version or encoding"),
    ErrorCode.TIMED_OUT: (SessionTimedOut, "no whole packet reached the server in time"),
    ErrorCode.SESSION_LIMIT_REACHED: (
        SessionLimitReached,
        "this address has too many sessions; try again later",
    ),
    ErrorCode.PACKET_TOO_LARGE: (RequestTooLarge, "the packet is larger than the server accepts"),
    ErrorCode.SERVER_BUSY: (ServerBusy, "the server has too many connections; try again later"),
    ErrorCode.NO_HANDLER: (
        NoHandlerFound,
        "no handler matches the packet, or a guard refused it; check its fields and key",
    ),
    ErrorCode.HANDLER_FAILED: (HandlerFailed, "the handler raised an exception; see the server's log"),
}


_REFUSALS: Final = (ErrorCode.SESSION_LIMIT_REACHED, ErrorCode.SERVER_BUSY)
"""Codes of replies with which a server refuses a connection, whatever was sent on it."""


def is_refusal(reply: Mapping[str, Any]) -> bool:
    """Return True for a reply with which a server refuses a connection, if it is the first reply on it."""
    return reply.get("error") in _REFUSALS and failure(reply) is not None


def failure(reply: Mapping[str, Any]) -> FailureReply | None:
    """Return the exception for a failure reply, or None for any other reply."""
    code = reply.get("error")
    if reply.keys() != {"status", "error"} or reply["status"] != "failure" or not isinstance(code, str):
        return None
    kind, meaning = _MEANINGS.get(code, (FailureReply, "the server's own failure"))
    return kind(f"{escape_for_log(code)}: {meaning}", code)
