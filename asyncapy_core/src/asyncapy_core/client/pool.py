"""`Pool`: several connections to one server or to several equal ones, used as one client."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

import trio

from asyncapy_core.client.async_client import ELSEWHERE, MAX_REPEATS, AsyncClient, remaining
from asyncapy_core.client.calls import MaybeNone
from asyncapy_core.client.connecting import check_timeout
from asyncapy_core.client.events import JoinedEvents
from asyncapy_core.client.ordered import FIRST_PAUSE, LONGEST_PAUSE
from asyncapy_core.client.typed_calls import TypedCalls
from asyncapy_core.errors import NotConnected, ServerDisconnected, VersionTooOld
from asyncapy_core.event_loops import require_trio

if TYPE_CHECKING:
    from asyncapy_core.client.events import EventStream
    from asyncapy_core.client.settings import ClientSettings
    from asyncapy_core.client.streaming import ReplyStream

AVOIDED: Final = 5.0
"""The seconds for which a host gets no requests after it could not be reached, as long as there are others."""


class Pool(TypedCalls):
    """Sends each request to the host with the fewest requests in flight, over the least busy connection to it.

    In version 22, a server answers the packets of one connection one after the other; with a pool, a slow request
    delays fewer others. In version 23, one connection to each host is enough.

    With several hosts, a request that was not handled is sent to another one: if no connection can be made, or if the
    server leaves before it has begun with the request.

    Args:
        hostname: the host name or IP address of the server; or several of them, each with a port of its own if it is a
            pair of host name and port.
        port: the TCP port of the hosts that have none of their own.
        size: the most connections to each host; each is opened on first use.
        settings: further arguments of `AsyncClient`.

    Raises:
        TypeError: a host is neither a text nor a pair, a host has no port, or another argument is of another type.
        ValueError: ``size`` is not 1 or more, there is no host, ``open_stream`` is given with several hosts, or a
            setting is out of range.
    """

    def __init__(
        self,
        hostname: str | Iterable[str | tuple[str, int]],
        port: int | None = None,
        *,
        size: int = 4,
        **settings: Unpack[ClientSettings],
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size is {size!r}; it must be a whole number, the most connections to each host")
        if size < 1:
            raise ValueError(f"size is {size!r}; a pool has 1 connection or more")
        hosts = [hostname] if isinstance(hostname, str) or not isinstance(hostname, Iterable) else list(hostname)
        if not hosts:
            raise ValueError("there is no host; a pool has 1 host or more")
        if len(hosts) > 1 and settings.get("open_stream") is not None:
            raise ValueError("open_stream opens streams to one server; leave it out, or give one host")
        pairs = [_pair(host, port) for host in hosts]
        patient = len(pairs) == 1
        self._hosts = [_Host([_PoolClient(*pair, settings, patient=patient) for _ in range(size)]) for pair in pairs]
        self._stack: AsyncExitStack | None = None

    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as for AsyncClient
        idempotent: bool = False,
    ) -> dict[str, Any] | MaybeNone:
        """Send a packet over the least busy connection, and return its reply; see `AsyncClient.request`."""
        self._require_open()
        if len(self._hosts) == 1:
            return await self._hosts[0].client.request(payload, timeout=timeout, idempotent=idempotent)
        seconds = self._hosts[0].client.timeout if timeout is None else timeout
        check_timeout(seconds)
        deadline = math.inf if seconds is None else trio.current_time() + seconds
        tried: set[_Host] = set()
        repeats, pause = MAX_REPEATS if idempotent else 0, FIRST_PAUSE
        while True:
            host = self._choose(tried)
            tried.add(host)
            try:
                return await host.client.request(payload, timeout=remaining(deadline))
            except NotConnected:
                host.avoid()
                if not await self._may_try_again(deadline, pause if len(tried) == len(self._hosts) else 0):
                    raise
            except ServerDisconnected:
                if not repeats or not await self._may_try_again(deadline, 0):
                    raise
                repeats -= 1
            if len(tried) == len(self._hosts):
                tried.clear()
                pause = min(2 * pause, LONGEST_PAUSE)

    def stream(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,
    ) -> ReplyStream:
        """Send a packet over the least busy connection, and iterate over its answers; see `AsyncClient.stream`.

        It is not sent to another host if this one cannot be reached; later ones are.
        """
        self._require_open()
        return self._choose(set()).client.stream(payload, timeout=timeout)

    def events(self) -> EventStream:
        """Iterate over the packets that the servers push over all connections; version 23 only.

        The pool opens all its connections for this, and opens those that are lost again. A packet that a server pushes
        to all its sessions comes once for each of them. At most 10,000 events, or ``max_packet`` bytes of them, are
        held; then the oldest ones are dropped, and ``lost`` of the result counts them.

        Returns:
            An asynchronous iterator over the fields of the events. When a session has ended, it raises
            `ServerDisconnected` once, as events may be missing. Then another loop over it goes on with the sessions
            that remain and the new one.

        Raises:
            VersionTooOld: all connections have version 22. For ``version=None``, the loop may raise it, once for each
                connection.
            NotConnected: the pool is not open.
        """
        self._require_open()
        clients = [client for host in self._hosts for client in host.clients]
        events = JoinedEvents(clients[0].max_packet, len(clients))
        for client in clients:
            client.listen(events)
        events.check()
        return events

    async def __aenter__(self) -> Self:
        require_trio("Pool", ELSEWHERE)
        async with AsyncExitStack() as stack:
            for host in self._hosts:
                for client in host.clients:
                    await stack.enter_async_context(client)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def _require_open(self) -> None:
        require_trio("Pool", ELSEWHERE)
        if self._stack is None:
            raise NotConnected("this pool is not open; use it within 'async with Pool(...) as pool:'")

    def _choose(self, tried: set[_Host]) -> _Host:
        """Return the host with the fewest requests in flight, by chance among equals; one that was tried comes last."""
        now = trio.current_time()
        return min(
            self._hosts,
            key=lambda host: (host in tried, host.is_avoided(now), host.pending, random.random()),  # noqa: S311
        )

    async def _may_try_again(self, deadline: float, pause: float) -> bool:
        """Wait, and return whether there is time for another attempt."""
        await trio.sleep_until(min(trio.current_time() + pause * random.uniform(0.5, 1), deadline))  # noqa: S311
        return self._stack is not None and trio.current_time() < deadline


def _pair(host: str | tuple[str, int], port: int | None) -> tuple[str, int]:
    """Return a host with its own port, or else with the port of the pool.

    Raises:
        TypeError: it is neither a text nor a pair, or there is no port.
    """
    if isinstance(host, (tuple, list)) and len(host) == 2:
        return host[0], host[1]
    if not isinstance(host, str):
        raise TypeError(
            f"a host of the pool is {host!r}; give a name such as 'localhost', or a pair such as ('localhost', 8081)"
        )
    if port is None:
        raise TypeError(
            f"the host {host!r} of the pool has no port; give Pool({host!r}, 8081), or the pair ({host!r}, 8081)"
        )
    return host, port


class _Host:
    """The connections to one host.

    Args:
        clients: one client for each connection.

    Attributes:
        clients: as given.
        avoided_until: the time until which the host gets no requests, as long as there are others.
    """

    def __init__(self, clients: list[_PoolClient]) -> None:
        self.clients: list[_PoolClient] = clients
        self.avoided_until: float = -math.inf

    @property
    def pending(self) -> int:
        """The number of requests in flight."""
        return sum(client.pending for client in self.clients)

    @property
    def client(self) -> AsyncClient:
        """The client with the fewest requests in flight, the first one of equals."""
        return min(self.clients, key=lambda client: client.pending)

    def is_avoided(self, now: float) -> bool:
        """Return whether the host could not be reached a short time ago."""
        return now < max(self.avoided_until, *(client.failed_at + AVOIDED for client in self.clients))

    def avoid(self) -> None:
        """Note that the host has not handled a request."""
        self.avoided_until = trio.current_time() + AVOIDED


class _PoolClient(AsyncClient):
    """One connection of a pool.

    Args:
        hostname, port, settings: as for `AsyncClient`.
        patient: whether requests wait for another attempt if no connection can be made; if not, they fail, so that they
            can be sent elsewhere.
    """

    def __init__(self, hostname: str, port: int, settings: ClientSettings, *, patient: bool) -> None:
        super().__init__(hostname, port, **settings)
        self._connector.patient = patient

    @property
    def max_packet(self) -> int:
        """The largest Content-Length of a reply accepted, in bytes."""
        return self._encodings.wire.max_packet

    @property
    def failed_at(self) -> float:
        """The time at which the last attempt to connect failed; in the distant past if it succeeded."""
        return self._connector.failed_at

    def listen(self, events: JoinedEvents) -> None:
        """Add the events of the server to those of the pool."""
        self._begin(None)
        try:
            self._require_numbered("events()")
        except VersionTooOld as error:
            events.fail(error)
        else:
            self._numbered.listen(events)
