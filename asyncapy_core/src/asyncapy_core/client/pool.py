"""`Pool`: several connections to one server, used as one client."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from asyncapy_core.client.async_client import ELSEWHERE, AsyncClient
from asyncapy_core.errors import NotConnected
from asyncapy_core.event_loops import require_trio

if TYPE_CHECKING:
    from asyncapy_core.client.settings import ClientSettings


class Pool:
    """Sends each request over the connection with the fewest requests in flight.

    A server answers the packets of one connection one after the other; with a pool, a slow request delays fewer others.

    Args:
        hostname: the host name or IP address of the server.
        port: its TCP port.
        size: the most connections; each is opened on first use.
        settings: further arguments of `AsyncClient`.

    Raises:
        ValueError: ``size`` is not 1 or more, or a setting is out of range.
    """

    def __init__(self, hostname: str, port: int, *, size: int = 4, **settings: Unpack[ClientSettings]) -> None:
        if size < 1:
            raise ValueError(f"size is {size!r}; a pool has 1 connection or more")
        self._clients = [AsyncClient(hostname, port, **settings) for _ in range(size)]
        self._stack: AsyncExitStack | None = None

    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as for AsyncClient
    ) -> dict[str, Any]:
        """Send a packet over the least busy connection, and return its reply; see `AsyncClient.request`."""
        require_trio("Pool", ELSEWHERE)
        if self._stack is None:
            raise NotConnected("this pool is not open; use it within 'async with Pool(...) as pool:'")
        client = min(self._clients, key=lambda client: client.pending)
        return await client.request(payload, timeout=timeout)

    async def __aenter__(self) -> Self:
        require_trio("Pool", ELSEWHERE)
        async with AsyncExitStack() as stack:
            for client in self._clients:
                await stack.enter_async_context(client)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
