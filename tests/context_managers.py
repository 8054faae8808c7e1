"""Async context managers that break the rules of context managers, one in each way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio


@asynccontextmanager
async def yields_twice() -> AsyncIterator[None]:
    with contextlib.suppress(BaseException):
        yield
    yield


@asynccontextmanager
async def never_yields() -> AsyncIterator[None]:
    return
    yield


@asynccontextmanager
async def suppresses() -> AsyncIterator[None]:
    with contextlib.suppress(BaseException):
        yield


@asynccontextmanager
async def raises() -> AsyncIterator[None]:
    try:
        yield
    finally:
        raise ValueError("a slip")


@asynccontextmanager
async def raises_first() -> AsyncIterator[None]:
    raise ValueError("a slip")
    yield


@asynccontextmanager
async def exits() -> AsyncIterator[None]:
    try:
        yield
    finally:
        raise SystemExit(3)


@asynccontextmanager
async def raises_group() -> AsyncIterator[None]:
    try:
        yield
    finally:
        raise BaseExceptionGroup("several", [ValueError("a slip"), SystemExit(3)])


@asynccontextmanager
async def cancels_by_hand() -> AsyncIterator[None]:
    try:
        yield
    finally:
        raise trio.Cancelled._create(source="explicit")


@asynccontextmanager
async def hangs() -> AsyncIterator[None]:
    yield
    await trio.sleep_forever()


@asynccontextmanager
async def hangs_shielded() -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


Manager = Callable[[], AbstractAsyncContextManager[None]]
FAILING: tuple[Manager, ...] = (yields_twice, never_yields, raises, raises_first, exits, raises_group, cancels_by_hand)
"""Those that raise an exception when they are left, or entered."""
