"""`Packet`, the mapping that handlers receive and send.

Its text form is JSON, read and written by the standard library: payloads on the wire are the codecs' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from asyncapy_core.errors import StopPropagation

if TYPE_CHECKING:
    from asyncapy_core.routing.dispatch import Handler
    from asyncapy_core.server.session import Client


class Packet(MutableMapping[str, Any]):
    """The fields of one packet, with the encoding it is to be sent in. It behaves like a dictionary.

    Args:
        fields: a mapping, or a JSON object as text or UTF-8 bytes.
        encoding: the name of a codec, ``"json"`` or ``"ziproto"`` unless a plugin brings others.
        sender: the client that sent it; set by the server. A packet that has a sender is always sent in the encoding
            of the session that it goes to, one that a handler built in its own (docs/protocol.md, "A session").

    Attributes:
        handler: the handler that the server has given it to, the last one where there are several; None elsewhere.

    Raises:
        TypeError: ``fields`` or ``encoding`` is of another type, or a key is not a string.
        ValueError: the text is not a JSON object.
    """

    __slots__ = ("encoding", "fields", "handler", "sender")

    handler: Handler | None

    def __init__(
        self, fields: Mapping[str, Any] | str | bytes, encoding: str = "json", sender: Client | None = None
    ) -> None:
        if not isinstance(encoding, str):
            raise TypeError(f"encoding is {encoding!r}; it must be the name of a codec, such as 'json'")
        self.fields = parse_fields(fields)
        self.encoding = encoding
        self.sender = sender
        self.handler = None

    def stop_propagation(self) -> NoReturn:
        """Keep the packet from the handlers of later groups.

        Raises:
            StopPropagation: always; let it through. ``await packet.stop_propagation()`` does the same.
        """
        raise StopPropagation("no later group is to see this packet")

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    def __setitem__(self, field: str, value: Any) -> None:
        if type(field) is not str:
            raise TypeError(f"a packet's keys must be strings; got {field!r}")
        self.fields[field] = value

    def __delitem__(self, field: str) -> None:
        del self.fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, field: object) -> bool:
        return field in self.fields

    def __str__(self) -> str:
        try:
            text = json.dumps(self.fields, default=repr)
        except (TypeError, ValueError, RecursionError):  # what JSON does not have; a handler may put in anything
            text = repr(self.fields)
        return f"Packet({text})"

    def __repr__(self) -> str:
        """Say what it is without its values, which may be secrets: a repr ends up in logs and tracebacks."""
        return f"<Packet of {len(self.fields)} fields, encoding={self.encoding!r}>"


def parse_fields(fields: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """Return the fields that a mapping, or a JSON object as text or UTF-8 bytes, stands for.

    Raises:
        TypeError: it is of another type, or a key is not a string.
        ValueError: the text is not a JSON object.
    """
    if isinstance(fields, (str, bytes, bytearray)):
        try:
            text = fields if isinstance(fields, str) else fields.decode("utf-8")
            parsed = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a packet's text must be a JSON object: {error}") from error
        if not isinstance(parsed, dict):
            raise ValueError(
                f'a packet\'s text must be a JSON object, such as {{"a": 1}}; got a {type(parsed).__name__}'
            )
        return parsed
    if not isinstance(fields, Mapping):
        raise TypeError(f"a packet is made of a mapping or of JSON text; got a {type(fields).__name__}")
    copy = dict(fields)
    if not all(type(key) is str for key in copy):
        wrong = next(key for key in copy if type(key) is not str)
        raise TypeError(f"a packet's keys must be strings; got {wrong!r}")
    return copy


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
