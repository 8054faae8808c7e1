from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core import Client, Filter, Handler, Packet
from asyncapy_core.routing.filter import check, is_async, passed, returns_coroutine

NO_CLIENT = cast("Client", None)
PACKET = Packet({})

Verdict = bool | Exception


class Plain(Filter):
    """A plain filter that returns or raises its verdict, and counts its checks."""

    def __init__(self, verdict: Verdict = True) -> None:
        self.verdict = verdict
        self.checks = 0

    def check(self, c: Client, p: Packet) -> bool:
        self.checks += 1
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.verdict})"


class Async(Plain):
    """An async filter that does the same after a checkpoint."""

    async def check(self, c: Client, p: Packet) -> bool:  # type: ignore[override]  # a filter may be either
        await trio.lowlevel.checkpoint()
        return Plain.check(self, c, p)


class Careless(Filter):
    """A filter whose plain check returns a coroutine."""

    def check(self, c: Client, p: Packet) -> Awaitable[bool]:
        return self.later()

    async def later(self) -> bool:
        return True


class Forgetful(Filter):
    """A filter whose async check returns an awaitable."""

    async def check(self, c: Client, p: Packet) -> Any:
        return _Unfinished()


class _Unfinished:
    def __await__(self) -> Any:
        yield from ()
        return False


KINDS = pytest.mark.parametrize(("first", "second"), [(Plain, Plain), (Async, Async), (Plain, Async), (Async, Plain)])


async def verdict_of(filter: Filter) -> bool | str:
    """Return the verdict of a handler with this filter, or the message of the exception."""

    async def function(client: Any, packet: Any) -> None: ...

    handler = Handler(function, [filter])
    try:
        verdict = await handler.check(NO_CLIENT, PACKET)
        if not handler.is_async:
            assert handler.match(NO_CLIENT, PACKET) is verdict
    except Exception as error:
        return str(error)
    return verdict


@KINDS
@pytest.mark.parametrize("a", [True, False])
@pytest.mark.parametrize("b", [True, False])
async def test_filters_combine_with_and_or_and_not(
    first: Callable[..., Filter], second: Callable[..., Filter], a: bool, b: bool
) -> None:
    assert await verdict_of(first(a) & second(b)) is (a and b)
    assert await verdict_of(first(a) | second(b)) is (a or b)
    assert await verdict_of(~first(a)) is (not a)
    assert await verdict_of(~(first(a) & ~second(b))) is (not (a and not b))
    assert await verdict_of(~~first(a)) is a


@KINDS
async def test_a_filter_that_raises_is_never_turned_into_a_pass(
    first: Callable[..., Filter], second: Callable[..., Filter]
) -> None:
    broken = first(ValueError("broken"))
    for combined in (
        ~broken,
        ~~broken,
        ~(broken & second(True)),
        ~(second(True) & broken),
        ~(broken | second(False)),
        ~(second(False) | broken),
        broken & second(False),
        ~broken & second(True),
        ~(~broken),
    ):
        assert await verdict_of(combined) == "broken", combined


@KINDS
async def test_one_operand_of_or_may_raise_when_another_passes(
    first: Callable[..., Filter], second: Callable[..., Filter]
) -> None:
    assert await verdict_of(first(ValueError("broken")) | second(True)) is True
    assert await verdict_of(first(True) | second(ValueError("broken"))) is True


async def test_of_several_operands_of_or_that_raise_the_first_is_reported() -> None:
    assert await verdict_of(Plain(ValueError("first")) | Plain(ValueError("second"))) == "first"


@KINDS
async def test_operands_are_asked_only_as_far_as_is_needed(
    first: Callable[..., Plain], second: Callable[..., Plain]
) -> None:
    rest = second(True)
    assert await check(first(False) & rest, NO_CLIENT, PACKET) is False
    assert await check(first(True) | rest, NO_CLIENT, PACKET) is True
    assert rest.checks == 0


@pytest.mark.parametrize("combine", [lambda a: a, lambda a: ~a, lambda a: a & Plain(), lambda a: a | Plain(False)])
async def test_a_plain_check_that_returns_a_coroutine_does_not_pass(combine: Callable[[Filter], Filter]) -> None:
    assert await verdict_of(combine(Careless())) == (
        "a check returned an awaitable; define it with 'async def', and await in it"
    )


@pytest.mark.parametrize("combine", [lambda a: a, lambda a: ~a, lambda a: a & Plain(), lambda a: a & Async()])
async def test_an_async_check_that_returns_something_to_be_awaited_does_not_pass(
    combine: Callable[[Filter], Filter],
) -> None:
    assert await verdict_of(combine(Forgetful())) is not True


def test_a_result_that_has_to_be_awaited_is_no_verdict() -> None:
    async def asynchronous() -> Any:
        yield True

    for result in (_Unfinished(), (each for each in [True]), asynchronous()):
        with pytest.raises(TypeError, match="returned an awaitable"):
            passed(result)
    assert passed(1) is True
    assert passed("") is False


@pytest.mark.parametrize("use", [lambda a, b: a and b, lambda a, b: a or b, lambda a, b: not a, lambda a, b: bool(a)])
@pytest.mark.parametrize("combined", [False, True])
def test_using_a_filter_as_a_boolean_raises(use: Callable[[Any, Any], Any], combined: bool) -> None:
    filter = Plain() & Async() if combined else Plain()
    with pytest.raises(TypeError, match=r"combine filters with & | ~, not with 'and', 'or', 'not'"):
        use(filter, Plain())


@pytest.mark.parametrize("other", [True, None, "Plain", lambda c, p: True, Plain])
def test_a_filter_combines_with_filters_only(other: Any) -> None:
    combinations: tuple[Callable[[], object], ...] = (
        lambda: Plain() & other, lambda: Plain() | other, lambda: other & Plain(), lambda: other | Plain()
    )  # fmt: skip
    for combine in combinations:
        with pytest.raises(TypeError):
            combine()


@pytest.mark.parametrize(
    ("filter", "awaited"),
    [
        (Plain(), False),
        (Async(), True),
        (Plain() & Plain(), False),
        (~(Plain() | ~Plain()), False),
        (Plain() & Async(), True),
        (~(Plain() | ~Async()), True),
    ],
    ids=repr,
)
def test_what_has_to_be_awaited_is_known_beforehand(filter: Filter, awaited: bool) -> None:
    assert is_async(filter) is awaited


def test_partials_wrappers_and_callable_objects_of_async_functions_are_async() -> None:
    async def function() -> None: ...

    @functools.wraps(function)
    def wrapper() -> Any:
        return function()

    class Callable_:
        async def __call__(self) -> None: ...

    assert returns_coroutine(function)
    assert returns_coroutine(functools.partial(functools.partial(function)))
    assert returns_coroutine(wrapper)
    assert returns_coroutine(Callable_())
    assert not returns_coroutine(lambda: None)
    assert not returns_coroutine(print)
    assert not returns_coroutine(None)


def test_a_filter_has_to_have_a_check() -> None:
    class Nothing(Filter):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]  # the mistake that is tested


def test_a_combination_is_shown_as_it_is_written() -> None:
    assert repr(~(Plain(True) & Async(False)) | Plain(True)) == "(~(Plain(True) & Async(False)) | Plain(True))"


def test_combinations_are_equal_when_they_are_of_one_kind_and_of_equal_filters() -> None:
    a, b = Plain(), Plain()
    for one, same in [(a & b, a & b), (a | b, a | b), (~a, ~a), (~(a & ~b), ~(a & ~b))]:
        assert one == same
        assert hash(one) == hash(same)
    for one, other in [(a & b, a | b), (a & b, b & a), (a & b, a & a), (~a, ~b), (~a, a), (a | b, (a, b))]:
        assert one != other
        assert other != one


async def test_cancelling_goes_through_a_combination() -> None:
    class Endless(Filter):
        async def check(self, c: Client, p: Packet) -> bool:
            await trio.sleep_forever()
            raise AssertionError

    with trio.CancelScope() as scope:
        scope.cancel()
        await check(~(Endless() | Plain()), NO_CLIENT, PACKET)
    assert scope.cancelled_caught


Tree = tuple[Any, ...]
trees: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(st.sampled_from(["plain", "async"]), st.sampled_from([True, False, "raise"])),
    lambda inner: st.tuples(st.sampled_from(["&", "|"]), inner, inner) | st.tuples(st.just("~"), inner),
    max_leaves=8,
)


def built(tree: Tree) -> Filter:
    match tree:
        case ("~", inner):
            return ~built(inner)
        case ("&", left, right):
            return built(left) & built(right)
        case ("|", left, right):
            return built(left) | built(right)
    kind, verdict = tree
    make = Plain if kind == "plain" else Async
    return make(ValueError("raised") if verdict == "raise" else verdict)


def expected(tree: Tree) -> bool | str:
    match tree:
        case ("~", inner):
            verdict = expected(inner)
            return verdict if verdict == "raised" else not verdict
        case ("&", left, right):
            verdict = expected(left)
            return expected(right) if verdict is True else verdict
        case ("|", left, right):
            verdicts = [expected(left), expected(right)]
            return True if True in verdicts else "raised" if "raised" in verdicts else False
    return "raised" if tree[1] == "raise" else tree[1]


@given(trees)
def test_any_combination_decides_as_logic_has_it(tree: Tree) -> None:
    assert trio.run(verdict_of, built(tree)) == expected(tree)
