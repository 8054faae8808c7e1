"""`ReplyStream`: the answers to one request, one after the other."""

from __future__ import annotations

import contextlib
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import trio

from asyncapy_core.client.calls import Call, PartsCall
from asyncapy_core.errors import RemoteError


class Signal:
    """Wakes the tasks that wait for a change."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def set(self) -> None:
        """Wake the tasks that wait now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next `set`."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class ClosingIterator(ABC):
    """An async iterator that is closed by `aclose`, and at the end of an ``async with``."""

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Receive nothing more; a request that has not ended is cancelled."""
        self._close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @abstractmethod
    def _close(self) -> None:
        """Receive nothing more."""


class ReplyStream(ClosingIterator):
    """The answers to one request: ``async for part in client.stream(…)``.

    The request is sent when the first answer is asked for. It is cancelled if the loop ends before the last answer.

    Args:
        call: the request; it has not been sent.
        changed: set when ``call`` changes.
        send: sends ``call``.
        forget: cancels ``call``.
        give_up: fails and cancels ``call`` after it has waited for the given number of seconds.
        seconds: the most seconds between the answers; None for no limit.
    """

    def __init__(
        self,
        call: PartsCall,
        changed: Signal,
        *,
        send: Callable[[Call], object],
        forget: Callable[[Call], object],
        give_up: Callable[[Call, float | None], object],
        seconds: float | None,
    ) -> None:
        self._call = call
        self._changed = changed
        self._send, self._forget, self._give_up = send, forget, give_up
        self._seconds = seconds
        self._token: trio.lowlevel.TrioToken | None = None

    async def __anext__(self) -> dict[str, Any]:
        call = self._call
        try:
            await trio.lowlevel.checkpoint()
            if self._token is None and not call.ended:
                self._token = trio.lowlevel.current_trio_token()
                self._send(call)
            if not call.ready:
                await self._wait()
        except BaseException:  # raised again; a loop that is cancelled takes no further answer
            self._cancel(
                RemoteError("the stream was cancelled, as a task that waited for its next answer was cancelled")
            )
            raise
        if call.parts:
            return call.take()
        if call.error is not None:
            raise copy.copy(call.error) from call.error.__cause__  # a later call raises it again
        raise StopAsyncIteration

    def _close(self) -> None:
        """Cancel the request, unless it has ended."""
        self._cancel()

    def __del__(self) -> None:
        if self._token is not None and not self._call.ended:
            with contextlib.suppress(RuntimeError):  # the run of trio has ended
                self._token.run_sync_soon(self._forget, self._call)  # this may be another thread

    def _cancel(self, error: RemoteError | None = None) -> None:
        """Cancel the request, unless it has ended. Other tasks that take its answers get the error, if there is one."""
        call = self._call
        call.parts.clear()
        if call.ended:
            return
        if error is None:
            call.finish()
        else:
            call.fail(error)
        if self._token is not None:
            self._forget(call)

    async def _wait(self) -> None:
        """Wait for an answer or the end."""
        call = self._call
        with trio.move_on_after(math.inf if self._seconds is None else self._seconds):
            while not call.ready:
                await self._changed.wait()
        if not call.ready:
            self._give_up(call, self._seconds)
