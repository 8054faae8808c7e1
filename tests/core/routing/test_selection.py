"""The table must find the same handlers as a search through all of them, whatever the filters and the packets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core import Client, Filter, Handler, Packet, Prefix, Server
from asyncapy_core.errors import Failure
from asyncapy_core.routing.dispatch import Dispatcher, NoHandler
from asyncapy_core.routing.router import Operation
from asyncapy_core.routing.selection import MIN_HANDLERS, SelectionTable, is_selected
from asyncapy_core.server.detached import Detached
from asyncapy_filters import Fields, HasFields

TEXTS = st.sampled_from(["", "a", "ab", "abc", "b", "1", "12", "True", "None", "a\n", "1.5"])
VALUES = TEXTS | st.sampled_from([1, 12, True, None, 1.5, b"a", ["a"], {"a": 1}, ("a",)])
NAMES = st.sampled_from(["op", "command"])


class Odd(Filter):
    """Asks for the length of the packet, raises or answers, and notes that it was asked."""

    def __init__(self, number: int, asked: list[int]) -> None:
        self.number, self.asked = number, asked

    def check(self, c: Client, p: Packet) -> bool:
        self.asked.append(self.number)
        if self.number == 1:
            raise ValueError("broken")
        if self.number == 2 and len(p) == 2:
            raise Failure("ERR_TWO")
        return len(p) % 2 == 1


class AsyncOdd(Odd):
    async def check(self, c: Client, p: Packet) -> bool:  # type: ignore[override]  # a filter may be either
        await trio.lowlevel.checkpoint()
        return Odd.check(self, c, p)


@st.composite
def filter_makers(draw: st.DrawFn) -> Any:
    """Return a function of a list of asked filters, which makes a filter."""
    kind = draw(st.sampled_from(["operation", "fields", "has", "pattern", "whole", "odd", "async", "and", "or", "not"]))
    name, text, number = draw(NAMES), draw(TEXTS), draw(st.integers(0, 3))
    if kind == "operation":
        return lambda asked: Operation(name, text)
    if kind in {"fields", "has"}:
        pattern = draw(st.sampled_from([re.escape(text), "^" + re.escape(text), re.escape(text) + "$"]))
        return lambda asked: (Fields if kind == "fields" else HasFields)(**{name: pattern})
    if kind == "whole":
        return lambda asked: HasFields(**{name: re.escape(text) + r"\Z"})
    if kind == "pattern":
        return lambda asked: HasFields(**{name: draw_pattern})
    if kind in {"odd", "async"}:
        return lambda asked: (Odd if kind == "odd" else AsyncOdd)(number, asked)
    inner, other = draw(filter_makers()), draw(filter_makers())
    if kind == "and":
        return lambda asked: inner(asked) & other(asked)
    if kind == "or":
        return lambda asked: inner(asked) | other(asked)
    return lambda asked: ~inner(asked)


draw_pattern = "a|b"
HANDLERS = st.lists(st.tuples(st.lists(filter_makers(), max_size=3), st.integers(0, 1)), max_size=12)
PACKETS = st.lists(st.dictionaries(NAMES | st.just("more"), VALUES, max_size=3), min_size=1, max_size=8)


def dispatch_all(handlers: Any, packets: list[dict[str, Any]], *, tables: bool) -> list[Any]:
    """Return for each packet the called handlers, the filters that were asked, and how the dispatch ended."""
    asked: list[int] = []
    called: list[int] = []
    dispatcher = Dispatcher()
    for number, (makers, group) in enumerate(handlers):

        async def function(client: Client, packet: Packet, number: int = number) -> None:
            called.append(number)

        dispatcher.register(Handler(function, [make(asked) for make in makers]), group)
    peer = Detached("192.0.2.1", server=Server(logging_level="CRITICAL"))
    outcomes: list[Any] = []

    async def run() -> None:
        for fields in packets:
            called.clear()
            asked.clear()
            end: Any = None
            dispatch = dispatcher.dispatch if tables else dispatcher.dispatch_traced
            try:
                await dispatch(peer.client, Packet(fields))
            except (NoHandler, Failure) as error:
                end = (type(error), getattr(error, "failed", None), str(error))
            outcomes.append((list(called), list(asked), end))

    trio.run(run)
    return outcomes


@given(HANDLERS, PACKETS)
def test_the_table_and_the_search_through_all_handlers_agree(handlers: Any, packets: list[dict[str, Any]]) -> None:
    assert dispatch_all(handlers, packets, tables=True) == dispatch_all(handlers, packets, tables=False)


@given(st.lists(filter_makers(), min_size=1, max_size=12), PACKETS)
def test_every_handler_that_matches_is_among_the_candidates_in_order(
    makers: Any, packets: list[dict[str, Any]]
) -> None:
    async def function(client: Client, packet: Packet) -> None: ...

    handlers = [Handler(function, [make([])]) for make in makers]
    table = SelectionTable(handlers)
    for fields in packets:
        candidates = list(table.candidates(fields))
        assert candidates == [handler for handler in handlers if handler in candidates]
        for handler in handlers:
            selection = handler.selection
            assert (handler in candidates) is (selection is None or is_selected(selection, fields))


def handlers_for(*selections: tuple[str, str] | None) -> list[Handler]:
    class Selecting(Filter):
        def __init__(self, selection: tuple[str, str] | None) -> None:
            self.selection = selection

        def check(self, c: Client, p: Packet) -> bool:
            return True

        def selects(self) -> tuple[str, str] | None:
            return self.selection

    async def function(client: Client, packet: Packet) -> None: ...

    return [Handler(function, [Selecting(selection)]) for selection in selections]


def test_a_table_looks_at_few_of_many_handlers() -> None:
    handlers = handlers_for(*(("op", f"operation {number}") for number in range(200)), None)
    table = SelectionTable(handlers)
    assert list(table.candidates({"op": "operation 199"})) == [handlers[199], handlers[200]]
    assert list(table.candidates({"op": "unheard of"})) == list(table.candidates({})) == [handlers[200]]


def test_a_group_of_few_handlers_has_no_table() -> None:
    assert SelectionTable.of(handlers_for(*[("op", "x")] * (MIN_HANDLERS - 1), None, None)) is None
    assert SelectionTable.of(handlers_for(*[("op", "x")] * MIN_HANDLERS, None)) is not None


def test_all_handlers_are_candidates_where_a_value_has_no_text() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    handlers = handlers_for(("op", "a"), None, ("op", "b"))
    assert list(SelectionTable(handlers).candidates({"op": Broken()})) == handlers


@pytest.mark.parametrize(
    ("selection", "fields", "selected"),
    [
        (("op", "a"), {"op": "a"}, True),
        (("op", "a"), {"op": "ab"}, False),
        (("op", Prefix("a")), {"op": "ab"}, True),
        (("op", Prefix("a")), {"op": "b"}, False),
        (("op", "1"), {"op": 1}, True),
        (("op", "None"), {"op": None}, True),
        (("op", "None"), {}, False),
        (("op", "['a']"), {"op": ["a"]}, False),
    ],
)
def test_a_selection_is_compared_with_the_text_of_the_field(
    selection: tuple[str, str], fields: dict[str, Any], selected: bool
) -> None:
    assert is_selected(selection, fields) is selected


@pytest.mark.parametrize("wrong", ["op", ("op",), ("op", 1), (1, "a"), ["op", "a"], True])
def test_a_filter_that_selects_something_else_is_refused_at_registration(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"selects\(\) of .* returned .*; return a field and its text, or None"):
        handlers_for(wrong)
