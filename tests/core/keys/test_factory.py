from __future__ import annotations

import re
import string
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from asyncapy_core import APIKeyFactory, KeyRecord, KeyStore, MemoryKeyStore, PluginManager, hookimpl
from asyncapy_core.errors import KeyStoreUnavailable, PluginCollision, UnknownKeyStore
from asyncapy_core.keys.calls import THREADS
from asyncapy_core.keys.factory import digest
from asyncapy_core.keys.urls import open_store
from asyncapy_core.plugins.manager import _default_manager

ALPHABET = set(string.ascii_letters + string.digits + "-_")


class Spy(MemoryKeyStore):
    """A store that notes its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def add(self, digest: str, record: KeyRecord) -> None:
        self.seen.append(repr((digest, record)))
        super().add(digest, record)

    def get(self, digest: str) -> KeyRecord:
        self.seen.append(digest)
        return super().get(digest)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self.seen.append(digest)
        super().update(digest, metadata)

    def replace(self, old: str, new: str) -> None:
        self.seen.append(old + new)
        super().replace(old, new)

    def remove(self, digest: str) -> None:
        self.seen.append(digest)
        super().remove(digest)


class Reissued(MemoryKeyStore):
    """A store whose key is reissued by another process, right after the last of this number of finds."""

    def __init__(self, finds: int) -> None:
        super().__init__()
        self.finds = finds

    def find(self, key_id: str) -> str:
        found = super().find(key_id)
        self.finds -= 1
        if self.finds == 0:
            self.replace(found, digest("reissued"))
        return found


class Fleeting(MemoryKeyStore):
    """A store that loses a key after get, as if another process had revoked it."""

    def get(self, digest: str) -> KeyRecord:
        record = super().get(digest)
        super().remove(digest)
        return record


class Blocking(MemoryKeyStore):
    """A blocking store that notes the threads that call it."""

    blocking = True
    timeout = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[threading.Thread] = set()

    def get(self, digest: str) -> KeyRecord:
        self.threads.add(threading.current_thread())
        return super().get(digest)


class DictFactory(APIKeyFactory):
    """A factory with storage of its own, as the documentation describes; it has no store."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def issue(self, metadata: dict[str, Any] | None = None) -> str:  # type: ignore[override]  # the documented signature
        key = f"key-{len(self.rows)}"
        self.rows[key] = metadata or {}
        return key

    def get(self, key: str) -> dict[str, Any]:
        return self.rows[key]

    def reissue(self, key: str) -> str:
        self.rows["new-" + key] = self.rows.pop(key)
        return "new-" + key

    def revoke(self, key: str) -> None:
        del self.rows[key]

    def update(self, key: str, metadata: dict[str, Any]) -> None:
        if key not in self.rows:
            raise KeyError(key)
        self.rows[key] = metadata


def calls(factory: APIKeyFactory, key: str) -> dict[str, Any]:
    """The calls that raise KeyError for a key that does not exist."""
    return {
        "get": lambda: factory.get(key),
        "reissue": lambda: factory.reissue(key),
        "revoke": lambda: factory.revoke(key),
        "update": lambda: factory.update(key, {"a": 1}),
    }


@pytest.fixture
def fresh_manager() -> Iterator[None]:
    """Clear the cached plugin manager before and after the test."""
    _default_manager.cache_clear()
    yield
    _default_manager.cache_clear()


def test_a_key_has_the_metadata_it_was_issued_with() -> None:
    factory = APIKeyFactory()
    assert factory.get(factory.issue({"plan": "gold"})) == {"plan": "gold"}
    assert factory.get(factory.issue()) == {}
    assert factory.get(factory.issue(None)) == {}


@pytest.mark.parametrize("size", [8, 32, 33, 1024])
def test_a_key_has_the_size_it_was_asked_to_have(size: int) -> None:
    key = APIKeyFactory(size).issue()
    assert len(key) == size
    assert set(key) <= ALPHABET


def test_keys_are_32_characters_unless_said_otherwise_and_all_differ() -> None:
    factory = APIKeyFactory()
    keys = [factory.issue() for _ in range(500)]
    assert {len(key) for key in keys} == {32}
    assert len(set(keys)) == 500
    assert set("".join(keys)) == ALPHABET


@pytest.mark.parametrize("size", [-1, 0, 7, 1025])
def test_a_size_out_of_range_is_a_value_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"size must be 8 to 1024 characters; got {size}"):
        APIKeyFactory(size)


@pytest.mark.parametrize("size", [None, "32", 32.0, True])
def test_a_size_that_is_no_integer_is_a_type_error(size: Any) -> None:
    with pytest.raises(TypeError, match="size must be an integer, the length of a key in characters"):
        APIKeyFactory(size)


def test_a_key_is_updated() -> None:
    factory = APIKeyFactory()
    key = factory.issue({"plan": "gold"})
    factory.update(key, {"plan": "silver"})
    assert factory.get(key) == {"plan": "silver"}


@pytest.mark.parametrize("size", [8, 20, 1024])
def test_a_reissued_key_is_replaced_and_keeps_its_size_and_metadata(size: int) -> None:
    factory = APIKeyFactory(size=size)
    old = factory.issue({"plan": "gold"})
    new = factory.reissue(old)
    assert len(new) == size
    assert new != old
    assert old not in factory
    assert factory.get(new) == {"plan": "gold"}


def test_a_revoked_key_is_gone_and_no_other_is() -> None:
    factory = APIKeyFactory()
    key, other = factory.issue(), factory.issue()
    factory.revoke(key)
    assert key not in factory
    assert other in factory


@pytest.mark.parametrize("name", ["get", "reissue", "revoke", "update"])
@pytest.mark.parametrize("state", ["never issued", "revoked", "reissued", "expired"])
def test_a_key_that_does_not_exist_is_a_key_error(name: str, state: str) -> None:
    factory = APIKeyFactory()
    key = factory.issue()
    if state == "never issued":
        key = "x" * 32
    elif state == "revoked":
        factory.revoke(key)
    elif state == "reissued":
        factory.reissue(key)
    else:
        assert factory.key_store is not None
        factory.key_store.add(digest(key), KeyRecord("id", expires=1.0))
    with pytest.raises(KeyError, match="no such API key"):
        calls(factory, key)[name]()
    assert key not in factory


class OneInSixteen(MemoryKeyStore):
    """A store that moves a record only to a digest with the same first digit."""

    def can_replace(self, old: str, new: str) -> bool:
        return old[0] == new[0]


def test_a_key_is_reissued_as_one_to_which_the_store_can_move_its_record() -> None:
    factory = APIKeyFactory(store=OneInSixteen())
    old = factory.issue({"plan": "gold"})
    keys = [old := factory.reissue(old) for _ in range(20)]
    assert len({digest(key)[0] for key in keys}) == 1
    assert len(set(keys)) == 20
    assert factory.get(old) == {"plan": "gold"}


@pytest.mark.parametrize("name", ["reissue", "revoke", "update"])
def test_a_key_that_vanishes_meanwhile_is_a_key_error_without_its_digest(name: str) -> None:
    factory = APIKeyFactory(store=Fleeting())
    key = factory.issue()
    with pytest.raises(KeyError, match=r"^'no such API key'$"):
        calls(factory, key)[name]()


@pytest.mark.parametrize("key", [None, 1, b"key", ["key"], {"key": 1}, object(), 1.5, "", "\ud800", "k" * 1_000_000])
def test_anything_may_be_asked_for(key: object) -> None:
    assert key not in APIKeyFactory()


@given(st.text() | st.binary() | st.integers() | st.none() | st.lists(st.text()))
def test_nothing_that_was_not_issued_is_a_key(key: object) -> None:
    factory = APIKeyFactory()
    factory.issue()
    assert key not in factory


@pytest.mark.parametrize("key", [None, 1, b"key"])
def test_a_key_that_is_no_string_is_a_type_error(key: Any) -> None:
    for call in calls(APIKeyFactory(), key).values():
        with pytest.raises(TypeError, match=f"^an API key is a string; got a {type(key).__name__}$"):
            call()


@pytest.mark.parametrize("metadata", ["text", 1, ["list"], [], ""])
def test_metadata_that_is_no_dictionary_is_a_type_error(metadata: Any) -> None:
    factory = APIKeyFactory()
    key = factory.issue()
    message = f"^metadata must be a dictionary; got a {type(metadata).__name__}$"
    with pytest.raises(TypeError, match=message):
        factory.update(key, metadata)
    with pytest.raises(TypeError, match=message):
        factory.issue(metadata)


def test_metadata_belongs_to_the_store() -> None:
    factory = APIKeyFactory()
    metadata = {"plan": "gold", "hosts": ["a"]}
    key = factory.issue(metadata)
    metadata["plan"] = "lead"
    factory.get(key)["hosts"] = []
    factory.get(key)["hosts"].append("b")
    assert factory.get(key) == {"plan": "gold", "hosts": ["a"]}


def test_stores_see_digests_only() -> None:
    store = Spy()
    factory = APIKeyFactory(store=store)
    first = factory.issue({"plan": "gold"})
    factory.get(first)
    factory.update(first, {})
    second = factory.reissue(first)
    assert second in factory
    factory.revoke(second)
    assert len(store.seen) >= 6
    for key in (first, second):
        assert any(digest(key) in seen for seen in store.seen)
        assert not any(key in seen for seen in store.seen)


def test_a_digest_is_the_sha256_of_the_key() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_key_is_in_no_repr_and_in_no_exception() -> None:
    factory = APIKeyFactory()
    key = factory.issue({"plan": "gold"})
    assert factory.key_store is not None
    texts = [repr(factory), str(vars(factory)), repr(list(factory.key_store.records()))]
    factory.revoke(key)
    for call in calls(factory, key).values():
        try:
            call()
        except KeyError as error:
            texts += [repr(error), *traceback.format_exception(error)]
        else:
            raise AssertionError(call)
    assert not [text for text in texts if key in text]


def test_a_subclass_with_storage_of_its_own_needs_the_documented_methods_only() -> None:
    factory = DictFactory()
    key = factory.issue({"plan": "gold"})
    assert key in factory
    assert "other" not in factory
    assert 1 not in factory
    factory.update(key, {"plan": "silver"})
    new = factory.reissue(key)
    assert key not in factory
    assert factory.get(new) == {"plan": "silver"}
    factory.revoke(new)
    assert new not in factory
    for call in calls(factory, key).values():
        with pytest.raises(KeyError):
            call()
    assert factory.blocking is True, "its methods may wait"


async def test_a_subclass_that_overrides_get_is_asked_in_a_thread_unless_it_says_otherwise() -> None:
    threads: list[threading.Thread] = []

    class Noting(DictFactory):
        def get(self, key: str) -> dict[str, Any]:
            threads.append(threading.current_thread())
            return super().get(key)

    class Quick(Noting):
        blocking = False

    for kind in (Noting, Quick):
        factory = kind()
        key = factory.issue({"plan": "gold"})
        assert await factory.acheck(key) == KeyRecord("", {"plan": "gold"})
        assert await factory.acheck("other") is None
        assert await factory.acheck(None) is None
        assert factory.check(key) == KeyRecord("", {"plan": "gold"})
    in_threads, here = threads[:2], threads[2:]
    assert threading.main_thread() not in in_threads
    assert set(here) == {threading.main_thread()}


@pytest.mark.parametrize("metadata", [{"a": [1]}, {"a": 1}, {}], ids=repr)
async def test_a_checked_record_belongs_to_the_caller(metadata: dict[str, Any]) -> None:
    for store in (MemoryKeyStore(), Blocking()):
        factory = APIKeyFactory(store=store)
        key = factory.issue(metadata)
        for _ in range(2):
            record = await factory.acheck(key)
            assert record is not None
            assert record.metadata == metadata
            record.metadata["more"] = 1
            for value in record.metadata.values():
                if isinstance(value, list):
                    value.append(2)


def test_a_subclass_without_a_store_is_told_what_it_lacks() -> None:
    with pytest.raises(TypeError, match=r"DictFactory has no store: call super\(\).__init__\(\)"):
        DictFactory().purge()


async def test_the_async_twins_do_the_same() -> None:
    for store in (MemoryKeyStore(), Blocking()):
        factory = APIKeyFactory(store=store)
        key = await factory.aissue({"plan": "gold"})
        assert await factory.aget(key) == {"plan": "gold"}
        await factory.aupdate(key, {"plan": "silver"})
        new = await factory.areissue(key)
        assert await factory.acontains(new)
        assert not await factory.acontains(key)
        assert not await factory.acontains(None)
        await factory.arevoke(new)
        assert not await factory.acontains(new)
        with pytest.raises(KeyError, match="no such API key"):
            await factory.aget(new)


async def test_the_async_twin_of_issue_takes_an_expiry_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    for store in (MemoryKeyStore(), Blocking()):
        factory = APIKeyFactory(store=store)
        record = factory.describe(await factory.aissue({"plan": "gold"}, expires_in=10))
        assert (record.metadata, record.expires) == ({"plan": "gold"}, 1_000_010.0)


async def test_the_async_twins_of_a_subclass_are_its_own_methods() -> None:
    factory = DictFactory()
    assert await factory.acontains(await factory.aissue({"plan": "gold"}))
    assert factory.rows == {"key-0": {"plan": "gold"}}
    assert not await factory.acontains("other")


async def test_a_subclass_that_blocks_and_has_no_store_is_called_in_a_thread() -> None:
    class Slow(DictFactory):
        blocking = True

        def get(self, key: str) -> dict[str, Any]:
            assert threading.current_thread() is not threading.main_thread()
            return super().get(key)

    factory = Slow()
    assert await factory.aget(factory.issue({"plan": "gold"})) == {"plan": "gold"}


async def test_a_factory_makes_no_more_than_so_many_calls_at_a_time() -> None:
    ready, answer = threading.Semaphore(0), threading.Event()
    calling: list[str] = []

    class Slow(Blocking):
        def get(self, digest: str) -> KeyRecord:
            calling.append(digest)
            ready.release()
            answer.wait(10)
            return KeyRecord("id")

    factory = APIKeyFactory(store=Slow())
    async with trio.open_nursery() as nursery:
        for number in range(2 * THREADS):
            nursery.start_soon(factory.aget, str(number))
        try:
            for _ in range(THREADS):
                assert await trio.to_thread.run_sync(ready.acquire, True, 5)
            await wait_all_tasks_blocked(0.02)
            assert len(calling) == THREADS
        finally:
            answer.set()
    assert len(calling) == 2 * THREADS


async def test_a_store_that_blocks_is_called_in_a_thread_and_a_store_that_does_not_is_not() -> None:
    store = Blocking()
    assert APIKeyFactory(store=store).blocking
    with pytest.raises(KeyError):
        await APIKeyFactory(store=store).aget("x" * 32)
    assert threading.main_thread() not in store.threads
    assert len(store.threads) == 1
    store.blocking = False
    with pytest.raises(KeyError):
        await APIKeyFactory(store=store).aget("x" * 32)
    assert threading.main_thread() in store.threads


async def test_a_store_that_does_not_answer_in_time_is_unavailable() -> None:
    answer = threading.Event()

    class Slow(Blocking):
        timeout = 0.02

        def get(self, digest: str) -> KeyRecord:
            answer.wait(10)
            return super().get(digest)

    try:
        with pytest.raises(KeyStoreUnavailable, match=r"the key store did not answer within 0.02 s"):
            await APIKeyFactory(store=Slow()).aget("x" * 32)
    finally:
        answer.set()


async def test_a_key_that_the_store_knows_without_waiting_passes_at_once_until_it_expires() -> None:
    class Away(Blocking):
        def get(self, digest: str) -> KeyRecord:
            raise KeyStoreUnavailable("away")

        def peek(self, digest: str) -> KeyRecord | None:
            self.threads.add(threading.current_thread())
            return super().peek(digest)

    store = Away()
    factory = APIKeyFactory(store=store)
    assert await factory.acontains(factory.issue())
    assert store.threads == {threading.main_thread()}
    with pytest.raises(KeyStoreUnavailable):
        await factory.acontains("x" * 32)
    expired = factory.issue()
    assert factory.key_store is not None
    factory.key_store.add(digest(expired), KeyRecord("id", expires=1.0))
    with pytest.raises(KeyStoreUnavailable):
        await factory.acontains(expired)


async def test_a_subclass_that_judges_keys_itself_is_asked_about_each() -> None:
    class Strict(APIKeyFactory):
        def get(self, key: str) -> dict[str, Any]:
            raise KeyError

    factory = Strict(store=Blocking())
    assert not await factory.acontains(factory.issue())

    class Stricter(APIKeyFactory):
        def __contains__(self, key: object) -> bool:
            return False

    stricter = Stricter(store=Blocking())
    assert not await stricter.acontains(stricter.issue())


@pytest.mark.parametrize("expires_in", [0, -1, float("inf"), float("nan")])
def test_a_key_cannot_be_issued_for_no_time_or_for_ever(expires_in: float) -> None:
    with pytest.raises(ValueError, match="expires_in must be more than 0 seconds, or None"):
        APIKeyFactory().issue(expires_in=expires_in)


def test_a_key_expires_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = APIKeyFactory()
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    key, record = factory.issue_with_record({"a": 1}, expires_in=10)
    assert record.expires == now + 10
    now += 9.9
    assert key in factory
    assert factory.record(record.id) == record
    new = factory.reissue(key)
    now += 0.1
    assert new not in factory
    assert factory.records() == []
    with pytest.raises(KeyError):
        factory.record(record.id)
    assert factory.purge() == 1
    assert factory.purge() == 0


@pytest.mark.parametrize("expires_in", [0.001, 0.5, 1, 1e9])
def test_a_key_is_issued_for_any_time_above_0(expires_in: float) -> None:
    _, record = APIKeyFactory().issue_with_record(expires_in=expires_in)
    assert record.expires == record.issued + expires_in


@pytest.mark.parametrize(("name", "finds"), [("reissue_id", 2), ("revoke_id", 1), ("update_id", 2)])
def test_a_key_that_another_process_reissues_meanwhile_is_found_by_its_public_id(name: str, finds: int) -> None:
    factory = APIKeyFactory(store=Reissued(finds))
    _, record = factory.issue_with_record({"a": 1})
    changed = getattr(factory, name)(record.id, *([{"a": 2}] if name == "update_id" else []))
    if name == "reissue_id":
        assert factory.get(changed) == {"a": 1}
    elif name == "update_id":
        assert factory.get("reissued") == {"a": 2}
    else:
        assert factory.records() == []


def test_a_store_is_asked_once_with_the_digest_of_a_public_id() -> None:
    store = Spy()
    factory = APIKeyFactory(store=store)
    key, record = factory.issue_with_record()
    store.seen.clear()
    factory.revoke_id(record.id)
    assert store.seen == [digest(key)]


def test_a_key_is_managed_by_its_public_id() -> None:
    factory = APIKeyFactory()
    key, record = factory.issue_with_record({"a": 1})
    other = factory.issue()
    assert factory.describe(key) == factory.record(record.id) == record
    factory.update_id(record.id, {"a": 2})
    assert factory.get(key) == {"a": 2}
    new = factory.reissue_id(record.id)
    assert key not in factory
    assert factory.describe(new).id == record.id
    factory.revoke_id(record.id)
    assert new not in factory
    assert other in factory
    for call in (factory.record, factory.reissue_id, factory.revoke_id, lambda key_id: factory.update_id(key_id, {})):
        with pytest.raises(KeyError, match=f"no API key has the id '{record.id}'"):
            call(record.id)


@pytest.mark.parametrize("name", ["record", "reissue_id", "update_id"])
def test_an_expired_key_is_neither_found_nor_reissued_nor_updated_by_its_public_id(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = APIKeyFactory()
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    _, record = factory.issue_with_record({"a": 1}, expires_in=10)
    arguments = ({"a": 2},) if name == "update_id" else ()
    now += 10
    with pytest.raises(KeyError, match="no such API key"):
        getattr(factory, name)(record.id, *arguments)
    now -= 1
    assert factory.record(record.id) == record


def test_an_expired_key_is_revoked_by_its_public_id(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = APIKeyFactory()
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    _, record = factory.issue_with_record(expires_in=10)
    now += 10
    factory.revoke_id(record.id)
    assert factory.purge() == 0


def test_records_are_listed_the_oldest_first_even_after_a_reissue(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = APIKeyFactory()
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    keys = []
    for _ in range(3):
        keys.append(factory.issue())
        now += 1
    ids = [factory.describe(key).id for key in keys]
    assert [record.id for record in factory.records()] == ids
    factory.reissue(keys[0])
    assert [record.id for record in factory.records()] == ids


def test_a_public_id_says_nothing_of_the_key() -> None:
    key, record = APIKeyFactory().issue_with_record()
    assert re.fullmatch("[0-9a-f]{16}", record.id)
    assert record.id not in key
    assert record.id not in digest(key)


def test_closing_a_factory_closes_its_store() -> None:
    closed: list[bool] = []

    class Closing(MemoryKeyStore):
        def close(self) -> None:
            closed.append(True)

    APIKeyFactory(store=Closing()).close()
    assert closed == [True]


def test_factories_share_nothing_unless_given_one_store() -> None:
    store = MemoryKeyStore()
    key = APIKeyFactory(store=store).issue()
    assert key in APIKeyFactory(store=store)
    assert key not in APIKeyFactory()


def test_memory_is_a_store_by_url() -> None:
    assert isinstance(open_store("memory://"), MemoryKeyStore)
    assert open_store("memory://") is not open_store("memory://")
    assert APIKeyFactory(store="memory://").issue()


def test_a_store_that_should_exist_is_opened_by_an_opener_that_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Plugin:
        @hookimpl
        def asyncapy_key_stores(self) -> dict[str, Callable[[str], KeyStore]]:
            def on_disk(url: str, *, create: bool = True) -> KeyStore:
                opened.append((url, create))
                return MemoryKeyStore()

            def on_network(url: str) -> KeyStore:
                opened.append(url)
                return MemoryKeyStore()

            return {"disk": on_disk, "network": on_network}

    manager = PluginManager(discover=False)
    manager.register(Plugin(), "test")
    monkeypatch.setattr("asyncapy_core.keys.urls.default_manager", lambda: manager)
    for scheme in ("disk", "network", "memory"):
        open_store(f"{scheme}://a")
        open_store(f"{scheme}://b", create=False)
    assert opened == [("disk://a", True), ("disk://b", False), "network://a", "network://b"]


@pytest.mark.parametrize("url", ["memory", "", "/var/keys.db"])
def test_a_store_without_a_scheme_is_unknown(url: str) -> None:
    with pytest.raises(UnknownKeyStore, match="a key store is given as a URL, such as 'memory://'"):
        APIKeyFactory(store=url)


def test_a_url_with_a_password_and_no_known_scheme_is_not_repeated() -> None:
    for url in ("spam://user:hunter2@host", "user:hunter2@host-with-a-very-long-name"):
        with pytest.raises(UnknownKeyStore) as caught:
            APIKeyFactory(store=url)
        assert "hunter2" not in str(caught.value)


def test_an_unknown_scheme_says_what_is_installed_and_what_to_install() -> None:
    with pytest.raises(UnknownKeyStore, match=r"for spam:// \(installed: memory://.*\)$"):
        APIKeyFactory(store="spam://x")
    with pytest.raises(UnknownKeyStore, match="did you mean sqlite://"):
        APIKeyFactory(store="sqllite:///keys.db")


def test_a_variant_of_an_installed_scheme_that_is_mistyped_is_not_to_be_installed() -> None:
    with pytest.raises(UnknownKeyStore, match=r"did you mean redis\+cluster://\?$"):
        APIKeyFactory(store="redis+clustr://x")


@pytest.mark.parametrize("scheme", ["sqlite", "redis", "rediss", "redis+cluster"])
def test_a_scheme_whose_plugin_is_not_installed_says_which_it_is(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncapy_core.keys.urls.default_manager", lambda: PluginManager(discover=False))
    with pytest.raises(UnknownKeyStore, match=f"pip install asyncapy-{'sqlite' if scheme == 'sqlite' else 'redis'}$"):
        APIKeyFactory(store=f"{scheme}://x")


def test_a_scheme_is_opened_by_the_plugin_that_provides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_manager: None
) -> None:
    for name, schemes in (("one", ["test-one", "test-both"]), ("two", ["test-two", "test-both"])):
        module = f"key_store_plugin_{name}"
        (tmp_path / f"{module}.py").write_text(
            textwrap.dedent(f"""
            from asyncapy_core import MemoryKeyStore, hookimpl

            class Store(MemoryKeyStore):
                def __init__(self, url):
                    super().__init__()
                    self.url = url

            @hookimpl
            def asyncapy_key_stores():
                return dict.fromkeys({schemes!r}, Store)
            """)
        )
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: store-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[asyncapy]\nstore_{name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    factory = APIKeyFactory(store="test-one://host/path")
    assert getattr(factory.key_store, "url", None) == "test-one://host/path"
    assert factory.issue() in factory
    assert APIKeyFactory(store="test-two://").issue()
    with pytest.raises(PluginCollision, match=r"'test-both' is claimed by .*store-one 1.0 and .*store-two 1.0"):
        APIKeyFactory(store="test-both://")
    with pytest.raises(UnknownKeyStore, match=r"test-one.*test-two"):
        APIKeyFactory(store="test-three://")
