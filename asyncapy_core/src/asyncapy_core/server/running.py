"""A server while it serves: what it needs before, its state meanwhile, and draining it at the end.

Knows no listener: who comes in is the business of `admission`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
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
from asyncapy_core.server.session_table import SessionTable
from asyncapy_core.server.state import ServerState

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.config import PluginOptions, ServerConfig
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.plugins.manager import PluginManager
    from asyncapy_core.routing.dispatch import Dispatcher
    from asyncapy_core.server.threads import ThreadCalls


def prepare_plugins(plugins: PluginManager, config: ServerConfig, options: PluginOptions) -> list[Codec]:
    """Load all plugins with their options, see that those which have to be there are, and return their codecs.

    Raises:
        PluginError: no codec is there, or a plugin that is required is not.
        ConfigError: a plugin does not take the options that it is given.
    """
    plugins.check_options(options)
    plugins.load_all()
    codecs = plugins.codecs(options)
    plugins.require(config.plugins_require)
    if not codecs:
        raise PluginError(f"no codec is installed, so no packet could be read; {INSTALL_HINT}")
    return codecs


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Return what a server speaks TLS with, or None when it does not.

    Raises:
        ConfigError: a file is not there, or not what it should be.
    """
    if config.tls_cert is None:
        return None
    from asyncapy_core.net.tls import server_context  # noqa: PLC0415  # only where TLS is on

    return server_context(config.tls_cert, config.tls_key, config.tls_client_ca)


@asynccontextmanager
async def serving(
    server: ServerInterface,
    dispatcher: Dispatcher,
    codecs: Iterable[Codec],
    tls: ssl.SSLContext | None,
    threads: ThreadCalls,
) -> AsyncIterator[ServerState]:
    """Make the state that all connections of a server share; behind the block, drain it.

    Args:
        server: what its handlers are to find in ``client.server``.
        dispatcher: where packets go.
        codecs: what may be spoken.
        tls: what to speak TLS with, if at all.
        threads: blocking calls of handlers, which are left behind where they outlast the drain.
    """
    failure: BaseException | None = None
    watch = CancellationWatch()
    with ExitStack() as stack:
        try:
            async with trio.open_nursery() as nursery:
                peers = PeerTasks(nursery, watch, server.log)
                stack.enter_context(peers.dropped.collected())
                await nursery.start(watch.run)
                state = _make_state(server, dispatcher, codecs, tls, peers)
                try:
                    for deadlines in state.deadlines:
                        nursery.start_soon(deadlines.run)
                    yield state
                    state.drain()
                    for deadlines in (state.leaving, state.writing):
                        nursery.start_soon(deadlines.run)
                    await _drain(state)
                except BaseException as error:  # raised again, a failure outside of the nursery
                    if is_cancellation(error):
                        state.drop_all()
                        raise
                    failure = error
                finally:
                    threads.abandon()
                    peers.end()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            through, corrupted = peers.split(group)
            if corrupted is not None:  # every other failure has been caught where it happened
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
        tls=tls,
        proxies=Proxies(config.proxy_protocol_from),
    )


async def _drain(state: ServerState) -> None:
    """Let handlers finish what they were given, for at most ``drain_timeout`` seconds."""
    state.log.info("{Server} Stopping; %d connections are open", len(state.connections))
    with trio.move_on_after(state.config.drain_timeout) as scope:
        await state.idle.wait()
    if scope.cancelled_caught:
        left = len(state.connections) + len(state.refused) + len(state.handshakes)
        state.log.warning("{Server} %d connections did not finish in time", left)
