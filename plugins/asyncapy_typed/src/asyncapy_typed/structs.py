"""`StructType`: structs of msgspec, which is imported only for these."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Union, get_origin

from asyncapy_typed.errors import Problem
from asyncapy_typed.model_types import ModelType, members_of, name_of_type, no_fields, wrong_type

_ERROR: Final = re.compile(r"(.*?)(?: - at (?:`key` in )?`\$((?:\.[^.\[\]`]+|\[[^\]`]*\])*)`)?", re.DOTALL)
"""The text of an error of msgspec: a reason, and a path such as ``$.books[0].title``, with ``[...]`` for any key."""

_PLACE: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
"""The parts of a path."""

_NAMED: Final = re.compile(r"Object (?:missing required field|contains unknown field) `(.*)`", re.DOTALL)

_WITH_VALUE: Final = re.compile(r"(Invalid (?:enum )?value) (?:'.*'|\".*\"|-?\d+)", re.DOTALL)
"""A reason that quotes the value of the packet."""


class StructType(ModelType):
    """A ``Struct`` of msgspec, or a union of them, which have tags.

    Raises:
        TypeError: msgspec cannot validate it.
    """

    def __init__(self, kind: Any) -> None:
        import msgspec  # noqa: PLC0415  # it is installed, as there is a struct

        self.errors: tuple[type[Exception], ...] = (msgspec.ValidationError,)
        kind = Union[members_of(kind)]  # msgspec does not know names given to types  # noqa: UP007
        self.kind: Any = kind
        try:
            msgspec.inspect.type_info(kind)
        except (NameError, TypeError) as error:
            raise TypeError(f"msgspec cannot validate {name_of_type(kind)}: {error}") from error
        convert, to_builtins = msgspec.convert, msgspec.to_builtins
        structs = tuple(get_origin(each) or each for each in members_of(kind) if each is not type(None))
        for each in structs:
            if each.__struct_config__.array_like:
                raise no_fields(each, "list")
        self.sees_others: bool = any(each.__struct_config__.forbid_unknown_fields for each in structs)

        def validate(fields: Mapping[str, Any]) -> Any:
            return convert(fields, kind)

        def dump(model: Any) -> Any:
            if type(model) is not kind and not isinstance(model, structs):
                raise wrong_type(model, kind)
            return to_builtins(model, builtin_types=(bytes,))

        self.validate: Callable[[Mapping[str, Any]], Any] = validate
        self.dump: Callable[[Any], Any] = dump

    def problems(self, error: Exception, fields: Mapping[str, Any]) -> list[Problem]:
        parts = _ERROR.fullmatch(str(error))
        assert parts is not None
        reason, path = parts[1], parts[2] or ""
        place: list[object] = [int(index) if index.isdigit() else name or index for name, index in _PLACE.findall(path)]
        if named := _NAMED.fullmatch(reason):
            place.append(named[1])
        if quoting := _WITH_VALUE.fullmatch(reason):
            reason = quoting[1]
        return [(place, reason)]

    def schema(self, *, of_answer: bool, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        import msgspec  # noqa: PLC0415  # as above

        (schema,), components = msgspec.json.schema_components(
            [self.kind], schema_hook=_unknown, ref_template=reference.replace("{model}", "{name}")
        )
        return schema, components


def is_struct(kind: Any) -> bool:
    """Return True for a ``Struct`` of msgspec, and for a union of them."""
    msgspec = sys.modules.get("msgspec")  # a program with a struct has imported it
    if msgspec is None:
        return False
    members = [get_origin(each) or each for each in members_of(kind) if each is not type(None)]
    return bool(members) and all(isinstance(each, type) and issubclass(each, msgspec.Struct) for each in members)


def _unknown(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type that msgspec does not know: any value. An empty one would count as none."""
    return {"description": name_of_type(kind)}
