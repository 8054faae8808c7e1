"""Requests and answers that are objects instead of mappings.

`TypedRequest` and `TypedStreamRequest` are the protocols that classes of requests implement, such as those of
asyncapy-typed. `TypedCalls` and `BlockingTypedCalls` are the methods of the clients that send them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from asyncapy_core.client.failures import failure
from asyncapy_core.client.streaming import ClosingIterator
from asyncapy_core.errors import InvalidReply
from asyncapy_core.logs import escape_for_log, safe_str

if TYPE_CHECKING:
    from asyncapy_core.client.calls import MaybeNone
    from asyncapy_core.client.streaming import ReplyStream

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class TypedRequest(Protocol[T_co]):
    """A request that knows the type of its answer, such as a ``Request`` of asyncapy-typed."""

    def __asyncapy_fields__(self) -> Mapping[str, Any]:
        """Return the fields of the packet."""

    def __asyncapy_answer__(self, fields: Mapping[str, Any] | None) -> T_co:
        """Return the answer with these fields; None stands for a request that ended without an answer.

        Raises:
            ValueError: they are not those of an answer to this request.
        """


class TypedStreamRequest(Protocol[T_co]):
    """A request that knows the type of its answers, of which there may be any number."""

    def __asyncapy_fields__(self) -> Mapping[str, Any]:
        """Return the fields of the packet."""

    def __asyncapy_part__(self, fields: Mapping[str, Any]) -> T_co:
        """Return the answer with these fields.

        Raises:
            ValueError: they are not those of an answer to this request.
        """


class TypedStream(ClosingIterator, Generic[T]):
    """The answers to one request as objects: ``async for book in client.stream_call(ListBooks())``.

    The request is sent when the first answer is asked for. It is cancelled if the loop ends before the last answer.

    Args:
        parts: the answers as mappings.
        read: returns the object of an answer.
    """

    def __init__(self, parts: ReplyStream, read: Callable[[Mapping[str, Any]], T]) -> None:
        self._parts = parts
        self._read = read

    async def __anext__(self) -> T:
        fields = await anext(self._parts)
        try:
            return self._read(fields)
        except BaseException:  # raised again; a validator of the answer may raise anything
            await self._parts.aclose()
            raise

    def _close(self) -> None:
        self._parts._close()  # noqa: SLF001  # of the same base


class TypedCalls(ABC):
    """The methods of a trio client for requests that are objects."""

    @abstractmethod
    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # a late reply raises an exception of its own
        idempotent: bool = False,
    ) -> dict[str, Any] | MaybeNone: ...

    @abstractmethod
    def stream(self, payload: Mapping[str, Any] | str | bytes, *, timeout: float | None = None) -> ReplyStream: ...

    async def call(
        self,
        request: TypedRequest[T],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # as for `request`
        idempotent: bool = False,
    ) -> T:
        """Send a request that knows the type of its answer, such as a ``Request`` of asyncapy-typed.

        Args:
            request: the request.
            extra: further fields of the packet, such as an API key.
            timeout: as for `request`.
            idempotent: as for `request`.

        Returns:
            The answer, an object of the type that the class of the request announces.

        Raises:
            FailureReply: the answer is a failure, whatever ``raise_failures`` is.
            InvalidReply: the answer is of another form.
            TypeError: the request is no such object.
            ValueError: a further field is one of the request.
            RemoteError: as for `request`.
        """
        fields = fields_of(request, "__asyncapy_answer__", extra)
        return read_answer(request, await self.request(fields, timeout=timeout, idempotent=idempotent))

    def stream_call(
        self,
        request: TypedStreamRequest[T],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> TypedStream[T]:
        """Send a request, and iterate over its answers: ``async for book in client.stream_call(ListBooks())``.

        As `stream`, in version 23 only, for requests that know the type of their answers, such as a ``StreamRequest``
        of asyncapy-typed.

        Args:
            request: the request.
            extra: further fields of the packet, such as an API key.
            timeout: as for `stream`.

        Returns:
            An asynchronous iterator over the answers. It raises the exceptions of that of `stream`, and InvalidReply
            for an answer of another form.

        Raises:
            TypeError: the request is no such object.
            ValueError: a further field is one of the request.
            RemoteError: as for `stream`.
        """
        fields = fields_of(request, "__asyncapy_part__", extra)
        return TypedStream(self.stream(fields, timeout=timeout), lambda part: read_part(request, part))


class BlockingTypedCalls(ABC):
    """The methods of the synchronous client for requests that are objects."""

    @abstractmethod
    def request(self, payload: Mapping[str, Any] | str | bytes) -> dict[str, Any] | MaybeNone: ...

    @abstractmethod
    def stream(self, payload: Mapping[str, Any] | str | bytes) -> Generator[dict[str, Any], None, None]: ...

    def call(self, request: TypedRequest[T], *, extra: Mapping[str, Any] | None = None) -> T:
        """Send a request that knows the type of its answer; see `AsyncClient.call`."""
        fields = fields_of(request, "__asyncapy_answer__", extra)
        return read_answer(request, self.request(fields))

    def stream_call(
        self, request: TypedStreamRequest[T], *, extra: Mapping[str, Any] | None = None
    ) -> Generator[T, None, None]:
        """Send a request, and iterate over its answers; version 23 only; see `AsyncClient.stream_call`."""
        parts = self.stream(fields_of(request, "__asyncapy_part__", extra))
        return _read_parts(request, parts)


def _read_parts(
    request: TypedStreamRequest[T], parts: Generator[dict[str, Any], None, None]
) -> Generator[T, None, None]:
    with contextlib.closing(parts):
        for part in parts:
            yield read_part(request, part)


def fields_of(request: Any, reader: str, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of the packet for a request.

    Args:
        request: the request.
        reader: the name of the method that reads its answers.
        extra: further fields.

    Raises:
        TypeError: the request has no such method.
        ValueError: a further field is one of the request.
    """
    if isinstance(request, type) or not hasattr(request, "__asyncapy_fields__"):
        got = f"the class {request.__name__}" if isinstance(request, type) else f"a {type(request).__name__}"
        raise TypeError(
            f"call and stream_call take an instance of a Request of asyncapy_typed; got {got}; send a mapping with "
            "request or stream"
        )
    if not hasattr(request, reader):
        method = "call" if hasattr(request, "__asyncapy_answer__") else "stream_call"
        raise TypeError(f"the class of a {type(request).__name__} is for {method}: send it with client.{method}(...)")
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f"extra is a mapping of further fields, such as {{'key': '...'}}; got {extra!r}")
    fields = dict(request.__asyncapy_fields__())
    if extra:
        if twice := fields.keys() & extra.keys():
            raise ValueError(f"extra has the field {min(twice)!r}, which the request has, too; leave it out of extra")
        fields.update(extra)
    return fields


def read_answer(request: TypedRequest[T], fields: Mapping[str, Any] | None) -> T:
    """Return the answer to a request.

    Raises:
        FailureReply: the answer is a failure.
        InvalidReply: it is no answer to this request.
    """
    if fields is not None and (failed := failure(fields)) is not None:
        raise failed
    try:
        return request.__asyncapy_answer__(fields)
    except ValueError as error:
        raise _other_answer(request, error) from error


def read_part(request: TypedStreamRequest[T], fields: Mapping[str, Any]) -> T:
    """Return one of the answers to a request.

    Raises:
        InvalidReply: it is no answer to this request.
    """
    try:
        return request.__asyncapy_part__(fields)
    except ValueError as error:
        raise _other_answer(request, error) from error


def _other_answer(request: object, error: ValueError) -> InvalidReply:
    name, problem = type(request).__name__, escape_for_log(safe_str(error))
    return InvalidReply(f"the server sent an answer to {name} of another form than its class announces: {problem}")
