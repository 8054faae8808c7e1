"""Taking in what was accepted: each connection is served, told why it is not, or dropped.

Knows the limits, and nothing of what happens on a connection.
"""

from __future__ import annotations

import socket
from typing import Final

from asyncapy_core.connection import Connection
from asyncapy_core.errors import ErrorCode
from asyncapy_core.service import Service
from asyncapy_core.session import peer_address
from asyncapy_core.transport import SocketTransport

MAX_REFUSED: Final = 64
"""How many refused peers are told why at a time; those beyond are dropped."""


def admit(service: Service, sock: socket.socket, host: str) -> None:
    """Make a connection of an accepted socket, and serve or refuse it (WIRE.md, SESSION_LIMIT_REACHED, SERVER_BUSY)."""
    connection = Connection(service, SocketTransport(sock), peer_address(host))
    if len(service.connections) >= service.config.max_connections:
        _refuse(service, connection, ErrorCode.SERVER_BUSY)
    elif not service.sessions.add(connection.session):
        _refuse(service, connection, ErrorCode.SESSION_LIMIT_REACHED)
    else:
        service.connections.add(connection)
        service.spawn(connection.run)


def _refuse(service: Service, connection: Connection, code: ErrorCode) -> None:
    if len(service.refused) >= MAX_REFUSED:
        connection.drop()
        return
    service.refused.add(connection)
    service.spawn(connection.refuse, code)
