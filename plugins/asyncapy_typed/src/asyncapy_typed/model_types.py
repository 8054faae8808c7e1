"""`ModelType`: the base of types that validate fields into a model, and turn a model back into fields."""

from __future__ import annotations

import inspect
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from asyncapy_core import Failure
from asyncapy_core.logs import Mistake
from asyncapy_typed.errors import Problem


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
        errors: the types of the exceptions that ``validate`` raises.
        sees_others: whether it refuses or keeps fields that it does not have; it ignores them otherwise.
    """

    kind: Any
    validate: Callable[[Mapping[str, Any]], Any]
    dump: Callable[[Any], Any]
    errors: tuple[type[Exception], ...]
    sees_others: bool

    @abstractmethod
    def problems(self, error: Any, fields: Mapping[str, Any]) -> list[Problem]:
        """Return the places and reasons of an exception that ``validate`` has raised for these fields."""

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
            raise InvalidFields(self.problems(error, fields)) from None

    @property
    def field_names(self) -> frozenset[str]:
        """The names of its fields in a packet."""
        schema, definitions = self.schema(of_answer=False, reference="{model}")
        return frozenset(property_names(schema, definitions))

    @property
    def name(self) -> str:
        """The name of the type."""
        return name_of_type(self.kind)


def name_of_type(kind: Any) -> str:
    """Return the name of a type, for messages."""
    if is_union(kind):
        return " | ".join(map(name_of_type, get_args(kind)))
    if kind is None or kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def is_union(kind: Any) -> bool:
    """Return True for ``A | B``."""
    return get_origin(kind) in (Union, types.UnionType)


def without_alias(kind: Any) -> Any:
    """Return the type that ``type A = ...`` or ``NewType`` has given a name; any other type as it is.

    Raises:
        TypeError: the type uses an unknown name.
    """
    try:
        while True:
            outer = get_origin(kind) or kind
            if type(outer).__name__ == "TypeAliasType":  # of typing since Python 3.12, and of typing_extensions
                value = outer.__value__
                kind = value if outer is kind else value[get_args(kind)]
            elif hasattr(kind, "__supertype__"):
                kind = kind.__supertype__
            else:
                return kind
    except NameError as error:
        raise TypeError(f"the type {kind} has the unknown name {error.name!r}: import it at run time") from error


def members_of(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the only type, without ``Annotated`` and without names given to types."""
    kind = without_alias(kind)
    if get_origin(kind) is Annotated:
        return members_of(get_args(kind)[0])
    if is_union(kind):
        return tuple(each for member in get_args(kind) for each in members_of(member))
    return (kind,)


def wrong_type(model: object, kind: Any) -> TypeError:
    """Return the error for an answer of another type than announced."""
    if inspect.isawaitable(model):
        if inspect.iscoroutine(model):
            model.close()
        return Mistake(f"it returned a {type(model).__name__} that was not awaited; write 'await' before the call")
    if isinstance(model, Failure):
        return Mistake("it returned a Failure; raise it")
    return Mistake(f"it returned a {type(model).__name__}; return {name_of_type(kind)}, as announced")


def no_fields(kind: Any, form: str) -> TypeError:
    """Return the error for a type whose form in a packet is no map of fields."""
    return TypeError(
        f"{name_of_type(kind)} is a {form}, and a packet is a map of fields: use a model with a field for it"
    )


def property_names(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterable[str]:
    """Yield the names of the properties of a JSON Schema, and of the schemas that it combines."""
    yield from schema.get("properties", ())
    if "$ref" in schema:
        yield from property_names(definitions[schema["$ref"]], definitions)
    for combination in ("anyOf", "allOf", "oneOf"):
        for each in schema.get(combination, ()):
            yield from property_names(each, definitions)
