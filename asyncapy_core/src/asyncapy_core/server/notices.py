"""The log lines at the start of a server, with warnings about probable mistakes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from asyncapy_core.addresses import bound_address, is_exposed
from asyncapy_core.server.state import ServerState

if TYPE_CHECKING:
    from asyncapy_core.routing.dispatch import Dispatcher
    from asyncapy_core.routing.handler import Handler


def announce(state: ServerState, addresses: Iterable[Any]) -> None:
    """Log the addresses of a server, and warnings about its configuration.

    Args:
        state: the state of the server.
        addresses: the bound addresses, in the form of the socket module.
    """
    log, config = state.log, state.config
    listening = list(addresses)
    names = ", ".join(map(bound_address, listening)) or "no address"
    log.info("{Server} Serving on %s (codecs: %s)", names, ", ".join(state.encodings))
    if state.max_connections < config.max_connections:
        log.log(
            logging.WARNING if "max_connections" in config.model_fields_set else logging.INFO,
            "{Server} At most %d connections rather than %d, as this process may open no more files: see ulimit -n",
            state.max_connections,
            config.max_connections,
        )
    if not state.dispatcher.groups:
        log.warning(
            "{Server} No handler is registered, so every packet is answered with ERR_NO_HANDLER; register them where "
            "the program makes the server, not under if __name__ == '__main__'"
        )
    for group, handlers in state.dispatcher.groups.items():
        for later, earlier in _unreachable(handlers):
            log.warning(
                "{Server} '%s' in group %d can never run: '%s', before it, takes all of its packets; "
                "register it first, or in another group",
                later.name,
                group,
                earlier.name,
            )
    if state.tls is None and not _authenticates(state.dispatcher) and any(map(is_exposed, listening)):
        log.warning(
            "{Server} Every host that reaches this address can use every handler, and the traffic is not encrypted: "
            "set tls_cert, add a guard (@server.guard) or a filter for API keys (Filters.APIFactory), or bind to "
            "127.0.0.1"
        )


def _authenticates(dispatcher: Dispatcher) -> bool:
    """Return True if there is a guard, or a filter that authenticates peers."""
    filters = [filter for group in dispatcher.groups.values() for handler in group for filter in handler.filters]
    return bool(dispatcher.guards) or any(filter.authenticates for filter in filters)


def _unreachable(handlers: Sequence[Handler]) -> Iterator[tuple[Handler, Handler]]:
    """Yield the handlers of a group that are never called, each with the handler before it that takes its packets."""
    for position, later in enumerate(handlers):
        for earlier in handlers[:position]:
            if all(filter in later.filters for filter in earlier.filters):
                yield later, earlier
                break
