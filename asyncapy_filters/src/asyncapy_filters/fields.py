"""Filters for the names and values of a packet's fields."""

from __future__ import annotations

import re
from typing import Any, ClassVar, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError

from asyncapy_core import Client, Filter, Packet, Prefix

FieldPattern: TypeAlias = str | re.Pattern[str] | None
"""A regular expression for `re.match`, or None for any value."""

_LITERAL = re.compile(r"(\^|\\A)?(?P<text>([^\\.^$*+?{}\[\]|()]|\\[^a-zA-Z0-9])*)(?P<end>\$|\\[Zz])?", re.DOTALL)
"""An expression without special characters, apart from those for its beginning and end."""
_OTHER_TYPES = re.compile(r"None|True|False|[-+]?(\d|\.|inf|nan).*", re.IGNORECASE)
"""Texts that ``str()`` may return for a value that is no string, and some more."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

_patterns = TypeAdapter(dict[str, FieldPattern], config=ConfigDict(arbitrary_types_allowed=True, strict=True))


class HasFields(Filter):
    """Passes packets that have at least these fields.

    Args:
        fields: None for any value, or a regular expression that has to match at the beginning of the value, as in
            `re.match`. Numbers, booleans and null are matched in the form of ``str()``. Bytes, maps and arrays
            match no expression, and neither do strings of more than ``max_length`` characters.

    Attributes:
        max_length: characters of the longest string that is matched, 8,192 unless a subclass sets it. The time that an
            expression takes may grow with the square of the length, or faster.

    Raises:
        ValueError: a value is neither None nor a regular expression.
    """

    max_length: ClassVar[int] = 8 * 1024

    def __init__(self, /, **fields: FieldPattern) -> None:
        self.names: frozenset[str] = frozenset(_validated(type(self).__name__, fields))
        self._expected = fields
        self._matchers = [(name, _compiled(name, pattern)) for name, pattern in fields.items() if pattern is not None]

    def check(self, c: Client, p: Packet) -> bool:
        """Return True if the packet has all these fields and their values match."""
        if self._matchers:
            return p.fields.keys() >= self.names and self._values_match(p)
        return p.fields.keys() >= self.names

    def selects(self) -> tuple[str, str] | None:
        """Return the first field whose expression has no special characters, and its text."""
        if type(self).check not in (HasFields.check, Fields.check):
            return None  # a subclass that decides in another way
        for name, pattern in self._matchers:
            text = _literal(pattern)
            if text is not None:
                return name, text
        return None

    def schema(self) -> dict[str, Any]:
        """Return a schema with the names of the fields, and with their expressions where these are of JSON Schema."""
        matchers = dict(self._matchers)
        properties = {name: _value_schema(matchers.get(name)) for name in self._expected}
        return {"properties": properties, "required": list(self._expected)}

    def _values_match(self, packet: Packet) -> bool:
        for name, pattern in self._matchers:
            value: Any = packet.fields[name]
            if type(value) is not str:
                if isinstance(value, (bytes, dict, list, tuple)):
                    return False
                value = str(value)
            if len(value) > self.max_length or pattern.match(value) is None:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HasFields):
            return NotImplemented
        return type(self) is type(other) and self._expected == other._expected

    def __hash__(self) -> int:
        return hash((type(self), self.names))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={pattern!r}' for name, pattern in self._expected.items())})"


class Fields(HasFields):
    """Passes packets that have exactly these fields; the arguments are those of `HasFields`."""

    def check(self, c: Client, p: Packet) -> bool:
        """Return True if the packet has these fields and no others, and their values match."""
        if self._matchers:
            return p.fields.keys() == self.names and self._values_match(p)
        return p.fields.keys() == self.names

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "additionalProperties": False}


def _validated(title: str, fields: dict[str, Any]) -> dict[str, FieldPattern]:
    try:
        return _patterns.validate_python(fields)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        raise ValueError(
            f"Filters.{title}({name}={fields[str(name)]!r}): a field takes None, for any value, or a regular expression"
        ) from error


def _compiled(name: str, pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}={pattern!r} is not a regular expression: {error}") from error


def _value_schema(pattern: re.Pattern[str] | None) -> dict[str, Any]:
    """Return the JSON Schema of a value, which is matched at its beginning in the form of ``str()``."""
    if pattern is None:
        return {}
    literal = _literal(pattern)
    if isinstance(literal, Prefix):
        return {"pattern": f"^{re.escape(literal)}"}
    if literal is None or _OTHER_TYPES.fullmatch(literal):
        return {"description": f"matches {pattern.pattern}"}
    return {"const": literal}


def _literal(pattern: re.Pattern[str]) -> str | None:
    r"""Return the text that an expression stands for, a `Prefix` unless it ends in ``\Z``.

    None if it has special characters.
    """
    if pattern.flags != re.UNICODE:
        return None
    literal = _LITERAL.fullmatch(pattern.pattern)
    if literal is None:
        return None
    text = _ESCAPE.sub(r"\1", literal["text"])
    return text if literal["end"] in (r"\Z", r"\z") else Prefix(text)
