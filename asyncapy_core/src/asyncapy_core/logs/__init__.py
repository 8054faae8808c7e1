"""Log lines: their form and fields, and limits on failures. `console` and `writer` write them."""

from asyncapy_core.logs.failures import (
    HIDDEN,
    FailureLog,
    Mistake,
    RateLimited,
    describe,
    escape_for_log,
    reason_of,
    safe_str,
    traceback_of,
)
from asyncapy_core.logs.session_log import FIELDS, SERVER, LineFormatter, SessionFilter, SessionLog, begin_log

__all__ = [
    "FIELDS",
    "HIDDEN",
    "SERVER",
    "FailureLog",
    "LineFormatter",
    "Mistake",
    "RateLimited",
    "SessionFilter",
    "SessionLog",
    "begin_log",
    "describe",
    "escape_for_log",
    "reason_of",
    "safe_str",
    "traceback_of",
]
