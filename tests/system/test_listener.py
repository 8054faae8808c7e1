"""Accepting connections while `accept` fails."""

from __future__ import annotations

import errno
import logging
import os
import socket

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from asyncapy_core.net.listener import ACCEPT_BURST, EXHAUSTED_PAUSE, accept_forever, stop_accepting
from asyncapy_core.testing.memory import LogLines


class Failing(socket.socket):
    """A listening socket whose next calls of `accept` raise these errors; connections stay in the queue."""

    def __init__(self, errors: list[int]) -> None:
        super().__init__()
        self.errors = errors
        self.calls = 0
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.calls += 1
        if self.errors:
            error = self.errors.pop()
            raise OSError(error, os.strerror(error))
        return super().accept()


class AcceptHarness:
    """A failing listener and a peer that has connected to it, with the accepted sockets and the log lines."""

    def __init__(self, errors: list[int]) -> None:
        self.listener = Failing(errors)
        self.peer = socket.create_connection(self.listener.getsockname())
        self.accepted: list[socket.socket] = []
        self.lines: list[str] = []
        self.accepted_one = trio.Event()
        self.log = logging.Logger("test")  # noqa: LOG001  # a registered logger would be shared
        self.log.addFilter(LogLines(self.lines))

    async def accept(self) -> None:
        await accept_forever(self.listener, self._note, self.log)

    def stop(self) -> None:
        stop_accepting([self.listener], self._note, shared=False)

    def _note(self, connected: socket.socket, host: str) -> None:
        self.accepted.append(connected)
        self.accepted_one.set()

    def close(self) -> None:
        for sock in (self.peer, self.listener, *self.accepted):
            sock.close()


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ETIMEDOUT])
async def test_a_connection_that_fails_before_it_is_accepted_does_not_end_the_listener(error: int) -> None:
    harness = AcceptHarness([error] * (ACCEPT_BURST + 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.accept)
        with trio.fail_after(5):
            await harness.accepted_one.wait()
        nursery.cancel_scope.cancel()
    assert (len(harness.accepted), harness.lines) == (1, [])
    harness.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_descriptors_a_listener_pauses_between_attempts_and_then_goes_on(
    error: int, autojump_clock: MockClock
) -> None:
    attempts = 20
    harness = AcceptHarness([error] * attempts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.accept)
        await harness.accepted_one.wait()
        assert trio.current_time() == pytest.approx(attempts * EXHAUSTED_PAUSE)
        nursery.cancel_scope.cancel()
    assert len(harness.accepted) == 1
    assert harness.lines == [f"[ERROR] {{Server}} Cannot accept connections: {os.strerror(error)}"]
    harness.close()


async def test_a_listener_that_cannot_accept_takes_no_time_from_others(autojump_clock: MockClock) -> None:
    harness = AcceptHarness([errno.EMFILE] * 100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.accept)
        await trio.sleep(10)
        assert harness.listener.calls <= 10 / EXHAUSTED_PAUSE + 1
        nursery.cancel_scope.cancel()
    harness.close()


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO])
async def test_a_stop_accepts_the_connections_behind_one_that_fails(error: int) -> None:
    harness = AcceptHarness([error] * 3)
    harness.stop()
    assert (len(harness.accepted), harness.listener.fileno()) == (1, -1)
    harness.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.EBADF])
async def test_a_stop_closes_a_listener_that_cannot_accept(error: int) -> None:
    harness = AcceptHarness([error])
    harness.stop()
    assert (harness.accepted, harness.listener.calls, harness.listener.fileno()) == ([], 1, -1)
    harness.close()


@pytest.mark.parametrize("turns", range(3))
async def test_a_stop_ends_the_task_that_accepts(turns: int) -> None:
    harness = AcceptHarness([])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.accept)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        harness.stop()
        harness.stop()
    assert len(harness.accepted) == 1
    assert harness.lines == []
    harness.close()


async def test_a_stop_ends_the_pause_of_a_listener_that_cannot_accept(autojump_clock: MockClock) -> None:
    harness = AcceptHarness([errno.EMFILE])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.accept)
        await trio.testing.wait_all_tasks_blocked()
        harness.stop()
    assert len(harness.accepted) == 1
    assert trio.current_time() == pytest.approx(EXHAUSTED_PAUSE)
    harness.close()
