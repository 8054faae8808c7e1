"""`Server`: registers handlers, starts and stops. It brings the other modules together."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

import trio

from asyncapy_core import defaults
from asyncapy_core.errors import ConfigError
from asyncapy_core.event_loops import REMEDY, require_trio
from asyncapy_core.logs.writer import ServerLogger, program_logs
from asyncapy_core.net.listener import accept_forever, check_listening, close_listener, open_listeners
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.plugins.server_hooks import ServerHooks
from asyncapy_core.routing.suggestions import Suggestions
from asyncapy_core.server.admission import Admission
from asyncapy_core.server.arguments import record_arguments
from asyncapy_core.server.beside import beside
from asyncapy_core.server.counters import Counters
from asyncapy_core.server.drain_hooks import call_drain_hooks
from asyncapy_core.server.lifecycle import NOTHING, Lifetime, set_up
from asyncapy_core.server.log_formats import configure_log
from asyncapy_core.server.notices import announce
from asyncapy_core.server.program import run_program
from asyncapy_core.server.registering import Registering
from asyncapy_core.server.running import prepare_plugins, serving, tls_context
from asyncapy_core.server.settings import Configured
from asyncapy_core.server.statistics import take_statistics
from asyncapy_core.server.threads import ThreadCalls
from asyncapy_core.session import Session
from asyncapy_core.state import State
from asyncapy_core.statistics import ServerStatistics

if TYPE_CHECKING:
    import configparser

    from asyncapy_core.net.transport import Transport
    from asyncapy_core.plugins.bound_hook import BoundHook
    from asyncapy_core.protocol.wire import ByteOrder
    from asyncapy_core.server.settings import FurtherSettings, ServerSettings
    from asyncapy_core.server.state import ServerState

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Server(Configured, Registering):
    """Serves handlers over AsyncAProto.

    Settings that are not passed here come from ``ASYNCAPY_*`` environment variables, then from ``cfg_parser``, then
    from the file ``config``, in this order; `asyncapy_core.config.ServerConfig` describes all settings. Each setting is
    also an attribute: ``server.timeout`` can be read, and set before the server serves.

    Args:
        addr: the address to bind to: an IP address, a host name, ``unix:/path`` for a Unix domain socket, or a list.
        port: the TCP port to bind to; 0 picks a free one.
        buf: the least size of a read from a socket, in bytes.
        logging_level: the level of this server's logger.
        console_format: the %-style format of log lines.
        datefmt: the format of dates in log lines.
        timeout: seconds from the start of the wait for a packet until it must be complete.
        header_size: the size of the Content-Length header in bytes, 1 to 8.
        byteorder: the byte order of that header, ``"big"`` or ``"little"``.
        config: the path of a configuration file, INI or TOML.
        cfg_parser: a configparser that was filled elsewhere.
        session_limit: the most concurrent sessions of one address; 0 for no limit.
        plugins: the plugins to use; the installed ones by default.
        plugin_options: options of plugins, by plugin: ``{"codecs": {"engine": "ziproto"}}``. They precede those in
            ``ASYNCAPY_PLUGIN_NAME__OPTION`` variables and in configuration files.
        settings: further fields of `ServerConfig`: ``max_packet``, ``max_connections``, ``drain_timeout`` and so on.

    Attributes:
        log: the logger of this server.
        exit_stack: entered before the setup, and closed after the shutdown.
        hooks: the hooks of the plugins, for plugins that have brought some for others.
        addresses: the bound addresses while the server serves, in the form of the socket module.

    Raises:
        ConfigError: a setting is wrong; the message names the setting, its source and the allowed values.
    """

    _given: dict[str, Any]
    _token: trio.lowlevel.TrioToken | None = None  # of the trio run that serves

    @record_arguments
    def __init__(
        self,
        addr: str | Sequence[str] | None = defaults.ADDR,
        port: int | None = defaults.PORT,
        buf: int | None = defaults.BUF,
        logging_level: int | str = defaults.LOGGING_LEVEL,
        console_format: str | None = defaults.CONSOLE_FORMAT,
        datefmt: str | None = defaults.DATEFMT,
        timeout: float | None = defaults.TIMEOUT,
        header_size: int = defaults.HEADER_SIZE,
        byteorder: ByteOrder = defaults.BYTEORDER,
        config: str | os.PathLike[str] | None = None,
        cfg_parser: configparser.RawConfigParser | None = None,
        session_limit: int = defaults.SESSION_LIMIT,
        *,
        plugins: PluginManager | None = None,
        plugin_options: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Unpack[FurtherSettings],
    ) -> None:
        passed = {**self._given, **settings}
        for name in ("settings", "config", "cfg_parser", "plugins", "plugin_options"):
            passed.pop(name, None)
        given = {name: value for name, value in passed.items() if value is not None}
        super().__init__(given, config, cfg_parser, plugins or default_manager(), plugin_options)
        Registering.__init__(self, ServerHooks(self, self.plugins, lambda: self._options))
        self.log: ServerLogger = ServerLogger()
        configure_log(self.log, self.config)
        self.exit_stack: AsyncExitStack = AsyncExitStack()
        self.addresses: tuple[Any, ...] = ()
        self._threads = ThreadCalls(self.log)
        self._counters = Counters()
        self._state: ServerState | None = None
        self._admission: Admission | None = None
        self._stopping = trio.Event()
        self._drain_hooks: list[BoundHook] = []

    @property
    def port(self) -> int:
        """The bound TCP port while the server serves, otherwise the setting."""
        ports = [int(address[1]) for address in self.addresses if isinstance(address, tuple)]
        return ports[0] if ports else self.config.port

    @port.setter
    def port(self, port: int) -> None:
        self.configure(port=port)

    @functools.cached_property
    def state(self) -> State:
        """A namespace for the attributes that the application keeps on this server, such as a database."""
        return State()

    @property
    def sessions(self) -> list[Session]:
        """The open sessions; none while the server does not serve. Sessions may end while a loop goes through them."""
        return [] if self._state is None else self._state.sessions.all()

    def statistics(self) -> ServerStatistics:
        """Return the sessions, requests, refusals, bytes and queues of this server at this moment.

        Call this in the trio loop while the server serves. Counters have the values since the server was made.
        """
        return take_statistics(self._counters, self.handlers, self._state)

    def configure(
        self,
        *,
        path: str | os.PathLike[str] | None = None,
        plugin_options: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Unpack[ServerSettings],
    ) -> None:
        if self._token is not None:
            raise RuntimeError("this server is serving; change settings before it serves")
        super().configure(path=path, plugin_options=plugin_options, **settings)
        configure_log(self.log, self.config)

    async def run_sync_task(
        self,
        sync_fn: Callable[[*Ts], T],
        *args: *Ts,
        cancellable: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Run a blocking function in a thread, and return its result; like `trio.to_thread.run_sync`.

        Args:
            sync_fn: the function.
            args: its arguments.
            cancellable: abandon the thread when this is cancelled, instead of waiting for it. A server that ends
                abandons all threads.
            limiter: bounds the number of threads. If None, trio's default limiter does, of which the handlers of one
                session get at most a quarter.
        """
        require_trio("Server.run_sync_task")
        call = functools.partial(sync_fn, *args)
        return await self._threads.run(call, cancellable=cancellable, limiter=limiter)

    def setup(self) -> Awaitable[None] | Any:
        """Override this, plain or ``async``, to prepare something before the port is opened.

        An override may call ``super().setup()`` with or without ``await``.
        """
        return NOTHING

    def shutdown(self) -> Awaitable[None] | Any:
        """Override this, plain or ``async``, to clean up after the last connection is closed.

        An override may call ``super().shutdown()`` with or without ``await``.
        """
        return NOTHING

    def start(self) -> None:
        """Serve until SIGINT (Ctrl+C) or SIGTERM, then drain: stop accepting, wait for running handlers for at most
        ``drain_timeout`` seconds, call `shutdown`, and return. A second signal ends the program at once.

        Raises:
            SystemExit: the server cannot start; one line on standard error gives the reason.
        """
        with program_logs(self.log, self.config.logging_level):
            run_program(self.serve, self.stop, self.reload_certificates)

    async def serve(
        self,
        *,
        listeners: Sequence[socket.socket] | None = None,
        task_status: trio.TaskStatus[tuple[Any, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is called or this is cancelled; for programs that run trio themselves.

        ``await nursery.start(server.serve)`` returns the bound addresses, in the form of the socket module.

        Args:
            listeners: listening sockets to use instead of ``addr`` and ``port``; they are closed at the end. An empty
                sequence is allowed: such a server serves the connections passed to `admit`.

        Raises:
            BindError: the address or the port is not available.
            ConfigError: a certificate cannot be used.
            PluginError: no codec is installed, or a required plugin is missing or failed.
            UnexpectedEnd: the server ended without a stop.
        """
        require_trio("Server.serve", f"{REMEDY}, or call server.start()")
        if self._token is not None:
            raise RuntimeError("this server is serving already; create another Server to listen elsewhere")
        self._token = trio.lowlevel.current_trio_token()
        given = tuple(listeners or ())
        try:
            async with self.log.in_background():
                lifetime = Lifetime(self._stopping, self.log, self._threads, self.config.drain_timeout)
                await lifetime.run(functools.partial(self._serve, listeners, task_status))
        finally:
            for listener in given:
                close_listener(listener)
            self.addresses = ()
            self._state = self._admission = None
            self._token = None
            self._stopping = trio.Event()

    def admit(self, transport: socket.socket | Transport, address: str) -> None:
        """Serve a connection that was accepted elsewhere. Call this in the trio loop.

        Args:
            transport: a connected stream socket, which is served as an accepted one, with a PROXY header and TLS if
                they are configured; or a `Transport`, whose bytes are packets. It belongs to the server from now on.
            address: the IP address of the peer, or ``unix:`` with a path.

        Raises:
            RuntimeError: the server is not serving.
        """
        if self._admission is None:
            raise RuntimeError("this server is not serving; call admit() while it serves")
        if isinstance(transport, socket.socket):
            transport.settimeout(0)
            self._admission.admit(transport, address)
        else:
            self._admission.admit_transport(transport, address)

    def stop(self) -> None:
        """Drain the server and end `serve` or `start`, like the first signal; in any thread, also before the start."""
        token = self._token
        if token is None:
            self._stopping.set()
        elif trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
            self._stop_now()
        else:
            with contextlib.suppress(trio.RunFinishedError):  # then it has ended
                token.run_sync_soon(self._stop_now, idempotent=True)

    def reload_certificates(self) -> None:
        """Read the TLS files again, like SIGHUP. Sessions continue; if a file is wrong, the old certificates stay."""
        if self._state is None or self._state.tls is None:
            self.log.info("{Server} There are no certificates to read again")
            return
        try:
            self._state.tls = tls_context(self.config)
        except ConfigError as error:
            self.log.error("{Server} The certificates stay as they were: %s", error)
        else:
            self.log.info("{Server} The certificates were read again")

    def _stop_now(self) -> None:
        """End `serve`, and begin no further packet, unless plugins prepare for the end before."""
        self._stopping.set()
        if not self._drain_hooks:
            self._drain()

    def _drain(self) -> None:
        """Begin no further packet. The ports close before clients learn that they have to leave."""
        if self._admission is not None:
            self._admission.close_ports()
        if self._state is not None:
            self._state.drain()

    def __repr__(self) -> str:
        return f"<Server {self.addr}:{self.port} handlers={sum(map(len, self.handlers.values()))}>"

    async def _serve(
        self,
        listeners: Sequence[socket.socket] | None,
        task_status: trio.TaskStatus[tuple[Any, ...]],
        lifetime: Lifetime,
    ) -> None:
        """Set up, listen, serve, drain and shut down."""
        codecs = prepare_plugins(self.plugins, self.config, self._options)
        self._dispatcher.suggest = Suggestions(lambda: self.handlers) if self.config.describe else None
        tls = tls_context(self.config)
        async with set_up(self, self.hooks, lifetime):
            self._drain_hooks = self.hooks.functions("asyncapy_drain")
            beside_hooks, session_hooks = map(self.hooks.functions, ("asyncapy_run", "asyncapy_session"))
            shared = listeners is not None
            with self._wrapped():
                async with beside(beside_hooks, self.log, lifetime, self._stop_now):
                    if listeners is None:
                        listeners = await open_listeners(self.config.addresses, self.config.port)
                    try:
                        for listener in listeners:
                            check_listening(listener)
                        self.addresses = tuple(listener.getsockname() for listener in listeners)
                        async with serving(
                            self, self._dispatcher, codecs, tls, self._threads, self._counters, session_hooks
                        ) as state:
                            lifetime.listens()
                            self._state = state
                            await self._accept(state, listeners, task_status, shared=shared)
                    finally:
                        for listener in listeners:
                            close_listener(listener)

    async def _accept(
        self,
        state: ServerState,
        listeners: Sequence[socket.socket],
        task_status: trio.TaskStatus[tuple[Any, ...]],
        *,
        shared: bool,
    ) -> None:
        """Accept connections until the server stops."""
        admission = self._admission = Admission(state, listeners, shared=shared)
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                listener.settimeout(0)
                accepting.start_soon(accept_forever, listener, admission.admit, self.log)
            announce(state, self.addresses)
            task_status.started(self.addresses)
            await self._stopping.wait()
            if self._drain_hooks:
                await call_drain_hooks(self._drain_hooks, self.config.drain_timeout, self.log)
                self._drain()
            accepting.cancel_scope.cancel()
