"""`Request` and `StreamRequest`: requests of one operation, which the server and its clients share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from asyncapy_typed.answers import answer_type
from asyncapy_typed.pydantic_models import PydanticType

Answer = TypeVar("Answer")

DEFAULT_FIELD = "op"


class _Operation(BaseModel):
    """The base of both kinds: a model with the name of an operation and the type of its answers."""

    __asyncapy_operation__: ClassVar[tuple[str, str]]
    __asyncapy_errors__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls, *, op: str | None = None, field: str = DEFAULT_FIELD, errors: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init_subclass__(**options)

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, op: str | None = None, field: str = DEFAULT_FIELD, errors: Sequence[str] = (), **options: Any
    ) -> None:
        super().__pydantic_init_subclass__(**options)
        if op is None:
            return
        if not op or not isinstance(op, str):
            raise TypeError(f"op of {cls.__name__} is the name of its operation, such as 'books.read'; got {op!r}")
        if isinstance(errors, str):
            raise TypeError(f"errors of {cls.__name__} is a list of codes, such as ['ERR_NOT_FOUND']; got {errors!r}")
        names = {name for each, info in cls.model_fields.items() for name in (each, *_aliases(info))}
        if field in names:
            raise TypeError(
                f"{cls.__name__} has a field {field!r}, but that is the field for the name of its operation; rename "
                f"it, or write class {cls.__name__}(..., op={op!r}, field='another')"
            )
        if _announced(cls) is None:
            raise TypeError(
                f"{cls.__name__} does not name the type of its answer: write class {cls.__name__}(Request[Book], "
                f"op={op!r}), or Request[None] if there is none"
            )
        cls.__asyncapy_operation__ = field, op
        cls.__asyncapy_errors__ = tuple(errors)

    @classmethod
    def __asyncapy_result__(cls) -> Any:
        """Return the type of the answer, or of each answer.

        Raises:
            TypeError: the class does not name it.
        """
        return _result_of(cls)

    def __asyncapy_fields__(self) -> Mapping[str, Any]:
        """Return the fields of the packet.

        Raises:
            TypeError: the class has no operation, or no type of its answer.
        """
        kind = type(self)
        field, name = _operation_of(kind)
        return {field: name, **pydantic_type(kind).dump_request(self)}


class Request(_Operation, Generic[Answer]):
    """A request of one operation, with one answer: ``class Read(Request[Book], op="books.read")``.

    It is a pydantic model. A handler is registered with ``@server.operation(Read)``, and takes it as a parameter;
    ``await client.call(Read(id=7))`` returns a ``Book``. A ``Request[None]`` is answered by ``{"status": "success"}``.

    Class arguments:
        op: the name of the operation.
        field: the field of the packet for this name, ``"op"`` unless it is given.
        errors: the codes of failures that the operation has of its own, such as ``"ERR_NOT_FOUND"``, for descriptions.
    """

    def __asyncapy_answer__(self, fields: Mapping[str, Any] | None) -> Answer:
        """Return the answer with these fields.

        Raises:
            ValueError: they are not those of an answer to this request.
        """
        answer: Answer = answer_type(type(self).__asyncapy_result__()).read(fields)
        return answer


class StreamRequest(_Operation, Generic[Answer]):
    """A request of one operation, with any number of answers: ``class List(StreamRequest[Book], op="books.list")``.

    A handler of it is an async generator. ``async for book in client.stream_call(List())`` takes the answers. The
    class arguments are those of `Request`.
    """

    def __asyncapy_part__(self, fields: Mapping[str, Any]) -> Answer:
        """Return the answer with these fields.

        Raises:
            ValueError: they are not those of an answer to this request.
        """
        part: Answer = answer_type(type(self).__asyncapy_result__()).read(fields)
        return part


@functools.cache
def _operation_of(kind: type[_Operation]) -> tuple[str, str]:
    """Return the field and the name of the operation of a class whose answer can be read.

    Raises:
        TypeError: it has none, or its answer is of no type of answers.
    """
    operation: tuple[str, str] | None = getattr(kind, "__asyncapy_operation__", None)
    if operation is None:
        raise TypeError(f"{kind.__name__} has no operation: write class {kind.__name__}(Request[...], op='books.read')")
    try:
        answer_type(_result_of(kind))
    except TypeError as error:
        raise TypeError(f"the answer of {kind.__name__}: {error}") from error
    return operation


@functools.cache
def _result_of(kind: type[_Operation]) -> Any:
    announced = _announced(kind)
    name = kind.__name__
    if announced is None:
        raise TypeError(f"{name} does not name the type of its answer: write {name}(Request[Book])")
    result, module = announced
    is_open = bool(getattr(result, "__parameters__", ())) and not isinstance(result, type)
    if is_open or isinstance(result, TypeVar):
        raise TypeError(f"{name} does not name the type of its answer: write {name}[Book]")
    holder = SimpleNamespace(__annotations__={"answer": result})
    names = vars(sys.modules[module]) if module in sys.modules else {}  # a loader need not register a module
    try:
        return get_type_hints(holder, names, include_extras=True)["answer"]
    except NameError as error:
        raise TypeError(
            f"the type of the answer of {name} has the unknown name {error.name!r}: define it in the module {module}"
        ) from error


def _announced(kind: type[BaseModel]) -> tuple[Any, str] | None:
    """Return the type in ``Request[Book]``, from which a class is derived, and the module that has written it.

    The arguments of generic classes replace their parameters: the answer of ``Get[Book]`` is a ``Book``, if ``Get`` is
    a ``Request[T]``.
    """
    generic = kind.__pydantic_generic_metadata__
    origin, arguments = generic["origin"], generic["args"]
    if origin in (Request, StreamRequest):
        return arguments[0], kind.__module__
    if origin is not None:
        announced = _announced(origin)
        if announced is None:
            return None
        parameters = origin.__pydantic_generic_metadata__["parameters"]
        return _replaced(announced[0], dict(zip(parameters, arguments, strict=True))), announced[1]
    for base in kind.__bases__:
        if issubclass(base, _Operation) and (announced := _announced(base)) is not None:
            is_direct = base.__pydantic_generic_metadata__["origin"] in (Request, StreamRequest)
            return announced[0], kind.__module__ if is_direct else announced[1]
    return None


def _replaced(kind: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return a type with arguments in place of its parameters."""
    if isinstance(kind, TypeVar):
        return arguments.get(kind, kind)
    parameters = getattr(kind, "__parameters__", ())
    return kind[tuple(arguments.get(each, each) for each in parameters)] if parameters else kind


def _aliases(field: FieldInfo) -> set[object]:
    """Return the names of a field in packets."""
    read: Any = field.validation_alias
    choices = read.choices if isinstance(read, AliasChoices) else [read]
    return {field.alias, field.serialization_alias, *(each for each in choices if isinstance(each, str))}


@functools.cache
def pydantic_type(kind: type[BaseModel]) -> PydanticType:
    """Return the `ModelType` of a pydantic model, the same one for each call."""
    return PydanticType(kind)
