"""`DescribedHandler`: the request, the answers and the failures of a handler, as schemas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.errors import ErrorCode
from asyncapy_core.logs import reason_of
from asyncapy_core.routing.router import Operation, Route
from asyncapy_typed.answers import NONE, AnswerType
from asyncapy_typed.errors import VERSION_TOO_OLD
from asyncapy_typed.filter_schemas import schema_of_filter
from asyncapy_typed.model_types import ModelType
from asyncapy_typed.packet_schemas import alternatives, errors, joined, secrets, without_extensions
from asyncapy_typed.plans import Plan
from asyncapy_typed.schemas import PREFIX, REFERENCE, Schema, Schemas, as_draft_7, legal_key
from asyncapy_typed.signatures import Signature, is_typed

if TYPE_CHECKING:
    from asyncapy_core.routing.filter import Filter
    from asyncapy_core.routing.handler import Handler

SUCCESS: Final[Schema] = {
    "type": "object",
    "description": "The request has succeeded, and has no other result.",
    "properties": {"status": {"const": NONE["status"]}},
    "required": ["status"],
}

_OF_FAILURES: Final[dict[str, dict[str, Schema]]] = {
    ErrorCode.INVALID: {
        "fields": {
            "type": "array",
            "description": "The places of wrong fields, each with the reason.",
            "items": {
                "type": "object",
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
                "required": ["loc", "msg"],
            },
        }
    },
    ErrorCode.RATE_LIMITED: {"retry_after": {"type": "number", "description": "The seconds until a packet may pass."}},
}
"""The further fields of some failures."""


class DescribedHandler:
    """The description of a handler.

    Args:
        handler: the handler.
        guards: the filters of the guards of the server.
        schemas: is given the schemas of its models.

    Attributes:
        name: the name of the operation, or that of the function.
        operation: the field and the name of the operation, or None.
        summary, description: of its docstring; empty without one.
        streams: whether it has any number of answers.
        answer: the schema of each answer.
        codes: the codes of its own failures.
        has_all_codes: whether it has no other ones, by the class of its request.
        secrets: the fields that are secrets, with their descriptions.

    Raises:
        TypeError: its parameters or its annotations are wrong.
    """

    def __init__(self, handler: Handler, guards: Sequence[Filter], schemas: Schemas) -> None:
        self._schemas: Schemas = schemas
        route = route_of(handler)
        signature = Signature(route.function, route) if is_typed(route.function) else None
        models: list[ModelType] = []
        if signature is not None:
            models = Plan(signature.function, signature.title, frozenset, sources=signature.sources).models
        filters = [schema_of_filter(filter) for filter in (*guards, *route.filters)]
        known = [schema for schema in filters if schema is not None]
        self.name: str = route.operation or route.name
        self.operation: tuple[str, str] | None = None if route.operation is None else (route.field, route.operation)
        self.summary: str
        self.description: str
        self.summary, self.description = summary_of(route.function)
        if not self.summary and signature is not None and signature.request is not None:
            self.summary, self.description = summary_of(signature.request)
        self.streams: bool = _is_generator(route.function) if signature is None else signature.streams
        self.secrets: dict[str, str] = {name: text for schema in known for name, text in secrets(schema)}
        self._signature: Signature | None = signature
        self._models: list[ModelType] = models
        self._filters: list[Mapping[str, Any]] = known
        self.answer: Schema = self._answer(None if signature is None else signature.answer)
        codes = [ErrorCode.INVALID.value] if models else []
        codes += [code for schema in known for code in errors(schema)]
        self.has_all_codes: bool = signature is not None and signature.request is not None
        if signature is not None and signature.request is not None:
            codes += signature.request.__asyncapy_errors__
        if signature is not None and signature.streams:
            codes.append(VERSION_TOO_OLD)
        self.codes: list[str] = list(dict.fromkeys(codes))

    def request(self) -> Schema:
        """Return a reference to the schema of the packets.

        The schemas of the answers of all handlers come first: an answer has the name of its model, also if the same
        model has another schema in a request.
        """
        parts: list[list[Schema] | None] = []
        left: list[Any] = []
        if self.operation is not None:
            field, name = self.operation
            parts.append([{"properties": {field: {"type": "string", "const": name}}, "required": [field]}])
        for model in self._models:
            schema, definitions = _schema_of(model, of_answer=False)
            found = alternatives(schema, definitions)
            if found is None:
                left.append(self._schemas.adopt(schema, definitions, "Request"))
            else:
                parts.append([self._schemas.adopt(each, definitions, "Request") for each in found])
        for schema in map(as_draft_7, map(without_extensions, self._filters)):
            found = alternatives(schema, {})
            left += [schema] if found is None else []
            parts += [] if found is None else [found]
        whole = joined(parts)
        if whole is None:
            left += [{"anyOf": part} for part in parts]
            whole = [{"type": "object"}]
        described = [self._named_request(each, len(whole)) for each in whole]
        schema = described[0] if len(described) == 1 else {"anyOf": described}
        return {"allOf": [schema, *left]} if left else schema

    def _named_request(self, schema: Schema, number: int) -> Schema:
        """Return a reference to the schema of a packet, one of a number of them.

        It is named by the class of the request, or by the operation, and by its model if there are several.
        """
        if number > 1:
            name = f"{camel_case(self.name)}{camel_case(str(schema.get('title', '')))}Request"
        elif self._signature is not None and self._signature.request is not None:
            name = self._signature.request.__name__
        else:
            name = camel_case(self.name) + "Request"
        return self._schemas.name(name, {**schema, "title": name}, "")

    def _answer(self, answer: AnswerType | None) -> Schema:
        """Return the schema of an answer."""
        if answer is None:
            return {"type": "object"}
        if answer.model is None:
            known = {"type": "object"} if answer.kind is Any or not answer.optional else None
            if known is not None:
                return known
            success = self._schemas.name("Success", SUCCESS, "Answer")
            return success if answer.kind in (None, type(None)) else {"type": "object"}
        schema, definitions = _schema_of(answer.model, of_answer=True)
        if isinstance(schema.get("title"), str) and "$ref" not in schema:
            name = legal_key(answer.model.name)
            local = name if name not in definitions else f"{name}Answer"
            schema, definitions = {"$ref": f"{PREFIX}{local}"}, {**definitions, local: schema}
        described: Schema = self._schemas.adopt(schema, definitions, "Answer")
        if answer.optional:
            members = [each for each in described.get("anyOf", [described]) if each != {"type": "null"}]
            return {"anyOf": [*members, self._schemas.name("Success", SUCCESS, "Answer")]}
        return described


def failure(codes: Sequence[str], *, has_all: bool) -> Schema:
    """Return the schema of failures with these codes, and others unless these are all.

    Args:
        codes: the codes.
        has_all: whether there are no others.
    """
    error: Schema = {"type": "string"}
    if codes:
        error["enum" if has_all else "examples"] = list(codes)
    properties: dict[str, Schema] = {"status": {"const": "failure"}, "error": error}
    properties["detail"] = {"type": "string", "description": "A text for people."}
    for code in codes:
        properties |= _OF_FAILURES.get(code, {})
    return {"type": "object", "properties": properties, "required": ["status", "error"]}


def route_of(handler: Handler) -> Route:
    """Return the route of a registered handler."""
    filters = list(handler.filters)
    field = ""
    if handler.operation is not None and isinstance(filters[0], Operation):
        field = filters.pop(0).field  # type: ignore[attr-defined]  # the class is checked one line above
    return Route(handler.function, tuple(filters), handler.group, handler.operation, field)


def summary_of(function: Any) -> tuple[str, str]:
    """Return the first paragraph of a docstring, in one line, and the rest of it."""
    text = inspect.cleandoc(function.__doc__) if isinstance(getattr(function, "__doc__", None), str) else ""
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), rest.strip()


def camel_case(name: str) -> str:
    """Return a name such as ``books.read`` as ``BooksRead``."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    return "".join(word[0].upper() + word[1:] for word in words)


def _schema_of(model: ModelType, *, of_answer: bool) -> tuple[Schema, dict[str, Any]]:
    try:
        schema, definitions = model.schema(of_answer=of_answer, reference=REFERENCE)
    except Exception as error:  # a type of a field may have a function for its schema, which may raise anything
        raise TypeError(f"there is no JSON Schema of {model.name}: {reason_of(error)}") from error
    return as_draft_7(schema), {name: as_draft_7(each) for name, each in definitions.items()}


def _is_generator(function: Any) -> bool:
    return inspect.isasyncgenfunction(inspect.unwrap(function))
