"""Look-ups in a blocking store that can read several records at once: all that wait share the next call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.calls import LONGEST_QUEUE, CallQueue
from asyncapy_core.keys.store import BatchKeyStore, KeyRecord, copied
from asyncapy_core.keys.turns import Turns
from asyncapy_core.logs import safe_str

BATCH: Final = 100
"""The most records that one call reads."""

CALLS: Final = 2
"""The most concurrent calls of one factory for look-ups."""


class LookUps:
    """The look-ups of one factory in one run of trio.

    Networks of clients take turns in the calls. Look-ups of one digest share their answer. If the store does not answer
    a call, all look-ups fail that have waited since before the call.

    Args:
        store: the store.
        calls: the threads.
        longest: the most waiting look-ups. Beyond it, one of the network with the most fails.
    """

    def __init__(self, store: BatchKeyStore, calls: CallQueue, longest: int = LONGEST_QUEUE) -> None:
        self._store = store
        self._calls = calls
        self._longest = longest
        self._turns: Turns[_LookUp] = Turns()
        self._waiting: dict[str, _LookUp] = {}
        self._running = 0

    @property
    def waiting(self) -> int:
        """The number of look-ups that wait for a call."""
        return len(self._turns)

    async def find(self, digest: str, seconds: float, *, network: str = "") -> KeyRecord | None:
        """Return the record with this digest, or None.

        Args:
            digest: the digest of the key.
            seconds: the timeout of a call.
            network: the network of the client that has sent the key, or ``""``.

        Raises:
            KeyStoreUnavailable: the store does not answer, or too many look-ups wait.
            KeyStoreError: the store has answered with an error.
        """
        look_up = self._waiting.get(digest)
        if look_up is None:
            look_up = self._add(_LookUp(digest, network))
            if self._running < CALLS:
                self._running += 1
                trio.lowlevel.spawn_system_task(self._run, seconds)
        look_up.waiters += 1
        try:
            await look_up.decided.wait()
        finally:
            look_up.waiters -= 1
            if not look_up.waiters and self._waiting.get(digest) is look_up:
                self._turns.remove(look_up, look_up.network)
                del self._waiting[digest]
        if isinstance(look_up.error, KeyStoreUnavailable):
            raise KeyStoreUnavailable(safe_str(look_up.error)) from look_up.error  # several tasks may get this error
        if look_up.error is not None:
            raise look_up.error
        return None if look_up.record is None else copied(look_up.record)  # several tasks may get this record

    def _add(self, look_up: _LookUp) -> _LookUp:
        if len(self._turns) >= self._longest:
            newest = self._turns.take_newest(look_up.network)
            full = KeyStoreUnavailable(f"{self.waiting} keys wait to be looked up, the most that may; try again")
            if newest is None:
                raise full
            del self._waiting[newest.digest]
            newest.decide(error=full)
        self._turns.add(look_up, look_up.network)
        self._waiting[look_up.digest] = look_up
        return look_up

    async def _run(self, seconds: float) -> None:
        """Make calls until no look-up waits. A system task: it lets no exception out."""
        try:
            while batch := self._take():
                await self._call(batch, seconds)
        finally:
            self._running -= 1

    def _take(self) -> list[_LookUp]:
        batch: list[_LookUp] = []
        while len(batch) < BATCH and (look_up := self._turns.take()) is not None:
            del self._waiting[look_up.digest]
            batch.append(look_up)
        return batch

    async def _call(self, batch: list[_LookUp], seconds: float) -> None:
        earlier = list(self._waiting.values())
        read = functools.partial(read_many, self._store, [look_up.digest for look_up in batch])
        try:
            found = await self._calls.run(read, seconds)
        except trio.Cancelled as error:
            await trio.lowlevel.checkpoint_if_cancelled()  # the run of trio ends; otherwise the store has raised it
            for look_up in batch:
                look_up.decide(error=KeyStoreError(f"the key store raised {error!r}"))
        except KeyStoreUnavailable as error:
            for look_up in (*batch, *earlier):
                if self._waiting.get(look_up.digest) is look_up:
                    self._turns.remove(look_up, look_up.network)
                    del self._waiting[look_up.digest]
                look_up.decide(error=error)
        except BaseException as error:  # a store may raise anything; raised where the key was sent
            for look_up in batch:
                look_up.decide(error=error)
        else:
            for look_up in batch:
                answer = found.get(look_up.digest)
                if isinstance(answer, KeyRecord):
                    look_up.decide(record=answer)
                else:
                    look_up.decide(error=answer)


class _LookUp:
    """One look-up: its answer, and the number of tasks that wait for it."""

    __slots__ = ("decided", "digest", "error", "network", "record", "waiters")

    def __init__(self, digest: str, network: str) -> None:
        self.digest = digest
        self.network = network
        self.waiters = 0
        self.decided = trio.Event()
        self.record: KeyRecord | None = None
        self.error: BaseException | None = None

    def decide(self, *, record: KeyRecord | None = None, error: BaseException | None = None) -> None:
        self.record, self.error = record, error
        self.decided.set()


def read_many(store: BatchKeyStore, digests: Sequence[str]) -> Mapping[str, KeyRecord | Exception]:
    """Return the records with these digests, by digest. A record that the store cannot read is an error of its own.

    Raises:
        KeyStoreUnavailable: the store does not answer.
    """
    try:
        return store.get_many(digests)
    except KeyStoreUnavailable:
        raise
    except Exception:  # one of the records may be damaged
        return {digest: found for digest in digests if (found := _read_one(store.get, digest)) is not None}


def _read_one(get: Callable[[str], KeyRecord], digest: str) -> KeyRecord | Exception | None:
    try:
        return get(digest)
    except KeyError:
        return None
    except Exception as error:  # raised where the key was sent
        return error
