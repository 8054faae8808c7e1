"""What a server says when it begins to serve, and what may surprise whoever runs it."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from typing import Any

from asyncapy_core.listener import UNIX
from asyncapy_core.service import Service


def announce(service: Service, addresses: Iterable[Any]) -> None:
    """Log where a server listens, and what is worth a second look.

    Args:
        service: the server that is about to serve.
        addresses: where it listens, as the socket module has them.
    """
    log, config = service.log, service.config
    listening = list(addresses)
    log.info("{Server} Serving on %s (codecs: %s)", ", ".join(map(_shown, listening)), ", ".join(service.codecs))
    if service.max_connections < config.max_connections:
        log.log(
            logging.WARNING if "max_connections" in config.model_fields_set else logging.INFO,
            "{Server} At most %d connections rather than %d, as this process may open no more files: see ulimit -n",
            service.max_connections,
            config.max_connections,
        )
    if service.tls is None and not service.dispatcher.authenticates and any(map(_is_exposed, listening)):
        log.warning(
            "{Server} Anybody who reaches this address can use every handler, and read what is sent: set tls_cert, "
            "add a guard (@server.guard) or a filter for API keys (Filters.APIFactory), or bind to 127.0.0.1"
        )


def _shown(address: Any) -> str:
    if isinstance(address, str):
        return UNIX + address
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_exposed(address: Any) -> bool:
    """Say whether other machines may reach it."""
    return not isinstance(address, str) and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
