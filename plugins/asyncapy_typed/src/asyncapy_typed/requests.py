"""`Request` and `StreamRequest`: requests of one operation, which the server and its clients share."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

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
        names = {name for each, info in cls.model_fields.items() for name in (each, info.alias)}
        if field in names:
            raise TypeError(
                f"{cls.__name__} has a field {field!r}, but that is the field for the name of its operation; rename "
                f"it, or write class {cls.__name__}(..., op={op!r}, field='another')"
            )
        if cls.__asyncapy_base__() is None:
            raise TypeError(
                f"{cls.__name__} does not name the type of its answer: write class {cls.__name__}(Request[Book], "
                f"op={op!r}), or Request[None] if there is none"
            )
        cls.__asyncapy_operation__ = field, op
        cls.__asyncapy_errors__ = tuple(errors)

    @classmethod
    def __asyncapy_base__(cls) -> type[_Operation] | None:
        """Return the class ``Request[Book]`` or ``StreamRequest[Book]`` that this one is derived from."""
        for base in cls.__mro__:
            if issubclass(base, _Operation) and base.__pydantic_generic_metadata__["args"]:
                return base
        return None

    @classmethod
    def __asyncapy_result__(cls) -> Any:
        """Return the type of the answer, or of each answer.

        Raises:
            TypeError: the class does not name it.
        """
        base = cls.__asyncapy_base__()
        if base is None:
            raise TypeError(f"{cls.__name__} does not name the type of its answer: write {cls.__name__}(Request[Book])")
        return base.__pydantic_generic_metadata__["args"][0]

    def __asyncapy_fields__(self) -> Mapping[str, Any]:
        """Return the fields of the packet.

        Raises:
            TypeError: the class has no operation.
        """
        kind = type(self)
        operation = getattr(kind, "__asyncapy_operation__", None)
        if operation is None:
            raise TypeError(
                f"{kind.__name__} has no operation: write class {kind.__name__}(Request[...], op='books.read')"
            )
        return {operation[0]: operation[1], **pydantic_type(kind).dump(self)}


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
def pydantic_type(kind: type[BaseModel]) -> PydanticType:
    """Return the `ModelType` of a pydantic model, the same one for each call."""
    return PydanticType(kind)
