"""`WatchedKey`: a key of open sessions, and `Check`, a check of it under way. Both only keep state.

It does not know how a key is checked, nor when.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

import trio

from asyncapy_core.keys.store import KeyRecord

if TYPE_CHECKING:
    from asyncapy_core.session import Client


class WatchedKey:
    """A key with which sessions are logged in, or with which one logs in.

    Attributes:
        digest: its digest.
        subject: its digest or the key itself, for `Checks`.
        record: its record, if the last check has found it valid.
        passes_until: the time of trio until which it passes packets without another check.
        is_changed: whether it may have changed since the last check began.
        is_due: whether a task will check it, unless another check begins before.
        check: the check under way.
        clients: the clients of the sessions that are logged in.
    """

    __slots__ = (
        "__weakref__",
        "check",
        "clients",
        "digest",
        "is_changed",
        "is_due",
        "passes_until",
        "record",
        "subject",
    )

    def __init__(self, digest: str, subject: str) -> None:
        self.digest: str = digest
        self.subject: str = subject
        self.record: KeyRecord | None = None
        self.passes_until: float = 0.0
        self.is_changed: bool = False
        self.is_due: bool = False
        self.check: Check | None = None
        self.clients: WeakSet[Client] = WeakSet()

    def passes(self) -> bool:
        """Return whether packets need not wait for another check."""
        record = self.record
        return (
            record is not None
            and not self.is_changed
            and trio.current_time() < self.passes_until
            and (record.expires is None or record.expires > time.time())
        )

    def has_expired(self) -> bool:
        """Return whether the last check has found it valid, and it has expired since."""
        return self.record is not None and self.record.expired(time.time())

    def begin_check(self) -> Check:
        """Note that a check is under way, which will see the changes of which there was a notice."""
        self.check = Check(was_changed=self.is_changed)
        self.is_changed = self.is_due = False
        return self.check


@dataclass(slots=True, eq=False)
class Check:
    """A check under way, for which packets wait.

    Attributes:
        was_changed: whether there was a notice of a change before it.
        decided: set when it is over.
        is_answered: whether it has found out whether the key is valid; neither that nor an error: it was cancelled.
        record: the record of a valid key.
        error: its exception.
    """

    was_changed: bool
    decided: trio.Event = field(default_factory=trio.Event)
    is_answered: bool = False
    record: KeyRecord | None = None
    error: Exception | None = None

    def answer(self, record: KeyRecord | None) -> None:
        """Note the record of the key, or None if it is not valid."""
        self.is_answered, self.record = True, record
