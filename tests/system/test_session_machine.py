"""A session as a state machine, against a model of docs/protocol.md: packets in pieces, bad packets, silence, the end.

Hypothesis generates the steps, and the model computes the reply to each. The steps are then run against a real server
over a real socket, with trio's MockClock, so that a minute of silence takes no time.
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
    packet(JSON, b'{"a":1}', version=24): "ERR_HEADER_INVALID",  # 23 as the first packet begins another session
    packet(9, b'{"a":1}'): "ERR_HEADER_INVALID",
    b"\xff" * 9: "ERR_PACKET_TOO_LARGE",
}


@dataclass
class Step:
    """An action of the peer, the expected reply, and whether the session ends with it."""

    pieces: list[bytes]
    wait: float = 0
    half_close: bool = False
    expected: bytes = b""
    over: bool = False


def compact(fields: dict[str, Any]) -> bytes:
    return packet(JSON, json.dumps(fields, separators=(",", ":")).encode())


class SessionMachine(RuleBasedStateMachine):
    """The model of a session: the unsent rest of a packet, and the seconds that the server has waited."""

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
        """Send the rest of a packet and some packets, in pieces."""
        completed = compact({"number": self.number - 1}) if self.rest else b""
        more = self.packets(count)
        data = self.rest + more
        places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        self.add(Step([data[start:end] for start, end in pairwise(places)], expected=completed + more))
        self.rest, self.waited = b"", 0

    @precondition(lambda self: not self.over and not self.rest)
    @rule(count=st.integers(0, 3), cut=st.integers(1, 15))
    def send_part(self, count: int, cut: int) -> None:
        """Send some packets and the beginning of another."""
        expected = self.packets(count)
        begun = self.packets(1)
        self.rest = begun[cut:]
        self.add(Step([expected + begun[:cut]], expected=expected))
        self.waited = 0 if count else self.waited

    @precondition(lambda self: not self.over and not self.rest)
    @rule(count=st.integers(0, 25), bad=st.sampled_from(sorted(BAD)), behind=st.binary(max_size=30))
    def send_bad_packet(self, count: int, bad: bytes, behind: bytes) -> None:
        """Send some packets, a malformed one, and any bytes behind it."""
        good = self.packets(count)
        self.add(Step([good + bad + behind], expected=good + compact(failure(BAD[bad])), over=True))

    @precondition(lambda self: not self.over)
    @rule(seconds=st.sampled_from([1, 20, 29.5, 40, 59]))
    def stay_silent(self, seconds: float) -> None:
        """Advance the clock; a part of a packet does not extend the deadline."""
        self.waited += seconds
        if self.waited < TIMEOUT:
            self.add(Step([], wait=seconds))
        else:
            self.add(Step([], wait=seconds, expected=compact(failure("ERR_TIMED_OUT")), over=True))

    @precondition(lambda self: not self.over)
    @rule(count=st.integers(0, 25))
    def half_close(self, count: int) -> None:
        """Half-close the connection, after some packets unless one is half sent."""
        expected = b"" if self.rest else self.packets(count)
        self.add(Step([expected] if expected else [], half_close=True, expected=expected, over=True))

    @precondition(lambda self: self.over)
    @rule()
    def reconnect(self) -> None:
        """Begin another session."""
        self.over = False
        self.rest, self.waited = b"", 0

    def teardown(self) -> None:
        if self.steps:
            trio.run(self.run_steps, clock=MockClock())

    async def run_steps(self) -> None:
        """Run all steps against a server."""
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
                        await self.run_step(step, peer, clock)
                rest = rest[count:]
            server.stop()

    async def run_step(self, step: Step, peer: trio.SocketStream, clock: MockClock) -> None:
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
        """Check that the peer receives the expected reply and no other bytes."""
        received = b""
        while len(received) < len(step.expected) or step.over:
            with trio.CancelScope() as scope:
                data: bytes | None = None
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.give_up, scope)
                    data = await peer.receive_some()
                    nursery.cancel_scope.cancel()
            assert data is not None, f"the server sends no more after {received!r} of {step}"
            if not data:
                break
            received += data
        assert received == step.expected, step

    async def give_up(self, scope: trio.CancelScope) -> None:
        """Cancel the read when all tasks are blocked."""
        await wait_all_tasks_blocked(0.5)
        scope.cancel()


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=12)
TestSessionMachine = SessionMachine.TestCase
