"""`serving`: the state of a server while it serves, and the drain at its end; the plugins and TLS context before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from asyncapy_core.errors import PluginError
from asyncapy_core.logs import describe
from asyncapy_core.protocol.codec import INSTALL_HINT, Codec
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.proxy_header import Proxies
from asyncapy_core.protocol.wire import WireFormat
from asyncapy_core.server.admission import connection_limit
from asyncapy_core.server.isolation import CancellationWatch, PeerTasks, is_cancellation
from asyncapy_core.server.session_contexts import SessionContexts
from asyncapy_core.server.session_table import SessionTable
from asyncapy_core.server.state import ServerState

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.config.sources import PluginOptions
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.plugins.bound_hook import BoundHook
    from asyncapy_core.plugins.manager import PluginManager
    from asyncapy_core.routing.dispatch import Dispatcher
    from asyncapy_core.server.counters import Counters
    from asyncapy_core.server.threads import ThreadCalls


def prepare_plugins(plugins: PluginManager, config: ServerConfig, options: PluginOptions) -> list[Codec]:
    """Load all plugins, validate their options, check ``plugins_require``, and return the codecs.

    Raises:
        PluginError: no codec is installed, or a required plugin is missing.
        ConfigError: the options of a plugin are wrong.
    """
    plugins.check_options(options)
    plugins.load_all()
    codecs = plugins.codecs(options)
    plugins.require(config.plugins_require)
    if not codecs:
        raise PluginError(f"no codec is installed, so no packet could be read; {INSTALL_HINT}")
    return codecs


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Return the TLS context of a server, or None without TLS.

    Raises:
        ConfigError: a file of the configuration cannot be read or used.
    """
    if config.tls_cert is None:
        return None
    from asyncapy_core.net.tls import server_context  # noqa: PLC0415  # only with TLS

    return server_context(config.tls_cert, config.tls_key, config.tls_client_ca)


@asynccontextmanager
async def serving(
    server: ServerInterface,
    dispatcher: Dispatcher,
    codecs: Iterable[Codec],
    tls: ssl.SSLContext | None,
    threads: ThreadCalls,
    counters: Counters,
    contexts: Sequence[BoundHook],
) -> AsyncIterator[ServerState]:
    """Create the state of a server for the block; after it, drain the server.

    Args:
        server: the server, for `Client.server`.
        dispatcher: its handlers.
        codecs: the codecs.
        tls: the TLS context, or None without TLS.
        threads: the blocking calls of handlers, which are abandoned if they outlast the drain.
        counters: its counters.
        contexts: the hooks whose context managers are around each session.
    """
    failure: BaseException | None = None
    watch = CancellationWatch()
    with ExitStack() as stack:
        try:
            async with trio.open_nursery() as nursery:
                peers = PeerTasks(nursery, watch, server.log)
                stack.enter_context(peers.dropped.collected())
                await nursery.start(watch.run)
                state = _make_state(server, dispatcher, codecs, tls, peers, counters)
                if contexts:
                    state.contexts = SessionContexts(contexts, peers, server.config.timeout)
                try:
                    for deadlines in state.deadlines:
                        nursery.start_soon(deadlines.run)
                    nursery.start_soon(state.disconnects.run)
                    yield state
                    state.drain()
                    for deadlines in (state.leaving, state.writing, state.proxying, state.handshaking):
                        nursery.start_soon(deadlines.run)
                    await _drain(state)
                except BaseException as error:  # a failure is raised again outside the nursery
                    if is_cancellation(error):
                        state.drop_all()
                        raise
                    failure = error
                finally:
                    threads.abandon()
                    nursery.cancel_scope.cancel()
                    await peers.end()
        except BaseExceptionGroup as group:
            through, corrupted = peers.split(group)
            if corrupted is not None:  # all other failures are caught by PeerTasks
                server.log.error("{Server} A handler left a nursery open in its task: %s", describe(group))
            failure = failure or through
    if failure is not None:
        raise failure


def _make_state(
    server: ServerInterface,
    dispatcher: Dispatcher,
    codecs: Iterable[Codec],
    tls: ssl.SSLContext | None,
    peers: PeerTasks,
    counters: Counters,
) -> ServerState:
    config = server.config
    return ServerState(
        server=server,
        config=config,
        encodings=EncodingRegistry(codecs, WireFormat(config.header_size, config.byteorder, config.max_packet)),
        dispatcher=dispatcher,
        sessions=SessionTable(config.session_limit),
        log=server.log,
        peers=peers,
        max_connections=connection_limit(config.max_connections),
        counters=counters,
        tls=tls,
        proxies=Proxies(config.proxy_protocol_from),
    )


async def _drain(state: ServerState) -> None:
    """Wait until the running handlers have finished, for at most ``drain_timeout`` seconds."""
    state.log.info("{Server} Stopping; %d connections are open", len(state.connections))
    with trio.move_on_after(state.config.drain_timeout) as scope:
        await state.idle.wait()
        if state.contexts is not None:
            await state.contexts.wait_until_left()
    if scope.cancelled_caught:
        left = len(state.connections) + len(state.refused) + len(state.handshakes)
        state.log.warning("{Server} %d connections did not finish in time", left)
        for hook in () if state.contexts is None else state.contexts.hold_ups:
            state.log.error("{Server} %s was not left in time", hook)
