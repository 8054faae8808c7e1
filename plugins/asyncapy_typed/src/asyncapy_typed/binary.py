"""`Binary`: fields of bytes in models of pydantic, which are base64 in JSON; and the values of secrets."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, Secret, SecretBytes, SecretStr, WithJsonSchema
from pydantic_core import to_jsonable_python

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""The types of the values in a packet that have no others in them."""


def from_base64(value: Any) -> Any:
    """Return the bytes of a text in base64; any other object as it is.

    Raises:
        ValueError: the text is not base64.
    """
    if not isinstance(value, str):
        return value
    try:
        return b64decode(value, validate=True)
    except ValueError:
        raise ValueError("it must be bytes, or text in base64") from None


def to_base64(value: bytes) -> str:
    """Return the text for bytes in base64."""
    return b64encode(value).decode("ascii")


Binary: TypeAlias = Annotated[
    bytes,
    BeforeValidator(from_base64),
    PlainSerializer(to_base64, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""The type of a field of bytes in a model of pydantic: base64 in JSON, and bytes in encodings that have them."""


def is_plain(value: Any) -> bool:
    """Return True if a value, with all values in it, is of types that packets have."""
    kind = type(value)
    if kind is dict:
        return all(type(name) is str and is_plain(each) for name, each in value.items())
    return all(map(is_plain, value)) if kind is list else kind in _PLAIN


def with_bytes(fields: Any, in_json: Any, *, reveal: bool = False) -> Any:
    """Return the JSON form of fields, with the bytes of the fields in place of their text.

    Args:
        fields: the fields.
        in_json: their JSON form.
        reveal: whether secrets of the fields, such as a ``SecretStr``, stand for their value, and not for asterisks.
    """
    if isinstance(fields, bytes):  # those of other types than `Binary` have a text of their own
        return fields if in_json == to_base64(fields) else in_json
    if reveal and isinstance(fields, (Secret, SecretStr, SecretBytes)):
        secret = fields.get_secret_value()
        return secret.decode() if isinstance(secret, bytes) else to_jsonable_python(secret)
    if isinstance(in_json, dict) and isinstance(fields, Mapping):
        values = zip(fields.values(), in_json.items(), strict=True)
        return {name: with_bytes(each, text, reveal=reveal) for each, (name, text) in values}
    if isinstance(in_json, list) and isinstance(fields, Iterable) and not isinstance(fields, str):
        return [with_bytes(each, text, reveal=reveal) for each, text in zip(fields, in_json, strict=True)]
    return in_json
