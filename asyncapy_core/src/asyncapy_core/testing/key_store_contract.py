"""The tests that every key store has to pass: subclass `KeyStoreContract` in a file that pytest collects.

They are independent of the store and the test runner; a failed expectation is an AssertionError.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from asyncapy_core.keys.factory import APIKeyFactory, digest
from asyncapy_core.keys.store import BatchKeyStore, KeyRecord, KeyStore, WatchableKeyStore

T = TypeVar("T")

METADATA: dict[str, Any] = {
    "text": 'käse "quoted" \u2028 \U0001f600',
    "number": -(2**53),
    "fraction": 0.1,
    "flags": [True, False, None],
    "nested": {"deep": {"er": []}},
    "": "an empty name",
}

WORKER = """
import sys
from asyncapy_core import APIKeyFactory
factory = APIKeyFactory(store=sys.argv[1])
for _ in range(int(sys.argv[2])):
    print(factory.issue({"by": sys.argv[3]}))
"""
"""The program of a process that issues keys."""

D1: Final = digest("d1")
LATER: Final = 10_000_000_000.5
"""A UNIX time beyond the life of every program. A store may delete a record that has expired."""


class KeyStoreContract(ABC):
    """The contract of a key store: subclass it as ``class TestMyStore(KeyStoreContract)`` and define `open`.

    Attributes:
        url: the URL at which other processes can open the same store; None for a store that cannot be shared.
        stale_seconds: seconds for which one handle may still return a record that another has changed.
    """

    url: str | None = None
    stale_seconds: float = 0.0

    @abstractmethod
    def open(self) -> KeyStore:
        """Open the store. All calls in one test open the same store, which is empty at first."""

    @contextlib.contextmanager
    def store(self) -> Iterator[KeyStore]:
        """Open the store for the length of a ``with`` block."""
        store = self.open()
        try:
            yield store
        finally:
            store.close()

    def test_says_whether_and_how_long_it_blocks(self) -> None:
        with self.store() as store:
            assert isinstance(store.blocking, bool)
            assert store.timeout > 0

    def test_returns_what_was_added(self) -> None:
        with self.store() as store:
            record = KeyRecord("id-1", METADATA, 1_700_000_000.25, LATER)
            store.add(D1, record)
            assert store.get(D1) == record
            assert store.find("id-1") == D1

    def test_keeps_a_record_without_expiry_or_metadata(self) -> None:
        with self.store() as store:
            store.add(D1, KeyRecord("id-1"))
            assert store.get(D1) == KeyRecord("id-1", {}, 0.0, None)

    def test_raises_key_error_for_what_is_not_there(self) -> None:
        with self.store() as store:
            other = digest("other")
            store.add(other, KeyRecord("other"))
            for call in (
                lambda: store.get(D1),
                lambda: store.find("none"),
                lambda: store.update(D1, {}),
                lambda: store.replace(D1, _successor(store, D1)),
                lambda: store.remove(D1),
            ):
                _raises_key_error(call)
            assert [kept for kept, _ in store.records()] == [other]

    def test_what_was_removed_is_gone(self) -> None:
        with self.store() as store:
            store.add(D1, KeyRecord("id-1"))
            store.get(D1)
            store.remove(D1)
            assert store.peek(D1) is None
            _raises_key_error(lambda: store.get(D1))
            _raises_key_error(lambda: store.find("id-1"))
            _raises_key_error(lambda: store.remove(D1))

    def test_update_replaces_the_metadata_and_nothing_else(self) -> None:
        with self.store() as store:
            store.add(D1, KeyRecord("id-1", {"old": 1}, 5.0, LATER))
            store.update(D1, {"new": 2})
            assert store.get(D1) == KeyRecord("id-1", {"new": 2}, 5.0, LATER)
            assert (store.peek(D1) or store.get(D1)).metadata == {"new": 2}

    def test_replace_moves_the_record(self) -> None:
        with self.store() as store:
            record, new = KeyRecord("id-1", {"a": 1}, 5.0, LATER), _successor(store, D1)
            store.add(D1, record)
            store.replace(D1, new)
            assert store.get(new) == record
            assert store.find("id-1") == new
            assert store.peek(D1) is None
            _raises_key_error(lambda: store.get(D1))

    def test_what_is_returned_is_the_callers_own(self) -> None:
        with self.store() as store:
            metadata: dict[str, Any] = {"list": [1]}
            store.add(D1, KeyRecord("id-1", metadata))
            metadata["list"].append(2)
            store.get(D1).metadata["list"].append(3)
            assert store.get(D1).metadata == {"list": [1]}

    def test_iterates_over_all_records_the_oldest_first(self) -> None:
        with self.store() as store:
            assert list(store.records()) == []
            digests = [digest(f"d{number}") for number in range(250)]
            for number, added in enumerate(digests):
                store.add(added, KeyRecord(f"id-{number}", {"n": number}, float(number)))
            records = list(store.records())
            assert [record.metadata["n"] for _, record in records] == list(range(250))
            assert [listed for listed, _ in records] == digests

    def test_purge_forgets_what_has_expired_and_nothing_else(self) -> None:
        with self.store() as store:
            store.add(D1, KeyRecord("id-1"))
            store.add(digest("later"), KeyRecord("id-2", expires=LATER + 100))
            store.add(digest("over"), KeyRecord("id-3", expires=LATER))
            assert store.purge(LATER) == 1
            assert store.purge(LATER) == 0
            assert {kept for kept, _ in store.records()} == {D1, digest("later")}
            _raises_key_error(lambda: store.find("id-3"))

    def test_can_be_closed_twice(self) -> None:
        store = self.open()
        store.close()
        store.close()

    def test_what_is_peeked_at_is_what_is_there(self) -> None:
        with self.store() as store:
            assert store.peek(D1) is None
            store.add(D1, KeyRecord("id-1", {"a": 1}))
            store.get(D1)
            assert store.peek(D1) in (None, KeyRecord("id-1", {"a": 1}))

    def test_many_threads_lose_nothing(self) -> None:
        with self.store() as store, ThreadPoolExecutor(8) as pool:

            def work(worker: int) -> None:
                for number in range(25):
                    name = f"{worker}-{number}"
                    store.add(digest(name), KeyRecord(name, {"n": number}))
                    store.update(digest(name), {"n": number + 1})
                    if number % 2:
                        store.remove(digest(name))

            list(pool.map(work, range(8)))
            left = {record.id: record.metadata["n"] for _, record in store.records()}
            assert left == {f"{w}-{n}": n + 1 for w in range(8) for n in range(0, 25, 2)}

    def test_of_many_that_replace_a_record_one_wins(self) -> None:
        with self.store() as store, ThreadPoolExecutor(8) as pool:
            store.add(D1, KeyRecord("id-1"))

            def replace(new: str) -> bool:
                try:
                    store.replace(D1, new)
                except KeyError:
                    return False
                return True

            successors = [_successor(store, D1, number) for number in range(8)]
            outcomes = list(pool.map(replace, successors))
            assert outcomes.count(True) == 1
            assert [kept for kept, _ in store.records()] == [successors[outcomes.index(True)]]

    def test_nobody_sees_both_or_neither_while_a_record_is_replaced(self) -> None:
        with self.store() as store, contextlib.ExitStack() as stack:
            reader = store if self.url is None else stack.enter_context(self.store())
            digests = [D1, *(_successor(store, D1, number) for number in range(100))]
            store.add(D1, KeyRecord("id-1"))
            done = threading.Event()
            sights: list[int] = []

            def watch() -> None:
                while not done.is_set():
                    sights.append(len(list(reader.records())))

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                for old, new in itertools.pairwise(digests):
                    store.replace(old, new)
            finally:
                done.set()
                watcher.join()
            assert sights
            assert set(sights) == {1}

    def test_another_handle_sees_a_change_in_time(self) -> None:
        if self.url is None:
            return
        with self.store() as one, self.store() as other:
            one.add(D1, KeyRecord("id-1"))
            assert other.get(D1).id == "id-1"
            one.remove(D1)
            deadline = time.monotonic() + self.stale_seconds
            while other.peek(D1) is not None:
                assert time.monotonic() < deadline + 0.1, f"still returned {self.stale_seconds} s after its removal"
                time.sleep(0.01)
            _raises_key_error(lambda: other.get(D1))

    def test_several_records_are_read_at_once(self) -> None:
        with self.store() as store:
            if not isinstance(store, BatchKeyStore):
                return
            other, missing = digest("d2"), digest("missing")
            assert store.get_many([]) == {}
            store.add(D1, KeyRecord("id-1", METADATA))
            store.add(other, KeyRecord("id-2"))
            expected = {D1: KeyRecord("id-1", METADATA), other: KeyRecord("id-2")}
            assert store.get_many([D1, missing, other]) == expected
            store.get_many([D1])[D1].metadata.clear()
            assert store.get_many([D1, missing, other]) == expected, "a caller changed the record"
            store.remove(D1)
            assert store.get_many([D1, other]) == {other: KeyRecord("id-2")}

    def test_a_watcher_learns_of_a_change_through_another_handle(self) -> None:
        with self.store() as one, self.store() as other:
            if not isinstance(one, WatchableKeyStore):
                return
            changes: list[str | None] = []
            end = one.watch(changes.append)
            other.add(D1, KeyRecord("id-1"))
            deadline = time.monotonic() + 10
            while D1 not in changes:
                assert time.monotonic() < deadline, "the watcher was not called for 10 s"
                other.update(D1, {"at": time.monotonic()})
            end()

    def test_keys_outlive_their_handle(self) -> None:
        if self.url is None:
            return
        with self.store() as store:
            store.add(D1, KeyRecord("id-1", METADATA))
        with self.store() as store:
            assert store.get(D1) == KeyRecord("id-1", METADATA)

    def test_many_processes_lose_nothing(self) -> None:
        if self.url is None:
            return
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, self.url, "20", str(n)], stdout=subprocess.PIPE, text=True)
            for n in range(3)
        ]
        keys = [key for worker in workers for key in worker.communicate(timeout=60)[0].split()]
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        assert len(set(keys)) == 60
        with self.store() as store:
            factory = APIKeyFactory(store=store)
            assert all(key in factory for key in keys)
            assert {kept for kept, _ in store.records()} == set(map(digest, keys))

    def test_serves_a_factory(self) -> None:
        with self.store() as store:
            factory = APIKeyFactory(size=24, store=store)
            key, record = factory.issue_with_record({"plan": "gold"}, expires_in=3600)
            assert len(key) == 24
            assert key in factory
            assert factory.get(key) == {"plan": "gold"}
            assert factory.record(record.id) == record
            assert factory.records() == [record]
            factory.update(key, {"plan": "silver"})
            new = factory.reissue(key)
            assert key not in factory
            assert factory.get(new) == {"plan": "silver"}
            factory.revoke_id(record.id)
            assert new not in factory
            _raises_key_error(lambda: factory.revoke(new))

    def test_never_sees_a_key(self) -> None:
        with self.store() as store:
            key = APIKeyFactory(store=store).issue({"a": 1})
            assert key not in repr(list(store.records()))
            assert [kept for kept, _ in store.records()] == [digest(key)]


def _successor(store: KeyStore, old: str, number: int = 0) -> str:
    """Return a digest to which the store can move the record of another; one for each number."""
    can_replace: Callable[[str, str], bool] | None = getattr(store, "can_replace", None)
    drawn = (digest(f"{number}-{attempt}") for attempt in range(10_000))
    return next(new for new in drawn if can_replace is None or can_replace(old, new))


def _raises_key_error(call: Callable[[], object]) -> None:
    try:
        result = call()
    except KeyError:
        return
    raise AssertionError(f"expected a KeyError, got {result!r}")
