"""Sessions that are logged in with a key: which packets pass, and when the sessions end. The clock is a mock."""

from __future__ import annotations

import gc
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core import APIKeyFactory, KeyRecord, MemoryKeyStore
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.factory import digest
from asyncapy_core.keys.watching import INTERVAL, TRUST, KeyWatch
from asyncapy_core.testing import Detached


class Store(MemoryKeyStore):
    """A store in memory that counts the reads, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.error: BaseException | None = None

    def peek(self, digest: str) -> None:
        return None

    def get(self, digest: str) -> KeyRecord:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return super().get(digest)


class Held(Store):
    """A store whose reads wait in their threads until the test releases them."""

    blocking = True
    timeout = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self.released = 0

    def get(self, digest: str) -> KeyRecord:
        self._begun.release()
        assert self._go.acquire(timeout=20)
        self.released += 1
        return super().get(digest)

    async def begin(self) -> None:
        """Wait until one more read has begun, and all tasks wait for it."""
        assert await trio.to_thread.run_sync(self._begun.acquire, True, 20)
        await wait_all_tasks_blocked()

    async def until_released(self, number: int) -> None:
        """Wait until this number of reads has returned."""
        await until(lambda: self.released == number)

    def go(self, number: int = 1) -> None:
        """Let this number of reads return."""
        self._go.release(number)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def factory(store: Store) -> APIKeyFactory:
    return APIKeyFactory(store=store)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go(1000)


def metadata(record: KeyRecord | None) -> dict[str, Any] | None:
    return None if record is None else record.metadata


def watch_of(factory: APIKeyFactory) -> KeyWatch:
    return factory._run_of_trio.log_ins._watch


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # a mock clock, or a thread without an event
            await trio.sleep(0.005)


async def test_a_session_that_is_logged_in_needs_no_key(factory: APIKeyFactory, store: Store) -> None:
    key, one, other = factory.issue({"owner": "alice"}), Detached(), Detached()
    assert await factory.alog_in(one.client) is None
    assert metadata(await factory.alog_in(one.client, key)) == {"owner": "alice"}
    for _ in range(5):
        assert metadata(await factory.alog_in(one.client)) == {"owner": "alice"}
        assert metadata(await factory.alog_in(one.client, key)) == {"owner": "alice"}
    assert store.reads == 1
    assert await factory.alog_in(other.client) is None
    assert metadata(await factory.alog_in(other.client, key)) == {"owner": "alice"}
    assert store.reads == 1, "sessions with one key share its look-ups"


async def test_a_key_that_is_not_valid_logs_no_session_in_and_ends_none(factory: APIKeyFactory, store: Store) -> None:
    peer = Detached()
    for number in (1, 2):
        assert await factory.alog_in(peer.client, "wrong") is None
        assert await factory.alog_in(peer.client) is None
        assert store.reads == number, "the key may have been issued meanwhile"
    assert metadata(await factory.alog_in(peer.client, factory.issue())) == {}
    await wait_all_tasks_blocked()
    assert not peer.closed


async def test_another_key_is_another_log_in(factory: APIKeyFactory) -> None:
    alice, bob, peer = factory.issue({"owner": "alice"}), factory.issue({"owner": "bob"}), Detached()
    await factory.alog_in(peer.client, alice)
    assert metadata(await factory.alog_in(peer.client, bob)) == {"owner": "bob"}
    assert metadata(await factory.alog_in(peer.client)) == {"owner": "bob"}
    factory.revoke(alice)
    await wait_all_tasks_blocked()
    assert metadata(await factory.alog_in(peer.client)) == {"owner": "bob"}
    assert not peer.closed


async def test_a_wrong_key_ends_the_log_in_before_it(factory: APIKeyFactory) -> None:
    key, peer = factory.issue(), Detached()
    await factory.alog_in(peer.client, key)
    assert await factory.alog_in(peer.client, "wrong") is None
    assert await factory.alog_in(peer.client) is None, "the client takes itself for another user"
    assert not peer.closed
    assert await factory.alog_in(peer.client, key) is not None


async def test_a_log_out_ends_the_log_in_and_not_the_session(factory: APIKeyFactory) -> None:
    key, peer, other = factory.issue(), Detached(), Detached()
    for each in (peer, other):
        await factory.alog_in(each.client, key)
    factory.log_out(peer.client)
    factory.log_out(peer.client)
    assert await factory.alog_in(peer.client) is None
    factory.revoke(key)
    await until(lambda: other.closed)
    assert not peer.closed


async def test_a_session_may_be_logged_in_with_keys_of_two_factories(factory: APIKeyFactory) -> None:
    devices, peer = APIKeyFactory(), Detached()
    key, device = factory.issue({"owner": "alice"}), devices.issue({"device": 5})
    await factory.alog_in(peer.client, key)
    assert await devices.alog_in(peer.client) is None
    await devices.alog_in(peer.client, device)
    assert metadata(await factory.alog_in(peer.client)) == {"owner": "alice"}
    assert metadata(await devices.alog_in(peer.client)) == {"device": 5}
    factory.log_out(peer.client)
    assert metadata(await devices.alog_in(peer.client)) == {"device": 5}
    devices.revoke(device)
    assert await devices.alog_in(peer.client) is None
    await until(lambda: peer.closed)


async def test_a_record_belongs_to_its_packet(factory: APIKeyFactory) -> None:
    key, peer = factory.issue({"rights": ["read"]}), Detached()
    for record in [await factory.alog_in(peer.client, key), await factory.alog_in(peer.client)]:
        assert record is not None
        record.metadata["rights"].append("write")
    assert metadata(await factory.alog_in(peer.client)) == {"rights": ["read"]}


async def test_packets_behind_a_check_wait_for_it_and_pass_or_not_with_it(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    for key, found in ((factory.issue({"owner": "alice"}), {"owner": "alice"}), ("wrong", None)):
        peer, answers = Detached(), list[Any]()

        async def ask(key: str | None = None, *, peer: Detached = peer, answers: list[Any] = answers) -> None:
            answers.append(metadata(await factory.alog_in(peer.client, key)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, key)
            await held.begin()
            for _ in range(3):
                nursery.start_soon(ask)
            nursery.start_soon(ask, key)
            await wait_all_tasks_blocked()
            assert answers == []
            held.go()
        assert answers == [found] * 5
    assert held.reads == 2


async def test_packets_behind_another_log_in_do_not_pass_by_the_one_before(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, answers = factory.issue(), Detached(), list[Any]()
    held.go()
    await factory.alog_in(peer.client, key)
    await held.begin()

    async def ask(key: str | None = None) -> None:
        answers.append(await factory.alog_in(peer.client, key))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "wrong")
        await held.begin()
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert answers == []
        held.go()
    assert answers == [None, None]


async def test_a_check_whose_packet_is_cancelled_is_made_by_one_that_waits(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, answers = factory.issue({"owner": "alice"}), Detached(), list[Any]()

    async def ask(key: str | None, scope: trio.CancelScope) -> None:
        with scope:
            answers.append(metadata(await factory.alog_in(peer.client, key)))

    for second, stays in ((None, None), (key, {"owner": "alice"})):
        factory.log_out(peer.client)
        answers.clear()
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, key, scope)
            await held.begin()
            nursery.start_soon(ask, second, trio.CancelScope())
            await wait_all_tasks_blocked()
            scope.cancel()
            await held.begin()
            reads = held.released + 2
            held.go(2)
        await held.until_released(reads)  # also the read of the packet that was cancelled
        assert answers == [{"owner": "alice"}]
        assert metadata(await factory.alog_in(peer.client)) == stays, "a log-in that is cancelled is none"


async def test_a_packet_with_the_key_of_the_log_in_that_is_cancelled_ends_no_log_in(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, scope = factory.issue({"owner": "alice"}), Detached(), trio.CancelScope()

    async def log_in_again() -> None:
        with scope:
            await factory.alog_in(peer.client, key)

    held.go()
    await factory.alog_in(peer.client, key)
    await held.begin()
    held.update(digest(key), {"owner": "bob"})
    watch_of(factory).note_change(digest(key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in_again)
        await held.begin()
        scope.cancel()
    held.go(2)
    assert metadata(await factory.alog_in(peer.client)) == {"owner": "bob"}


async def test_a_log_out_during_a_log_in_is_the_last_word(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, answers = factory.issue(), Detached(), list[Any]()

    async def log_in() -> None:
        answers.append(metadata(await factory.alog_in(peer.client, key)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in)
        await held.begin()
        factory.log_out(peer.client)
        held.go()
    assert answers == [{}], "its packet passes"
    assert await factory.alog_in(peer.client) is None

    held.go()
    other = Detached()
    assert await factory.alog_in(other.client, key) is not None
    async with trio.open_nursery() as nursery:
        watch_of(factory).note_change(digest(key))
        nursery.start_soon(log_in)
        await held.begin()
        await held.begin()
        factory.log_out(peer.client)
        held.go()
    held.remove(digest(key))
    watch_of(factory).note_change(digest(key))
    held.go(2)
    assert await factory.alog_in(peer.client, key) is None
    await until(lambda: other.closed)
    assert not peer.closed, "it was not logged in"


async def test_a_packet_that_is_cancelled_beside_one_that_has_logged_the_session_in_ends_no_log_in(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, scope = factory.issue(), Detached(), trio.CancelScope()

    async def log_in() -> None:
        assert await factory.alog_in(peer.client, key) is not None
        watch_of(factory).note_change(digest(key))  # so that the other packet asks again

    async def log_in_too() -> None:
        with scope:
            await factory.alog_in(peer.client, key)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in)
        await held.begin()
        nursery.start_soon(log_in_too)
        await wait_all_tasks_blocked()
        held.go()
        await held.begin()
        scope.cancel()
    held.go(2)
    assert await factory.alog_in(peer.client) is not None


async def test_a_session_that_fails_to_log_in_again_with_a_revoked_key_stays_open(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer, other = factory.issue(), Detached(), Detached()
    held.go()
    for each in (peer, other):
        assert await factory.alog_in(each.client, key) is not None
    factory.log_out(peer.client)
    held.remove(digest(key))
    watch_of(factory).note_change(digest(key))
    held.go(2)
    assert await factory.alog_in(peer.client, key) is None
    await until(lambda: other.closed)
    assert not peer.closed


async def test_an_expired_key_logs_no_session_in(store: Store) -> None:
    for each in (store, MemoryKeyStore()):
        each.add(digest("key"), KeyRecord("id", expires=1.0))
        factory = APIKeyFactory(store=each)
        assert await factory.alog_in(Detached().client, "key") is None


async def test_a_store_that_is_away_decides_nothing_about_a_log_in(factory: APIKeyFactory, store: Store) -> None:
    key, peer = factory.issue(), Detached()
    store.error = KeyStoreUnavailable("away")
    with pytest.raises(KeyStoreUnavailable, match="away"):
        await factory.alog_in(peer.client, key)
    assert await factory.alog_in(peer.client) is None
    store.error = None
    assert await factory.alog_in(peer.client, key) is not None


async def test_packets_that_wait_for_one_check_get_an_error_each(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    held.error = KeyStoreUnavailable("away")
    peer, errors = Detached(), list[Exception]()

    async def ask(key: str | None) -> None:
        try:
            await factory.alog_in(peer.client, key)
        except KeyStoreUnavailable as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "some key")
        await held.begin()
        nursery.start_soon(ask, None)
        await wait_all_tasks_blocked()
        held.go()
    assert [str(error) for error in errors] == ["away", "away"]
    assert errors[0] is not errors[1]
    assert held.reads == 1


@pytest.mark.parametrize("change", ["revoke", "revoke_id", "reissue", "in a thread"])
async def test_no_packet_passes_after_the_factory_has_revoked_the_key_and_the_session_is_closed(
    factory: APIKeyFactory, change: str
) -> None:
    (key, record), peer = factory.issue_with_record(), Detached()
    await factory.alog_in(peer.client, key)
    match change:
        case "revoke_id":
            factory.revoke_id(record.id)
        case "in a thread":
            await trio.to_thread.run_sync(factory.revoke, key)
        case _:
            getattr(factory, change)(key)
    assert await factory.alog_in(peer.client) is None
    await wait_all_tasks_blocked()
    assert peer.closed
    assert await factory.alog_in(peer.client, key) is None


async def test_an_idle_session_is_closed_at_once_when_the_factory_revokes_its_key(
    factory: APIKeyFactory, mock_clock: MockClock
) -> None:
    key, peers = factory.issue(), [Detached() for _ in range(3)]
    for peer in peers:
        await factory.alog_in(peer.client, key)
    factory.revoke(key)
    await wait_all_tasks_blocked()
    assert [peer.closed for peer in peers] == [True] * 3


async def test_a_session_is_closed_within_a_second_when_another_process_revokes_its_key(
    factory: APIKeyFactory, store: Store, autojump_clock: MockClock
) -> None:
    key, other, peer, stays = factory.issue(), factory.issue(), Detached(), Detached()
    await factory.alog_in(peer.client, key)
    await factory.alog_in(stays.client, other)
    await trio.sleep(10)
    store.remove(digest(key))
    revoked = trio.current_time()
    await until(lambda: peer.closed)
    assert trio.current_time() - revoked < 1
    assert await factory.alog_in(peer.client) is None
    await trio.sleep(10)
    assert not stays.closed


async def test_a_session_is_closed_when_its_key_expires(
    factory: APIKeyFactory, store: Store, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    key, peer = factory.issue(expires_in=10), Detached()
    await factory.alog_in(peer.client, key)
    await trio.sleep(5)
    store.error = KeyStoreUnavailable("away")
    now += 10
    assert await factory.alog_in(peer.client) is None, "it needs no store for this"
    await until(lambda: peer.closed)

    store.error = None
    key, peer = factory.issue(expires_in=10), Detached()
    await factory.alog_in(peer.client, key)
    store.error = KeyStoreUnavailable("away")
    now += 10
    began = trio.current_time()
    await until(lambda: peer.closed)
    assert trio.current_time() - began < 1


async def test_a_session_has_the_new_metadata_of_its_key(
    factory: APIKeyFactory, store: Store, autojump_clock: MockClock
) -> None:
    key, peer = factory.issue({"plan": "gold"}), Detached()
    await factory.alog_in(peer.client, key)
    factory.update(key, {"plan": "silver"})
    assert metadata(await factory.alog_in(peer.client)) == {"plan": "silver"}
    store.update(digest(key), {"plan": "bronze"})
    await trio.sleep(1)
    assert metadata(await factory.alog_in(peer.client)) == {"plan": "bronze"}
    assert not peer.closed


async def test_while_the_store_is_away_a_key_passes_for_a_second_and_its_session_stays_open(
    factory: APIKeyFactory, store: Store, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    key, peer = factory.issue(), Detached()
    await factory.alog_in(peer.client, key)
    await trio.sleep(5)
    store.error = KeyStoreUnavailable("away")
    await trio.sleep(TRUST - INTERVAL - 0.05)
    assert await factory.alog_in(peer.client) is not None
    await trio.sleep(INTERVAL + 0.1)
    for _ in range(3):
        with pytest.raises(KeyStoreUnavailable, match="away"):
            await factory.alog_in(peer.client)
        await trio.sleep(20)
    assert not peer.closed
    store.error = None
    assert await factory.alog_in(peer.client) is not None
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["{Key store} 1 keys of open sessions cannot be checked: KeyStoreUnavailable: away"]


async def test_a_key_that_has_changed_does_not_pass_while_the_store_is_away(
    factory: APIKeyFactory, store: Store, autojump_clock: MockClock
) -> None:
    key, peer = factory.issue({"plan": "gold"}), Detached()
    await factory.alog_in(peer.client, key)
    factory.update(key, {"plan": "silver"})
    store.error = KeyStoreUnavailable("away")
    for _ in range(3):
        with pytest.raises(KeyStoreUnavailable):
            await factory.alog_in(peer.client)
    await trio.sleep(5)
    store.error = None
    assert metadata(await factory.alog_in(peer.client)) == {"plan": "silver"}


async def test_a_session_that_has_ended_is_forgotten_at_once(factory: APIKeyFactory) -> None:
    key, peer = factory.issue(), Detached()
    session = peer.client.session
    await factory.alog_in(peer.client, key)
    watched = weakref.ref(watch_of(factory)._keys[digest(key)])
    gc.disable()
    try:
        session.end(list)
        assert watched() is None
    finally:
        gc.enable()
    assert session.memo == {}
    assert await factory.alog_in(peer.client) is None
    assert await factory.alog_in(peer.client, key) is not None, "a packet that is still handled"
    assert await factory.alog_in(peer.client) is None
    assert not watch_of(factory)._keys


async def test_a_session_that_ends_during_its_log_in_is_not_watched(held: Held) -> None:
    factory = APIKeyFactory(store=held)
    key, peer = factory.issue(), Detached()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(factory.alog_in, peer.client, key)
        await held.begin()
        peer.client.session.end(list)
        held.go()
    assert not watch_of(factory)._keys


class Own(APIKeyFactory):
    """A factory with keys of its own, whose metadata no copy can be made of."""

    def __init__(self) -> None:
        self.found = {"sesame": {"lock": threading.Lock()}}
        self.threads: list[threading.Thread] = []

    def get(self, key: str) -> dict[str, Any]:
        self.threads.append(threading.current_thread())
        return self.found[key]


class Quick(Own):
    blocking = False


@pytest.mark.parametrize("kind", [Own, Quick])
async def test_a_subclass_with_keys_of_its_own_is_asked_at_the_log_in_and_again_and_again(kind: type[Own]) -> None:
    factory, peer = kind(), Detached()
    assert await factory.alog_in(peer.client, "barley") is None
    record = await factory.alog_in(peer.client, "sesame")
    assert record is not None
    assert record.metadata is factory.found["sesame"]
    for _ in range(5):
        assert await factory.alog_in(peer.client) == record
    assert len(factory.threads) == 2
    assert (threading.main_thread() in factory.threads) is (kind is Quick)
    await until(lambda: len(factory.threads) >= 4)
    assert not peer.closed
    del factory.found["sesame"]
    with trio.fail_after(1):
        await until(lambda: peer.closed)


@pytest.mark.parametrize("kind", [RuntimeError, KeyStoreUnavailable])
@pytest.mark.parametrize("blocking", [False, True])
async def test_no_exception_of_a_later_packet_and_no_line_of_the_log_quotes_the_key(
    kind: type[Exception], blocking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Chatty(APIKeyFactory):
        fails = False

        def get(self, key: str) -> dict[str, Any]:
            if self.fails:
                raise kind(f"no row for {key}")
            return {}

    Chatty.blocking = blocking  # type: ignore[method-assign,assignment]  # as a subclass may write it
    factory, peer = Chatty(), Detached()
    await factory.alog_in(peer.client, "sesame")
    factory.fails = True
    with trio.fail_after(5):
        while True:
            try:
                await factory.alog_in(peer.client)
            except Exception as error:  # one of the two, after the bound
                failure = error
                break
            await trio.sleep(0.01)
    assert str(failure).endswith("no row for [...]")
    assert isinstance(failure, KeyStoreUnavailable) is (kind is KeyStoreUnavailable)
    assert "sesame" not in "".join(traceback.format_exception(failure))
    await until(lambda: kind is not KeyStoreUnavailable or bool(caplog.records))
    assert "sesame" not in caplog.text


@pytest.mark.parametrize("method", ["__contains__", "check", "acheck", "describe"])
async def test_a_subclass_that_decides_by_another_method_is_asked(method: str, autojump_clock: MockClock) -> None:
    refused: set[str] = set()

    class Strict(APIKeyFactory):
        def describe(self, key: str) -> KeyRecord:
            if method == "describe" and key in refused:
                raise KeyError
            return super().describe(key)

        def __contains__(self, key: object) -> bool:
            return super().__contains__(key) and not (method == "__contains__" and key in refused)

        def check(self, key: object) -> KeyRecord | None:
            return None if method == "check" and key in refused else super().check(key)

        async def acheck(self, key: object, *, address: str = "") -> KeyRecord | None:
            return None if method == "acheck" and key in refused else await super().acheck(key, address=address)

    factory, peer, other = Strict(store=Store()), Detached(), Detached()
    key = factory.issue()
    assert await factory.alog_in(peer.client, key) is not None
    refused.add(key)
    watch_of(factory).note_change(digest(key))
    assert await factory.alog_in(peer.client) is None
    assert await factory.alog_in(other.client, key) is None


def test_each_run_of_trio_has_log_ins_of_its_own(factory: APIKeyFactory, store: Store) -> None:
    key, peer = factory.issue(), Detached()

    async def log_in() -> None:
        assert await factory.alog_in(peer.client) is None
        assert await factory.alog_in(peer.client, key) is not None
        assert await factory.alog_in(peer.client) is not None
        await trio.lowlevel.checkpoint()

    for _ in range(2):
        trio.run(log_in)
    assert store.reads == 2
    assert factory._runs_of_trio._active == {}
    factory.revoke(key)


def test_a_change_after_the_run_of_trio_is_no_error(factory: APIKeyFactory) -> None:
    key, peer = factory.issue(), Detached()

    async def log_in() -> KeyWatch:
        assert await factory.alog_in(peer.client, key) is not None
        return watch_of(factory)

    watch = trio.run(log_in)
    assert watch._keys
    watch.note_change(digest(key))
    watch.note_change(None)


def test_a_run_of_trio_ends_during_a_check_without_a_line_in_the_log(
    held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    factory = APIKeyFactory(store=held)
    key, peer = factory.issue(), Detached()

    async def log_in() -> None:
        held.go()
        assert await factory.alog_in(peer.client, key) is not None
        await held.begin()
        await held.begin()  # a check of the open session

    trio.run(log_in)
    assert caplog.records == []


def test_runs_of_trio_in_two_threads_learn_of_a_change_in_a_third(factory: APIKeyFactory) -> None:
    key, ready, closed = factory.issue(), threading.Barrier(3), list[bool]()

    async def serve() -> None:
        peer = Detached()
        assert await factory.alog_in(peer.client, key) is not None
        await trio.to_thread.run_sync(ready.wait, 10)
        await until(lambda: peer.closed)
        closed.append(True)

    threads = [threading.Thread(target=trio.run, args=(serve,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    factory.revoke(key)
    for thread in threads:
        thread.join(10)
    assert closed == [True, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_a_forked_process_has_no_log_ins_of_its_parent(factory: APIKeyFactory) -> None:
    key, peer = factory.issue(), Detached()
    await factory.alog_in(peer.client, key)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            factory.revoke(key)
            status = len(watch_of(factory)._keys) + len(factory._runs_of_trio._active)
        finally:
            os._exit(status)
    _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await wait_all_tasks_blocked()
    assert await factory.alog_in(peer.client) is not None
    assert not peer.closed
    factory.revoke(key)
    await wait_all_tasks_blocked()
    assert peer.closed


async def test_it_needs_trio() -> None:
    factory, peer = APIKeyFactory(), Detached()

    def outside() -> None:
        coroutine = factory.alog_in(peer.client, "key")
        with pytest.raises(RuntimeError, match=r"APIKeyFactory\.alog_in needs the event loop of trio"):
            coroutine.send(None)
        with pytest.raises(RuntimeError, match=r"APIKeyFactory\.log_out needs the event loop of trio"):
            factory.log_out(peer.client)

    thread = threading.Thread(target=outside)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
