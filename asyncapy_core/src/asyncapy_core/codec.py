"""What a codec is, and the set of codecs that one server or client speaks.

Knows no codec by name: they arrive through the ``asyncapy_codecs`` hook.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from asyncapy_core.errors import PluginError, UnknownCodec

INSTALL_HINT = "pip install asyncapy-codecs brings JSON and ZiProto"


@runtime_checkable
class Codec(Protocol):
    """Turns the fields of a packet into a payload and back (WIRE.md, "A packet", Content-Encoding).

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


class CodecRegistry:
    """The codecs of one server or client, by name and by wire id."""

    __slots__ = ("_by_name", "by_id")

    def __init__(self, codecs: Iterable[Codec]) -> None:
        self.by_id: dict[int, Codec] = {}
        self._by_name: dict[str, Codec] = {}
        for codec in codecs:
            if codec.name in self._by_name or codec.wire_id in self.by_id:
                raise PluginError(f"codec {codec.name!r} (wire id {codec.wire_id}) is there twice")
            self._by_name[codec.name] = self.by_id[codec.wire_id] = codec

    @property
    def default(self) -> Codec:
        """The codec spoken before the peer has chosen one: that with the lowest wire id, JSON where it is there."""
        if not self.by_id:
            raise UnknownCodec(f"no codec is installed; {INSTALL_HINT}")
        return self.by_id[min(self.by_id)]

    def named(self, name: str) -> Codec:
        """Return the codec of this name.

        Raises:
            UnknownCodec: there is none; the message lists those that are installed.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise UnknownCodec(f"no codec is called {name!r} (installed: {known}); {INSTALL_HINT}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, lowest wire id first."""
        return (self.by_id[wire_id].name for wire_id in sorted(self.by_id))

    def __len__(self) -> int:
        return len(self.by_id)
