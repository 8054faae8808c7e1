from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError

import pytest

from asyncapy_core import KeyRecord, KeyStore, MemoryKeyStore
from asyncapy_core.testing import KeyStoreContract


class TestMemoryKeyStore(KeyStoreContract):
    """The contract suite, which the SQLite and Redis stores also pass."""

    @pytest.fixture(autouse=True)
    def _one_store_for_each_test(self) -> None:
        self.memory = MemoryKeyStore()

    def open(self) -> KeyStore:
        return self.memory


def test_a_record_is_frozen_and_has_no_key_in_it() -> None:
    record = KeyRecord("id")
    assert (record.metadata, record.issued, record.expires) == ({}, 0.0, None)
    with pytest.raises(FrozenInstanceError):
        record.expires = 1.0  # type: ignore[misc]  # the mistake that is tested
    assert repr(record) == "KeyRecord(id='id', metadata={}, issued=0.0, expires=None)"


def test_two_records_do_not_share_their_default_metadata() -> None:
    assert KeyRecord("a").metadata is not KeyRecord("b").metadata


@pytest.mark.parametrize(("expires", "expired"), [(None, False), (99.0, True), (100.0, True), (100.5, False)], ids=repr)
def test_a_record_expires_at_its_time_and_not_before(expires: float | None, expired: bool) -> None:
    assert KeyRecord("id", expires=expires).expired(100.0) is expired


def test_a_memory_store_does_not_block() -> None:
    assert MemoryKeyStore().blocking is False


@pytest.mark.parametrize("name", ["get", "update", "replace", "remove", "find"])
def test_what_is_not_there_is_a_key_error_and_changes_nothing(name: str) -> None:
    store = MemoryKeyStore()
    store.add("kept", KeyRecord("id", {"a": 1}))
    arguments = {"update": ("none", {}), "replace": ("none", "kept")}.get(name, ("none",))
    with pytest.raises(KeyError, match="none"):
        getattr(store, name)(*arguments)
    assert dict(store.records()) == {"kept": KeyRecord("id", {"a": 1})}


def test_what_records_gives_out_is_the_callers_own() -> None:
    store = MemoryKeyStore()
    store.add("d", KeyRecord("id", {"a": [1]}))
    for _, record in store.records():
        record.metadata["a"].append(2)
    assert store.get("d").metadata == {"a": [1]}


def test_records_may_be_changed_while_they_are_iterated_over() -> None:
    store = MemoryKeyStore()
    for number in range(3):
        store.add(str(number), KeyRecord(str(number)))
    seen = []
    for digest, _ in store.records():
        seen.append(digest)
        store.remove(digest)
        store.add("new" + digest, KeyRecord("new"))
    assert seen == ["0", "1", "2"]
    assert {digest for digest, _ in store.records()} == {"new0", "new1", "new2"}


def test_of_many_threads_that_remove_a_record_one_succeeds() -> None:
    store = MemoryKeyStore()
    store.add("d", KeyRecord("id"))
    start = threading.Barrier(8)
    removed: list[bool] = []

    def remove() -> None:
        start.wait(10)
        try:
            store.remove("d")
        except KeyError:
            removed.append(False)
        else:
            removed.append(True)

    threads = [threading.Thread(target=remove) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(removed) == [False] * 7 + [True]
