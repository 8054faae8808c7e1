"""Failure replies as exceptions, for those who ask for them (docs/protocol.md, "Replies of the server")."""

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
    ErrorCode.REQUEST_MALFORMED: (RequestMalformed, "the server could not read the packet"),
    ErrorCode.HEADER_INVALID: (HeaderRefused, "the server does not know this protocol version or encoding"),
    ErrorCode.TIMED_OUT: (SessionTimedOut, "no whole packet reached the server in time"),
    ErrorCode.SESSION_LIMIT_REACHED: (SessionLimitReached, "this address has as many sessions as it may have"),
    ErrorCode.PACKET_TOO_LARGE: (RequestTooLarge, "the packet is larger than the server accepts"),
    ErrorCode.SERVER_BUSY: (ServerBusy, "the server has as many connections as it may have; try again later"),
    ErrorCode.NO_HANDLER: (
        NoHandlerFound,
        "no handler wants such a packet, or none may have it: check its fields and key",
    ),
    ErrorCode.HANDLER_FAILED: (HandlerFailed, "the handler raised an exception, which is in the server's log"),
}


def failure(reply: Mapping[str, Any]) -> FailureReply | None:
    """Return the exception that a reply stands for, or None when it is no failure."""
    code = reply.get("error")
    if reply.keys() != {"status", "error"} or reply["status"] != "failure" or not isinstance(code, str):
        return None
    kind, meaning = _MEANINGS.get(code, (FailureReply, "the server reports a failure of its own kind"))
    return kind(f"{escape_for_log(code)}: {meaning}", code)
