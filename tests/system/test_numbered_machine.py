"""Sessions of version 23 as a state machine: random handlers, CANCELs, PINGs and ends, over real sockets.

Hypothesis generates the steps of a peer. Each request tells its handler what to do. The packets that the peer receives
are checked against the rules of docs/protocol.md, "Requests" and "The end of a session".
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from numbered_peer import Answer, NumberedPeer, numbered
from trio.testing import wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.errors import AlreadyAnswered, ClientDisconnected, Failure

LAST = {"REPLY", "END", "FAILURE"}
seen: ContextVar[int] = ContextVar("seen")


async def ticks() -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield 1


class Program:
    """The handlers of one server: they do as the field ``do`` of a request tells."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.gates: dict[int, trio.Event] = {}
        self.leaks: list[int] = []
        self.handled: list[int] = []

    def gate(self, number: int) -> trio.Event:
        return self.gates.setdefault(number, trio.Event())

    async def handle(self, client: Any, packet: Any) -> Any:
        number = packet["n"]
        self.handled.append(number)
        if seen.get(0):
            self.leaks.append(number)
        seen.set(number)
        for step in packet["do"]:
            if step == "return":
                return {"n": number}
            await self.take(step, number, client)
        return None

    async def take(self, step: str, number: int, client: Any) -> None:
        """Do one step of a request."""
        if step in ("fail", "raise"):
            raise Failure("ERR_GONE", n=number) if step == "fail" else ValueError(number)
        with contextlib.suppress(AlreadyAnswered, ClientDisconnected):
            await getattr(self, step)(number, client)

    async def send(self, number: int, client: Any) -> None:
        await client.send({"n": number})

    async def nowait(self, number: int, client: Any) -> None:
        client.send_nowait({"n": number})

    async def last(self, number: int, client: Any) -> None:
        await client.send({"n": number}, last=True)

    async def push(self, number: int, client: Any) -> None:
        await client.session.send({"event": number})

    async def close(self, number: int, client: Any) -> None:
        await client.close()

    async def child(self, number: int, client: Any) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, {"n": number})
        except* (AlreadyAnswered, ClientDisconnected):
            pass

    async def hold(self, number: int, client: Any) -> None:
        self.nursery.start_soon(self.go_on, client, client.answering(), number)

    async def generator(self, number: int, client: Any) -> None:
        async for _ in ticks():
            break

    async def checkpoint(self, number: int, client: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def wait(self, number: int, client: Any) -> None:
        await self.gate(number).wait()

    async def shield(self, number: int, client: Any) -> None:
        with trio.CancelScope(shield=True):
            await self.gate(number).wait()

    async def swallow(self, number: int, client: Any) -> None:
        with contextlib.suppress(trio.Cancelled):
            await self.gate(number).wait()

    async def go_on(self, client: Any, answering: Any, number: int) -> None:
        async with answering:
            await self.gate(number).wait()
            with contextlib.suppress(AlreadyAnswered, ClientDisconnected):
                await client.send({"n": number})


STEPS = st.lists(
    st.sampled_from(
        [
            *("send", "send", "nowait", "last", "push", "child", "checkpoint", "wait", "wait", "shield", "swallow"),
            *("generator", "hold", "fail", "raise", "return", "close"),
        ]
    ),
    max_size=5,
)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the server has no event for this
        await trio.sleep(0.001)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class SessionMachine(RuleBasedStateMachine):
    """The steps of a peer; they are run at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, Any]] = []
        self.number = 0
        self.programs: dict[int, list[str]] = {}
        self.cancelled: set[int] = set()
        self.over = False

    @initialize(in_flight=st.sampled_from([1, 2, 100]), max_packet=st.sampled_from([300, 1024 * 1024]))
    def begin(self, in_flight: int, max_packet: int) -> None:
        self.settings: dict[str, Any] = {"max_in_flight": in_flight, "max_packet": max_packet}

    @precondition(lambda self: not self.over)
    @rule(do=STEPS, more=st.integers(1, 3), gap=st.integers(1, 3), size=st.sampled_from([0, 0, 150]))
    def request(self, do: list[str], more: int, gap: int, size: int) -> None:
        data = b""
        for _ in range(more):
            self.number += gap
            self.programs[self.number] = do
            data += numbered("REQUEST", self.number, {"n": self.number, "do": do, "x": "x" * size})
        self.steps.append(("send", data))

    @precondition(lambda self: not self.over)
    @rule()
    def malformed(self) -> None:
        self.number += 1
        self.programs[self.number] = ["malformed"]
        self.steps.append(("send", numbered("REQUEST", self.number, payload=b"[1]")))

    @precondition(lambda self: not self.over and self.number)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.number + 1))
        self.cancelled.add(number)
        self.steps.append(("send", numbered("CANCEL", number)))

    @precondition(lambda self: not self.over and self.programs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.steps.append(("release", data.draw(st.sampled_from(sorted(self.programs)))))

    @precondition(lambda self: not self.over)
    @rule(number=st.integers(0, 3))
    def ping(self, number: int) -> None:
        self.steps.append(("send", numbered("PING", number)))

    @rule(turns=st.integers(0, 9))
    def pause(self, turns: int) -> None:
        self.steps.append(("turns", turns))

    @rule()
    def settle(self) -> None:
        self.steps.append(("settle", None))

    @precondition(lambda self: not self.over)
    @rule(end=st.sampled_from(["half close", "stop", "reset", "fault", "refuse"]))
    def end(self, end: str) -> None:
        self.over = True
        if end in ("fault", "refuse"):
            self.number += 1
            data = numbered("EVENT", 0) if end == "fault" else numbered("REQUEST", self.number, {}, encoding=9)
            self.steps.append(("send", data))
        self.steps.append((end, None))

    def teardown(self) -> None:
        if self.programs:
            trio.run(self.run_steps)

    async def run_steps(self) -> None:
        server = Server(port=0, logging_level=100, drain_timeout=20, **self.settings)
        descriptors = count_descriptors()
        async with trio.open_nursery() as nursery:
            program = Program(nursery)
            server.register_handler(program.handle)
            (address,) = await nursery.start(server.serve)
            await trio.testing.wait_all_tasks_blocked()  # the start has its own tasks
            tasks = trio.lowlevel.current_statistics().tasks_living
            ends = [value for value, _ in self.steps]
            with trio.fail_after(60):
                answers = await self.converse(server, program, address[1])
                for gate in program.gates.values():
                    gate.set()
                await until(lambda: not server.statistics().connections)
                await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
                await until(lambda: not server.statistics().abandoned)
                server.stop()
        assert count_descriptors() <= descriptors
        assert not program.leaks, "a handler saw the context variables of another"
        assert len(program.handled) == len(set(program.handled))
        if "reset" not in ends:
            self.check(answers, program)

    async def converse(self, server: Server, program: Program, port: int) -> list[Answer]:
        answers: list[Answer] = []
        async with await NumberedPeer.connect(port) as peer, trio.open_nursery() as nursery:

            async def read() -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while (answer := await peer.read(30)) is not None:
                        answers.append(answer)

            nursery.start_soon(read)
            for step, value in self.steps:
                await self.run_step(step, value, peer, server, program)
                if step == "reset":
                    nursery.cancel_scope.cancel()
                    return answers
            await wait_all_tasks_blocked()
            for number in self.programs:
                program.gate(number).set()
            if not self.over:
                await peer.half_close()
        return answers

    @staticmethod
    async def run_step(step: str, value: Any, peer: NumberedPeer, server: Server, program: Program) -> None:
        if step == "send":
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send(value)
        elif step == "release":
            program.gate(value).set()
        elif step == "turns":
            for _ in range(value):
                await trio.lowlevel.checkpoint()
        elif step == "settle":
            await wait_all_tasks_blocked()
        elif step == "stop":
            server.stop()
        elif step == "half close":
            await peer.half_close()
        elif step == "reset":
            await peer.reset()

    def check(self, answers: list[Answer], program: Program) -> None:
        """Check the packets of a session that has ended in order."""
        leaving = [answer.number for answer in answers if answer.kind == "LEAVING"]
        assert len(leaving) == 1, answers
        by_number: dict[int, list[str]] = {}
        for answer in answers:
            if answer.kind == "EVENT":
                assert answer.number == 0
            elif answer.kind in LAST | {"PART"} and answer.number:
                by_number.setdefault(answer.number, []).append(answer.kind)
                if answer.kind in {"REPLY", "PART"}:
                    assert answer.fields == {"n": answer.number}
        for number, kinds in by_number.items():
            assert kinds[-1] in LAST, (number, answers)
            assert not LAST.intersection(kinds[:-1]), (number, answers)
            if number > leaving[0]:
                assert kinds == ["END"], (number, answers)
                assert number in self.cancelled
        for number, do in self.programs.items():
            if number <= leaving[0]:
                assert number in by_number, (number, answers)
                if number not in self.cancelled:
                    self.compare(do, by_number[number])
            else:
                assert number not in program.handled

    @staticmethod
    def compare(do: list[str], kinds: list[str]) -> None:
        """Compare the answers to a request that was not cancelled with its program."""
        if do == ["malformed"]:
            assert kinds == ["FAILURE"]
            return
        ends = [at for at, step in enumerate(do) if step in {"last", "fail", "raise", "return", "close"}]
        until = do[: ends[0]] if ends else do
        counted = Counter(kinds)
        own = sum(step in {"send", "nowait", "child"} for step in until)
        held = until.count("hold")
        last = do[ends[0]] if ends else ""
        most = own + held + (last in {"last", "return"})
        least = most if last in {"", "return"} else most - held
        if last in {"fail", "raise"}:
            assert kinds[-1] == "FAILURE", (do, kinds)
        else:
            assert counted["FAILURE"] == 0, (do, kinds)
        assert least <= counted["PART"] + counted["REPLY"] <= most, (do, kinds)


SessionMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=20)
TestNumberedSessionMachine = SessionMachine.TestCase
