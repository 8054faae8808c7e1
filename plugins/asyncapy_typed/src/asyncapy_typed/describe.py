"""`describe_server`: the description of a server in the format of AsyncAPI 3.0.

All packets are messages of one channel, and each handler is an operation. Facts for which AsyncAPI has no place are in
fields that begin with ``x-asyncapy``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.errors import ErrorCode
from asyncapy_typed.described_handlers import DescribedHandler, camel_case, failure
from asyncapy_typed.schemas import Schemas, legal_key

if TYPE_CHECKING:
    from asyncapy_core import Server

ASYNCAPI: Final = "3.0.0"
PROTOCOL: Final = "asyncaproto"
CHANNEL: Final = "packets"
SERVER_FAILURE: Final = "server.failure"
"""The message for the failures that the server answers with, whatever the operation is."""

VERSIONS: Final = [22, 23]
"""The versions of the protocol that a server serves."""

_WILDCARDS: Final = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104  # they are recognized, and not bound to
_STANDARD: Final = (
    ErrorCode.NO_HANDLER,
    ErrorCode.HANDLER_FAILED,
    ErrorCode.NO_REPLY,
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.HEADER_INVALID,
    ErrorCode.PACKET_TOO_LARGE,
    ErrorCode.TIMED_OUT,
    ErrorCode.SESSION_LIMIT_REACHED,
    ErrorCode.SERVER_BUSY,
)


def describe_server(
    server: Server, *, title: str = "AsyncAPY server", version: str = "0.0.0", host: str | None = None
) -> dict[str, Any]:
    """Return the description of a server as an object of AsyncAPI 3.0, to be written as JSON.

    The server need not serve. Handlers that its setup registers are described after the setup only.

    Args:
        server: the server.
        title: the name of the application.
        version: the version of the application.
        host: the host and port for clients; None for the addresses of the settings.

    Raises:
        TypeError: the parameters or annotations of a handler are wrong.
    """
    schemas = Schemas()
    guards = [filter for guard in server.guards for filter in guard.filters]
    groups = server.handlers
    described = [DescribedHandler(handler, guards, schemas) for group in sorted(groups) for handler in groups[group]]
    document = _Document(schemas)
    for handler in described:
        document.add(handler)
    servers = _servers(server, host)
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "servers": servers,
        "channels": {
            CHANNEL: {
                "address": None,
                "title": "Packets",
                "description": "A session carries any number of packets, in both directions.",
                "servers": [{"$ref": f"#/servers/{name}"} for name in servers],
                "messages": document.messages,
            }
        },
        "operations": document.operations,
        "components": {"schemas": schemas.named, "securitySchemes": document.schemes},
    }


class _Document:
    """The parts of a description that grow with each handler.

    Args:
        schemas: is given the schemas of failures.

    Attributes:
        messages, operations, schemes: the parts, by key.
    """

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        standard = failure(_STANDARD, has_all=True)
        standard["properties"]["operations"] = {
            "type": "array",
            "items": {"type": "string"},
            "description": "Operations whose names are close to that of the packet, with ERR_NO_HANDLER.",
        }
        self.messages: dict[str, Any] = {
            SERVER_FAILURE: {
                "name": SERVER_FAILURE,
                "title": "Failure of any request",
                "summary": "The packet reaches no handler, the handler fails, or the session ends.",
                "payload": schemas.name("ServerFailure", standard, ""),
            }
        }
        self.operations: dict[str, Any] = {}
        self.schemes: dict[str, Any] = {}
        self._scheme_keys: dict[str, str] = {}

    def add(self, handler: DescribedHandler) -> None:
        """Add the operation and the messages of a handler."""
        key = _free(legal_key(handler.name), self.operations)
        answers = "Each answer" if handler.streams else "The answer"
        replies = [self._message(f"{key}.answer", f"{answers} of {handler.name}", handler.answer)]
        if handler.codes or not handler.has_all_codes:
            schema = failure(handler.codes, has_all=handler.has_all_codes)
            name = f"{camel_case(handler.name)}Failure" if handler.has_all_codes else "Failure"
            named = self._schemas.name(name, schema, "")
            replies.append(self._message(f"{key}.failure", f"Failure of {handler.name}", named))
        replies.append(_message_reference(SERVER_FAILURE))
        request = self._message(f"{key}.request", f"Request of {handler.name}", handler.request())
        operation: dict[str, Any] = {"action": "receive", "channel": {"$ref": f"#/channels/{CHANNEL}"}}
        operation["title"] = handler.name
        description = handler.description
        if handler.streams:
            note = "The request has any number of answers; in version 23, an END or a failure follows the last one."
            description = f"{description}\n\n{note}" if description else note
            operation["x-asyncapy-stream"] = True
        operation |= {"summary": handler.summary} if handler.summary else {}
        operation |= {"description": description} if description else {}
        if handler.operation is not None:
            operation["x-asyncapy-operation"] = dict(zip(("field", "name"), handler.operation, strict=True))
        if handler.secrets:
            operation["security"] = [self._scheme(field, text) for field, text in handler.secrets.items()]
        operation["messages"] = [request]
        operation["reply"] = {"channel": {"$ref": f"#/channels/{CHANNEL}"}, "messages": replies}
        self.operations[key] = operation

    def _message(self, key: str, title: str, payload: dict[str, Any]) -> dict[str, str]:
        key = _free(key, self.messages)
        self.messages[key] = {"name": key, "title": title, "payload": payload}
        return _message_reference(key)

    def _scheme(self, field: str, description: str) -> dict[str, str]:
        """Return a reference to the security scheme for a secret in a field of the packet."""
        key = self._scheme_keys.get(field)
        if key is None:
            key = self._scheme_keys[field] = _free(legal_key(field), self.schemes)
            self.schemes[key] = {
                "type": "apiKey",
                "in": "password",
                "description": f"{description[:1].upper()}{description[1:]}, in the field {field!r} of the packet.",
                "x-asyncapy-field": field,
            }
        return {"$ref": f"#/components/securitySchemes/{key}"}


def _message_reference(key: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{CHANNEL}/messages/{key}"}


def _free(key: str, taken: Iterable[str]) -> str:
    """Return a key that is not taken: itself, or with a number."""
    found, number = key, 1
    while found in taken:
        number += 1
        found = f"{key}_{number}"
    return found


def _servers(server: Server, host: str | None) -> dict[str, Any]:
    """Return the servers of a description: one for each address."""
    config = server.config
    hosts = [host] if host is not None else [_host(address, config.port) for address in config.addresses]
    facts = {
        "versions": VERSIONS,
        "tls": config.tls_cert is not None,
        "header_size": config.header_size,
        "byteorder": config.byteorder,
        "max_packet": config.max_packet,
    }
    described: dict[str, Any] = {}
    for each in dict.fromkeys(hosts):
        described[_free("main", described)] = {
            "host": each,
            "protocol": PROTOCOL,
            "protocolVersion": str(VERSIONS[-1]),
            "description": "AsyncAProto; clients of version 22 are served, too.",
            "x-asyncapy": facts,
        }
    return described


def _host(address: str, port: int) -> str:
    if address.startswith("unix:"):
        return address
    host = "localhost" if address in _WILDCARDS else f"[{address}]" if ":" in address else address
    return f"{host}:{port}"
