"""The checks of the keys of open sessions: how often, by notices of the store, and whatever a store raises."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core import APIKeyFactory, KeyRecord, MemoryKeyStore
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.checks import SLOW_SECONDS, one_by_one
from asyncapy_core.keys.factory import digest
from asyncapy_core.keys.watching import BATCH, INTERVAL, TRUST_IN_CACHE
from asyncapy_core.testing import Detached


class Watched(MemoryKeyStore):
    """A store with notices, and with a cache that holds all records unless it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Callable[[str | None], object]] = []
        self.begun = 0
        self.reads: list[Sequence[str]] = []
        self.has_cache = True
        self.error: BaseException | None = None

    def peek(self, digest: str) -> KeyRecord | None:
        return super().peek(digest) if self.has_cache else None

    def get(self, digest: str) -> KeyRecord:
        return self.get_many([digest])[digest]

    def get_many(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        self.reads.append(digests)
        if self.error is not None:
            raise self.error
        return {each: super(Watched, self).get(each) for each in digests if super(Watched, self).peek(each)}

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        self.begun += 1
        self.watchers.append(changed)
        return lambda: self.watchers.remove(changed)

    def tell(self, digest: str | None) -> None:
        for changed in self.watchers:
            changed(digest)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def factory(store: Watched) -> APIKeyFactory:
    return APIKeyFactory(store=store)


async def log_in(factory: APIKeyFactory, key: str | None = None) -> Detached:
    peer = Detached()
    assert await factory.alog_in(peer.client, factory.issue() if key is None else key) is not None
    return peer


def system_tasks() -> int:
    """The number of tasks of `KeyWatch` and `LogIns` that run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    names = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
    return len([name for name in names if "KeyWatch" in name or "LogIns" in name])


async def test_a_store_is_watched_while_sessions_are_logged_in(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock
) -> None:
    for number in (1, 2):
        peers = [await log_in(factory) for _ in range(3)]
        await trio.sleep(60)
        assert (store.begun, len(store.watchers), system_tasks()) == (number, 1, 1)
        for peer in peers:
            peer.client.session.end(list)
        await trio.sleep(1)
        assert (store.watchers, system_tasks()) == ([], 0)


async def test_a_wrong_key_leaves_no_task(factory: APIKeyFactory, store: Watched, autojump_clock: MockClock) -> None:
    assert await factory.alog_in(Detached().client, "wrong") is None
    await trio.sleep(1)
    assert (store.watchers, system_tasks()) == ([], 0)


async def test_a_key_in_the_cache_of_a_store_with_notices_is_not_read(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock
) -> None:
    peer = await log_in(factory)
    for _ in range(100):
        await trio.sleep(0.1)
        assert await factory.alog_in(peer.client) is not None
    assert store.reads == []
    store.has_cache = False
    await trio.sleep(100 * INTERVAL)
    assert 95 <= len(store.reads) <= 105


async def test_a_notice_ends_a_session_at_once(factory: APIKeyFactory, store: Watched, mock_clock: MockClock) -> None:
    key = factory.issue()
    peer, other = await log_in(factory, key), await log_in(factory)
    store.remove(digest(key))
    await wait_all_tasks_blocked()
    assert not peer.closed
    await trio.to_thread.run_sync(store.tell, digest(key))
    assert await factory.alog_in(peer.client) is None
    await wait_all_tasks_blocked()
    assert (peer.closed, other.closed) == (True, False)
    store.tell("of no session")


async def test_after_a_notice_about_any_key_each_is_checked_at_once(
    factory: APIKeyFactory, store: Watched, mock_clock: MockClock
) -> None:
    key = factory.issue()
    peer, other = await log_in(factory, key), await log_in(factory)
    store.remove(digest(key))
    store.tell(None)
    await wait_all_tasks_blocked()
    assert sorted(map(len, store.reads)) == [2]
    assert (peer.closed, other.closed) == (True, False)


async def test_a_notice_during_a_check_leads_to_another(factory: APIKeyFactory, store: Watched) -> None:
    """The check may have read the record before the change."""
    key, peer, calls = factory.issue(), Detached(), 0
    read = store.get_many

    def change_after_the_read(digests: Sequence[str]) -> dict[str, KeyRecord]:
        nonlocal calls
        found, calls = read(digests), calls + 1
        if calls == 1:
            store.remove(digest(key))
            store.tell(digest(key))
        return found

    store.has_cache = False
    store.get_many = change_after_the_read  # type: ignore[method-assign]  # one store only
    assert await factory.alog_in(peer.client, key) is None
    assert calls == 2

    calls, key = 0, factory.issue()
    store.get_many = read  # type: ignore[method-assign]  # as above
    peer = await log_in(factory, key)
    store.get_many = change_after_the_read  # type: ignore[method-assign]  # as above
    with trio.fail_after(2):
        while not peer.closed:  # noqa: ASYNC110  # a peer without an event
            await trio.sleep(0.01)
    assert calls == 2


class Held(MemoryKeyStore):
    """A store whose reads wait in their threads until the test releases them."""

    blocking = True
    timeout = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.go = threading.Semaphore(0)

    def peek(self, digest: str) -> None:
        return None

    def get(self, digest: str) -> KeyRecord:
        self.reads += 1
        assert self.go.acquire(timeout=20)
        return super().get(digest)

    async def has_begun(self, reads: int) -> None:
        """Wait until this number of reads have begun, and no further one has."""
        with trio.fail_after(1000):
            while self.reads < reads:
                await wait_all_tasks_blocked(0.01)
        await wait_all_tasks_blocked(0.01)
        assert self.reads == reads


async def test_a_key_is_not_checked_twice_at_a_time_and_checked_again_after_a_notice_meanwhile(
    mock_clock: MockClock,
) -> None:
    store = Held()
    factory = APIKeyFactory(store=store)
    key = factory.issue()
    store.go.release()
    peer = await log_in(factory, key)
    mock_clock.jump(INTERVAL)
    await store.has_begun(2)
    for _ in range(3):
        mock_clock.jump(INTERVAL)
        await store.has_begun(2)
    store.remove(digest(key))
    factory._runs_of_trio.note_change(digest(key))
    await store.has_begun(2)
    store.add(digest(key), KeyRecord("id"))
    store.go.release()
    await store.has_begun(3)
    store.remove(digest(key))
    store.go.release()
    await wait_all_tasks_blocked(0.01)
    assert peer.closed


async def test_a_key_that_waits_for_its_check_is_not_checked_twice(factory: APIKeyFactory, store: Watched) -> None:
    peer = await log_in(factory)
    store.has_cache = False
    watch = factory._run_of_trio.log_ins._watch
    for _ in range(2):
        watch._check_again(watch._keys.valuerefs())
    await wait_all_tasks_blocked()
    assert len(store.reads) == 1
    assert not peer.closed


async def test_the_cache_of_a_store_without_notices_is_not_trusted(autojump_clock: MockClock) -> None:
    class Stale(MemoryKeyStore):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[str, KeyRecord] = {}

        def peek(self, digest: str) -> KeyRecord | None:
            return self.cache.get(digest)

        def get(self, digest: str) -> KeyRecord:
            self.cache[digest] = super().get(digest)
            return self.cache[digest]

    store = Stale()
    factory = APIKeyFactory(store=store)
    key = factory.issue()
    peer = await log_in(factory, key)
    store.remove(digest(key))
    await trio.sleep(1)
    assert peer.closed


async def test_a_session_that_has_ended_is_not_closed_and_not_in_the_log(
    factory: APIKeyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key = factory.issue()
    ended, peer = await log_in(factory, key), await log_in(factory, key)
    ended.client.session.end(list)
    factory.revoke(key)
    assert await factory.alog_in(peer.client) is None
    await wait_all_tasks_blocked()
    assert len(caplog.records) == 1


async def test_a_check_that_fails_after_a_notice_is_made_again(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock
) -> None:
    key = factory.issue()
    peer = await log_in(factory, key)
    store.error = KeyStoreUnavailable("away")
    store.remove(digest(key))
    store.tell(digest(key))
    await trio.sleep(5)
    assert 10 <= len(store.reads) <= 15, "it is asked again, and not without a pause"
    assert not peer.closed
    store.error = None
    await trio.sleep(INTERVAL)
    assert peer.closed


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_whatever_a_store_raises_sessions_stay_open_and_the_server_runs(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock, error: BaseException
) -> None:
    peer = await log_in(factory)
    store.has_cache, store.error = False, error
    await trio.sleep(5)
    with pytest.raises(type(error)):
        await factory.alog_in(peer.client)
    assert not peer.closed
    store.error = None
    assert await factory.alog_in(peer.client) is not None
    store.has_cache = True
    await trio.sleep(1)
    assert system_tasks() == 1


async def test_a_record_that_cannot_be_read_is_the_matter_of_its_session(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock
) -> None:
    key, other = factory.issue(), factory.issue()
    peers = [await log_in(factory, each) for each in (key, other)]
    store.has_cache, read = False, store.get_many

    def read_undamaged(digests: Sequence[str]) -> dict[str, KeyRecord]:
        if digest(key) in digests:
            raise ValueError("damaged")
        return read(digests)

    store.get_many = read_undamaged  # type: ignore[method-assign]  # one store only
    await trio.sleep(5)
    with pytest.raises(ValueError, match="damaged"):
        await factory.alog_in(peers[0].client)
    assert await factory.alog_in(peers[1].client) is not None
    assert [peer.closed for peer in peers] == [False, False]


async def test_a_record_with_a_time_that_is_no_number_is_the_matter_of_its_session(
    factory: APIKeyFactory, store: Watched, autojump_clock: MockClock
) -> None:
    key, other = factory.issue(), factory.issue()
    peers = [await log_in(factory, each) for each in (key, other)]
    store.has_cache, odd = False, KeyRecord("id", expires="never")  # type: ignore[arg-type]  # the mistake that is tested
    store.add(digest(key), odd)
    watch = factory._run_of_trio.log_ins._watch
    watch._keys[digest(key)].record = odd  # as an earlier version of a store may have given it
    for _ in range(3):
        await trio.sleep(1)
        with pytest.raises(TypeError):
            await factory.alog_in(peers[0].client)
        assert await factory.alog_in(peers[1].client) is not None
    store.remove(digest(other))
    await trio.sleep(1)
    assert peers[1].closed


@pytest.mark.parametrize("fails_to_end", [False, True])
async def test_a_store_that_cannot_be_watched_is_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, fails_to_end: bool
) -> None:
    class Broken(MemoryKeyStore):
        def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
            if fails_to_end:
                return end
            raise OSError("cannot watch")

        def peek(self, digest: str) -> KeyRecord | None:
            if is_logged_in:
                raise OSError("cannot peek")
            return None

    def end() -> None:
        raise OSError("cannot end")

    is_logged_in = False
    factory = APIKeyFactory(store=Broken())
    key = factory.issue()
    peer = await log_in(factory, key)
    is_logged_in = True
    await trio.sleep(10)
    assert factory.key_store is not None
    factory.key_store.remove(digest(key))
    await trio.sleep(1)
    assert peer.closed
    await trio.sleep(1)
    assert system_tasks() == 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert ("cannot end" if fails_to_end else "cannot watch") in line


async def test_a_session_that_cannot_be_closed_is_no_failure_of_the_server(
    factory: APIKeyFactory, store: Watched, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class Stuck(Detached):
        def __init__(self, error: BaseException | None) -> None:
            super().__init__()
            self.error = error

        async def close(self) -> None:
            if self.error is None:
                await trio.sleep_forever()
            raise self.error

    key = factory.issue()
    stuck = [Stuck(None), Stuck(ValueError("broken")), Stuck(SystemExit(3))]
    peer = Detached()
    for each in (*stuck, peer):
        await factory.alog_in(each.client, key)
    factory.revoke(key)
    await wait_all_tasks_blocked()
    assert peer.closed
    await trio.sleep(2)
    assert system_tasks() == 0
    lines = [each.getMessage() for each in caplog.records if each.name == "asyncapy.keys"]
    assert [line.partition(" (")[0] for line in sorted(lines)] == [
        "{Key store} a session could not be closed: SystemExit",
        "{Key store} a session could not be closed: ValueError",
    ]


async def test_the_log_names_the_id_of_the_key_and_the_session(
    factory: APIKeyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key, record = factory.issue_with_record()
    peer = await log_in(factory, key)
    factory.revoke(key)
    assert await factory.alog_in(peer.client) is None
    await wait_all_tasks_blocked()
    (line,) = [each.getMessage() for each in caplog.records]
    assert f"The API key {record.id} of this session is not valid any more" in line
    assert str(peer.client.session.session_id) in line


@pytest.mark.parametrize("blocking", [False, True])
async def test_many_keys_are_checked_in_batches_each_once_and_spread_over_time(
    factory: APIKeyFactory, store: Watched, mock_clock: MockClock, blocking: bool
) -> None:
    store.blocking, store.timeout = blocking, 10.0
    keys = [factory.issue() for _ in range(5 * BATCH)]
    peers = [await log_in(factory, key) for key in [*keys, *keys[:BATCH]]]
    assert store.reads == []
    mock_clock.jump(INTERVAL)  # the first turn began with one key
    await wait_all_tasks_blocked()
    store.has_cache = False
    read: list[set[str]] = []
    for _ in range(5):
        mock_clock.jump(INTERVAL / 5 * 1.01)
        await wait_all_tasks_blocked(0.05 if blocking else 0)
        read.append({each for digests in store.reads for each in digests})
        store.reads.clear()
    assert {len(each) for each in read} <= {BATCH, BATCH + 1}
    assert len(set.union(*read)) == len(keys)
    assert not any(peer.closed for peer in peers)


def test_keys_that_are_checked_one_by_one_are_left_out_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def check(key: str) -> KeyRecord | None:
        nonlocal now
        now += SLOW_SECONDS * 0.4
        if key == "b":
            raise ValueError("broken")
        return None if key == "a" else KeyRecord(key)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    answers = one_by_one(check, "abcd")
    assert list(answers) == ["a", "b", "c"]
    assert (answers["a"], answers["c"]) == (None, KeyRecord("c"))
    assert isinstance(answers["b"], ValueError)


async def test_a_subclass_that_takes_long_delays_no_packet_of_another_key(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    class Slow(APIKeyFactory):
        blocking = False
        asked: list[str] = []  # noqa: RUF012  # one class for one test

        def get(self, key: str) -> dict[str, Any]:
            nonlocal now
            now += SLOW_SECONDS * 1.1
            self.asked.append(key)
            return {}

    factory = Slow()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    peers = [await log_in(factory, key) for key in "abc"]
    factory.asked.clear()
    await trio.sleep(INTERVAL * 1.01)
    assert sorted(factory.asked) == ["a", "b", "c"]
    assert not any(peer.closed for peer in peers)


async def test_a_key_passes_after_a_check_that_takes_longer_than_its_answer_is_good_for() -> None:
    class Slow(MemoryKeyStore):
        blocking = True
        timeout = 10.0
        reads = 0

        def get(self, digest: str) -> KeyRecord:
            self.reads += 1
            assert not threading.Event().wait(TRUST_IN_CACHE + 0.1)
            return super().get(digest)

        def peek(self, digest: str) -> None:
            return None

    store = Slow()
    factory = APIKeyFactory(store=store)
    store.add(digest("key"), KeyRecord("id"))
    peer = Detached()
    assert await factory.alog_in(peer.client, "key") is not None
    assert store.reads == 1
