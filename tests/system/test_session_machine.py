"""A session as a state machine, against a model of docs/protocol.md: packets in pieces, bad ones, silence, the end.

Hypothesis makes up the steps and the model says what has to come back after each; then they are played to a real server
over a real socket, under a clock of trio's that jumps, so that a minute takes no time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from peer import JSON, failure, packet
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server

TIMEOUT = 60
BAD = {
    packet(JSON, b"[1]"): "ERR_REQUEST_MALFORMED",
    packet(JSON, b"{}"): "ERR_REQUEST_MALFORMED",
    packet(JSON, b'{"a":1}', version=23): "ERR_HEADER_INVALID",
    packet(9, b'{"a":1}'): "ERR_HEADER_INVALID",
    b"\xff" * 9: "ERR_PACKET_TOO_LARGE",
}


@dataclass
class Step:
    """What the peer does, what has to come back, and whether the session is over then."""

    pieces: list[bytes]
    wait: float = 0
    half_close: bool = False
    expected: bytes = b""
    over: bool = False


def compact(fields: dict[str, Any]) -> bytes:
    return packet(JSON, json.dumps(fields, separators=(",", ":")).encode())


class SessionMachine(RuleBasedStateMachine):
    """The model: what is on its way, and since when the server waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.number = 0
        self.rest = b""
        self.waited = 0.0
        self.over = False

    def packets(self, count: int) -> bytes:
        first, self.number = self.number, self.number + count
        return b"".join(compact({"number": number}) for number in range(first, self.number))

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.over = step.over

    @precondition(lambda self: not self.over)
    @rule(count=st.integers(1, 45), cuts=st.lists(st.integers(0, 400), max_size=6))
    def send(self, count: int, cuts: list[int]) -> None:
        """Complete what is on its way, and send some packets, in pieces."""
        completed = compact({"number": self.number - 1}) if self.rest else b""
        more = self.packets(count)
        data = self.rest + more
        places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        self.add(Step([data[start:end] for start, end in pairwise(places)], expected=completed + more))
        self.rest, self.waited = b"", 0

    @precondition(lambda self: not self.over and not self.rest)
    @rule(count=st.integers(0, 3), cut=st.integers(1, 15))
    def send_a_part(self, count: int, cut: int) -> None:
        """Send some packets and the beginning of another."""
        expected = self.packets(count)
        begun = self.packets(1)
        self.rest = begun[cut:]
        self.add(Step([expected + begun[:cut]], expected=expected))
        self.waited = 0 if count else self.waited

    @precondition(lambda self: not self.over and not self.rest)
    @rule(count=st.integers(0, 25), bad=st.sampled_from(sorted(BAD)), behind=st.binary(max_size=30))
    def send_a_bad_one(self, count: int, bad: bytes, behind: bytes) -> None:
        """Send some packets, one that is none, and anything behind it."""
        good = self.packets(count)
        self.add(Step([good + bad + behind], expected=good + compact(failure(BAD[bad])), over=True))

    @precondition(lambda self: not self.over)
    @rule(seconds=st.sampled_from([1, 20, 29.5, 40, 59]))
    def say_nothing(self, seconds: float) -> None:
        """Let time pass; a part of a packet, however it trickles in, does not stop it."""
        self.waited += seconds
        if self.waited < TIMEOUT:
            self.add(Step([], wait=seconds))
        else:
            self.add(Step([], wait=seconds, expected=compact(failure("ERR_TIMED_OUT")), over=True))

    @precondition(lambda self: not self.over)
    @rule(count=st.integers(0, 25))
    def half_close(self, count: int) -> None:
        """Send some packets, unless one is half sent, and the end."""
        expected = b"" if self.rest else self.packets(count)
        self.add(Step([expected] if expected else [], half_close=True, expected=expected, over=True))

    @precondition(lambda self: self.over)
    @rule()
    def connect_anew(self) -> None:
        """Leave what is over, and begin another session."""
        self.over = False
        self.rest, self.waited = b"", 0

    def teardown(self) -> None:
        if self.steps:
            trio.run(self.play, clock=MockClock())

    async def play(self) -> None:
        """Do all that to a server."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        server = Server(port=0, timeout=TIMEOUT, logging_level=100)

        @server.add_handler()
        async def echo(client: Any, packet: Any) -> None:
            await client.send(packet)

        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            rest = self.steps
            while rest:
                count = next((at for at, step in enumerate(rest, 1) if step.over), len(rest))
                async with await trio.open_tcp_stream("127.0.0.1", addresses[0][1]) as peer:
                    await wait_all_tasks_blocked()
                    for step in rest[:count]:
                        await self.take(step, peer, clock)
                rest = rest[count:]
            server.stop()

    async def take(self, step: Step, peer: trio.SocketStream, clock: MockClock) -> None:
        """Take one step."""
        for piece in step.pieces:
            await peer.send_all(piece)
            await wait_all_tasks_blocked()
        if step.wait:
            clock.jump(step.wait)
            await wait_all_tasks_blocked()
        if step.half_close:
            await peer.send_eof()
        await self.compare(peer, step)

    async def compare(self, peer: trio.SocketStream, step: Step) -> None:
        """See that what came back is what was expected, and no more."""
        came = b""
        while len(came) < len(step.expected) or step.over:
            with trio.CancelScope() as scope:
                data: bytes | None = None
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.give_up, scope)
                    data = await peer.receive_some()
                    nursery.cancel_scope.cancel()
            assert data is not None, f"the server says nothing more after {came!r} of {step}"
            if not data:
                break
            came += data
        assert came == step.expected, step

    async def give_up(self, scope: trio.CancelScope) -> None:
        """Stop waiting when nobody does anything any more."""
        await wait_all_tasks_blocked(0.5)
        scope.cancel()


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=12)
TestSessionMachine = SessionMachine.TestCase
