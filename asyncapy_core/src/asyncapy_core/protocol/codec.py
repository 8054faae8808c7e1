"""What a codec is. No codec is known by name: they arrive through the ``asyncapy_codecs`` hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

INSTALL_HINT = "pip install asyncapy-codecs brings JSON and ZiProto"


@runtime_checkable
class Codec(Protocol):
    """Turns the fields of a packet into a payload and back (docs/protocol.md, "A packet", Content-Encoding).

    Attributes:
        name: what users call the encoding, such as ``"json"``.
        wire_id: the Content-Encoding byte; a plugin may claim 2..255.
    """

    @property
    def name(self) -> str: ...

    @property
    def wire_id(self) -> int: ...

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return the payload that carries these fields.

        Raises:
            EncodeError: a field cannot be carried; the message says which and why.
        """

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload: the whole of it, a map with string keys.

        Raises:
            DecodeError: the payload is anything else.
        """
