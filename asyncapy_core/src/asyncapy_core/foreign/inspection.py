"""Reads exceptions of foreign code without a call of their own methods, each of which may raise or lie.

``isinstance`` reads ``__class__``, a class can replace ``__traceback__``, and a group can override ``split``. These
functions read the type of an exception, and the attributes of BaseException and BaseExceptionGroup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NoReturn, TypeGuard, TypeVar

E = TypeVar("E", bound=BaseException)

_own: Final = BaseException.__dict__
_group: Final = BaseExceptionGroup.__dict__
_BUILT_IN: Final = (object, BaseException, BaseExceptionGroup)
_READ: Final = ("__cause__", "__class__", "__context__", "__getattribute__", "__traceback__", "exceptions")
_COPIED: Final = ("__traceback__", "__cause__", "__context__", "__suppress_context__")


def is_a(error: object, kind: type[E]) -> TypeGuard[E]:
    """Return True if the type of an exception is this one, or a subclass.

    `issubclass` would use the hash of that type if ``kind`` is an abstract base class, such as `trio.Cancelled`.
    """
    return type.__subclasscheck__(kind, type(error))


def is_group(error: object) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    """Return True for a group of exceptions."""
    return type.__subclasscheck__(BaseExceptionGroup, type(error))


def bases(error: object) -> tuple[type, ...]:
    """Return the classes of an exception in the order in which attributes are looked up; its own class is the first."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(type(error))
    return found


def class_name(value: object) -> str:
    """Return the name of the class of an object."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def qualified_class_name(value: object) -> str:
    """Return the qualified name of the class of an object, without its module."""
    name: str = type.__dict__["__qualname__"].__get__(type(value))
    return name


def read_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception."""
    found: TracebackType | None = _own["__traceback__"].__get__(error)
    return found


def read_cause(error: BaseException) -> BaseException | None:
    """Return the exception that caused another one directly."""
    found: BaseException | None = _own["__cause__"].__get__(error)
    return found


def members(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    """Return the exceptions in a group, which may be groups."""
    found: tuple[BaseException, ...] = _group["exceptions"].__get__(group)
    return found


def first_leaf(error: BaseException) -> tuple[BaseException, int]:
    """Return the first exception of a group, at any depth, and the number of others; any other exception as it is."""
    others = 0
    while is_group(error):
        inner = members(error)
        others = max(others, len(inner) - 1)
        error = inner[0]
    return error, others


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the exceptions in a group, at any depth, each of them once; any other exception as it is."""
    seen: set[int] = set()
    left = [] if error is None else [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if is_group(each):
            left.extend(reversed(members(each)))
        else:
            yield each


def split(
    error: BaseException, condition: Callable[[BaseException], bool]
) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into a part for which the condition is true, and the rest; either may be None.

    The parts of a group are groups without its own methods, unless they are all of it.

    Args:
        error: the exception.
        condition: a function of an exception that is no group; called once for each.
    """
    halves: dict[int, tuple[BaseException | None, BaseException | None]] = {}
    left = [error]
    while left:
        each = left[-1]
        if id(each) not in halves:
            if not is_group(each):
                halves[id(each)] = (each, None) if condition(each) else (None, each)
            else:
                inner = members(each)
                if unknown := [member for member in inner if id(member) not in halves]:
                    left.extend(reversed(unknown))
                    continue
                matching, others = zip(*(halves[id(member)] for member in inner), strict=True)
                halves[id(each)] = _part(each, matching), _part(each, others)
        left.pop()
    return halves[id(error)]


def _part(group: BaseExceptionGroup[BaseException], parts: tuple[BaseException | None, ...]) -> BaseException | None:
    """Return a group of these parts of the members of a group; None without any."""
    kept = [part for part in parts if part is not None]
    if not kept:
        return None
    if all(part is member for part, member in zip(parts, members(group), strict=True)):
        return group
    try:
        result: BaseException = BaseExceptionGroup(_group["message"].__get__(group), kept)
    except BaseException:  # Python reads the __class__ of members
        return kept[0]
    for name in _COPIED:
        value: Any = _own[name].__get__(group)
        _own[name].__set__(result, value)
    return result


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise an exception while another one is handled, without making that one its context."""
    context = _own["__context__"].__get__(error)
    try:
        raise error
    finally:
        _own["__context__"].__set__(error, context)
        del error, context  # no reference cycle


def is_readable(error: BaseException, limit: int) -> bool:
    """Return True if the traceback module can read an exception in a short time.

    It follows groups, causes and contexts by attributes that a class can replace, and a group that contains another one
    twice is read twice.

    Args:
        error: the exception.
        limit: the most exceptions to be read.
    """
    seen: set[int] = set()
    left = [error]
    for _ in range(limit):
        if not left:
            return True
        each = left.pop()
        if _replaces_attributes(each):
            return False
        if id(each) in seen and not is_group(each):
            continue
        seen.add(id(each))
        left.extend(members(each) if is_group(each) else ())
        chain = (_own[name].__get__(each) for name in ("__cause__", "__context__"))
        left.extend(other for other in chain if other is not None and id(other) not in seen)
    return not left


def _replaces_attributes(error: BaseException) -> bool:
    """Return True if a class of an exception replaces an attribute that leads to other exceptions."""
    foreign = (base for base in bases(error) if not any(base is own for own in _BUILT_IN))
    return any(name in type.__dict__["__dict__"].__get__(base) for base in foreign for name in _READ)
