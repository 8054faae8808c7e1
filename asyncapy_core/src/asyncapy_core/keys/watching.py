"""`KeyWatch`: checks the keys of open sessions again and again, each key once for all its sessions.

It does not know how a key is checked (see `Checks`), nor how a session is logged in and closed (`keys.log_ins`).
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet, WeakValueDictionary, ref

import trio

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.store import KeyRecord
from asyncapy_core.logs import RateLimited, describe

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


class KeyWatch:
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
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()
        self._should_log = RateLimited(10)

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
        if changed:
            try:
                self._token.run_sync_soon(self._wake, idempotent=True)
            except trio.RunFinishedError:
                return

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
                part = max(SHORTEST_TURN, min(1.0, BATCH / len(self._queue)))
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
                self._check_again(self._keys.valuerefs(), only_changed=True)

    def _check_again(self, keys: Iterable[ref[WatchedKey]], *, only_changed: bool = False) -> None:
        """Have keys checked that have sessions, and are not being checked."""
        due: list[WatchedKey] = []
        until = trio.current_time() + TRUST_IN_CACHE
        for each in keys:
            key = each()
            if key is None or key.check is not None or key.is_due or not key.clients:
                continue
            if only_changed and not key.is_changed:
                continue
            if key.has_expired():
                self._end(key)
            elif not key.is_changed and (record := self._peek(key)) is not None:
                key.record, key.passes_until = record, until
            else:
                key.is_due = True
                due.append(key)
        for start in range(0, len(due), BATCH):
            trio.lowlevel.spawn_system_task(self._ask_again, due[start : start + BATCH])

    def _peek(self, key: WatchedKey) -> KeyRecord | None:
        try:
            return self._checks.peek(key.subject)
        except Exception:  # the code of a third party; the key is read
            return None

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
                error = failure if isinstance(failure, Exception) else KeyStoreError(f"the store raised {failure!r}")
                if self._should_log():
                    log.warning("{Key store} %d keys of open sessions cannot be checked: %s", len(checks), error)
            finally:
                if any(key.is_changed and key.subject in answers for key in checks):
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
    if not isinstance(error, KeyStoreUnavailable):
        return error
    own = KeyStoreUnavailable(str(error))
    own.__cause__ = error
    return own


def _nothing() -> None:
    """End nothing."""
