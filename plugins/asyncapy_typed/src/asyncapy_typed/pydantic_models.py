"""`PydanticType`: models, dataclasses and typed dictionaries that pydantic validates, and unions of these."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, get_origin

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import SchemaValidator

from asyncapy_typed.binary import is_plain, with_bytes
from asyncapy_typed.core_schemas import (
    bounded,
    bytes_in,
    finite,
    has_secrets,
    is_strict,
    lax_for_text,
    may_change_fields,
    sees_others,
)
from asyncapy_typed.errors import Problem
from asyncapy_typed.model_types import ModelType, members_of, name_of_type, no_fields, wrong_type
from asyncapy_typed.recursive_unions import TooManyAlternatives, UnionCount, count_values, counted

MANY: Final = 1000
"""Values in a packet from which on not all problems are looked for, but the first one of each list and map."""

MAX_ERRORS: Final = 500
"""The most errors of pydantic that are made into problems. Each alternative of a union has errors of its own."""


class PydanticType(ModelType):
    """A model, dataclass, typed dictionary, or union, which pydantic validates.

    Raises:
        TypeError: pydantic cannot validate this type.
    """

    validate: Callable[[Mapping[str, Any]], Any]
    dump: Callable[[Any], Any]
    sees_others: bool
    errors: tuple[type[Exception], ...] = (ValidationError, TooManyAlternatives)

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        try:
            self._adapter = adapter = TypeAdapter(kind)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, NameError) as error:
            reason = str(error).partition("\n")[0]
            raise TypeError(f"pydantic cannot validate {name_of_type(kind)}: {reason}") from error
        for member in members_of(kind):
            _require_fields(member)
        schema: Any = adapter.core_schema
        kinds = set(bytes_in(schema))
        if "plain" in kinds:
            raise TypeError(
                f"a field of {name_of_type(kind)} is bytes, which JSON has not: annotate it as asyncapy_typed.Binary, "
                "which is base64 in JSON"
            )
        of_packets = finite(lax_for_text(schema) if is_strict(schema) else schema)
        count = UnionCount()
        with_count = counted(of_packets, count)
        if with_count is None:
            self._validate_wholly: Callable[[Mapping[str, Any]], Any] = _validator(of_packets).validate_python
            self.validate = _validator(bounded(of_packets)).validate_python
        else:
            self._validate_wholly = _counting(_validator(with_count), count)
            self.validate = _counting(_validator(bounded(with_count)), count)
        if may_change_fields(schema):
            self._validate_wholly, self.validate = _copying(self._validate_wholly), _copying(self.validate)
        self._has_bytes = "binary" in kinds
        self._has_others = "other" in kinds  # bytes that are no bytes in a packet
        self._has_secrets = has_secrets(schema)
        self.dump = _dump(kind, adapter, has_bytes=self._has_bytes, has_others=self._has_others)
        self.sees_others = sees_others(schema)

    def dump_request(self, model: Any) -> Any:
        """Return the fields of a model from which a server makes an equal one: ``dump`` hides secrets."""
        dump = functools.partial(self._adapter.serializer.to_python, model, by_alias=True, round_trip=True)
        if not (self._has_bytes or self._has_secrets):
            try:
                return dump(mode="json")
            except ValueError as error:
                return _plain(dump(mode="python"), error)
        fields = dump(mode="python")
        if not self._has_others and is_plain(fields):
            return fields
        return with_bytes(fields, dump(mode="json"), reveal=True)

    def problems(self, error: ValidationError | TooManyAlternatives, fields: Mapping[str, Any]) -> list[Problem]:
        if isinstance(error, ValidationError) and has_few_values(fields):
            try:  # again, to find all of them
                self._validate_wholly(fields)
            except self.errors as whole:
                if isinstance(whole, ValidationError) and whole.error_count() <= MAX_ERRORS:
                    error = whole
        if isinstance(error, TooManyAlternatives):
            return [((), str(error))]
        if error.error_count() > MAX_ERRORS:
            return [((), f"It has {error.error_count()} problems, too many to list any")]
        found = error.errors(include_url=False, include_input=False)
        return [(each["loc"], _reason(each)) for each in found]

    def schema(self, *, of_answer: bool, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = self._adapter.json_schema(
            mode="serialization" if of_answer else "validation",
            ref_template=reference,
            by_alias=True,
            schema_generator=_Schemas,
        )
        return schema, schema.pop("$defs", {})


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


def _require_fields(kind: Any) -> None:
    """Raise TypeError for a root model whose root is no map of fields."""
    if isinstance(kind, type) and issubclass(kind, RootModel):
        for root in members_of(kind.model_fields["root"].annotation):
            outer = get_origin(root) or root
            if isinstance(outer, type) and issubclass(outer, _NO_MAPS):
                raise no_fields(kind, outer.__name__)


_NO_MAPS: Final = (str, bytes, int, float, list, tuple, set, frozenset)


def is_pydantic(kind: Any) -> bool:
    """Return True for a type of models that pydantic validates."""
    members = [member for member in members_of(kind) if member is not type(None)]
    return bool(members) and all(map(_is_model, members))


def _is_model(kind: Any) -> bool:
    kind = get_origin(kind) or kind  # a generic dataclass or typed dictionary with arguments
    if not isinstance(kind, type):
        return False
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or is_typed_dict(kind)


def is_typed_dict(kind: Any) -> bool:
    """Return True for a ``TypedDict``, of typing or of typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def _dump(kind: Any, adapter: TypeAdapter[Any], *, has_bytes: bool, has_others: bool) -> Callable[[Any], Any]:
    to_python: Any = adapter.serializer.to_python
    members = [get_origin(each) or each for each in members_of(kind)]
    if any(is_typed_dict(each) for each in members):
        members.append(dict)
    expected = tuple(each for each in members if not is_typed_dict(each))
    generic = tuple(filter(None, map(_generic_origin, members)))

    def checked(model: Any) -> Any:
        if isinstance(model, generic):  # Page(items=[book]) for a Page[Book], as type checkers allow
            return adapter.validator.validate_python(model, from_attributes=True)
        raise wrong_type(model, kind)

    def dump(model: Any) -> Any:
        if not isinstance(model, expected):
            model = checked(model)
        try:
            return to_python(model, mode="json", by_alias=True)
        except ValueError as error:
            return _plain(to_python(model, mode="python", by_alias=True), error)

    def dump_with_bytes(model: Any) -> Any:
        if not isinstance(model, expected):
            model = checked(model)
        fields = to_python(model, mode="python", by_alias=True)
        if not has_others and is_plain(fields):
            return fields
        return with_bytes(fields, to_python(model, mode="json", by_alias=True))

    return dump_with_bytes if has_bytes else dump


def _plain(fields: Any, error: ValueError) -> Any:
    """Return fields that have no JSON form, as they have bytes that are no text in a field of any type.

    Raises:
        ValueError: the error, if there is another reason for it.
    """
    if not is_plain(fields):
        raise error
    return fields


def _generic_origin(kind: Any) -> Any:
    """Return the generic model of which a model is made with arguments, or None."""
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return kind.__pydantic_generic_metadata__["origin"] if is_model else None


def _reason(error: Any) -> str:
    """Return the text of an error of pydantic without the value that a few of these texts quote."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_invalid":
        return f"Input tag found using {context['discriminator']} does not match any of: {context['expected_tags']}"
    return _WITHOUT_VALUE.get(kind) or str(error["msg"])


_WITHOUT_VALUE: Final = {
    "byte_size_unit": "Input should have a unit of bytes",
    "import_error": "Input should be a valid python path",
    "uuid_parsing": "Input should be a valid UUID",
    "zoneinfo_str": "Input should be a time zone",
}


def has_few_values(value: Any) -> bool:
    """Return True if the values in a value, at any depth, are at most `MANY`."""
    return count_values(value, limit=MANY) <= MANY


def _validator(schema: Any) -> SchemaValidator:
    """Return a validator of a changed schema. Those of nested classes are not changed, and are not used in it."""
    without_others: dict[str, Any] = {"_use_prebuilt": False}
    try:
        return SchemaValidator(schema, **without_others)
    except TypeError:  # a later release of pydantic has no such argument
        return SchemaValidator(schema)


def _copying(validate: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that validates a copy of the fields, as other handlers get the packet, too."""
    return lambda fields: validate(dict(fields))


def _counting(validator: SchemaValidator, count: UnionCount) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that validates fields, and counts the unions that it tries for them."""

    def validate(fields: Mapping[str, Any]) -> Any:
        count.begin(fields)
        return validator.validate_python(fields)

    return validate
