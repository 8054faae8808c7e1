"""`ModelType`: the base of types that validate fields into a model, and turn a model back into fields."""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union, get_args, get_origin

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
        forbids_others: whether it refuses fields that it does not have.
    """

    kind: Any
    validate: Callable[[Mapping[str, Any]], Any]
    dump: Callable[[Any], Any]
    errors: tuple[type[Exception], ...]
    forbids_others: bool

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
        return frozenset(_property_names(schema, definitions))

    @property
    def name(self) -> str:
        """The name of the type."""
        return name_of_type(self.kind)


def name_of_type(kind: Any) -> str:
    """Return the name of a type, for messages."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def is_union(kind: Any) -> bool:
    """Return True for ``A | B``."""
    return get_origin(kind) in (Union, types.UnionType)


def wrong_type(model: object, kind: Any) -> TypeError:
    """Return the error for an answer of another type than announced."""
    return TypeError(f"it returned a {type(model).__name__}; return {name_of_type(kind)}, as announced")


def _property_names(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterable[str]:
    yield from schema.get("properties", ())
    if "$ref" in schema:
        yield from _property_names(definitions[schema["$ref"]], definitions)
    for combination in ("anyOf", "allOf", "oneOf"):
        for each in schema.get(combination, ()):
            yield from _property_names(each, definitions)
