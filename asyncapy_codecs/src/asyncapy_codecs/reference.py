"""The ``ziproto`` package as an engine, to compare the default engine with.

It cannot read maps and arrays of more than 15 items, writes empty bytes without their length, and takes seconds for
some small payloads: what goes in and out of it is checked, and it is for loopback and tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncapy_core.errors import DecodeError, EncodeError


class Reference:
    """Encodes and decodes with the ``ziproto`` package.

    Args:
        decode: the decoder of the default engine, which what is sent is checked with.
    """

    def __init__(self, decode: Callable[[bytes], dict[str, Any]]) -> None:
        import ziproto  # noqa: PLC0415  # only for those who ask for it

        self._package = ziproto
        self._decode = decode

    def encode(self, fields: dict[str, Any]) -> bytes:
        """Return the payload of fields that hold nothing but what ZiProto has.

        Raises:
            EncodeError: the package writes these wrongly.
        """
        plain = _owned(fields)
        payload = bytes(self._package.encode(plain))
        try:
            right = self._decode(payload) == plain
        except ValueError:
            right = False
        if not right:
            raise EncodeError("the reference engine writes these fields wrongly: use the default engine")
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload that the default engine found well formed.

        Raises:
            DecodeError: the package cannot read it.
        """
        try:
            fields: dict[str, Any] = _owned(self._package.decode(payload))
        except Exception as error:  # the package raises whatever its slip leads to
            raise DecodeError(f"the reference engine cannot read this: {type(error).__name__}: {error}") from error
        return fields


def _owned(value: Any) -> Any:
    """Return a value with its views of bytes copied, and its tuples as lists."""
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if isinstance(value, dict):
        return {key: _owned(item) for key, item in value.items()}
    return [_owned(item) for item in value] if isinstance(value, (list, tuple)) else value
