"""The ``ziproto`` package as an engine, for comparison with the default engine.

The package cannot read maps and arrays of more than 15 items, writes empty bytes without their length, and takes
seconds for some small payloads. So its input and output are checked, and the engine is for loopback and tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncapy_core.errors import DecodeError, EncodeError


class Reference:
    """Encodes and decodes with the ``ziproto`` package.

    Args:
        decode: the decoder of the default engine, with which encoded payloads are checked.
    """

    def __init__(self, decode: Callable[[bytes], dict[str, Any]]) -> None:
        import ziproto  # noqa: PLC0415  # only if this engine is chosen

        self._package = ziproto
        self._decode = decode

    def encode(self, fields: dict[str, Any]) -> bytes:
        """Return the payload of fields that hold only types of ZiProto.

        Raises:
            EncodeError: the package writes these fields wrongly.
        """
        plain = _owned(fields)
        payload = bytes(self._package.encode(plain))
        try:
            right = self._decode(payload) == plain
        except DecodeError:
            right = False
        if not right:
            raise EncodeError("the reference engine writes these fields wrongly: use the default engine")
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload that the default engine has accepted.

        Raises:
            DecodeError: the package cannot read it.
        """
        try:
            fields: dict[str, Any] = _owned(self._package.decode(payload))
        except Exception as error:  # a fault in the package may raise any exception
            raise DecodeError(f"the reference engine cannot read this: {type(error).__name__}: {error}") from error
        return fields


def _owned(value: Any) -> Any:
    """Copy a value: memoryviews and bytearrays become bytes, tuples become lists."""
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    if isinstance(value, dict):
        return {key: _owned(item) for key, item in value.items()}
    return [_owned(item) for item in value] if isinstance(value, (list, tuple)) else value
