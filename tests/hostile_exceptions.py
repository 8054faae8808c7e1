"""Exceptions whose classes fight inspection: functions that make one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncapy.errors import ClientDisconnected, Failure


class Slip(Exception):
    """Raised by the methods of a hostile exception."""


def slip(*_: Any, **__: Any) -> Any:
    raise Slip


NAMES = (
    *("__class__", "__traceback__", "__cause__", "__context__", "__notes__", "__dict__", "args"),
    *("code", "fields", "client", "exceptions", "message"),
)

HOSTILE: dict[str, Any] = {
    **dict.fromkeys(("__str__", "__repr__", "__getattribute__", "__eq__", "__hash__", "__reduce_ex__"), slip),
    **dict.fromkeys(("__setattr__", "add_note", "with_traceback", "split", "subgroup", "derive", "__bool__"), slip),
    **{name: property(slip) for name in NAMES},
}
"""The attributes of the classes below, each of which raises."""


def hostile(base: type[Any], **attributes: Any) -> type[Any]:
    """Return a subclass whose attributes raise, or have these ones only."""
    return type(f"Hostile{base.__name__}", (base,), attributes or HOSTILE)


def made(base: type[Any], *args: Any, **attributes: Any) -> BaseException:
    """Return an instance of such a subclass, whose base class initializes it by itself."""
    kind = hostile(base, **attributes)
    error: BaseException = kind.__new__(kind, *args)
    return error


def cyclic(base: type[Any]) -> BaseException:
    """Return a group that claims to contain itself."""
    return made(base, "loop", [ValueError("real")], exceptions=property(lambda self: [self]))


def nested(levels: int) -> BaseException:
    """Return a group in a group, and so on."""
    error: Exception = ValueError("innermost")
    for _ in range(levels):
        error = ExceptionGroup("outer", [error])
    return error


def doubled(levels: int) -> BaseException:
    """Return a group with one group twice, and so on: two to the power of ``levels`` leaves."""
    error: Exception = ValueError("innermost")
    for _ in range(levels):
        error = ExceptionGroup("twice", [error, error])
    return error


def chained() -> BaseException:
    """Return an exception that is its own cause, and whose traceback is no traceback."""
    error = made(ValueError, __traceback__=7, __notes__=7, __suppress_context__=slip)
    other = KeyError("a")
    other.__cause__ = error
    BaseException.__dict__["__cause__"].__set__(error, other)
    return error


META: Any = type(
    "Meta",
    (type,),
    {
        **dict.fromkeys(("__hash__", "__eq__", "__instancecheck__", "__getattribute__"), slip),
        **{name: property(slip) for name in ("__name__", "__module__", "__mro__", "__bases__")},
    },
)
"""A metaclass, the attributes of which raise."""


KINDS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: ValueError("no"),
    **{
        f"{name} that raises": lambda name=name, value=value: made(ValueError, **{name: value})  # type: ignore[misc]
        for name, value in HOSTILE.items()
    },
    "all that raise": lambda: made(ValueError),
    "BaseException": lambda: made(BaseException),
    "KeyboardInterrupt": lambda: made(KeyboardInterrupt),
    "OSError": lambda: made(OSError),
    "Failure": lambda: made(Failure, "ERR_X"),
    "Failure without code": lambda: Failure.__new__(Failure),
    "Failure with a wrong code": lambda: made(Failure, "ERR_X", code=7, fields=[1]),
    "Failure with a wrong field": lambda: Failure("ERR_X", a=object()),
    "ClientDisconnected": lambda: made(ClientDisconnected, "no"),
    "class of another": lambda: made(ValueError, __class__=Failure),
    "class that is none": lambda: made(ValueError, __class__=7),
    "metaclass": lambda: ValueError.__new__(META("Odd", (ValueError,), {})),
    "long name": lambda: made(type("N" * 1_000_000 + "\n\x1b", (ValueError,), {})),
    "own cause": chained,
    "group": lambda: made(ExceptionGroup, "all", [ValueError("real")]),
    "BaseExceptionGroup": lambda: made(BaseExceptionGroup, "all", [ValueError("real"), KeyboardInterrupt()]),
    "group in a group": lambda: BaseExceptionGroup("out", [made(ExceptionGroup, "in", [made(ValueError), OSError()])]),
    "group without exceptions": lambda: made(ExceptionGroup, "no", [ValueError("real")], exceptions=()),
    "group of no exceptions": lambda: made(ExceptionGroup, "no", [ValueError("real")], exceptions=(7, None)),
    "group that contains itself": lambda: cyclic(ExceptionGroup),
    "split that lies": lambda: made(
        BaseExceptionGroup, "no", [ValueError("real")], split=lambda *_: (None, None), subgroup=lambda *_: None
    ),
    "split to itself": lambda: made(BaseExceptionGroup, "no", [ValueError("real")], split=lambda self, _: (self, None)),
    "derive that lies": lambda: made(
        ExceptionGroup, "no", [ValueError("real"), made(ClientDisconnected, "no")], derive=lambda *_: 7
    ),
    "nested deep": lambda: nested(5000),
    "group twice in a group": lambda: doubled(60),
}
"""Functions that make an exception of each kind."""
