"""`Batcher`: sends the questions of one run of trio to a store, many in a round trip, and without blocking the loop.

It does not know what the questions are about, see `Question`.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from asyncapy_limits import scripts
from asyncapy_limits.stores import StoreUnavailable

if TYPE_CHECKING:
    from asyncapy_limits.store import Command, Store

log: logging.Logger = logging.getLogger("asyncapy.limits")

BATCH: Final = 500
"""The most questions of a round trip."""

PAUSE: Final = 0.25
"""Seconds between two attempts while a store is away."""

REGISTERED: Final = 5.0
"""Seconds after which a server that asks says again that it is there."""

SHORTEST: Final = 15.0
"""The shortest time in seconds for which a server counts after that."""


class Question(Protocol):
    """A command for a store."""

    def command(self) -> Command:
        """Return the command; called when it is sent."""

    def answer(self, reply: Any, asked: float) -> None:
        """Take the reply.

        Args:
            reply: the reply.
            asked: the time of trio's clock when the command was sent.
        """

    def fail(self, error: StoreUnavailable) -> None:
        """Take note that there is no reply."""


class Batcher:
    """Asks a store. A task of the run of trio does so, with one thread at a time.

    Questions that come while a round trip is under way go with the next. When the store has not answered, they fail at
    once until it answers again, which the task finds out; so no packet waits for a store that is known to be away.

    Args:
        store: the store.

    Attributes:
        servers: the number of servers that count in the store; 0 until it is known.
        is_away: whether the store does not answer.
    """

    def __init__(self, store: Store) -> None:
        self.servers: int = 0
        self.is_away: bool = False
        self._store = store
        self._client = store.connect()
        self._name = secrets.token_hex(8)
        self._keep = SHORTEST
        self._register_at = 0.0
        self._queue: deque[Question] = deque()
        self._asked: deque[Question] = deque()
        self._woken = trio.Event()
        self._limiter = trio.CapacityLimiter(1)
        trio.lowlevel.spawn_system_task(self._run)

    def keep(self, seconds: float) -> None:
        """Count as a server for at least so many seconds after a question."""
        self._keep = max(self._keep, seconds)

    def ask(self, question: Question) -> None:
        """Send a question with the next round trip. Its method ``answer`` or ``fail`` is called, once.

        Raises:
            StoreUnavailable: the store is away.
        """
        if self.is_away:
            raise StoreUnavailable(f"{self._store.where} has not answered")
        self._queue.append(question)
        self._woken.set()

    async def leave(self) -> None:
        """Count as a server no more, until the next question. Does nothing if the store does not answer."""
        if self.servers and not self.is_away:
            self._register_at = 0.0
            try:
                await self._send([("ZREM", self._servers, self._name)])
            except StoreUnavailable as error:
                log.debug("{Rate limits} %s", error)

    @property
    def prefix(self) -> str:
        """The beginning of all names in the store."""
        return self._store.prefix

    @property
    def _servers(self) -> str:
        return f"{self.prefix}:servers"

    async def _run(self) -> None:
        """Ask until the run of trio ends. A system task: it lets no exception out."""
        try:
            while True:
                if self.is_away:
                    await trio.sleep(PAUSE)
                    await self._probe()
                elif self._queue:
                    await self._ask_some()
                else:
                    self._woken = trio.Event()
                    await self._woken.wait()
        except Exception as error:  # a bug, or redis-py's; the packets of limits that are shared must not wait for ever
            log.exception("{Rate limits} %s is not asked any more", self._store.where)
            self._lose(StoreUnavailable(f"{self._store.where}: {error!r}"))
        finally:
            self._client.close()

    async def _ask_some(self) -> None:
        """Make one round trip with the first questions."""
        questions = self._asked
        questions.extend(self._queue.popleft() for _ in range(min(BATCH, len(self._queue))))
        asked = trio.current_time()
        commands = [question.command() for question in questions]
        registers = asked >= self._register_at
        if registers:
            commands.append(("EVAL", scripts.REGISTER, 1, self._servers, self._name, self._keep))
        try:
            replies = await self._send(commands)
        except StoreUnavailable as error:
            self._lose(error)
            return
        if registers and isinstance(replies[-1], int):
            self.servers, self._register_at = replies[-1], asked + REGISTERED
        for reply in replies[: len(questions)]:
            if isinstance(reply, Exception):
                self._lose(StoreUnavailable(f"{self._store.where}: {reply}"))
                return
            questions[0].answer(reply, asked)
            questions.popleft()

    async def _probe(self) -> None:
        """Ask whether the store answers again, and would count."""
        try:
            replies = await self._send([("EVAL", scripts.TAKE, 1, f"{self.prefix}:probe", 1, 1, 1)])
        except StoreUnavailable:
            return
        if not isinstance(replies[0], Exception):
            self.is_away = False
            log.warning("{Rate limits} %s answers again", self._store.where)

    def _lose(self, error: StoreUnavailable) -> None:
        """Note that the store is away, and fail all questions."""
        if not self.is_away:
            log.warning("{Rate limits} %s; limits are not shared until it answers", error)
        self.is_away = True
        for questions in (self._asked, self._queue):
            while questions:
                questions.popleft().fail(error)

    async def _send(self, commands: list[Command]) -> list[Any]:
        """Run commands in a thread, which may take the timeout of the store.

        Raises:
            StoreUnavailable: the store does not answer in time.
        """
        with trio.move_on_after(self._store.timeout):
            return await trio.to_thread.run_sync(
                self._store.run, self._client, commands, abandon_on_cancel=True, limiter=self._limiter
            )
        raise StoreUnavailable(f"{self._store.where} has not answered for {self._store.timeout:g} s")


_batchers: trio.lowlevel.RunVar[dict[Store, Batcher] | None] = trio.lowlevel.RunVar("asyncapy_limits.batchers")


def batcher_of(store: Store) -> Batcher:
    """Return the batcher of a store in this run of trio."""
    batchers = _batchers.get(None)
    if batchers is None:
        _batchers.set(batchers := {})
    if store not in batchers:
        batchers[store] = Batcher(store)
    return batchers[store]


async def leave_all() -> None:
    """Have this run of trio count as a server of no store, until the next question."""
    for batcher in list((_batchers.get(None) or {}).values()):
        await batcher.leave()
