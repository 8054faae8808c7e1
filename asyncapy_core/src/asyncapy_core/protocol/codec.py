"""The `Codec` protocol. Codecs come from plugins, through the ``asyncapy_codecs`` hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

INSTALL_HINT = "pip install asyncapy-codecs brings JSON and ZiProto"


@runtime_checkable
class Codec(Protocol):
    """Encodes the fields of a packet as a payload, and decodes payloads (docs/protocol.md, "A packet").

    It carries maps with string keys, lists, strings, finite numbers, booleans and None, nested at least 64 deep, in
    their order. `encode` accepts all fields that `decode` returns, as a handler may send any packet back.
    `asyncapy_core.testing.CodecContract` tests this.

    Attributes:
        name: the name of the encoding, such as ``"json"``.
        wire_id: the Content-Encoding byte; plugins may use 2 to 255.
    """

    @property
    def name(self) -> str: ...

    @property
    def wire_id(self) -> int: ...

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return the payload for these fields.

        Raises:
            EncodeError: a field cannot be encoded; the message names the field and the reason.
        """

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload, a map with string keys.

        Raises:
            DecodeError: the payload is not exactly one such map. The message is logged; it must not quote the payload,
                which may hold a key.
        """
