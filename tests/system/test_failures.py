"""Answers of handlers that are failures: `Failure`, `Server.on_error`, and return values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import failure, json_packet

from asyncapy import Client, Failure, Packet, Server
from asyncapy.client import AsyncClient
from asyncapy.client import Client as BlockingClient
from asyncapy.errors import (
    FailureReply,
    Forbidden,
    InvalidFields,
    RateLimited,
    StopPropagation,
    Unauthorized,
    Unavailable,
)
from asyncapy.filters import Filter, Filters
from asyncapy_core import PluginManager
from asyncapy_core.server.explain import explain_packet

NOT_FOUND = {"status": "failure", "error": "ERR_NOT_FOUND", "detail": "no such book", "id": 7}


SCOPES: list[dict[str, Any]] = [{}, {"handler_timeout": 5.0}, {"cancel_on_disconnect": True}, {"logging_level": 10}]
"""Settings with which a packet is dispatched in another way."""


class BookMissing(LookupError):
    """An exception of the application."""


def missing() -> Failure:
    return Failure("ERR_NOT_FOUND", detail="no such book", id=7)


class Refuses(Filter):
    """A filter that raises a failure."""

    def check(self, c: Client, p: Packet) -> bool:
        raise missing()


class RefusesLater(Filter):
    """An async filter that raises a failure."""

    async def check(self, c: Client, p: Packet) -> bool:
        await trio.lowlevel.checkpoint()
        raise missing()


async def group_with(*errors: Exception) -> None:
    raise ExceptionGroup("several", list(errors))


async def raise_(error: BaseException) -> None:
    raise error


async def ask(serve: Serve, server: Server, *, logged: str = "") -> Any:
    """Serve, send a packet, and return the reply; the session goes on, and nothing else is logged as a failure."""
    running = await serve(server)
    async with await running.connect() as peer:
        reply = await peer.ask(op="first")
        assert await peer.ask(op="second") == reply
    failed = running.logged("failed for") + running.logged("raised")
    assert bool(failed) is bool(logged), failed
    assert not logged or logged in failed[0]
    return reply


@pytest.mark.parametrize("groups", [1, 2], ids=["one group", "two groups"])
@pytest.mark.parametrize("settings", SCOPES, ids=str)
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
async def test_a_failure_raised_by_a_handler_is_the_answer(
    serve: Serve, groups: int, settings: dict[str, Any], grouped: bool
) -> None:
    server = Server(port=0, **settings)
    later: list[Packet] = []

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        await (group_with(missing()) if grouped else raise_(missing()))

    if groups == 2:

        @server.add_handler(group=1)
        async def log_it(client: Client, packet: Packet) -> None:
            later.append(packet)

    assert await ask(serve, server) == NOT_FOUND
    assert not later


@pytest.mark.parametrize(
    "filter",
    [Refuses(), RefusesLater(), ~Refuses(), Refuses() | Filters.Fields(other=None)],
    ids=["plain", "async", "inverted", "combined"],
)
async def test_a_failure_raised_by_a_filter_is_the_answer(serve: Serve, filter: Filter) -> None:
    server = Server(port=0)

    @server.add_handler(filter)
    async def first(client: Client, packet: Packet) -> None:
        await client.send({"passed": True})

    @server.add_handler()
    async def second(client: Client, packet: Packet) -> None:
        await client.send({"passed": True})

    assert await ask(serve, server) == NOT_FOUND


@pytest.mark.parametrize("guard", [Refuses(), RefusesLater(), lambda client, packet: Refuses().check(client, packet)])
async def test_a_failure_raised_by_a_guard_is_the_answer(serve: Serve, guard: Any) -> None:
    server = Server(port=0)
    server.guard(guard)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        await client.send({"passed": True})

    assert await ask(serve, server) == NOT_FOUND


async def test_a_failure_after_an_answer_closes_the_connection(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        await client.send({"half": True})
        raise missing()

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.stream.send_all(json_packet(a=1) + json_packet(a=2))
        assert await peer.json() == {"half": True}
        await peer.closed()
    assert running.logged("Handler 'read' failed for 127.0.0.1: Failure (ERR_NOT_FOUND: no such book)")


async def test_a_failure_that_cannot_be_encoded_is_a_failure_of_the_handler(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        raise Failure("ERR_NOT_FOUND", id=object())

    assert await ask(serve, server, logged="EncodeError") == failure("ERR_HANDLER_FAILED")


async def test_several_exceptions_of_which_one_is_a_failure_are_a_failure_of_the_handler(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        await group_with(missing(), ValueError("no"))

    assert await ask(serve, server, logged="and 1 more") == failure("ERR_HANDLER_FAILED")


def not_found(client: Client, packet: Packet, error: LookupError) -> Failure:
    return Failure("ERR_NOT_FOUND", detail="no such book", id=7)


async def not_found_later(client: Client, packet: Packet, error: LookupError) -> Failure:
    await trio.lowlevel.checkpoint()
    return not_found(client, packet, error)


def raises_not_found(client: Client, packet: Packet, error: LookupError) -> Failure:
    raise not_found(client, packet, error)


@pytest.mark.parametrize("function", [not_found, not_found_later, raises_not_found])
@pytest.mark.parametrize("kind", [BookMissing, LookupError, Exception])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
async def test_an_exception_of_the_application_becomes_a_failure(
    serve: Serve, function: Any, kind: type[Exception], grouped: bool
) -> None:
    server = Server(port=0)
    assert server.on_error(kind)(function) is function

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        await (group_with(BookMissing(7)) if grouped else raise_(BookMissing(7)))

    assert await ask(serve, server) == NOT_FOUND


async def test_the_function_of_the_nearest_class_decides(serve: Serve) -> None:
    server = Server(port=0)
    for registered in (Exception, LookupError, KeyError):
        server.on_error(registered)(lambda client, packet, error, name=registered.__name__: Failure(name))

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        raise {"book": BookMissing, "key": KeyError, "value": ValueError}[packet["kind"]]

    running = await serve(server)
    async with await running.connect() as peer:
        for kind, code in (("book", "LookupError"), ("key", "KeyError"), ("value", "Exception")):
            assert await peer.ask(kind=kind) == failure(code)


@pytest.mark.parametrize(
    ("result", "logged"),
    [
        (None, "BookMissing (7)"),
        ({"not": "a failure"}, "TypeError (an error handler returned a dict; return a Failure, or None)"),
        (ZeroDivisionError("no"), "ZeroDivisionError (no)"),
        (SystemExit(3), "SystemExit (3)"),
    ],
    ids=["None", "a map", "raises", "exits"],
)
async def test_without_a_failure_it_is_a_failure_of_the_handler(serve: Serve, result: Any, logged: str) -> None:
    server = Server(port=0)

    @server.on_error(BookMissing)
    async def answer(client: Client, packet: Packet, error: BookMissing) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        raise BookMissing(7)

    assert await ask(serve, server, logged=logged) == failure("ERR_HANDLER_FAILED")


async def test_the_time_limit_of_handlers_holds_for_error_functions(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.1)

    @server.on_error(BookMissing)
    async def hang(client: Client, packet: Packet, error: BookMissing) -> None:
        await trio.sleep_forever()

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        raise BookMissing(7)

    logged = "TimeoutError (cut off after 0.1 s (handler_timeout))"
    assert await ask(serve, server, logged=logged) == failure("ERR_HANDLER_FAILED")


async def test_an_error_function_is_cancelled_when_the_client_leaves(serve: Serve) -> None:
    server = Server(port=0, cancel_on_disconnect=True)
    begun, ended = trio.Event(), trio.Event()

    @server.on_error(BookMissing)
    async def hang(client: Client, packet: Packet, error: BookMissing) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        raise BookMissing(7)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await begun.wait()
        await peer.reset()
        with trio.fail_after(5):
            await ended.wait()
    await running.settle()


async def test_it_is_not_asked_for_what_is_no_error(serve: Serve) -> None:
    server = Server(port=0)
    asked: list[Exception] = []
    server.on_error(Exception)(lambda client, packet, error: asked.append(error))

    @server.add_handler()
    async def stop(client: Client, packet: Packet) -> None:
        await client.send(packet)
        packet.stop_propagation()

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
    assert not asked
    assert issubclass(StopPropagation, Exception)


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt, "KeyError", 5, KeyError("x")])
def test_what_is_no_class_of_exceptions_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="on_error takes a subclass of Exception, such as KeyError; got"):
        Server(port=0).on_error(kind)(not_found)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda client, packet: None, r"'<lambda>' takes \(client, packet\)"),
        (lambda: None, r"'<lambda>' takes \(\)"),
        ("text", "an error handler is a function of client, packet and error; got 'text'"),
    ],
)
def test_what_cannot_be_called_with_an_error_is_refused(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Server(port=0).on_error(KeyError)(function)


@pytest.mark.parametrize(
    ("code", "fields", "error", "message"),
    [
        ("", {}, ValueError, "the code of a Failure is empty"),
        (5, {}, TypeError, "the code of a Failure is a string, such as 'ERR_NOT_FOUND'; got 5"),
        ("ERR", {"status": 1}, ValueError, "a Failure sets the field 'status' itself"),
        ("ERR", {"error": 1}, ValueError, "a Failure sets the field 'error' itself"),
    ],
)
def test_a_failure_needs_a_code_and_sets_two_fields(
    code: Any, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Failure(code, **fields)


RESULTS: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 1}),
    (Packet({"b": 2}), {"b": 2}),
    (None, {"sent": True}),
]


@pytest.mark.parametrize("groups", [1, 2], ids=["one group", "two groups"])
@pytest.mark.parametrize("settings", SCOPES, ids=str)
@pytest.mark.parametrize(("result", "reply"), RESULTS, ids=lambda value: repr(value)[:12])
async def test_the_return_value_of_a_handler_is_the_answer(
    serve: Serve, groups: int, settings: dict[str, Any], result: Any, reply: Any
) -> None:
    server = Server(port=0, **settings)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> Any:
        if result is None:
            await client.send({"sent": True})
        return result

    if groups == 2:

        @server.add_handler(Filters.Fields(other=None), group=1)
        async def other(client: Client, packet: Packet) -> None: ...

    assert await ask(serve, server) == reply


@pytest.mark.parametrize(
    "result",
    ["text", b"x", 5, True, [1], [("a", 1)], {"a"}, (), object()],
    ids=["str", "bytes", "int", "bool", "list", "pairs", "set", "tuple", "object"],
)
async def test_another_return_value_is_a_failure_of_the_handler(serve: Serve, result: Any) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> Any:
        return result

    logged = f"TypeError ('read' returned a {type(result).__name__}; return a mapping"
    assert await ask(serve, server, logged=logged) == failure("ERR_HANDLER_FAILED")


async def test_another_return_value_after_an_answer_is_logged_only(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> bool:
        await client.send({"sent": True})
        return True

    assert await ask(serve, server, logged="'read' returned a bool") == {"sent": True}


async def test_a_returned_map_is_sent_in_the_encoding_of_the_session(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> Mapping[str, Any]:
        return {"bytes": b"x"}

    running = await serve(server)
    async with AsyncClient("127.0.0.1", running.port, encoding="ziproto", tls=False) as client:
        assert dict(await client.request({"a": 1})) == {"bytes": b"x"}


async def none(client: Client) -> None: ...


async def three(client: Client, packet: Packet, more: object) -> None: ...


async def keyword(client: Client, packet: Packet, *, more: object) -> None: ...


async def one_more(client: Client, packet: Packet, more: object = None) -> None: ...


@pytest.mark.parametrize("handler", [none, three, keyword])
def test_a_handler_with_the_wrong_parameters_is_refused(handler: Any) -> None:
    server = Server(port=0, plugins=PluginManager(discover=False))  # without a plugin that adapts it
    with pytest.raises(
        TypeError, match=rf"'{handler.__name__}' takes \(client: .*; write 'async def {handler.__name__}\("
    ):
        server.add_handler()(handler)
    with pytest.raises(TypeError, match="is called with a client and a packet"):
        server.register_handler(handler)
    server.register_handler(one_more)


@pytest.mark.parametrize(
    ("code", "kind", "fields"),
    [
        ("ERR_UNAUTHORIZED", Unauthorized, {}),
        ("ERR_FORBIDDEN", Forbidden, {"detail": "read only"}),
        ("ERR_INVALID", InvalidFields, {"fields": [{"loc": ["id"], "msg": "no number"}]}),
        ("ERR_RATE_LIMITED", RateLimited, {"retry_after": 2.5}),
        ("ERR_UNAVAILABLE", Unavailable, {}),
        ("ERR_OF_MINE", FailureReply, {"detail": "\x1b[2J", "status_of": 1}),
    ],
)
async def test_a_client_raises_the_failure_with_its_fields(
    serve: Serve, code: str, kind: type[FailureReply], fields: dict[str, Any]
) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def fail(client: Client, packet: Packet) -> None:
        raise Failure(code, **fields)

    running = await serve(server)
    async with AsyncClient("127.0.0.1", running.port, raise_failures=True, tls=False) as client:
        with pytest.raises(FailureReply) as caught:
            await client.request({"a": 1})
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.fields) == (code, fields)
    assert str(caught.value).startswith(f"{code}: ")
    assert "\x1b" not in str(caught.value)
    assert fields.get("detail") != "read only" or "read only" in str(caught.value)


@pytest.mark.parametrize("raising", [False, True])
async def test_the_synchronous_client_raises_failures_on_request(serve: Serve, raising: bool) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> Mapping[str, Any]:
        if "fail" in packet:
            raise missing()
        return {"a": 1}

    running = await serve(server)

    def use() -> list[object]:
        answers: list[object] = []
        with BlockingClient(tls=False, raise_failures=raising) as client:
            client.connect("127.0.0.1", running.port)
            for request in ({"fail": 1}, {"b": 1}):
                client.send(request)
                try:
                    answers.append(client.receive())
                except FailureReply as error:
                    answers.append((error.code, error.fields))
        return answers

    failed = ("ERR_NOT_FOUND", {"detail": "no such book", "id": 7}) if raising else NOT_FOUND
    assert await trio.to_thread.run_sync(use) == [failed, {"a": 1}]


async def test_explain_knows_that_a_failure_is_the_answer() -> None:
    server = Server(port=0)

    @server.add_handler(Filters.Fields(other=None), Refuses())
    async def never_asked(client: Client, packet: Packet) -> None: ...

    @server.add_handler(Filters.Fields(a=None))
    async def first(client: Client, packet: Packet) -> None: ...

    @server.add_handler(Refuses(), group=1)
    async def refuses(client: Client, packet: Packet) -> None: ...

    @server.add_handler(group=1)
    async def after(client: Client, packet: Packet) -> None: ...

    @server.add_handler(group=2)
    async def later(client: Client, packet: Packet) -> None: ...

    verdicts = {verdict.handler: verdict for verdict in await explain_packet(server, {"a": 1})}
    assert {name for name, verdict in verdicts.items() if verdict.runs} == {"first"}
    assert verdicts["refuses"].checks[0].reason == "Failure: ERR_NOT_FOUND: no such book"
    assert {name: verdict.answer for name, verdict in verdicts.items() if verdict.answer} == {
        "refuses": "ERR_NOT_FOUND"
    }
    server.guard(Refuses())
    (guard, *others) = await explain_packet(server, {"a": 1})
    assert guard.answer == "ERR_NOT_FOUND"
    assert not [verdict for verdict in others if verdict.runs or verdict.answer]


class Finds(Filter):
    """Passes all packets, and finds something."""

    def check(self, c: Client, p: Packet) -> Mapping[str, Any]:
        return {"found": len(p)}


class Wants(Filter):
    """Passes a packet about which a filter before has found something."""

    def check(self, c: Client, p: Packet) -> bool:
        return "found" in p.context


@pytest.mark.parametrize("guarded", [True, False])
async def test_explain_gives_filters_the_findings_of_those_before(serve: Serve, guarded: bool) -> None:
    server = Server(port=0)
    ran: list[str] = []
    if guarded:
        server.guard(Finds())

    @server.add_handler(Finds(), Filters.Fields(other=None))
    async def other(client: Client, packet: Packet) -> None: ...

    @server.add_handler(Wants())
    async def wants(client: Client, packet: Packet) -> Mapping[str, Any]:
        ran.append("wants")
        return {"by": "wants"}

    @server.add_handler(Finds())
    async def finds(client: Client, packet: Packet) -> Mapping[str, Any]:
        ran.append("finds")
        return {"by": "finds"}

    @server.add_handler(Wants(), group=1)
    async def later(client: Client, packet: Packet) -> None:
        ran.append("later")

    explained = [verdict.handler for verdict in await explain_packet(server, {"a": 1}) if verdict.runs]
    assert explained == ["wants" if guarded else "finds", "later"]
    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"by": explained[0]}
    assert ran == explained


async def test_a_client_that_leaves_before_its_failure_is_no_failure_of_the_handler(serve: Serve) -> None:
    server = Server(port=0)
    has_arrived, has_left = trio.Event(), trio.Event()

    @server.add_handler()
    async def read(client: Client, packet: Packet) -> None:
        has_arrived.set()
        await has_left.wait()
        raise missing()

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await has_arrived.wait()
        await peer.reset()
        has_left.set()  # before the server has noticed it
    await running.settle()
    assert running.logged("The client has left")
    assert not running.logged("failed for")
