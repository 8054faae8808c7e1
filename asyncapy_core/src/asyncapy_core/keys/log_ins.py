"""`LogIns`: the sessions that are logged in with keys of one factory, in one run of trio.

A log-in is kept in the memo of its session, and ends with it. `keys.watching` has the keys checked.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.keys.store import KeyRecord
from asyncapy_core.keys.watched_key import WatchedKey
from asyncapy_core.keys.watching import Checks, KeyWatch
from asyncapy_core.logs import describe, escape_for_log

if TYPE_CHECKING:
    from asyncapy_core.session import Client

log: logging.Logger = logging.getLogger("asyncapy.keys")

CLOSE_SECONDS: Final = 0.5
"""Seconds in which a peer has to accept the pending output when its session is closed."""


class LogIns:
    """The log-ins of one factory in one run of trio.

    Args:
        checks: checks the keys.
        active: see `KeyWatch`.
    """

    def __init__(self, checks: Checks, active: MutableMapping[KeyWatch, None]) -> None:
        self._copy = checks.copy
        self._watch = KeyWatch(checks, active, self._end)

    async def log_in(self, client: Client, digest: str, key: str) -> KeyRecord | None:
        """Log a session in, and return the record of the key; None if it is not valid.

        An earlier log-in with another key ends at once. A log-in that fails, for any reason, leaves none.

        Args:
            client: the client.
            digest: the digest of the key.
            key: the key.

        Raises:
            Exception: the exception of the check.
        """
        found: _LogIn | None = client.session.memo.get(self)
        if found is not None and found.watched.digest == digest:
            log_in = found
            if log_in.is_done:
                return await self.record(client)
        else:
            self.log_out(client)
            log_in = _LogIn(self._watch.watched(digest, key))
            client.session.memo[self] = log_in  # packets that arrive without a key wait for the check of this one
        record = await self._first_record(client, log_in)
        if record is None:
            return None
        if client.session.memo.get(self) is log_in:
            log_in.is_done = True
            log_in.watched.clients.add(client)
        return self._copy(record)

    async def record(self, client: Client) -> KeyRecord | None:
        """Return the record of the key with which a session is logged in, or None.

        Raises:
            Exception: the exception of the check.
        """
        log_in: _LogIn | None = client.session.memo.get(self)
        if log_in is None:
            return None
        watched = log_in.watched
        record = watched.record if watched.passes() else await self._watch.find(watched, client.address)
        return None if record is None else self._copy(record)

    def log_out(self, client: Client) -> None:
        """End the log-in of a session, or one under way; the session stays open."""
        log_in: _LogIn | None = client.session.memo.pop(self, None)
        if log_in is not None:
            log_in.watched.clients.discard(client)

    async def _first_record(self, client: Client, log_in: _LogIn) -> KeyRecord | None:
        """Return the record of a key with which a session logs in; if all its packets fail, end the log-in."""
        log_in.packets += 1
        record = None
        try:
            record = await self._watch.find(log_in.watched, client.address)
        finally:
            log_in.packets -= 1
            failed = record is None and not log_in.is_done and not log_in.packets
            if failed and client.session.memo.get(self) is log_in:
                del client.session.memo[self]
        return record

    def _end(self, client: Client, watched: WatchedKey, record: KeyRecord | None) -> None:
        """End the log-in with a key that is not valid any more, and close the session."""
        log_in: _LogIn | None = client.session.memo.get(self)
        if log_in is not None and log_in.watched is watched:
            del client.session.memo[self]
            trio.lowlevel.spawn_system_task(self._close, client, "" if record is None else record.id)

    async def _close(self, client: Client, key_id: str) -> None:
        """Close a session. A system task: it lets no exception out."""
        try:
            name = f"The API key {escape_for_log(key_id)}" if key_id else "The API key"
            client.log.info("{Client handler} %s of this session is not valid any more", name)
            with trio.move_on_after(CLOSE_SECONDS):
                await client.close()
        except BaseException as error:  # a stream or a logger may raise anything
            await trio.lowlevel.checkpoint_if_cancelled()  # the run of trio ends
            log.error("{Key store} a session could not be closed: %s", describe(error))


@dataclass(slots=True, eq=False)
class _LogIn:
    """The log-in of one session.

    Attributes:
        watched: its key.
        packets: the number of packets with the key that wait for its first check.
        is_done: whether this check has found the key valid.
    """

    watched: WatchedKey
    packets: int = 0
    is_done: bool = False
