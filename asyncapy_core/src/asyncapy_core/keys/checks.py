"""`FactoryRuns`: the threads, look-ups and log-ins of a factory in each run of trio, and how it checks log-ins.

`ByDigest` asks the store of the factory, `ByKey` the factory itself, if a subclass decides which keys are valid.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Final, Protocol, TypeVar

import trio

from asyncapy_core.addresses import network_of
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.foreign.inspection import is_a
from asyncapy_core.keys.calls import THREADS, CallQueue
from asyncapy_core.keys.log_ins import LogIns
from asyncapy_core.keys.lookups import LookUps, read_many
from asyncapy_core.keys.store import BatchKeyStore, KeyRecord, KeyStore, WatchableKeyStore, copied
from asyncapy_core.keys.watching import Checks, KeyWatch
from asyncapy_core.logs import HIDDEN, reason_of

SLOW_SECONDS: Final = 0.05
"""Seconds after which `ByKey.check_many` begins no further check, so that no packet waits for the checks of others."""

OF_SESSIONS: Final = "sessions"
"""The network in whose turn the keys of open sessions are checked. It is the address of no client."""


T = TypeVar("T")


class Factory(Protocol):
    """An `APIKeyFactory`, as these checks use it."""

    @property
    def key_store(self) -> KeyStore | None: ...

    @property
    def blocking(self) -> bool: ...

    def check(self, key: object) -> KeyRecord | None:
        """Return the record of a valid key, None for any other object."""

    async def acheck(self, key: object, *, address: str = "") -> KeyRecord | None:
        """Do the same without blocking other tasks."""


class FactoryRuns:
    """The state of a factory in each run of trio in which it is used.

    Args:
        by_digest: whether the store alone decides which keys are valid.
    """

    def __init__(self, *, by_digest: bool) -> None:
        self._by_digest = by_digest
        self._run: trio.lowlevel.RunVar[FactoryRun] = trio.lowlevel.RunVar("the run of a key factory")
        self._active: dict[KeyWatch, None] = {}

    def current(self, factory: Factory) -> FactoryRun:
        """Return the state of the factory in this run."""
        try:
            return self._run.get()
        except LookupError:
            self._run.set(run := FactoryRun(factory, self._active, by_digest=self._by_digest))
            return run

    def note_change(self, digest: str) -> None:
        """Have a key checked before it passes another packet of a session. Called in any thread."""
        for watch in list(self._active):  # one step, as is each change of the dictionary
            watch.note_change(digest)


class FactoryRun:
    """The threads, look-ups and log-ins of a factory in one run of trio.

    A thread that a finished run has abandoned does not count in the next run.

    Args:
        factory: the factory.
        active: see `KeyWatch`.
        by_digest: whether the store alone decides which keys are valid.

    Attributes:
        calls: the threads.
        look_ups: the look-ups, if the store is a `BatchKeyStore`.
        log_ins: the log-ins.
    """

    def __init__(self, factory: Factory, active: MutableMapping[KeyWatch, None], *, by_digest: bool) -> None:
        store = factory.key_store
        self.calls: CallQueue = CallQueue(max(1, min(THREADS, getattr(store, "concurrency", THREADS))))
        self.look_ups: LookUps | None = None
        if isinstance(store, BatchKeyStore):
            self.look_ups = LookUps(store, self.calls)
        checks: Checks
        if by_digest and store is not None:
            checks = ByDigest(store, self.calls, self.look_ups)
        else:
            checks = ByKey(factory, self.calls)
        self.log_ins: LogIns = LogIns(checks, active)


class ByDigest:
    """`Checks` by digest, in the store."""

    def __init__(self, store: KeyStore, calls: CallQueue, look_ups: LookUps | None) -> None:
        self._store = store
        self._calls = calls
        self._look_ups = look_ups if store.blocking else None
        self._is_watched = False

    def subject(self, digest: str, key: str) -> str:
        return digest

    async def check(self, subject: str, address: str) -> KeyRecord | None:
        store, network = self._store, network_of(address)
        cached = store.peek(subject)
        if cached is not None and not cached.expired(time.time()):
            return cached
        if self._look_ups is not None:
            return _unless_expired(await self._look_ups.find(subject, store.timeout, network=network))
        return await self._run(functools.partial(self._get, subject), network)

    async def check_many(self, subjects: Sequence[str]) -> Mapping[str, KeyRecord | Exception | None]:
        return await self._run(functools.partial(self._read, subjects), OF_SESSIONS)

    def copy(self, record: KeyRecord) -> KeyRecord:
        return copied(record)

    def peek(self, subject: str) -> KeyRecord | None:
        return _unless_expired(self._store.peek(subject)) if self._is_watched else None

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        end = _watch(self._store, changed)
        self._is_watched = end is not _nothing
        return end

    async def _run(self, call: Callable[[], T], network: str) -> T:
        store = self._store
        return await self._calls.run(call, store.timeout, network=network) if store.blocking else call()

    def _get(self, subject: str) -> KeyRecord | None:
        try:
            return _unless_expired(self._store.get(subject))
        except KeyError:
            return None

    def _read(self, subjects: Sequence[str]) -> Mapping[str, KeyRecord | Exception | None]:
        if not isinstance(self._store, BatchKeyStore):
            return one_by_one(self._get, subjects)
        found = read_many(self._store, subjects)
        return {subject: _answer(found.get(subject)) for subject in subjects}


class ByKey:
    """`Checks` by key, through the factory."""

    def __init__(self, factory: Factory, calls: CallQueue) -> None:
        self._factory = factory
        self._calls = calls

    def subject(self, digest: str, key: str) -> str:
        return key

    async def check(self, subject: str, address: str) -> KeyRecord | None:
        with _hidden(subject):
            return await self._factory.acheck(subject, address=address)

    async def check_many(self, subjects: Sequence[str]) -> Mapping[str, KeyRecord | Exception | None]:
        call = functools.partial(one_by_one, self._check, subjects)
        if not self._factory.blocking:
            return call()
        store = self._factory.key_store
        return await self._calls.run(call, math.inf if store is None else store.timeout, network=OF_SESSIONS)

    def _check(self, subject: str) -> KeyRecord | None:
        with _hidden(subject):
            return self._factory.check(subject)

    def copy(self, record: KeyRecord) -> KeyRecord:
        """Return the record itself, whose metadata is the object that the factory has given for this."""
        return record

    def peek(self, subject: str) -> KeyRecord | None:
        """Return None: the factory may decide otherwise than its store."""

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        return _watch(self._factory.key_store, changed)


@contextlib.contextmanager
def _hidden(key: str) -> Iterator[None]:
    """Replace an exception that quotes a key: the log hides the values of a packet, and this key is in no packet."""
    try:
        yield
    except Exception as error:
        text = reason_of(error)
        if key not in text:
            raise
        kind = KeyStoreUnavailable if is_a(error, KeyStoreUnavailable) else KeyStoreError
        raise kind(text.replace(key, HIDDEN)) from None


def _watch(store: KeyStore | None, changed: Callable[[str | None], object]) -> Callable[[], None]:
    if isinstance(store, WatchableKeyStore):
        return store.watch(changed)
    return _nothing


def _nothing() -> None:
    """End nothing: the store is not watched."""


def one_by_one(
    check: Callable[[str], KeyRecord | None], subjects: Sequence[str]
) -> dict[str, KeyRecord | Exception | None]:
    """Check keys one after the other, and leave out the others after `SLOW_SECONDS`."""
    answers: dict[str, KeyRecord | Exception | None] = {}
    end = time.monotonic() + SLOW_SECONDS
    for subject in subjects:
        try:
            answers[subject] = check(subject)
        except KeyStoreUnavailable:
            raise  # so it is for the others
        except Exception as error:  # raised where the key was sent
            answers[subject] = error
        if time.monotonic() > end:
            break
    return answers


def _answer(found: KeyRecord | Exception | None) -> KeyRecord | Exception | None:
    """Return the result of a look-up, but None for an expired record, and an error for one that is no record."""
    if found is None or isinstance(found, Exception):
        return found
    try:
        return _unless_expired(found)
    except Exception as error:  # raised where the key was sent
        return error


def _unless_expired(record: KeyRecord | None) -> KeyRecord | None:
    return None if record is None or record.expired(time.time()) else record
