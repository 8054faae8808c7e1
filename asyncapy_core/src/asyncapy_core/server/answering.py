"""`Answering`: the context manager of `Client.answering` in version 23."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import trio


class Held(Protocol):
    """A request; see `NumberedRequest`."""

    def hold(self) -> None:
        """Keep it open until `release`."""

    def release(self) -> None:
        """Keep it open no longer."""


class Answering:
    """Keeps a request open for the length of an ``async with`` block, also after its handler has returned.

    It counts from its creation in the handler, so that it can be passed to another task. If that task never enters the
    block, the request ends when the last reference to this object is gone. It is for one block; a second one needs
    another `Client.answering`.
    """

    __slots__ = ("_entered", "_held", "_loop", "_request")

    def __init__(self, request: Held) -> None:
        self._held = self._entered = False
        self._request = request
        self._loop = trio.lowlevel.current_trio_token()
        self._held = True
        request.hold()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError(
                "this client.answering() was entered before; call client.answering() once for each block, in the "
                "handler or inside an open block"
            )
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._held = False
            self._request.release()

    def __del__(self) -> None:
        if self._held:  # in any thread, at any time
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self._request.release)
