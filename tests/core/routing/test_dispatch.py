from __future__ import annotations

import contextlib
import functools
import logging
import re
import signal
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import trio
from cancellation import make_cancelled

from asyncapy_core import Client, Filter, Handler, Packet, PluginManager, Server, Session, SharedPacket
from asyncapy_core.errors import StopPropagation
from asyncapy_core.logs import SessionLog
from asyncapy_core.routing.dispatch import Dispatcher, NoHandler
from asyncapy_core.routing.handler import Guard

PACKET = Packet({"a": 1})


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"[{record.levelname}] {record.getMessage()}")


class Stream:
    """A stream that drops its packets; its client only logs."""

    def __init__(self, logger: logging.Logger) -> None:
        self.log = SessionLog(logger, "UUID")

    def post(self, packet: Packet) -> None: ...

    def post_now(self, packet: Packet | SharedPacket) -> None: ...

    async def post_shared(self, packet: SharedPacket) -> None: ...

    async def post_last(self, packet: Packet) -> None: ...

    def answering(self) -> contextlib.AbstractAsyncContextManager[object]:
        return contextlib.nullcontext()

    async def answer(self, result: object, packet: Packet) -> None: ...

    async def close(self) -> None: ...

    def sessions(self) -> list[Session]:
        return []


class DispatchHarness:
    """A dispatcher and a client for it, the names of the called handlers, and the log lines."""

    traced = True

    def __init__(self) -> None:
        logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001  # a registered logger would be shared
        handler = Lines()
        logger.addHandler(handler)
        self.lines = handler.lines
        self.called: list[str] = []
        self.dispatcher = Dispatcher()
        server = Server(plugins=PluginManager(discover=False))
        self.client = Client("192.0.2.1", server, Stream(logger))
        self.client.session = Session(uuid.uuid4(), self.client, 0.0)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("[DEBUG]")]

    def handler(self, name: str, *filters: Filter, group: int = 0, then: Callable[[Packet], Any] | None = None) -> None:
        async def function(client: Client, packet: Packet) -> None:
            self.called.append(name)
            if then is not None:
                then(packet)

        function.__name__ = name
        self.dispatcher.register(Handler(function, filters), group)

    async def dispatch(self) -> bool:
        try:
            await (self.dispatcher.dispatch_traced if self.traced else self.dispatcher.dispatch)(self.client, PACKET)
        except NoHandler:
            return False
        return True


@pytest.fixture(autouse=True, params=[True, False], ids=["traced", "untraced"])
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run each test with both ways to dispatch: the one that logs its steps, and the fast one."""
    monkeypatch.setattr(DispatchHarness, "traced", request.param)
    return bool(request.param)


class Plain(Filter):
    def __init__(self, verdict: bool | Exception) -> None:
        self.verdict = verdict

    def check(self, c: Client, p: Packet) -> bool:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class Async(Plain):
    async def check(self, c: Client, p: Packet) -> bool:  # type: ignore[override]  # a filter may be either
        await trio.lowlevel.checkpoint()
        return Plain.check(self, c, p)


class Coroutine(Filter):
    def check(self, c: Client, p: Packet) -> Any:
        return self.later()

    async def later(self) -> bool:
        return True


async def nothing(client: Any, packet: Any) -> None: ...


def raising(error: Exception) -> Callable[[Packet], None]:
    def then(packet: Packet) -> None:
        raise error

    return then


async def test_only_the_first_handler_of_a_group_that_matches_is_called() -> None:
    harness = DispatchHarness()
    harness.handler("refuses", Plain(False))
    harness.handler("first")
    harness.handler("second")
    assert await harness.dispatch() is True
    assert harness.called == ["first"]


async def test_every_group_is_asked_the_lowest_first() -> None:
    harness = DispatchHarness()
    for group in (0, 7, -1, 3):
        harness.handler(f"group {group}", group=group)
    assert await harness.dispatch() is True
    assert harness.called == ["group -1", "group 0", "group 3", "group 7"]


async def test_a_packet_that_no_handler_wants_is_told_apart() -> None:
    harness = DispatchHarness()
    assert await harness.dispatch() is False
    harness.handler("refuses", Plain(False))
    harness.handler("refuses too", Async(False), group=1)
    assert await harness.dispatch() is False
    harness.handler("wants it", group=2)
    assert await harness.dispatch() is True
    assert harness.called == ["wants it"]


@pytest.mark.parametrize("kind", [Plain, Async])
async def test_a_handler_is_reached_when_all_its_filters_pass(kind: type[Plain]) -> None:
    harness = DispatchHarness()
    harness.handler("one refuses", kind(True), Plain(False))
    harness.handler("all pass", kind(True), Plain(True), Async(True))
    assert await harness.dispatch() is True
    assert harness.called == ["all pass"]


@pytest.mark.parametrize("kind", [Plain, Async])
@pytest.mark.parametrize("combine", [lambda broken: broken, lambda broken: ~broken])
async def test_a_filter_that_raises_does_not_pass_and_is_logged(kind: type[Plain], combine: Any) -> None:
    harness = DispatchHarness()
    harness.handler("guarded", combine(kind(ValueError("bad\r\nline"))))
    harness.handler("open")
    assert await harness.dispatch() is True
    assert harness.called == ["open"]
    (line,) = harness.errors
    assert line.startswith(r"[ERROR] (UUID) {API Parser} A filter of 'guarded' raised ValueError (bad\r\nline) at ")
    assert line.endswith(", so the packet does not pass")


async def test_a_filter_that_always_raises_does_not_fill_the_log() -> None:
    harness = DispatchHarness()
    harness.handler("guarded", Plain(ValueError("bad")))
    for _ in range(20):
        assert await harness.dispatch() is False
    assert len(harness.errors) < 20


@pytest.mark.parametrize("others", [[], [Async(True)]])
async def test_a_plain_check_that_returns_a_coroutine_does_not_pass(others: list[Filter]) -> None:
    harness = DispatchHarness()
    harness.handler("guarded", Coroutine(), *others)
    assert await harness.dispatch() is False
    assert harness.called == []
    assert ["raised TypeError" in line for line in harness.errors] == [True]


@pytest.mark.parametrize("others", [[], [Plain(True)], [Async(True)]], ids=["alone", "with a plain one", "with async"])
async def test_what_a_filter_returns_counts_as_a_boolean(others: list[Filter]) -> None:
    class Truthy(Filter):
        def __init__(self, value: Any) -> None:
            self.value = value

        def check(self, c: Client, p: Packet) -> Any:
            return self.value

    harness = DispatchHarness()
    harness.handler("falsy", Truthy(None), *others)
    harness.handler("truthy", Truthy("yes"), *others)
    assert await harness.dispatch() is True
    assert harness.called == ["truthy"]


@pytest.mark.parametrize("error", [StopPropagation(), RuntimeError("oops")])
async def test_what_a_handler_raises_comes_through_and_no_later_group_sees_the_packet(error: Exception) -> None:
    harness = DispatchHarness()
    harness.handler("early", group=-1)
    harness.handler("raises", then=raising(error))
    harness.handler("same group")
    harness.handler("late", group=1)
    with pytest.raises(type(error)) as caught:
        await harness.dispatch()
    assert caught.value is error
    assert harness.called == ["early", "raises"]


async def test_a_packet_stops_its_own_propagation() -> None:
    harness = DispatchHarness()
    harness.handler("stops", then=Packet.stop_propagation)
    harness.handler("late", group=1)
    with pytest.raises(StopPropagation):
        await harness.dispatch()
    assert harness.called == ["stops"]


async def test_a_handler_registered_while_a_packet_is_under_way_waits_for_the_next() -> None:
    harness = DispatchHarness()
    harness.handler("registers", then=lambda packet: harness.handler("new", group=1))
    await harness.dispatch()
    assert harness.called == ["registers"]
    await harness.dispatch()
    assert harness.called == ["registers", "registers", "new"]


async def test_groups_and_calls_are_logged_for_debugging_and_not_otherwise(traced: bool) -> None:
    harness = DispatchHarness()
    harness.handler("echo_server")
    for groups in (1, 2):
        await harness.dispatch()
        lines = [
            "[DEBUG] (UUID) {API Parser} Checking group 0",
            "[DEBUG] (UUID) {API Parser} Calling 'echo_server' in group 0",
            "[DEBUG] (UUID) {API Parser} Checking group 1",
            "[DEBUG] (UUID) {API Parser} Calling 'late' in group 1",
        ]
        assert harness.lines == (lines[: 2 * groups] if traced else [])
        harness.lines.clear()
        harness.handler("late", group=1)


@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("filters", [1, 2])
@pytest.mark.parametrize("groups", [[0], [0, 1]], ids=["one group", "two groups"])
@pytest.mark.parametrize("guarded", [False, True])
async def test_guards_filters_and_handlers_are_given_the_client_and_the_packet(
    awaited: bool, filters: int, groups: list[int], guarded: bool
) -> None:
    given: list[tuple[Any, Any]] = []

    class Noting(Filter):
        def check(self, c: Client, p: Packet) -> bool:
            given.append((c, p))
            return True

    class NotingLater(Filter):
        async def check(self, c: Client, p: Packet) -> bool:
            given.append((c, p))
            return True

    async def function(client: Any, packet: Any) -> None:
        given.append((client, packet))

    filter = NotingLater() if awaited else Noting()
    harness = DispatchHarness()
    if guarded:
        harness.dispatcher.guard(Guard(filter))
    for group in groups:
        harness.dispatcher.register(Handler(function, [filter] * filters), group)
    assert await harness.dispatch() is True
    assert given == [(harness.client, PACKET)] * (guarded + len(groups) * (filters + 1))


async def test_in_one_group_with_plain_filters_the_coroutine_of_the_handler_is_returned() -> None:
    async def function(client: Any, packet: Any) -> None: ...

    harness = DispatchHarness()
    harness.dispatcher.register(Handler(function, [Plain(True)]), 0)
    coroutine: Any = harness.dispatcher.dispatch(harness.client, PACKET)
    assert coroutine.cr_code is function.__code__
    await coroutine


# Guards


def never(client: Any, packet: Any) -> bool:
    return False


async def never_async(client: Any, packet: Any) -> bool:
    return False


@pytest.mark.parametrize("guard", [never, never_async, Plain(False), Async(False)], ids=["def", "async def", "a", "b"])
@pytest.mark.parametrize("first", ["guard", "handler"])
async def test_what_a_guard_does_not_pass_reaches_no_handler(guard: Any, first: str) -> None:
    harness = DispatchHarness()
    if first == "guard":
        harness.dispatcher.guard(Guard(guard))
    harness.handler("handler")
    if first == "handler":
        harness.dispatcher.guard(Guard(guard))
    assert await harness.dispatch() is False
    assert harness.called == []


@pytest.mark.parametrize("guard", [lambda c, p: True, Plain(True), Async(True), lambda c, p: "yes"])
@pytest.mark.parametrize("first", ["guard", "handler"])
async def test_what_all_guards_pass_goes_its_usual_way(guard: Any, first: str) -> None:
    harness = DispatchHarness()
    if first == "guard":
        harness.dispatcher.guard(Guard(guard))
    harness.handler("handler")
    if first == "handler":
        harness.dispatcher.guard(Guard(guard))
    assert await harness.dispatch() is True
    assert harness.called == ["handler"]
    harness.dispatcher.guard(Guard(Plain(False)))
    assert await harness.dispatch() is False
    assert harness.called == ["handler"]


@pytest.mark.parametrize(
    ("guard", "shown"),
    [(never, "never"), (functools.partial(never), "function"), (~Plain(True), re.escape("~<")), (Plain(False), "<")],
    ids=["a function", "without a name", "a combination", "a filter"],
)
async def test_a_refusal_by_a_guard_is_logged_at_most_once_a_second(guard: Any, shown: str) -> None:
    harness = DispatchHarness()
    harness.dispatcher.guard(Guard(guard))
    for _ in range(3):
        assert await harness.dispatch() is False
    (line,) = harness.lines
    assert re.fullmatch(rf"\[INFO\] \(UUID\) {{API Parser}} A packet from .* was refused by the guard {shown}.*", line)
    assert ("object at" in line) == (shown not in {"never", "function"})


@pytest.mark.parametrize("guard", [None, "check", 1, Plain, object], ids=repr)
def test_what_is_neither_a_filter_nor_a_function_is_no_guard(guard: Any) -> None:
    with pytest.raises(TypeError, match=rf"^a guard is a Filter, or a function of .*; got {re.escape(repr(guard))}$"):
        DispatchHarness().dispatcher.guard(Guard(guard))


async def test_what_calling_a_handler_raises_is_no_failure_of_its_filters() -> None:
    @functools.wraps(nothing)
    def raises(client: Any, packet: Any) -> Any:
        raise TypeError("raised by the call, before there is a coroutine")

    harness = DispatchHarness()
    harness.dispatcher.register(Handler(raises), 0)
    harness.handler("next")
    with pytest.raises(TypeError, match="raised by the call"):
        await harness.dispatch()
    assert (harness.called, harness.errors) == ([], [])


def test_the_handlers_are_listed_by_group() -> None:
    dispatcher = DispatchHarness().dispatcher
    late, early, second = Handler(nothing), Handler(nothing), Handler(nothing)
    dispatcher.register(late, 1)
    dispatcher.register(early, 0)
    dispatcher.register(second, 1)
    assert dispatcher.groups == {0: (early,), 1: (late, second)}
    assert list(dispatcher.groups) == [0, 1]


async def test_a_handler_calls_its_function_with_the_arguments() -> None:
    async def function(*args: Any) -> Any:
        return args

    assert await Handler(function).call(1, 2) == (1, 2)


async def test_a_handler_checks_all_its_filters() -> None:
    harness = DispatchHarness()
    for filters, verdict in [
        (None, True),
        ([], True),
        ([Plain(True), Plain(True)], True),
        ([Plain(True), Plain(False)], False),
        ([Async(True), Plain(False)], False),
        ([Async(True), Plain(True)], True),
    ]:
        assert await Handler(nothing, filters).check(harness.client, PACKET) is verdict


async def test_a_filter_behind_one_that_does_not_pass_is_not_asked() -> None:
    harness = DispatchHarness()
    for first in (Plain(False), Async(False)):
        handler = Handler(nothing, [first, Plain(AssertionError("asked"))])
        assert await handler.check(harness.client, PACKET) is False


@pytest.mark.parametrize(
    ("function", "name"), [(print, "print"), (never, "never"), (functools.partial(never), "handler")]
)
def test_a_handler_that_is_not_asynchronous_is_a_type_error(function: Any, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        Handler(function)
    assert str(caught.value) == (
        f"a handler must be asynchronous: write 'async def {name}(client, packet)' "
        "(for blocking work inside it there is Server.run_sync_task)"
    )


@pytest.mark.parametrize("function", [None, "handler", 1])
def test_a_handler_that_cannot_be_called_is_a_type_error(function: Any) -> None:
    with pytest.raises(TypeError, match="a handler must be an 'async def' function; got"):
        Handler(function)


@pytest.mark.parametrize("filter", [Plain, lambda c, p: True, None, "Fields"])
def test_something_that_is_no_filter_is_a_type_error(filter: Any) -> None:
    with pytest.raises(TypeError, match=r"a filter must be a Filter, such as Filters.Fields\(a=None\)"):
        Handler(nothing, [filter])


def test_a_handler_is_called_by_the_name_of_its_function() -> None:
    class Callable_:
        async def __call__(self, client: Any, packet: Any) -> None: ...

        def __repr__(self) -> str:
            return "<an object>"

    assert Handler(nothing).name == "nothing"
    assert repr(Handler(nothing)) == "<Handler nothing filters=[]>"
    assert Handler(Callable_()).name == "<an object>"


def test_changing_the_list_of_filters_afterwards_changes_nothing() -> None:
    filters: list[Filter] = [Plain(False)]
    handler = Handler(nothing, filters)
    filters.clear()
    assert len(handler.filters) == 1
    assert handler.match(DispatchHarness().client, PACKET) is False


# Exceptions of filters and handlers


class Raising(Filter):
    """A filter whose plain check raises an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def check(self, c: Client, p: Packet) -> bool:
        raise self.error


class RaisingLater(Raising):
    async def check(self, c: Client, p: Packet) -> bool:  # type: ignore[override]  # a filter may be either
        raise self.error


def interrupt() -> KeyboardInterrupt:
    """Return the KeyboardInterrupt of a Ctrl+C, raised by the signal handler."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        return error
    raise AssertionError


async def outcome(harness: DispatchHarness) -> NoHandler:
    with pytest.raises(NoHandler) as caught:
        await (harness.dispatcher.dispatch_traced if harness.traced else harness.dispatcher.dispatch)(
            harness.client, Packet({})
        )
    return caught.value


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("kind", [Plain, Async])
async def test_a_packet_without_a_handler_says_whether_a_filter_failed(kind: type[Plain], guarded: bool) -> None:
    for verdict, failed in ((False, False), (ValueError("no"), True)):
        harness = DispatchHarness()
        if guarded:
            harness.dispatcher.guard(Guard(kind(verdict)))
            harness.handler("open")
        else:
            harness.handler("closed", kind(verdict))
        assert (await outcome(harness)).failed is failed
    assert NoHandler().failed is False


async def test_a_packet_knows_the_handler_that_has_it() -> None:
    harness = DispatchHarness()
    packet = Packet({"a": 1})
    seen: list[str] = []

    def look(given: Packet) -> None:
        assert given.handler is not None
        seen.append(given.handler.name)

    harness.handler("first", then=look)
    if DispatchHarness.traced:
        harness.handler("second", group=1, then=look)
    assert packet.handler is None
    await (harness.dispatcher.dispatch_traced if DispatchHarness.traced else harness.dispatcher.dispatch)(
        harness.client, packet
    )
    assert seen == (["first", "second"] if DispatchHarness.traced else ["first"])


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), BaseExceptionGroup("", [SystemExit()])], ids=repr)
async def test_a_plain_filter_that_raises_anything_at_all_does_not_pass(error: BaseException) -> None:
    harness = DispatchHarness()
    harness.handler("guarded", Raising(error))
    harness.handler("open")
    assert await harness.dispatch() is True
    assert harness.called == ["open"]


@pytest.mark.parametrize("kind", [Raising, RaisingLater])
async def test_a_ctrl_c_in_a_filter_goes_through(kind: type[Raising]) -> None:
    for error in (interrupt(), BaseExceptionGroup("", [ValueError(), interrupt()])):
        harness = DispatchHarness()
        harness.handler("guarded", kind(error))
        with pytest.raises(type(error)):
            await harness.dispatch()


async def test_a_cancellation_in_an_async_filter_goes_through_for_the_one_who_knows_whose_it_is() -> None:
    cancelled = await make_cancelled()
    for error in (cancelled, GeneratorExit(), BaseExceptionGroup("", [ValueError(), cancelled])):
        harness = DispatchHarness()
        harness.handler("guarded", RaisingLater(error))
        with pytest.raises(type(error)):
            await harness.dispatch()
    for error in (cancelled, BaseExceptionGroup("", [ValueError(), cancelled])):
        harness = DispatchHarness()
        harness.handler("guarded", Raising(error))
        assert await harness.dispatch() is False, "a plain filter has no await that could be cancelled"


@pytest.mark.parametrize("error", [SystemExit(1), ExceptionGroup("", [ValueError()]), KeyboardInterrupt()], ids=repr)
async def test_an_async_filter_that_raises_anything_else_does_not_pass(error: BaseException) -> None:
    harness = DispatchHarness()
    harness.handler("guarded", RaisingLater(error))
    harness.handler("open")
    assert await harness.dispatch() is True
    assert harness.called == ["open"]
