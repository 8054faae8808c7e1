"""Failure replies as exceptions (docs/protocol.md, "Replies of the server")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asyncapy_core.errors import (
    ErrorCode,
    FailureReply,
    Forbidden,
    HandlerFailed,
    HeaderRefused,
    InvalidFields,
    NoHandlerFound,
    NoReply,
    RateLimited,
    RequestMalformed,
    RequestTooLarge,
    ServerBusy,
    SessionLimitReached,
    SessionTimedOut,
    Unauthorized,
    Unavailable,
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
    ErrorCode.NO_REPLY: (NoReply, "the handler sent no answer"),
    ErrorCode.UNAUTHORIZED: (Unauthorized, "the key is missing or not valid"),
    ErrorCode.FORBIDDEN: (Forbidden, "the key is not valid for this"),
    ErrorCode.INVALID: (InvalidFields, "the fields of the packet are wrong"),
    ErrorCode.RATE_LIMITED: (RateLimited, "too many requests; try again later"),
    ErrorCode.UNAVAILABLE: (Unavailable, "the server cannot reach a part that it needs; nothing was done, try again"),
}


_REFUSALS: Final = (ErrorCode.SESSION_LIMIT_REACHED, ErrorCode.SERVER_BUSY)
"""Codes of replies with which a server refuses a connection, whatever was sent on it."""

_CLOSING: Final = (
    *_REFUSALS,
    ErrorCode.TIMED_OUT,
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.HEADER_INVALID,
    ErrorCode.PACKET_TOO_LARGE,
)
"""Codes of replies behind which a server closes the connection (docs/protocol.md, "Replies of the server")."""


def is_refusal(reply: Mapping[str, Any]) -> bool:
    """Return True for a reply with which a server refuses a connection, if it is the first reply on it."""
    return _has_code(reply, _REFUSALS)


def is_time_out(reply: Mapping[str, Any]) -> bool:
    """Return True for ERR_TIMED_OUT in the form in which the server itself sends it."""
    return "error" in reply and _has_code(reply, (ErrorCode.TIMED_OUT,))


def is_header_invalid(reply: Mapping[str, Any]) -> bool:
    """Return True for ERR_HEADER_INVALID in the form in which a server of version 22 answers a packet of version 23."""
    return _has_code(reply, (ErrorCode.HEADER_INVALID,))


def closes_connection(reply: Mapping[str, Any]) -> bool:
    """Return True for a failure behind which a server closes the connection, if the server itself has sent it."""
    return _has_code(reply, _CLOSING)


def _has_code(reply: Mapping[str, Any], codes: tuple[ErrorCode, ...]) -> bool:
    """Return True for a failure with one of these codes, and without further fields."""
    return reply.get("error") in codes and reply.get("status") == "failure" and len(reply) == 2


def failure(reply: Mapping[str, Any]) -> FailureReply | None:
    """Return the exception for a failure reply, or None for any other reply."""
    code = reply.get("error")
    if reply.get("status") != "failure" or not isinstance(code, str):
        return None
    kind, meaning = _MEANINGS.get(code, (FailureReply, "the server's own failure"))
    fields = {name: value for name, value in reply.items() if name not in {"status", "error"}}
    detail = fields.get("detail") or _first_problem(fields)
    text = escape_for_log(detail) if isinstance(detail, str) and detail else meaning
    return kind(f"{escape_for_log(code)}: {text}", code, fields)


def _first_problem(fields: Mapping[str, Any]) -> str | None:
    """Return the place and reason of the first wrong field of ERR_INVALID, if it has the usual form."""
    problems = fields.get("fields")
    first = problems[0] if isinstance(problems, list) and problems else None
    if not isinstance(first, dict) or not isinstance(first.get("loc"), list) or not isinstance(first.get("msg"), str):
        return None
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
