"""Protocols for the server, its clients, sessions and handlers.

Packets, filters, plugins and connections are typed by these, so that imports go one way: none of them imports the
server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    import logging
    import uuid

    import trio

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.statistics import ServerStatistics

H = TypeVar("H", bound="Callable[..., Awaitable[object] | AsyncIterator[object]]")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ServerInterface(Protocol):
    """The server, as handlers and plugins see it. `asyncapy_core.Server` documents the members."""

    exit_stack: AsyncExitStack

    @property
    def config(self) -> ServerConfig: ...

    @property
    def hooks(self) -> HooksInterface: ...

    @property
    def log(self) -> logging.Logger: ...

    @property
    def addr(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def addresses(self) -> tuple[Any, ...]: ...

    @property
    def state(self) -> Any: ...

    @property
    def sessions(self) -> Sequence[SessionInterface]: ...

    @property
    def handlers(self) -> Mapping[int, Sequence[HandlerInterface]]: ...

    @property
    def guards(self) -> Sequence[HandlerInterface]: ...

    @property
    def overrides(self) -> Mapping[Callable[..., Any], Callable[..., Any]]: ...

    def statistics(self) -> ServerStatistics:
        """Return the counters of the server, and its sessions, connections and queues, at this moment."""

    def add_handler(self, *filters: Any, group: int = 0) -> Callable[[H], H]:
        """Return a decorator that registers a handler behind filters."""

    def register_handler(
        self,
        handler: Callable[..., Awaitable[object] | AsyncIterator[object]],
        *filters: Any,
        group: int = 0,
    ) -> RegistrationInterface:
        """Register a handler behind filters."""

    def operation(self, name: Any, *filters: Any, group: int = 0) -> Callable[[H], H]:
        """Return a decorator that registers a handler for an operation."""

    def include(self, router: Any, *filters: Any, group: int = 0) -> RegistrationInterface:
        """Register the handlers of a router."""

    def guard(self, check: Any) -> RegistrationInterface:
        """Check every packet before any handler."""

    def override(self, function: Any, replacement: Callable[..., Any]) -> RegistrationInterface:
        """Call a replacement of a function that a plugin calls for a handler."""

    def on_error(self, kind: type[Exception]) -> Callable[[Any], Any]:
        """Return a decorator for a function that turns exceptions of handlers into answers."""

    def around(self, wrap: Any) -> Any:
        """Put a function around each handler."""

    def on_session(self, manage: Any) -> Any:
        """Put an async context manager around each session."""

    def beside(self, run: Any) -> Any:
        """Run a function beside the server."""

    async def run_sync_task(
        self,
        sync_fn: Callable[[*Ts], T],
        *args: *Ts,
        cancellable: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Run a blocking function in a thread."""

    def setup(self) -> object:
        """Prepare the server before it listens."""

    def shutdown(self) -> object:
        """Clean up after the last connection."""

    def reload_certificates(self) -> None:
        """Read the TLS files again."""

    def stop(self) -> None:
        """Drain the server, then end it."""


class HooksInterface(Protocol):
    """The hooks of a server. `asyncapy_core.plugins.ServerHooks` documents the members."""

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook that a plugin has brought."""

    async def acall(self, hook: str, **arguments: Any) -> list[Any]:
        """Call a hook whose implementations may be ``async``."""

    def functions(self, hook: str) -> Sequence[Callable[..., Any]]:
        """Return the implementations of a hook."""


class RegistrationInterface(Protocol):
    """A handler, guard or router that was registered. `asyncapy_core.Registration` documents the members."""

    def remove(self) -> None:
        """Take it out again."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function that was registered."""


class ClientInterface(Protocol):
    """The peer of a session. `asyncapy_core.Client` documents the members."""

    @property
    def address(self) -> str: ...

    @property
    def network(self) -> str: ...

    @property
    def encoding(self) -> str: ...

    @property
    def server(self) -> ServerInterface: ...

    @property
    def session(self) -> SessionInterface: ...

    @property
    def state(self) -> Any: ...

    @property
    def log(self) -> SessionLog: ...

    @property
    def gone(self) -> Awaitable[None]: ...

    @property
    def tls_peer(self) -> Mapping[str, str] | None: ...

    @property
    def tls_names(self) -> Mapping[str, tuple[str, ...]]: ...

    async def send(self, packet: Mapping[str, Any] | str | bytes, close: bool = False) -> None:  # noqa: FBT001, FBT002  # the documented signature
        """Send a packet."""

    def send_nowait(self, packet: Mapping[str, Any] | str | bytes) -> None:
        """Send a packet without waiting."""

    async def close(self) -> None:
        """Close the connection after pending output."""

    def get_sessions(self) -> Sequence[SessionInterface]:
        """Return the active sessions of this client's address."""


class SessionInterface(Protocol):
    """One connection, from accept to close. `asyncapy_core.Session` documents the members."""

    @property
    def session_id(self) -> uuid.UUID: ...

    @property
    def date(self) -> float: ...

    @property
    def client(self) -> ClientInterface: ...

    @property
    def memo(self) -> dict[object, Any]: ...

    @property
    def state(self) -> Any: ...

    async def send(self, packet: Mapping[str, Any] | str | bytes) -> None:
        """Send a packet to the client of this session."""

    def send_nowait(self, packet: Mapping[str, Any] | str | bytes) -> None:
        """Send a packet without waiting."""

    async def close(self) -> None:
        """Close the connection after pending output."""


class OutcomesInterface(Protocol):
    """The counters of a handler."""

    succeeded: int

    def count(self, outcome: str) -> None:
        """Count a request."""

    def measure(self, outcome: str, nanoseconds: int) -> None:
        """Note the duration of a request."""


class HandlerInterface(Protocol):
    """A registered handler. `asyncapy_core.Handler` documents the members."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> Callable[..., Awaitable[object] | AsyncIterator[object]]: ...

    @property
    def filters(self) -> Sequence[object]: ...

    @property
    def group(self) -> int: ...

    @property
    def operation(self) -> str | None: ...

    waits: bool

    @property
    def outcomes(self) -> OutcomesInterface: ...

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields of a log line about it: its name, unless it is a guard."""

    @property
    def of_filters(self) -> str:
        """The subject of a log line about its filters."""

    def notes(self, subject: str) -> bool:
        """Return True the first time that it is called with this subject."""
