"""`AnswerType`: the type of a handler's answers, to send and to read them. It serves handlers and clients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, get_origin

from asyncapy_typed.errors import describe_problems
from asyncapy_typed.model_types import InvalidFields, ModelType, members_of, name_of_type, wrong_type
from asyncapy_typed.models import model_type

NONE: Final[Mapping[str, Any]] = MappingProxyType({"status": "success"})
"""The answer that stands for None: a packet of version 22 has at least three bytes of payload."""


class AnswerType:
    """The type of an answer: a model, a mapping, None, or one of them and None.

    Args:
        kind: the type.

    Attributes:
        model: its models; None for mappings, which are sent as they are, and for None.
        dump: takes an answer, and returns the fields to send. It raises a TypeError for an object of another type.
        optional: whether the answer may be None, which is sent as `NONE`.

    Raises:
        TypeError: it is no type of an answer.
    """

    def __init__(self, kind: Any) -> None:
        members = members_of(kind)
        self.kind: Any = kind
        self.optional: bool = None in members or type(None) in members
        self.model: ModelType | None = model_type(kind)
        self.dump: Callable[[Any], Any] = _as_it_is if self.model is None else self.model.dump
        if len(members) == self.optional:
            self.dump = self._dump_none
        elif self.model is None and not is_mapping(kind):
            raise TypeError(
                f"an answer is a map of fields, and {name_of_type(kind)} is none: use a model with a field for it, "
                "dict[str, Any], or an async generator that yields its items"
            )
        elif self.model is not None and self.optional:
            self.dump = self._dump_optional

    def checked(self, answer: Any) -> Any:
        """Return the fields to send for an answer, as ``dump``, if they are valid for the type.

        Raises:
            TypeError: they are not.
        """
        fields = self.dump(answer)
        try:
            if self.model is not None and fields is not NONE:
                self.model.read(fields)
        except InvalidFields as error:
            problems = describe_problems(error.problems)
            raise TypeError(f"no valid {name_of_type(self.kind)}: {problems}") from None
        return fields

    def read(self, fields: Mapping[str, Any] | None) -> Any:
        """Return the answer with these fields.

        Args:
            fields: the fields; None if the request has ended without an answer.

        Raises:
            ValueError: they are not those of an answer of this type.
        """
        if self.optional and (fields is None or fields == NONE):
            return None
        if fields is None:
            raise ValueError(f"there was no answer; a {name_of_type(self.kind)} was expected")
        if self.model is None:
            if self.optional and not is_mapping(self.kind):
                raise ValueError(f"{dict(NONE)} was expected")
            return dict(fields)
        try:
            return self.model.read(fields)
        except InvalidFields as error:
            raise ValueError(f"it is no {self.model.name}: {describe_problems(error.problems)}") from error

    def _dump_none(self, answer: Any) -> Mapping[str, Any]:
        if answer is not None:
            raise wrong_type(answer, None)
        return NONE

    def _dump_optional(self, answer: Any) -> Any:
        assert self.model is not None
        return NONE if answer is None else self.model.dump(answer)


def answer_type(kind: Any) -> AnswerType:
    """Return the `AnswerType` of a type, the same one for each call.

    Raises:
        TypeError: it is no type of an answer.
    """
    return _answer_type(None if kind is type(None) else kind)


_cached = functools.cache(AnswerType)


def _answer_type(kind: Any) -> AnswerType:
    try:
        hash(kind)
    except TypeError:  # the marks of Annotated are any objects
        return AnswerType(kind)
    return _cached(kind)


def dump_any(answer: Any) -> Any:
    """Return the fields of a model of any type; any other object as it is, for the server to judge."""
    kind: Any = type(answer)
    if answer is None or kind is dict or issubclass(kind, Mapping):
        return answer
    found = _model_of(kind)
    return answer if found is None else found.dump(answer)


@functools.cache
def _model_of(kind: type) -> ModelType | None:
    return model_type(kind)


def is_mapping(kind: Any) -> bool:
    """Return True for types of mappings, a packet among them, and for unions of these; and for Any."""
    return all(
        each is type(None) or each is Any or _is_mapping_class(get_origin(each) or each) for each in members_of(kind)
    )


def _is_mapping_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _as_it_is(answer: Any) -> Any:
    return answer
