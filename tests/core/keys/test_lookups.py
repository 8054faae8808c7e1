"""Look-ups that share calls of a store. The calls wait in their threads until the test releases them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core import APIKeyFactory, BatchKeyStore, KeyRecord, MemoryKeyStore
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.keys.calls import CallQueue
from asyncapy_core.keys.factory import digest
from asyncapy_core.keys.lookups import BATCH, LookUps

TIMEOUT = 10.0


class HeldStore(MemoryKeyStore):
    """A store whose calls wait; it knows the digests that are even numbers."""

    blocking = True
    timeout = TIMEOUT

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.errors: list[BaseException | None] = []
        self.damaged: set[str] = set()
        self._begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def get(self, digest: str) -> KeyRecord:
        if digest in self.damaged:
            raise KeyStoreError(f"the record of {digest} is damaged")
        if int(digest) % 2:
            raise KeyError(digest)
        return KeyRecord(digest)

    def get_many(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        self.asked.append(list(digests))
        error = self.errors.pop(0) if self.errors else None
        self._begun.release()
        assert self._go.acquire(timeout=20)
        if error is not None:
            raise error
        if self.damaged.intersection(digests):
            raise KeyStoreError("one of them is damaged")
        return {digest: KeyRecord(digest) for digest in digests if not int(digest) % 2}

    async def begin(self, number: int = 1) -> None:
        """Wait until this number of further calls have begun."""
        for _ in range(number):
            assert await trio.to_thread.run_sync(self._begun.acquire, True, 20)
        await wait_all_tasks_blocked()

    def go(self, number: int = 1) -> None:
        """Let this number of calls return."""
        self._go.release(number)


class Finder:
    """Look-ups, and their answers."""

    def __init__(self, store: HeldStore, longest: int = 1000) -> None:
        self.look_ups = LookUps(store, CallQueue(threads=4), longest)
        self.answers: dict[object, object] = {}

    async def find(self, number: int, network: str = "", name: object = None) -> None:
        try:
            record = await self.look_ups.find(str(number), TIMEOUT, network=network)
            answer: object = record and record.id
        except BaseException as error:
            if isinstance(error, trio.Cancelled):
                raise
            answer = error
        self.answers[number if name is None else name] = answer


async def occupy(nursery: trio.Nursery, finder: Finder, store: HeldStore) -> None:
    """Begin as many calls as there may be, for the numbers 1 and 3; further look-ups wait."""
    for number in (1, 3):
        nursery.start_soon(finder.find, number)
        await store.begin()


@pytest.fixture
def store() -> Iterator[HeldStore]:
    store = HeldStore()
    yield store
    store.go(1000)


async def test_look_ups_that_wait_share_the_next_call(store: HeldStore) -> None:
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        for number in range(BATCH + 50):
            nursery.start_soon(finder.find, number)
            if number < 2:
                await store.begin()
        await wait_all_tasks_blocked()
        assert store.asked == [["0"], ["1"]]
        assert finder.look_ups.waiting == BATCH + 48
        store.go(2)
        await store.begin(2)
        assert sorted(map(len, store.asked)) == [1, 1, 48, BATCH]
        store.go(2)
    assert finder.answers == {number: None if number % 2 else str(number) for number in range(BATCH + 50)}
    assert finder.look_ups.waiting == 0


async def test_networks_take_turns_in_a_call(store: HeldStore) -> None:
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        for number in (0, 1):
            nursery.start_soon(finder.find, number)
            await store.begin()
        for number in range(2, 2 + 2 * BATCH):
            nursery.start_soon(finder.find, number, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(finder.find, 1000, "b")
        await wait_all_tasks_blocked()
        store.go()
        await store.begin()
        assert store.asked[-1][1] == "1000"
        store.go(4)


async def test_look_ups_of_one_digest_share_the_answer_unless_its_call_has_begun(store: HeldStore) -> None:
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, finder, store)
        for name in "abc":
            nursery.start_soon(finder.find, 2, name, name)
        await wait_all_tasks_blocked()
        assert finder.look_ups.waiting == 1
        store.go()
        await store.begin()
        assert store.asked[-1] == ["2"]
        nursery.start_soon(finder.find, 2, "", "late")
        store.go()
        await store.begin()
        assert store.asked[-1] == ["2"]
        store.go(2)
    assert finder.answers == {1: None, 3: None, "a": "2", "b": "2", "c": "2", "late": "2"}


async def test_tasks_that_share_an_answer_share_no_record(store: HeldStore) -> None:
    look_ups = LookUps(store, CallQueue(threads=4))
    records: list[KeyRecord | None] = []

    async def find() -> None:
        records.append(await look_ups.find("2", TIMEOUT))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(find)
        await wait_all_tasks_blocked()
        store.go()
    one, other = records
    assert one is not None
    assert one == other
    one.metadata["changed"] = True
    assert one != other


async def test_a_look_up_that_nobody_waits_for_is_not_made(store: HeldStore) -> None:
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, finder, store)
        nursery.start_soon(finder.find, 4, "", "stays")
        async with trio.open_nursery() as leaving:
            leaving.start_soon(finder.find, 4)
            leaving.start_soon(finder.find, 6)
            await wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        store.go(2)
        await store.begin()
        assert store.asked[-1] == ["4"]
        store.go()
    assert finder.answers == {1: None, 3: None, "stays": "4"}


async def test_a_damaged_record_fails_alone(store: HeldStore) -> None:
    store.damaged = {"4"}
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, finder, store)
        for number in (2, 4, 5):
            nursery.start_soon(finder.find, number)
        await wait_all_tasks_blocked()
        store.go(3)
    assert (finder.answers[2], finder.answers[5]) == ("2", None)
    assert "the record of 4 is damaged" in str(finder.answers[4])


async def test_a_store_that_hangs_fails_the_look_ups_that_wait_for_it(store: HeldStore, mock_clock: MockClock) -> None:
    finder = Finder(store)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, finder, store)
        for number in range(10, 10 + 3 * BATCH):
            nursery.start_soon(finder.find, number)
        await wait_all_tasks_blocked()
        mock_clock.jump(TIMEOUT)
        await store.begin(2)
        assert set(finder.answers) == {1, 3}
        mock_clock.jump(TIMEOUT)
        await wait_all_tasks_blocked()
        assert len(finder.answers) == 2 + 3 * BATCH
        assert {type(answer) for answer in finder.answers.values()} == {KeyStoreUnavailable}
        assert len(set(map(id, finder.answers.values()))) == 2 + 3 * BATCH, "tasks share no exception"
        store.go(4)
        nursery.start_soon(finder.find, 4)
        await store.begin()
        store.go()
    assert finder.answers[4] == "4"


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("no"), KeyStoreUnavailable("away"), GeneratorExit()])
async def test_an_exception_of_the_store_is_raised_where_the_key_was_sent(
    store: HeldStore, error: BaseException
) -> None:
    finder = Finder(store)
    store.errors = [error]
    store.go()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(finder.find, 1)
    if isinstance(error, ValueError):
        assert finder.answers == {1: None}, "each record is read by itself"
    else:
        assert type(finder.answers[1]) is type(error)
    store.go()
    await finder.find(2)
    assert finder.answers[2] == "2"


async def test_a_foreign_cancellation_of_the_store_is_an_error_of_the_store(store: HeldStore) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept = error
    finder = Finder(store)
    store.errors = [kept]
    store.go(2)
    await finder.find(1)
    assert "the key store raised Cancelled" in str(finder.answers[1])
    await finder.find(2)
    assert finder.answers[2] == "2"


async def test_a_full_queue_refuses_the_newest_look_up_of_the_network_with_the_most(store: HeldStore) -> None:
    finder = Finder(store, longest=4)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, finder, store)
        for number, network in ((2, "a"), (4, "a"), (6, "a"), (8, "b"), (10, "a"), (12, "c")):
            nursery.start_soon(finder.find, number, network)
            await wait_all_tasks_blocked()
        message = "4 keys wait to be looked up, the most that may; try again"
        assert (str(finder.answers[10]), str(finder.answers[6])) == (message, message.replace("4", "3"))
        store.go(4)
    assert {number: finder.answers[number] for number in (2, 4, 8, 12)} == {2: "2", 4: "4", 8: "8", 12: "12"}


def test_the_run_may_end_during_a_call(store: HeldStore) -> None:
    finder = Finder(store)

    async def main() -> None:
        with trio.move_on_after(0.05):
            await finder.find(1)

    trio.run(main)
    assert not finder.answers


async def test_a_factory_uses_it_for_keys_that_are_not_cached(store: HeldStore) -> None:
    assert isinstance(store, BatchKeyStore)
    assert not isinstance(MemoryKeyStore(), BatchKeyStore)
    known = digest("known")

    class Known(HeldStore):
        def get_many(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
            self.asked.append(list(digests))
            return {each: KeyRecord("id", expires=self.expires) for each in digests if each == known}

        expires: float | None = None

    of_factory = Known()
    factory = APIKeyFactory(store=of_factory)
    assert await factory.acontains("known", address="127.0.0.1")
    assert not await factory.acontains("unknown", address="::1")
    assert not await factory.acontains(5)
    assert of_factory.asked == [[known], [digest("unknown")]]
    of_factory.expires = 1.0
    assert not await factory.acontains("known")
