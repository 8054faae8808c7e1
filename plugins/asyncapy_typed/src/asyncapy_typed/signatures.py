"""`Signature`: the parameters and answers of a handler, as adapted handlers and descriptions need them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from asyncapy_core.routing.filter import returns_coroutine
from asyncapy_core.routing.handler import is_handler, name_of
from asyncapy_typed.answers import AnswerType, answer_type
from asyncapy_typed.model_types import members_of, name_of_type, without_alias
from asyncapy_typed.parameters import (
    Dependency,
    Given,
    Modelled,
    Source,
    called_function,
    given_kind,
    optional_model,
    parameters_of,
    sources_of,
    type_hints,
)
from asyncapy_typed.requests import Request, StreamRequest

if TYPE_CHECKING:
    from asyncapy_core.routing.router import Route

_STREAMS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)

_STANDARD: Final = (("client", ("Client", "ClientInterface")), ("packet", ("Packet",)))
"""The two parameters of a usual handler, and the names of their types."""


class Signature:
    """The parameters and answers of a handler that this plugin calls.

    Args:
        function: the handler.
        route: its filters and its operation.

    Attributes:
        title: names the handler in messages.
        sources: the source of the argument for each parameter.
        request: the class of the request that it takes, if it is a `Request` or `StreamRequest`.
        streams: whether it has any number of answers.
        iterates: whether calling it returns an iterator over the answers, and not an awaitable of one.
        answer: the type of its answer or answers; None if it is not announced.

    Raises:
        TypeError: a parameter cannot be filled, the annotations contradict each other, or the function is not
            asynchronous.
    """

    def __init__(self, function: Callable[..., Any], route: Route) -> None:
        self.function = function
        self.title: str = f"the handler {name_of(function)!r}"
        self.iterates: bool = inspect.isasyncgenfunction(inspect.unwrap(function))
        if not self.iterates and not returns_coroutine(function):
            raise TypeError(f"{self.title} must be asynchronous: write 'async def {name_of(function)}(...)'")
        parameters = parameters_of(function)
        is_standard = len(parameters) == len(_STANDARD) and _is_standard(function, parameters)
        self.sources: dict[str, Source] = (
            _standard_sources(parameters) if is_standard else sources_of(function, self.title)
        )
        self.request: type[Request[Any] | StreamRequest[Any]] | None = self._request_of(route)
        hint = type_hints(function, self.title).get("return", inspect.Signature.empty)
        item = _item_of(hint)
        self.streams: bool = self.iterates or item is not None
        if self.iterates and item is None and hint is not inspect.Signature.empty and hint is not Any:
            raise TypeError(f"{self.title} is an async generator: annotate its result as AsyncIterator[...]")
        self.answer: AnswerType | None = self._answer_of(hint if item is None else item)
        if self.request is None and self.answer is answer_type(None) and not self._must_answer(route):
            self.answer = None

    def _request_of(self, route: Route) -> type[Request[Any] | StreamRequest[Any]] | None:
        """Return the class of the request, which has the operation of the route."""
        models = [source.model for source in self.sources.values() if isinstance(source, Modelled)]
        if len(models) > 1:
            names = " and ".join(model.name for model in models)
            raise TypeError(
                f"{self.title} takes {names}, but a packet is one model; put the fields into one class, or mark what a "
                "filter has found with Annotated[..., FromContext()]"
            )
        if not models:
            self._refuse_optional_models()
        kind = members_of(models[0].kind)[0] if models else None
        if not (isinstance(kind, type) and issubclass(kind, (Request, StreamRequest))):
            return None
        operation = getattr(kind, "__asyncapy_operation__", None)
        if operation is None:
            raise TypeError(
                f"{kind.__name__} has no operation: write class {kind.__name__}(Request[...], op='books.read')"
            )
        if route.operation is None:
            raise TypeError(
                f"{self.title} takes {kind.__name__}, which is the operation {operation[1]!r}: register it with "
                f"@server.operation({kind.__name__})"
            )
        if operation != (route.field, route.operation):
            raise TypeError(
                f"{self.title} takes {kind.__name__}, which is the operation {operation[1]!r} in the field "
                f"{operation[0]!r}, but it is registered for {route.operation!r} in the field {route.field!r}: "
                f"register it with @server.operation({kind.__name__}), on a router without another prefix"
            )
        return kind

    def _refuse_optional_models(self) -> None:
        """Raise TypeError for a parameter that looks like the model of the packet, and would never be filled."""
        for name, hint in type_hints(self.function, self.title).items():
            if name not in self.sources and name != "return" and (model := optional_model(hint)) is not None:
                raise TypeError(
                    f"the parameter {name!r} of {self.title} is a {model} or None, but a packet always has fields: "
                    f"annotate it as {model}, and give the fields of that defaults"
                )

    def _must_answer(self, route: Route) -> bool:
        """Return True if a handler that returns None has not answered: of an operation, and without a client."""
        return route.operation is not None and not any(isinstance(each, Given) for each in self.sources.values())

    def _answer_of(self, hint: Any) -> AnswerType | None:
        """Return the type of the answers, by the return annotation and the class of the request."""
        try:
            annotated = None if hint is inspect.Signature.empty else answer_type(hint)
        except TypeError as error:
            raise TypeError(f"the return annotation of {self.title}: {error}") from error
        request = self.request
        if request is None:
            return annotated
        one = issubclass(request, Request)
        if one and self.streams:
            raise TypeError(
                f"{self.title} has any number of answers, but {request.__name__} is a Request; derive it from "
                "StreamRequest"
            )
        if not one and not self.streams:
            raise TypeError(
                f"{request.__name__} is a StreamRequest, but {self.title} has one answer; write an async generator, or "
                f"derive {request.__name__} from Request"
            )
        result = request.__asyncapy_result__()
        try:
            wanted = answer_type(result)
        except TypeError as error:
            raise TypeError(f"the answer of {request.__name__}: {error}") from error
        if annotated is None or annotated.kind is Any:
            return wanted
        if not _is_part(annotated.kind, result):
            base = "Request" if one else "StreamRequest"
            raise TypeError(
                f"{self.title} returns {_name(hint)}, but {request.__name__} is a {base}[{_name(result)}]; change one "
                "of them"
            )
        return wanted


def is_typed(function: object) -> bool:
    """Return True if a function is a handler for this plugin, and not one that takes a client and a packet.

    A function of a client and a packet is one if its return annotation is a model.
    """
    if not callable(function):
        return False
    annotations = _annotations(function)
    parameters = parameters_of(function)
    if any(isinstance(parameter.default, Dependency) for parameter in parameters.values()):
        return True
    if _is_standard(function, parameters) and is_handler(function):
        try:
            return _fills_defaults(function, parameters) or _returns_model(type_hints(function, "").get("return"))
        except TypeError:  # a usual handler may import the names of its annotations for type checkers only
            return False
    return any(name in annotations for name in parameters)


def _fills_defaults(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return True if this plugin fills a parameter that has a default."""
    defaults = {name for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    return bool(defaults) and not defaults.isdisjoint(sources_of(function, ""))


def _returns_model(hint: Any) -> bool:
    hint = _item_of(hint) or hint
    return hint not in (None, Any) and answer_type(hint).model is not None


def _annotations(function: Any) -> Mapping[str, Any]:
    return getattr(called_function(function), "__annotations__", {})


def _is_standard(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return True for two parameters, the first of which may be a client, and the second a packet."""
    required = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
    if len(required) != len(_STANDARD):
        return False
    try:
        hints = type_hints(function, "")
    except TypeError:  # names that are imported for type checkers only
        hints = dict(_annotations(function))
    return all(_may_be(hints.get(name, Any), *each) for name, each in zip(required, _STANDARD, strict=True))


def _may_be(hint: Any, kind: str, names: Sequence[str]) -> bool:
    """Return True if an annotation may be that of a client, or of a packet."""
    if hint in (Any, object):
        return True
    if isinstance(hint, type):
        return given_kind(hint) == kind
    return str(hint).strip("'\"").rpartition(".")[2] in (*names, "Any", "object")


def _standard_sources(parameters: Iterable[str]) -> dict[str, Source]:
    """Return the sources of a client and a packet, by the names of the two parameters."""
    return {name: Given(kind) for name, (kind, _) in zip(parameters, _STANDARD, strict=True)}


def _item_of(hint: Any) -> Any:
    """Return the type of the items of an annotated iterator, or None if it is no iterator."""
    hint = without_alias(hint)
    if get_origin(hint) not in _STREAMS:
        return None
    return get_args(hint)[0]


def _is_part(annotated: Any, result: Any) -> bool:
    """Return True if each object of one type is of the other type: it has the same members, or fewer, or subclasses."""
    return all(any(_is_kind(one, other) for other in members_of(result)) for one in members_of(annotated))


def _is_kind(one: Any, other: Any) -> bool:
    if one == other or (one in _NONE and other in _NONE):
        return True
    return isinstance(one, type) and isinstance(other, type) and issubclass(one, other)


_NONE: Final = (None, type(None))


def _name(kind: Any) -> str:
    return "None" if kind in (None, type(None)) else name_of_type(kind)
