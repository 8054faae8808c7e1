"""Exceptions are read by their types, and split without their own methods."""

from __future__ import annotations

import pytest
import trio
from cancellation import make_cancelled
from hostile_exceptions import KINDS, doubled, made, nested

from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.foreign.inspection import class_name, first_leaf, is_a, is_readable, leaves, members, split

GROUPED = [kind for kind in KINDS if kind not in {"BaseException", "BaseExceptionGroup", "KeyboardInterrupt"}]
"""All but those that no group can contain, as Python reads the class of a BaseException."""


def is_value_error(error: BaseException) -> bool:
    return is_a(error, ValueError)


def test_a_group_is_split_at_any_depth_and_keeps_its_message_traceback_and_cause() -> None:
    one, two, other = ValueError(1), ValueError(2), KeyError(3)
    try:
        raise ExceptionGroup("out", [one, ExceptionGroup("in", [two, other])]) from OSError("cause")
    except ExceptionGroup as error:
        group = error
    matching, rest = split(group, is_value_error)
    assert isinstance(matching, ExceptionGroup)
    assert isinstance(rest, ExceptionGroup)
    assert [*leaves(matching)] == [one, two]
    assert [*leaves(rest)] == [other]
    for part in (matching, rest):
        assert (part.message, part.__traceback__, part.__cause__) == ("out", group.__traceback__, group.__cause__)
        assert part.__suppress_context__


def test_a_part_that_is_all_of_an_exception_is_the_exception() -> None:
    for error in (ValueError(), ExceptionGroup("out", [ValueError(), ExceptionGroup("in", [ValueError()])])):
        assert split(error, is_value_error) == (error, None)
        assert split(error, lambda _: False) == (None, error)


@pytest.mark.parametrize("kind", GROUPED)
def test_any_exception_beside_another_one_can_be_split(kind: str) -> None:
    hostile = KINDS[kind]()
    key = KeyError()
    matching, rest = split(BaseExceptionGroup("both", [key, hostile]), lambda leaf: leaf is key)
    assert [*leaves(matching)] == [key]
    assert [id(leaf) for leaf in leaves(rest)] == [id(leaf) for leaf in leaves(hostile)]


def test_each_exception_of_a_group_is_judged_once_whatever_its_form() -> None:
    for error in (nested(50_000), doubled(60)):
        judged: list[BaseException] = []
        assert split(error, lambda leaf, judged=judged: judged.append(leaf) or True) == (error, None)  # type: ignore[misc]
        assert judged == [*leaves(error)] == [first_leaf(error)[0]]


def test_an_exception_is_readable_unless_it_is_long_or_replaces_attributes() -> None:
    cause = ValueError()
    cause.__cause__ = cause.__context__ = KeyError()
    assert is_readable(cause, 10)
    assert is_readable(ExceptionGroup("all", [ValueError()] * 9), 10)
    assert not is_readable(ExceptionGroup("all", [ValueError()] * 10), 10)
    for error in (nested(100), doubled(20), made(ValueError), KINDS["group that contains itself"]()):
        assert not is_readable(error, 50)
    cause.__context__ = made(ValueError)
    assert not is_readable(cause, 50)


def test_the_name_of_a_class_is_read_past_its_metaclass() -> None:
    assert class_name(KINDS["metaclass"]()) == "Odd"


@pytest.mark.parametrize("kind", GROUPED)
async def test_a_cancelled_scope_is_left_with_any_exception(kind: str) -> None:
    error = KINDS[kind]()
    for raised in (error, BaseExceptionGroup("both", [error, await make_cancelled()])):
        with pytest.raises(BaseException) as caught, ForeignScope(trio.CancelScope()) as scope:  # noqa: PT012
            scope.cancel()
            raise raised
        assert {id(leaf) for leaf in leaves(caught.value)} == {id(leaf) for leaf in leaves(error)}
        assert scope.cancelled_caught == (raised is not error)
    await trio.lowlevel.checkpoint()


async def test_a_scope_that_was_not_cancelled_lets_cancellations_through() -> None:
    group = BaseExceptionGroup("both", [ValueError(), await make_cancelled()])
    with pytest.raises(BaseExceptionGroup) as caught, ForeignScope(trio.CancelScope()):
        raise group
    assert caught.value is group
    assert len(members(group)) == 2
