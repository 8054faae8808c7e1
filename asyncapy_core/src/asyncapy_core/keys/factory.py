"""`APIKeyFactory`: issues, checks and revokes API keys. A `KeyStore` keeps their digests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from asyncapy_core.addresses import network_of
from asyncapy_core.event_loops import REMEDY, require_trio
from asyncapy_core.keys.checks import FactoryRun, FactoryRuns
from asyncapy_core.keys.store import KeyRecord, KeyStore, copied
from asyncapy_core.keys.urls import open_store

if TYPE_CHECKING:
    from asyncapy_core.session import Client

MINIMUM_SIZE: Final = 8
MAXIMUM_SIZE: Final = 1024
CHECKING: Final = ("__contains__", "acheck", "check", "describe", "get")
"""The methods that decide which keys are valid. A subclass that overrides one is asked, and not its store."""

IN_A_THREAD: Final = f"{REMEDY}; or call get(), issue() and the others without a in a thread"

T = TypeVar("T")


class APIKeyFactory:
    """Issues, checks and revokes API keys.

    Keys come from `secrets`: letters, digits, ``-`` and ``_``, with 6 bits of randomness each. To keep them elsewhere,
    pass another store; or subclass this, and override ``issue``, ``get``, ``update``, ``reissue`` and ``revoke``.

    The methods with the prefix ``a`` are for handlers and filters: they run calls to a blocking store in up to 8
    threads, in the order of the callers; in `acheck` and `acontains`, the networks of clients take turns. The timeout
    of the store begins with the thread.

    Args:
        size: the length of a key in characters, 8 to 1024.
        store: a `KeyStore`, or the URL of one: ``"memory://"``, and with the plugins for them ``"sqlite:///keys.db"``
            or ``"redis://localhost"``.

    Raises:
        TypeError: ``size`` is not an integer.
        ValueError: ``size`` is out of range.
        UnknownKeyStore: no installed plugin provides the scheme of ``store``.
        KeyStoreError: the store cannot be opened.
    """

    key_store: KeyStore | None = None

    def __init__(self, size: int = 32, *, store: str | KeyStore = "memory://") -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size must be an integer, the length of a key in characters; got {size!r}")
        if not MINIMUM_SIZE <= size <= MAXIMUM_SIZE:
            raise ValueError(f"size must be {MINIMUM_SIZE} to {MAXIMUM_SIZE} characters; got {size}")
        self.size = size
        self.key_store = open_store(store) if isinstance(store, str) else store

    def issue(self, metadata: dict[str, Any] | None = None, *, expires_in: float | None = None) -> str:
        """Return a new key.

        Args:
            metadata: the result of `get` for the key.
            expires_in: seconds until the key expires; None for a key that does not expire.
        """
        return self.issue_with_record(metadata, expires_in=expires_in)[0]

    def issue_with_record(
        self, metadata: dict[str, Any] | None = None, *, expires_in: float | None = None
    ) -> tuple[str, KeyRecord]:
        """Issue a key; return it with its record, which has the public id, the time of issue and the expiry."""
        if expires_in is not None and not 0 < expires_in < math.inf:
            raise ValueError(
                f"expires_in must be more than 0 seconds, or None for a key that does not expire; got {expires_in!r}"
            )
        now = time.time()
        expires = None if expires_in is None else now + expires_in
        record = KeyRecord(secrets.token_hex(8), _checked({} if metadata is None else metadata), now, expires)
        key = self._random_key()
        self._change(self._store.add, digest(key), record)
        return key, record

    def get(self, key: str) -> dict[str, Any]:
        """Return the metadata of a key.

        Raises:
            KeyError: the key does not exist, or has expired.
        """
        return self.describe(key).metadata

    def describe(self, key: str) -> KeyRecord:
        """Return the record of a key.

        Raises:
            KeyError: the key does not exist, or has expired.
        """
        if not isinstance(key, str):
            raise TypeError(f"an API key is a string; got a {type(key).__name__}")
        return self._valid(digest(key))

    def reissue(self, key: str) -> str:
        """Replace a key by a new one with the same id, metadata and expiry, atomically, and return the new one.

        Raises:
            KeyError: the key does not exist, or has expired.
        """
        self.describe(key)
        return self._reissue(digest(key))

    def revoke(self, key: str) -> None:
        """Delete a key and its metadata.

        Raises:
            KeyError: the key does not exist, or has expired.
        """
        self.describe(key)
        self._change(self._store.remove, digest(key))

    def update(self, key: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a key.

        Raises:
            KeyError: the key does not exist, or has expired.
        """
        self.describe(key)
        self._change(self._store.update, digest(key), _checked(metadata))

    def __contains__(self, key: object) -> bool:
        """Return True for a valid key, False for any other object.

        Raises:
            KeyStoreUnavailable: the store does not answer.
        """
        if not isinstance(key, str):
            return False
        if type(self).get is APIKeyFactory.get and self._cached(key) is not None:
            return True
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def records(self) -> list[KeyRecord]:
        """Return the records of all valid keys, the oldest first. The keys themselves are not stored."""
        now = time.time()
        return [record for _, record in self._store.records() if not record.expired(now)]

    def record(self, key_id: str) -> KeyRecord:
        """Return the record of the key with this public id.

        Raises:
            KeyError: there is none, or it has expired.
        """
        return self._by_id(key_id, self._valid)

    def reissue_id(self, key_id: str) -> str:
        """Replace the key with this public id; see `reissue`."""
        self.record(key_id)
        return self._by_id(key_id, self._reissue)

    def revoke_id(self, key_id: str) -> None:
        """Delete the key with this public id, also an expired one."""
        self._by_id(key_id, lambda found: self._change(self._store.remove, found))

    def update_id(self, key_id: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of the key with this public id."""
        self.record(key_id)
        self._by_id(key_id, lambda found: self._change(self._store.update, found, _checked(metadata)))

    def purge(self) -> int:
        """Delete the expired keys, and return their number."""
        return self._store.purge(time.time())

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    @property
    def blocking(self) -> bool:
        """Whether a call may wait for a disk or a network.

        If a subclass overrides `get`, this is assumed, and checks run in threads; it may set ``blocking = False``.
        """
        own = type(self).get is not APIKeyFactory.get
        return own or (self.key_store is not None and self.key_store.blocking)

    async def aissue(self, metadata: dict[str, Any] | None = None, *, expires_in: float | None = None) -> str:
        """Issue a key without blocking other tasks; see `issue`."""
        if expires_in is None:  # the documented signature for subclasses has no expiry
            return await self._without_blocking(self.issue, metadata)
        return await self._without_blocking(functools.partial(self.issue, expires_in=expires_in), metadata)

    async def aget(self, key: str) -> dict[str, Any]:
        """Return the metadata of a key without blocking other tasks; see `get`."""
        return await self._without_blocking(self.get, key)

    async def areissue(self, key: str) -> str:
        """Replace a key without blocking other tasks; see `reissue`."""
        return await self._without_blocking(self.reissue, key)

    async def arevoke(self, key: str) -> None:
        """Delete a key without blocking other tasks; see `revoke`."""
        await self._without_blocking(self.revoke, key)

    async def aupdate(self, key: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a key without blocking other tasks; see `update`."""
        await self._without_blocking(self.update, key, metadata)

    async def acontains(self, key: object, *, address: str = "") -> bool:
        """Return ``key in factory`` without blocking other tasks; see `acheck`."""
        return await self.acheck(key, address=address) is not None

    def check(self, key: object) -> KeyRecord | None:
        """Return the record of a valid key, None for any other object.

        If a subclass overrides `get`, the record has the mapping that it returns as metadata, and no id.

        Raises:
            KeyStoreUnavailable: the store does not answer.
        """
        if not isinstance(key, str):
            return None
        kind = type(self)
        if kind.__contains__ is not APIKeyFactory.__contains__ and key not in self:
            return None
        try:
            if kind.get is not APIKeyFactory.get:
                return KeyRecord("", self.get(key))
            cached = self._cached(key)
            return self.describe(key) if cached is None else copied(cached)
        except KeyError:
            return None

    async def acheck(self, key: object, *, address: str = "") -> KeyRecord | None:
        """Return the record of a valid key without blocking other tasks, and without a thread if it is cached.

        Args:
            key: the key.
            address: the address of the client that has sent the key. Checks for clients of different networks take
                turns if they have to wait.
        """
        kind, store = type(self), self.key_store
        if not isinstance(key, str) or not self.blocking:
            return self.check(key)
        if kind.__contains__ is APIKeyFactory.__contains__ and kind.get is APIKeyFactory.get and store is not None:
            cached = self._cached(key)
            if cached is not None:
                return copied(cached)
            require_trio("APIKeyFactory", IN_A_THREAD)
            look_ups = self._run_of_trio.look_ups
            if look_ups is not None:
                record = await look_ups.find(digest(key), store.timeout, network=network_of(address))
                return None if record is None or record.expired(time.time()) else record
        return await self._without_blocking(self.check, key, address=address)

    async def alog_in(self, client: Client, key: str | None = None) -> KeyRecord | None:
        """Log the session of a client in with a key, or find the key of its log-in; return the record, or None.

        A log-in lasts until the session ends, `log_out`, or a log-in with another key, valid or not. If the key is
        revoked, reissued or expires, the session is closed within a second. Meanwhile the key is not looked up for each
        packet, but twice a second for all sessions.

        Args:
            client: the client.
            key: the key. None: the key of the log-in, also of one under way, for which this waits.

        Raises:
            KeyStoreUnavailable: the store does not answer; a session that was logged in with this key stays so.
        """
        require_trio("APIKeyFactory.alog_in")
        if key is None:
            return await self._run_of_trio.log_ins.record(client)
        return await self._run_of_trio.log_ins.log_in(client, digest(key), key)

    def log_out(self, client: Client) -> None:
        """End the log-in of a session; the session stays open."""
        require_trio("APIKeyFactory.log_out")
        self._run_of_trio.log_ins.log_out(client)

    @property
    def _store(self) -> KeyStore:
        if self.key_store is None:
            raise TypeError(
                f"{type(self).__name__} has no store: call super().__init__(), or override the methods that need one"
            )
        return self.key_store

    @property
    def _runs_of_trio(self) -> FactoryRuns:
        found: FactoryRuns | None = vars(self).get("_asyncapy_runs")
        if found is None:  # a subclass need not call super().__init__()
            by_digest = all(getattr(type(self), name) is getattr(APIKeyFactory, name) for name in CHECKING)
            found = vars(self).setdefault("_asyncapy_runs", FactoryRuns(by_digest=by_digest))
        return found

    @property
    def _run_of_trio(self) -> FactoryRun:
        return self._runs_of_trio.current(self)

    def _cached(self, key: str) -> KeyRecord | None:
        """Return the record of a key if the store knows without waiting that it is valid. Do not change it."""
        record = None if self.key_store is None else self.key_store.peek(digest(key))
        return None if record is None or record.expired(time.time()) else record

    async def _without_blocking(self, function: Callable[..., T], *args: Any, address: str = "") -> T:
        if not self.blocking:
            return function(*args)
        require_trio("APIKeyFactory", IN_A_THREAD)
        timeout = math.inf if self.key_store is None else self.key_store.timeout
        return await self._run_of_trio.calls.run(
            functools.partial(function, *args), timeout, network=network_of(address)
        )

    def _find(self, key_id: str) -> str:
        try:
            return self._store.find(key_id)
        except KeyError:
            raise KeyError(f"no API key has the id {key_id!r}") from None

    def _by_id(self, key_id: str, call: Callable[[str], T]) -> T:
        """Call a function with the digest of this id; again, if the key was reissued between the two steps."""
        found = self._find(key_id)
        try:
            return call(found)
        except KeyError:
            return call(self._find(key_id))

    def _valid(self, key_digest: str) -> KeyRecord:
        try:
            record = self._store.get(key_digest)
        except KeyError:
            raise _no_such_key() from None
        if record.expired(time.time()):
            raise _no_such_key()
        return record

    def _reissue(self, key_digest: str) -> str:
        can_replace = getattr(self._store, "can_replace", None)
        new = self._random_key()
        while can_replace is not None and not can_replace(key_digest, digest(new)):
            new = self._random_key()
        self._change(self._store.replace, key_digest, digest(new))
        return new

    def _random_key(self) -> str:
        return secrets.token_urlsafe(self.size)[: self.size]

    def _change(self, method: Callable[..., T], key_digest: str, *args: Any) -> T:
        """Call a changing method of the store, unless the caller has already got a timeout.

        A KeyError is replaced by one without the digest.
        """
        with contextlib.suppress(RuntimeError):  # this is not one of trio's threads
            trio.from_thread.check_cancelled()
        try:
            return method(key_digest, *args)
        except KeyError:
            raise _no_such_key() from None
        finally:
            self._runs_of_trio.note_change(key_digest)


def digest(key: str) -> str:
    """Return the digest of a key that stores get: its SHA-256, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _checked(metadata: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dictionary; got a {type(metadata).__name__}")
    return metadata


def _no_such_key() -> KeyError:
    return KeyError("no such API key")
