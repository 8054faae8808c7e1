"""`Packet`, the mapping that handlers receive and send.

Its text form is JSON of the standard library's `json`; payloads on the wire are the work of codecs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from asyncapy_core.errors import StopPropagation

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ClientInterface, HandlerInterface


class Packet(MutableMapping[str, Any]):
    """The fields of one packet, and the encoding to send it in. It behaves like a dictionary.

    Args:
        fields: a mapping, or a JSON object as text or UTF-8 bytes.
        encoding: the name of a codec: ``"json"``, ``"ziproto"``, or a plugin's.
        sender: the client that sent the packet, set by the server. `Client.send` sends a packet with a sender in the
            encoding of the session, and a packet without one in its own encoding (docs/protocol.md, "A session").

    Attributes:
        handler: the last handler that the server called with this packet; None before, and outside a server.
        context: the findings of filters and guards, by name, such as ``packet.context["api_key"]``; empty at first, and
            never sent.
        memo: a place for filters to keep an answer about this packet, by a key of their own, so that several handlers
            with equal filters ask only once.
        refused_by: the guard, or the handler, whose filter has ended the dispatch with an exception; set by the server.

    Raises:
        TypeError: ``fields`` or ``encoding`` is of another type, or a key is not a string.
        ValueError: the text is not a JSON object.
    """

    __slots__ = ("_context", "_memo", "_refused_by", "encoding", "fields", "handler", "sender")

    handler: HandlerInterface | None
    _context: dict[str, Any]
    _memo: dict[object, Any]
    _refused_by: HandlerInterface

    def __init__(
        self, fields: Mapping[str, Any] | str | bytes, encoding: str = "json", sender: ClientInterface | None = None
    ) -> None:
        if not isinstance(encoding, str):
            raise TypeError(f"encoding is {encoding!r}; it must be the name of a codec, such as 'json'")
        self.fields: dict[str, Any] = parse_fields(fields)
        self.encoding: str = encoding
        self.sender: ClientInterface | None = sender
        self.handler = None

    @property
    def context(self) -> dict[str, Any]:
        context: dict[str, Any]
        try:
            context = self._context
        except AttributeError:  # most packets need none
            context = self._context = {}
        return context

    @property
    def memo(self) -> dict[object, Any]:
        memo: dict[object, Any] | None = getattr(
            self, "_memo", None
        )  # quicker than an exception; most packets need none
        if memo is None:
            memo = self._memo = {}
        return memo

    @property
    def refused_by(self) -> HandlerInterface | None:
        return getattr(self, "_refused_by", None)

    @refused_by.setter
    def refused_by(self, handler: HandlerInterface) -> None:
        self._refused_by = handler

    def stop_propagation(self) -> NoReturn:
        """Keep the packet from the handlers of later groups.

        Raises:
            StopPropagation: always; do not catch it. ``await packet.stop_propagation()`` does the same.
        """
        raise StopPropagation("no later group sees this packet")

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
        except (TypeError, ValueError, RecursionError):  # not JSON: a handler may put any object into it
            text = repr(self.fields)
        return f"Packet({text})"

    def __repr__(self) -> str:
        """Return a summary without the values: a repr ends up in logs and tracebacks, and values may be secrets."""
        return f"<Packet of {len(self.fields)} fields, encoding={self.encoding!r}>"


class SharedPacket:
    """A packet for many sessions, which is encoded once for each encoding: `Session.send` and `send_nowait` take it.

    Args:
        fields: as for `Packet`. They are copied, so that a later change of them has no effect.

    Attributes:
        fields: the copy.

    Raises:
        TypeError, ValueError: as for `Packet`.
    """

    __slots__ = ("_encoded", "fields")

    def __init__(self, fields: Mapping[str, Any] | str | bytes) -> None:
        self.fields: Mapping[str, Any] = copy.deepcopy(parse_fields(fields))
        self._encoded: dict[object, bytes] = {}

    def packed(self, pack: Callable[[Mapping[str, Any]], bytes]) -> bytes:
        """Return the result of a function for the fields, from a cache after the first call.

        Args:
            pack: returns the packet in an encoding, such as the method of that name of an `Encoding`.

        Raises:
            EncodeError: the fields cannot be encoded.
        """
        data = self._encoded.get(pack)
        if data is None:
            data = self._encoded[pack] = pack(self.fields)
        return data

    def __repr__(self) -> str:
        """Return a summary without the values, as for `Packet`."""
        return f"<SharedPacket of {len(self.fields)} fields>"


def parse_fields(fields: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """Return the fields of a mapping, or of a JSON object as text or UTF-8 bytes.

    Raises:
        TypeError: ``fields`` is of another type, or a key is not a string.
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
