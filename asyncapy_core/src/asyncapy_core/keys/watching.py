"""`KeyWatch`: checks the keys of open sessions again and again, each key once for all its sessions.

It does not know how a key is checked (see `Checks`), nor how a session is logged in and closed (`keys.log_ins`).
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary, ref

import trio

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.foreign.inspection import is_a
from asyncapy_core.keys.forking import ForkAware, watch_forks
from asyncapy_core.keys.store import KeyRecord
from asyncapy_core.keys.watched_key import Check, WatchedKey
from asyncapy_core.logs import RateLimited, describe, reason_of, safe_str

if TYPE_CHECKING:
    from asyncapy_core.session import Client

log: logging.Logger = logging.getLogger("asyncapy.keys")

INTERVAL: Final = 0.4
"""Seconds between two checks of one key."""

TRUST: Final = 1.0
"""Seconds for which a key passes after the start of a read from the store that found it valid."""

TRUST_IN_CACHE: Final = 0.5
"""The same if the store had it in its cache, which by default keeps a record for half a second."""

BATCH: Final = 100
"""The most keys that are checked by one call of the store. If there are more, they are spread over the interval."""

SHORTEST_TURN: Final = 0.05
"""The least part of an interval for which the task sleeps."""


class Checks(Protocol):
    """Checks the keys of a factory. A key is given as its subject: its digest, or the key itself."""

    def subject(self, digest: str, key: str) -> str:
        """Return one of the two."""

    async def check(self, subject: str, address: str) -> KeyRecord | None:
        """Return the record of a valid key, also from a cache, or None. An exception decides nothing.

        Args:
            subject: the subject of the key.
            address: the address of a client with this key.
        """

    async def check_many(self, subjects: Sequence[str]) -> Mapping[str, KeyRecord | Exception | None]:
        """Return the records by subject, from the store and not from a cache. Subjects may be left out."""

    def peek(self, subject: str) -> KeyRecord | None:
        """Return the record of a valid key if the store has it in a cache that gets notices of changes."""

    def copy(self, record: KeyRecord) -> KeyRecord:
        """Return a record that a handler may change."""

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        """Call a function when keys change, as `WatchableKeyStore` does, and return a function that ends this."""


class KeyWatch(ForkAware):
    """The watched keys of one factory in one run of trio. A key is watched as long as its log-ins refer to it.

    A key passes packets for `TRUST` after a check, and not after a notice that it has changed. Then packets wait for
    the next check; if the store is away, they get its KeyStoreUnavailable, and their session stays open.

    Args:
        checks: checks the keys.
        active: all watches of the factory that have keys, in all runs; this adds and removes itself.
        end: closes the session of a client whose key is not valid any more; called with the last record of the key.
    """

    def __init__(
        self,
        checks: Checks,
        active: MutableMapping[KeyWatch, None],
        end: Callable[[Client, WatchedKey, KeyRecord | None], object],
    ) -> None:
        self._checks = checks
        self._active = active
        self._end_session = end
        self._keys: WeakValueDictionary[str, WatchedKey] = WeakValueDictionary()
        self._queue: deque[ref[WatchedKey]] = deque()
        self._changed: deque[ref[WatchedKey]] = deque()
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()
        self._should_log = RateLimited(10)
        watch_forks(self)

    def watched(self, digest: str, key: str) -> WatchedKey:
        """Return a key, which has this digest."""
        watched = self._keys.get(digest)
        if watched is None:
            watched = self._keys[digest] = WatchedKey(digest, self._checks.subject(digest, key))
            self._queue.append(ref(watched))
        return watched

    async def find(self, key: WatchedKey, address: str) -> KeyRecord | None:
        """Return the record of a key, if need be by a check, or by the one under way; None if the key is not valid.

        Args:
            key: the key.
            address: the address of a client with this key.

        Raises:
            Exception: the exception of the check.
        """
        while not key.passes():
            if key.has_expired():
                self._end(key)
                return None
            check = key.check
            if check is None:
                check = await self._ask(key, address)
            else:
                await check.decided.wait()
            if check.error is not None:
                raise _for_this_task(check.error)
            if check.is_answered and not (key.is_changed and check.record is not None):
                return check.record
        return key.record

    def note_change(self, digest: str | None) -> None:
        """Have a key checked before it passes another packet; all keys, with None. Called in any thread."""
        if digest is None:
            changed = [key for each in self._keys.valuerefs() if (key := each()) is not None]
        else:
            key = self._keys.get(digest)
            changed = [] if key is None else [key]
        for each in changed:
            each.is_changed = True
            self._changed.append(ref(each))
        if changed:
            try:
                self._token.run_sync_soon(self._wake, idempotent=True)
            except trio.RunFinishedError:
                return

    def after_fork_in_child(self) -> None:
        """Forget all keys: the sessions are those of the parent, and trio's locks may be held for ever."""
        self._active.pop(self, None)
        self._keys.clear()

    def _wake(self) -> None:
        self._woken.set()

    async def _ask(self, key: WatchedKey, address: str) -> Check:
        self._start()
        check, began = key.begin_check(), trio.current_time()
        try:
            check.answer(await self._checks.check(key.subject, address))
        except Exception as error:  # raised where the key was sent
            check.error = error
        finally:
            self._end_check(key, check, began + TRUST_IN_CACHE)
        return check

    def _end_check(self, key: WatchedKey, check: Check, until: float) -> None:
        """Note the answer of a check, and let the packets go on that wait for it."""
        key.check = None
        if check.record is not None:
            key.record, key.passes_until = check.record, until
        elif check.is_answered:
            self._end(key)
        else:
            key.is_changed = key.is_changed or check.was_changed
        check.decided.set()

    def _end(self, key: WatchedKey) -> None:
        """End the sessions of a key that is not valid any more."""
        record, key.record = key.record, None
        clients = list(key.clients)
        key.clients.clear()
        for client in clients:
            self._end_session(client, key, record)

    def _start(self) -> None:
        """Start the task that has the keys checked, unless it runs."""
        if self in self._active:
            return
        try:
            end = self._checks.watch(self.note_change)
        except Exception as error:  # the code of a third party; keys are read again all the same
            log.error("{Key store} changes of keys cannot be watched: %s", describe(error))
            end = _nothing
        trio.lowlevel.spawn_system_task(self._run, end)
        self._active[self] = None

    async def _run(self, end: Callable[[], None]) -> None:
        """Have the keys checked until none is left. A system task: it lets no exception out."""
        try:
            while self._keys:
                part = max(SHORTEST_TURN, min(1.0, BATCH / max(1, len(self._queue))))
                await self._pause(INTERVAL * part)
                number = min(len(self._queue), math.ceil(len(self._queue) * part))
                turn = [self._queue.popleft() for _ in range(number)]
                self._check_again(turn)
                self._queue.extend(each for each in turn if each() is not None)
            self._queue.clear()
        except Exception:  # packets have keys checked, and the next check starts it again
            log.exception("{Key store} the keys of open sessions are not checked any more")
        finally:
            self._active.pop(self, None)
            try:
                end()
            except Exception as error:  # the code of a third party
                log.error("{Key store} the watching of changes does not end: %s", describe(error))

    async def _pause(self, seconds: float) -> None:
        """Wait, and have keys checked meanwhile that have changed."""
        with trio.move_on_after(seconds):
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                noted = [self._changed.popleft() for _ in range(len(self._changed))]
                self._check_again(each for each in noted if (key := each()) is not None and key.is_changed)

    def _check_again(self, keys: Iterable[ref[WatchedKey]]) -> None:
        """Have keys checked that have sessions, and are not being checked."""
        due: list[WatchedKey] = []
        for each in keys:
            key = each()
            if key is None or key.check is not None or key.is_due or not key.clients:
                continue
            if self._has_to_be_read(key):
                key.is_due = True
                due.append(key)
        for start in range(0, len(due), BATCH):
            trio.lowlevel.spawn_system_task(self._ask_again, due[start : start + BATCH])

    def _has_to_be_read(self, key: WatchedKey) -> bool:
        """End the sessions of a key that has expired, or confirm one from a cache; return whether it is neither."""
        try:
            if key.has_expired():
                self._end(key)
                return False
            record = None if key.is_changed else self._checks.peek(key.subject)
        except Exception:  # the code of a third party, or its record
            return True
        if record is None:
            return True
        key.record, key.passes_until = record, trio.current_time() + TRUST_IN_CACHE
        return False

    async def _ask_again(self, keys: Sequence[WatchedKey]) -> None:
        """Check keys together. A system task: it lets no exception out."""
        while checks := {key: key.begin_check() for key in keys if key.is_due}:
            began = trio.current_time()
            answers: Mapping[str, KeyRecord | Exception | None] = {}
            error: Exception | None = None
            try:
                answers = await self._checks.check_many([key.subject for key in checks])
            except BaseException as failure:  # a factory or a store may raise anything
                await trio.lowlevel.checkpoint_if_cancelled()  # the run of trio ends; otherwise the store has raised it
                reason = reason_of(failure)
                error = failure if is_a(failure, Exception) else KeyStoreError(f"the store raised {reason}")
                if self._should_log():
                    log.warning("{Key store} %d keys of open sessions cannot be checked: %s", len(checks), reason)
            finally:
                if again := [ref(key) for key in checks if key.is_changed and key.subject in answers]:
                    self._changed.extend(again)
                    self._wake()
                for key, check in checks.items():
                    answer = answers.get(key.subject, error)
                    if isinstance(answer, Exception):
                        check.error = answer
                    elif key.subject in answers:
                        check.answer(answer)
                    self._end_check(key, check, began + TRUST)
            keys = [key for key, check in checks.items() if not check.is_answered and check.error is None]
            for key in keys:
                key.is_due = True
            await trio.lowlevel.checkpoint()  # packets that wait for one of these keys have it checked first


def _for_this_task(error: Exception) -> Exception:
    """Return the exception to raise, as several tasks may get one of them."""
    if not is_a(error, KeyStoreUnavailable):
        return error
    own = KeyStoreUnavailable(safe_str(error))
    own.__cause__ = error
    return own


def _nothing() -> None:
    """End nothing."""
