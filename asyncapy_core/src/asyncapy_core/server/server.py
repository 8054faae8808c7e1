"""`Server`: handlers are registered here, and it is started and stopped here.

Brings the other modules together. Knows nothing of the inside of a connection.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

import trio

from asyncapy_core import defaults
from asyncapy_core.errors import ConfigError
from asyncapy_core.log_writer import adjust_logger, server_logger
from asyncapy_core.net.listener import accept_forever, check_listening, close_listener, open_listeners
from asyncapy_core.plugins.loading import Restriction
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.routing.dispatch import Dispatcher
from asyncapy_core.routing.handler import Guard, GuardFunction, Handler, HandlerFunction
from asyncapy_core.server.admission import Admission
from asyncapy_core.server.arguments import record_arguments
from asyncapy_core.server.lifecycle import NOTHING, Lifetime, set_up
from asyncapy_core.server.notices import announce
from asyncapy_core.server.program import run_program
from asyncapy_core.server.running import prepare_plugins, serving, tls_context
from asyncapy_core.server.threads import ThreadCalls

if TYPE_CHECKING:
    import configparser

    from asyncapy_core.config import PluginOptions, ServerConfig
    from asyncapy_core.log_writer import ServerLogger
    from asyncapy_core.protocol.wire import ByteOrder
    from asyncapy_core.routing.filter import Filter
    from asyncapy_core.server.settings import FurtherSettings, ServerSettings
    from asyncapy_core.server.state import ServerState

H = TypeVar("H", bound=HandlerFunction)
G = TypeVar("G", bound="Filter | GuardFunction")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Server:
    """Serves handlers over AsyncAProto.

    Settings that are not given here are taken from ``ASYNCAPY_*`` environment variables, then from ``cfg_parser``, then
    from the file ``config``, in this order; `asyncapy_core.config.ServerConfig` describes them all.

    Args:
        addr: what to bind to: an address, a host name, ``unix:/path`` for a Unix domain socket, or a list of these.
        port: the TCP port to bind to; 0 picks a free one.
        buf: bytes to ask of a socket at least.
        logging_level: the level of this server's own logger.
        console_format: the %-style format of its lines.
        datefmt: the format of the dates in these.
        timeout: seconds from the moment a packet is waited for until it must be complete.
        header_size: bytes of the Content-Length header, 1 to 8.
        byteorder: the order of these bytes, ``"big"`` or ``"little"``.
        config: the path of a configuration file, INI or TOML.
        cfg_parser: a configparser that was filled elsewhere.
        session_limit: sessions that one address may have at a time; 0 sets no limit.
        plugins: the plugins to use; those installed unless given.
        settings: further fields of `ServerConfig`: ``max_packet``, ``max_connections``, ``drain_timeout`` and so on.

    Raises:
        ConfigError: a setting is wrong; the message says which, where it is from and what is allowed.
    """

    config: ServerConfig
    _given: dict[str, Any]

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
        **settings: Unpack[FurtherSettings],
    ) -> None:
        written = {**self._given, **settings}
        for name in ("settings", "config", "cfg_parser", "plugins"):
            written.pop(name, None)
        self._written = {name: value for name, value in written.items() if value is not None}
        self._sources: dict[str, Any] = {"path": config, "parser": cfg_parser}
        self.plugins: PluginManager = plugins or default_manager()
        self._restriction: Restriction | None = None
        self.config, self._options = self._load(self._written, self._sources)
        self.log: ServerLogger = server_logger(
            self.config.logging_level, self.config.console_format, self.config.datefmt
        )
        self.exit_stack: AsyncExitStack = AsyncExitStack()
        self.addresses: tuple[Any, ...] = ()
        self._dispatcher = Dispatcher()
        self._threads = ThreadCalls(self.log)
        self._state: ServerState | None = None
        self._admission: Admission | None = None
        self._stopping = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    @property
    def addr(self) -> str:
        """The address that the server was told to bind to."""
        return self.config.addr

    @property
    def port(self) -> int:
        """The port that the server listens on; before that, the one it was told to."""
        ports = [int(address[1]) for address in self.addresses if isinstance(address, tuple)]
        return ports[0] if ports else self.config.port

    @property
    def handlers(self) -> dict[int, tuple[Handler, ...]]:
        """The handlers by group, in the order in which they are asked."""
        return self._dispatcher.groups

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards, in the order in which they are asked, each as a handler with that one filter."""
        return self._dispatcher.guards

    def configure(self, *, path: str | os.PathLike[str] | None = None, **settings: Unpack[ServerSettings]) -> None:
        """Change settings before the server serves: ``server.configure(timeout=30)``.

        Args:
            path: a configuration file to be read in place of the one that the server was made with.
            settings: fields of `ServerConfig`, which come before all other sources.

        Raises:
            ConfigError: a setting is wrong; the message says which, where it is from and what is allowed.
            RuntimeError: the server serves already.
        """
        if self._token is not None:
            raise RuntimeError("this server is serving already; configure it before")
        written = {**self._written, **settings}
        sources = self._sources if path is None else {**self._sources, "path": path}
        self.config, self._options = self._load(written, sources)
        self._written, self._sources = written, sources
        adjust_logger(self.log, self.config.logging_level, self.config.console_format, self.config.datefmt)

    def add_handler(self, *filters: Filter, group: int = 0) -> Callable[[H], H]:
        """Return a decorator that registers a handler and returns it as it was.

        Args:
            filters: all of these must pass for a packet to reach it.
            group: one handler of each group gets a packet, the first whose filters pass; lower groups come first.
        """
        for filter in filters:
            if inspect.isroutine(filter):
                raise TypeError("add_handler is called before it decorates: write @server.add_handler()")

        def register(handler: H) -> H:
            self.register_handler(handler, *filters, group=group)
            return handler

        return register

    def register_handler(self, handler: HandlerFunction, *filters: Filter, group: int = 0) -> None:
        """Register a handler, an ``async def`` that takes a `Client` and a `Packet`.

        Args:
            handler: the function.
            filters: all of these must pass for a packet to reach it.
            group: one handler of each group gets a packet, the first whose filters pass; lower groups come first.

        Raises:
            TypeError: it is not asynchronous, a filter is not a `Filter`, or the group is not an integer.
        """
        self._dispatcher.register(Handler(handler, filters), group)

    def guard(self, check: G) -> G:
        """Have every packet checked before any group sees it, and return what checks it; a decorator.

        A packet that a guard does not pass reaches no handler, and its sender is told ERR_NO_HANDLER. A guard that
        raises passes nothing.

        Args:
            check: a filter, or a function of client and packet, plain or ``async``, that says whether it may pass.
        """
        self._dispatcher.guard(check)
        return check

    async def run_sync_task(
        self,
        sync_fn: Callable[[*Ts], T],
        *args: *Ts,
        cancellable: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Run a blocking function in a thread and return what it returns; a shorthand for `trio.to_thread.run_sync`.

        Args:
            sync_fn: the function.
            args: what to call it with.
            cancellable: leave the thread to itself when this is cancelled, rather than wait for it. A server that ends
                leaves all threads to themselves.
            limiter: bounds the number of threads, trio's default unless given.
        """
        call = functools.partial(sync_fn, *args)
        return await self._threads.run(call, cancellable=cancellable, limiter=limiter)

    def setup(self) -> Awaitable[None] | Any:
        """Prepare something before the port is opened; override it, plain or ``async``.

        An override may call ``super().setup()`` with or without ``await``.
        """
        return NOTHING

    def shutdown(self) -> Awaitable[None] | Any:
        """Clean up after the last connection is closed; override it, plain or ``async``.

        An override may call ``super().shutdown()`` with or without ``await``.
        """
        return NOTHING

    def start(self) -> None:
        """Serve until SIGINT (Ctrl+C) or SIGTERM, then end in order: stop accepting, let the handlers in flight finish
        for at most ``drain_timeout`` seconds, run `shutdown`, return. A second signal ends the program at once.

        Raises:
            SystemExit: the server cannot be started; one line on standard error says why.
        """
        run_program(self.serve, self.stop, self.reload_certificates)

    async def serve(
        self,
        *,
        listeners: Sequence[socket.socket] | None = None,
        task_status: trio.TaskStatus[tuple[Any, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is called or this is cancelled; for programs that run trio themselves.

        ``await nursery.start(server.serve)`` returns the addresses that it listens on, as the socket module has them.

        Args:
            listeners: listening sockets to serve on, in place of ``addr`` and ``port``; they are closed at the end.
                There may be none: such a server serves what `admit` gives it.

        Raises:
            BindError: the address or the port cannot be had.
            ConfigError: a certificate cannot be used.
            PluginError: no codec is there, or a plugin that is required is not, or one failed in setup.
            UnexpectedEnd: the server ended although nobody told it to.
        """
        if self._token is not None:
            raise RuntimeError("this server is serving already; make another Server to listen elsewhere")
        self._token = trio.lowlevel.current_trio_token()
        given = tuple(listeners or ())
        try:
            async with self.log.in_background():
                lifetime = Lifetime(self._stopping, self.log, self._threads)
                await lifetime.run(functools.partial(self._serve, listeners, task_status))
        finally:
            for listener in given:
                close_listener(listener)
            self.addresses = ()
            self._state = self._admission = None
            self._token = None
            self._stopping = trio.Event()

    def admit(self, sock: socket.socket, address: str) -> None:
        """Serve a connection that was accepted elsewhere, as those that come over the listeners; from the trio loop.

        Args:
            sock: a connected stream socket, which belongs to the server from then on.
            address: the IP address of the peer, or ``unix:`` with a path.

        Raises:
            RuntimeError: the server does not serve.
        """
        if self._admission is None:
            raise RuntimeError("this server does not serve yet, or no longer; admit connections while it does")
        sock.settimeout(0)
        self._admission.admit(sock, address)

    def stop(self) -> None:
        """End `serve` or `start` in order, as the first signal does; from any thread, and even before it has begun."""
        token = self._token
        if token is None:
            self._stopping.set()
        elif trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
            self._stop_now()
        else:
            with contextlib.suppress(trio.RunFinishedError):  # then it has ended
                token.run_sync_soon(self._stop_now, idempotent=True)

    def reload_certificates(self) -> None:
        """Read the TLS files anew, as SIGHUP does; sessions go on, and a file that is wrong leaves all as it was."""
        if self._state is None or self._state.tls is None:
            self.log.info("{Server} There are no certificates to read anew")
            return
        try:
            self._state.tls = tls_context(self.config)
        except ConfigError as error:
            self.log.error("{Server} The certificates stay as they were: %s", error)
        else:
            self.log.info("{Server} The certificates were read anew")

    def _stop_now(self) -> None:
        """Begin no further packet from this moment on, and have `serve` end."""
        self._stopping.set()
        if self._state is not None:
            self._state.drain()

    def __repr__(self) -> str:
        return f"<Server {self.addr}:{self.port} handlers={sum(map(len, self.handlers.values()))}>"

    def _load(self, written: Mapping[str, Any], sources: Mapping[str, Any]) -> tuple[ServerConfig, PluginOptions]:
        """Put the settings together, and keep out the plugins that they deny."""
        from asyncapy_core.config import load_config  # noqa: PLC0415  # pydantic costs more than all the rest

        config, options = load_config(written, **sources)
        restriction = Restriction(config.plugins_allow, config.plugins_deny)
        self.plugins.restrict(restriction, replaced=self._restriction)
        self._restriction = restriction
        return config, options

    async def _serve(
        self,
        listeners: Sequence[socket.socket] | None,
        task_status: trio.TaskStatus[tuple[Any, ...]],
        lifetime: Lifetime,
    ) -> None:
        """Set up, listen, serve, drain and shut down."""
        codecs = prepare_plugins(self.plugins, self.config, self._options)
        tls = tls_context(self.config)
        async with set_up(self, self.plugins, self._options, lifetime):
            if listeners is None:
                listeners = await open_listeners(self.config.addresses, self.config.port)
            try:
                for listener in listeners:
                    check_listening(listener)
                self.addresses = tuple(listener.getsockname() for listener in listeners)
                async with serving(self, self._dispatcher, codecs, tls, self._threads) as state:
                    lifetime.listens()
                    self._state = state
                    await self._accept(state, listeners, task_status)
            finally:
                for listener in listeners:
                    close_listener(listener)

    async def _accept(
        self, state: ServerState, listeners: Sequence[socket.socket], task_status: trio.TaskStatus[tuple[Any, ...]]
    ) -> None:
        """Accept connections until the server is told to stop."""
        self._admission = Admission(state)
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                listener.settimeout(0)
                accepting.start_soon(accept_forever, listener, self._admission.admit, self.log)
            announce(state, self.addresses)
            task_status.started(self.addresses)
            await self._stopping.wait()
            accepting.cancel_scope.cancel()
