"""`ErrorHandlers`: functions that turn the exceptions of an application into answers, by the type of the exception."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncapy_core.errors import Failure
from asyncapy_core.foreign.inspection import bases, is_a

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client

ErrorFunction: TypeAlias = "Callable[[Client, Packet, Any], Failure | Awaitable[Failure | None] | None]"
"""A function of client, packet and exception, plain or ``async``. It returns or raises a `Failure`, or returns None."""


class ErrorHandlers:
    """The functions of one server. The nearest class of an exception that has a function decides."""

    def __init__(self) -> None:
        self._functions: dict[type[Exception], ErrorFunction] = {}

    def register(self, kind: type[Exception], function: ErrorFunction) -> None:
        """Add a function for a class of exceptions, in place of an earlier one.

        Raises:
            TypeError: ``kind`` is not a class of exceptions, or the function cannot be called with three arguments.
        """
        given: object = kind
        if not (inspect.isclass(given) and issubclass(given, Exception)):
            raise TypeError(f"on_error takes a subclass of Exception, such as KeyError; got {kind!r}")
        if not callable(function):
            raise TypeError(f"an error handler is a function of client, packet and error; got {function!r}")
        try:
            inspect.signature(function).bind(None, None, None)
        except TypeError:
            name = getattr(function, "__name__", "the error handler")
            raise TypeError(
                f"an error handler is called with a client, a packet and an exception, but {name!r} takes "
                f"{inspect.signature(function)}"
            ) from None
        self._functions[kind] = function

    def find(self, error: BaseException) -> ErrorFunction | None:
        """Return the function for an exception, or None."""
        if not self._functions:
            return None
        functions = self._functions.items()  # a look-up of the class would use its hash
        return next((function for base in bases(error) for kind, function in functions if kind is base), None)

    async def translate(self, client: Client, packet: Packet, error: BaseException) -> Failure | None:
        """Return the failure to send for an exception, or None if no function has one.

        Raises:
            BaseException: any exception of a function.
            TypeError: a function returned something else.
        """
        if is_a(error, Failure):
            return error
        function = self.find(error)
        if function is None:
            return None
        try:
            result: Any = function(client, packet, error)
            if inspect.isawaitable(result):
                result = await result
        except Failure as failure:
            return failure
        if result is not None and not isinstance(result, Failure):
            raise TypeError(f"an error handler returned a {type(result).__name__}; return a Failure, or None")
        return result
