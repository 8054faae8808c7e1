"""`ModelType`: validates fields into a model, and turns a model back into fields.

Pydantic does so for its models, dataclasses and typed dictionaries, and for unions of these; msgspec for its structs.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind

from asyncapy_typed.errors import Problem

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

_PLACE: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
"""The parts of a path as msgspec writes it: ``$.books[0].title``, with ``[...]`` for any key of a map."""

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
"""The types of the values in a packet that have no others in them."""

_NAMED: Final = re.compile(r"Object (?:missing required field|contains unknown field) `(.*)`")


class InvalidFields(ValueError):
    """Fields are not those of a model.

    Args:
        problems: the places and reasons, without values.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


class ModelType(ABC):
    """A type of models.

    Args:
        kind: the type, or a union of such types.

    Attributes:
        kind: as given.
        validate: takes the fields of a packet, and returns a model. It raises an exception for `problems`.
        dump: takes a model, and returns its fields. It raises a TypeError for an object of another type.
        errors: the type of the exceptions that ``validate`` raises.
        forbids_others: whether it refuses fields that it does not have.
    """

    kind: Any
    validate: Callable[[Mapping[str, Any]], Any]
    dump: Callable[[Any], Any]
    errors: type[Exception]
    forbids_others: bool

    @abstractmethod
    def problems(self, error: Any) -> list[Problem]:
        """Return the places and reasons of an exception of ``validate``."""

    @abstractmethod
    def schema(self, *, of_answer: bool, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schema, and those of the models that it refers to, by name.

        Args:
            of_answer: whether the fields are those that ``dump`` returns, and not those that ``validate`` takes.
            reference: the form of references, such as ``"#/components/schemas/{model}"``.
        """

    def read(self, fields: Mapping[str, Any]) -> Any:
        """Return the model with these fields.

        Raises:
            InvalidFields: they are not those of one.
        """
        try:
            return self.validate(fields)
        except self.errors as error:
            raise InvalidFields(self.problems(error)) from None

    @property
    def field_names(self) -> frozenset[str]:
        """The names of its fields in a packet."""
        schema, definitions = self.schema(of_answer=False, reference="{model}")
        return frozenset(_property_names(schema, definitions))

    @property
    def name(self) -> str:
        """The name of the type."""
        return name_of_type(self.kind)


class PydanticType(ModelType):
    """A model, dataclass, typed dictionary, or union, which pydantic validates.

    Raises:
        TypeError: pydantic cannot validate this type.
    """

    errors = ValidationError

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        try:
            self._adapter = adapter = TypeAdapter(kind)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, NameError) as error:
            reason = str(error).partition("\n")[0]
            raise TypeError(f"pydantic cannot validate {name_of_type(kind)}: {reason}") from error
        schema: Any = adapter.core_schema
        kinds = set(_bytes_in(schema))
        if "plain" in kinds:
            raise TypeError(
                f"a field of {name_of_type(kind)} is bytes, which JSON has not: annotate it as asyncapy_typed.Binary, "
                "which is base64 in JSON"
            )
        self.validate = adapter.validator.validate_python
        self.dump = _pydantic_dump(kind, adapter, has_bytes="binary" in kinds)
        self.forbids_others = _forbids_others(schema)

    def problems(self, error: ValidationError) -> list[Problem]:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [(each["loc"], each["msg"]) for each in found]

    def schema(self, *, of_answer: bool, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = self._adapter.json_schema(
            mode="serialization" if of_answer else "validation",
            ref_template=reference,
            by_alias=True,
            schema_generator=_Schemas,
        )
        return schema, schema.pop("$defs", {})


class StructType(ModelType):
    """A ``Struct`` of msgspec."""

    def __init__(self, kind: Any) -> None:
        import msgspec  # noqa: PLC0415  # it is installed, as there is a struct

        self.kind = kind
        self.errors = msgspec.ValidationError
        try:
            msgspec.inspect.type_info(kind)
        except (NameError, TypeError) as error:
            raise TypeError(f"msgspec cannot validate {name_of_type(kind)}: {error}") from error
        convert, to_builtins = msgspec.convert, msgspec.to_builtins
        self.forbids_others = bool(kind.__struct_config__.forbid_unknown_fields)

        def validate(fields: Mapping[str, Any]) -> Any:
            return convert(fields, kind)

        def dump(model: Any) -> Any:
            if type(model) is not kind and not isinstance(model, kind):
                raise _wrong_type(model, kind)
            return to_builtins(model, builtin_types=(bytes,))

        self.validate, self.dump = validate, dump

    def problems(self, error: Exception) -> list[Problem]:
        reason, _, path = str(error).partition(" - at `")
        place: list[object] = []
        for name, index in _PLACE.findall(path.removesuffix("`")):
            place.append(int(index) if index.isdigit() else name or index)
        if named := _NAMED.fullmatch(reason):
            place.append(named[1])
        return [(place, reason)]

    def schema(self, *, of_answer: bool, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        import msgspec  # noqa: PLC0415  # as above

        (schema,), components = msgspec.json.schema_components(
            [self.kind], schema_hook=_unknown, ref_template=reference.replace("{model}", "{name}")
        )
        return schema, components


class _Schemas(GenerateJsonSchema):
    """JSON Schemas of any model: a field of a type that JSON Schema cannot express may have any value there."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001  # as in the base class
        """Return True for fields that have a default, too, in the schema of an answer, which always has them."""
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return field.get("serialization_exclude_if") is None
        return super().field_is_required(field, total)

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def _unknown(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type that msgspec does not know: any value. An empty one would count as none."""
    return {"description": name_of_type(kind)}


def model_type(kind: Any) -> ModelType | None:
    """Return the `ModelType` of a type, or None if it is no type of models.

    Raises:
        TypeError: it is one that cannot be used; the message gives the reason.
    """
    if is_struct(kind):
        return StructType(kind)
    return PydanticType(kind) if _is_pydantic(kind) else None


def name_of_type(kind: Any) -> str:
    """Return the name of a type, for messages."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def is_struct(kind: Any) -> bool:
    """Return True for a ``Struct`` of msgspec."""
    msgspec = sys.modules.get("msgspec")  # a program with a struct has imported it
    return msgspec is not None and isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_pydantic(kind: Any) -> bool:
    if is_union(kind):
        members = [member for member in get_args(kind) if member is not type(None)]
        return bool(members) and all(_is_pydantic(member) for member in members)
    kind = get_origin(kind) or kind  # a generic dataclass or typed dictionary with arguments
    if not isinstance(kind, type):
        return False
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or is_typed_dict(kind)


def _pydantic_dump(kind: Any, adapter: TypeAdapter[Any], *, has_bytes: bool) -> Callable[[Any], Any]:
    to_python: Any = adapter.serializer.to_python
    members = [get_origin(each) or each for each in (get_args(kind) if is_union(kind) else (kind,))]
    if any(is_typed_dict(each) for each in members):
        members.append(dict)
    expected = tuple(each for each in members if not is_typed_dict(each))

    def dump(model: Any) -> Any:
        if not isinstance(model, expected):
            raise _wrong_type(model, kind)
        return to_python(model, mode="json", by_alias=True)

    def dump_with_bytes(model: Any) -> Any:
        if not isinstance(model, expected):
            raise _wrong_type(model, kind)
        fields = to_python(model, mode="python", by_alias=True)
        return fields if _is_plain(fields) else _with_bytes(fields, to_python(model, mode="json", by_alias=True))

    return dump_with_bytes if has_bytes else dump


def _is_plain(value: Any) -> bool:
    """Return True if a value, with all values in it, is of types that packets have."""
    kind = type(value)
    if kind is dict:
        return all(type(name) is str and _is_plain(each) for name, each in value.items())
    return all(map(_is_plain, value)) if kind is list else kind in _PLAIN


def _with_bytes(fields: Any, in_json: Any) -> Any:
    """Return the JSON form of fields, with the bytes of the fields in place of their text."""
    if isinstance(fields, bytes):
        return fields
    if isinstance(in_json, dict) and isinstance(fields, Mapping):
        values = zip(fields.values(), in_json.items(), strict=True)
        return {name: _with_bytes(each, text) for each, (name, text) in values}
    if isinstance(in_json, list) and isinstance(fields, Iterable) and not isinstance(fields, str):
        return [_with_bytes(*pair) for pair in zip(fields, in_json, strict=True)]
    return in_json


def is_typed_dict(kind: Any) -> bool:
    """Return True for a ``TypedDict``, of typing or of typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def is_union(kind: Any) -> bool:
    """Return True for ``A | B``."""
    return get_origin(kind) in (Union, types.UnionType)


def _wrong_type(model: object, kind: Any) -> TypeError:
    return TypeError(f"it returned a {type(model).__name__}, and {name_of_type(kind)} is announced")


def _bytes_in(node: Any) -> Iterable[str]:
    """Yield for each bytes in a schema of pydantic-core: ``"binary"`` for `Binary`, ``"plain"`` for others.

    Bytes that a function of the model validates are none of both: such a function knows the form of its input.
    """
    if isinstance(node, (list, tuple)):
        for each in node:
            yield from _bytes_in(each)
    elif isinstance(node, dict):
        inner = node.get("schema")
        if str(node.get("type")).startswith("function-") and isinstance(inner, dict) and inner.get("type") == "bytes":
            if node["function"].get("function") is from_base64:
                yield "binary"
        elif node.get("type") == "bytes":
            yield "plain"
        else:
            for name, each in node.items():
                if name not in ("metadata", "serialization"):
                    yield from _bytes_in(each)


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


def _property_names(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterable[str]:
    yield from schema.get("properties", ())
    if "$ref" in schema:
        yield from _property_names(definitions[schema["$ref"]], definitions)
    for combination in ("anyOf", "allOf", "oneOf"):
        for each in schema.get(combination, ()):
            yield from _property_names(each, definitions)


def _forbids_others(schema: CoreSchema) -> bool:
    """Return True if a model of this schema, or one of a union, refuses fields that it does not have."""
    found = False

    def note(node: Mapping[str, Any]) -> None:
        nonlocal found
        config = node.get("config") or {}
        found = found or "forbid" in (config.get("extra_fields_behavior"), node.get("extra_behavior"))

    for node in _outer_nodes(schema):
        note(node)
    return found


def _outer_nodes(schema: Any) -> Iterable[Mapping[str, Any]]:
    """Return the nodes of a schema that describe the fields of the packet itself, and not those of nested models."""
    definitions = {each["ref"]: each for each in schema.get("definitions", ()) if "ref" in each}
    pending, seen = [schema], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.get("type") == "definition-ref":
            pending.append(definitions[node["schema_ref"]])
        elif isinstance(node.get("schema"), dict):
            pending.append(node["schema"])
        if node.get("type") == "union":
            pending += [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
