"""`Filters.Rate` in servers: its subjects, its answers, and the handlers and guards that it is a filter of."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import trio

from asyncapy import Client, Failure, Packet, Router, Server
from asyncapy.errors import FailureReply, HandlerFailed, NoHandlerFound, RateLimited, Unauthorized
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.routing.filter import check
from asyncapy_core.testing import Detached, serving
from asyncapy_limits import Rate
from asyncapy_limits.contracts import RateContract
from asyncapy_limits.subject import digest

VERSIONS = pytest.mark.parametrize("version", [22, 23])


async def asked(rate: Filter, address: str = "192.0.2.1", packet: Packet | None = None, **fields: Any) -> float:
    """Return 0 if a packet passes, or else ``retry_after``."""
    peer = Detached(address)
    refused: Failure | None = None
    try:
        assert await check(rate, peer.client, peer.packet(fields) if packet is None else packet)
    except Failure as failure:
        refused = failure
    if refused is None:
        return 0
    assert refused.code == "ERR_RATE_LIMITED"
    assert [*refused.fields] == ["retry_after"]
    wait = refused.fields["retry_after"]
    assert isinstance(wait, float)
    return wait


def test_it_is_a_filter_of_an_installed_plugin() -> None:
    assert Filters.Rate is Rate
    assert repr(Filters.Rate("5/second")) == "Rate('5/second', by='address')"
    assert repr(Rate("5/second", lambda c, p: 1)) == "Rate('5/second', by=<lambda>)"


def test_its_schema_has_the_codes_of_its_failures() -> None:
    assert Rate("5/second").schema() == {"x-errors": ["ERR_RATE_LIMITED"]}
    shared = functools.partial(Rate, "5/second", shared="all", store="redis://localhost")
    assert shared().schema() == {"x-errors": ["ERR_RATE_LIMITED"]}
    assert shared(fail_open=False).schema() == {"x-errors": ["ERR_RATE_LIMITED", "ERR_UNAVAILABLE"]}
    assert (Filters.HasFields(a=None) & Rate("5/second")).schema() == {
        "allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"x-errors": ["ERR_RATE_LIMITED"]}]
    }


@VERSIONS
async def test_a_packet_beyond_the_limit_is_answered_with_the_seconds_to_wait(
    version: Literal[22, 23], autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(port=0)

    @server.add_handler(Filters.Rate("2/second; 3/minute"))
    async def echo(client: Any, packet: Any) -> Mapping[str, Any]:
        return dict(packet)

    async with serving(server) as running, running.client(version=version, raise_failures=True) as client:
        for _ in range(2):
            assert await client.request({"a": 1}) == {"a": 1}
        with pytest.raises(RateLimited) as caught:
            await client.request({"a": 1})
        assert caught.value.fields == {"retry_after": 0.5}
        await trio.sleep(0.5)
        assert await client.request({"a": 1}) == {"a": 1}
        await trio.sleep(10)
        with pytest.raises(RateLimited) as caught:
            await client.request({"a": 1})
        await trio.sleep(caught.value.fields["retry_after"])
        assert await client.request({"a": 1}) == {"a": 1}


@VERSIONS
async def test_as_a_guard_it_limits_the_packets_of_all_handlers(
    version: Literal[22, 23], autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(port=0)
    server.guard(Filters.Rate("2/second"))

    @server.operation("one")
    async def one(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"is": 1}

    async with serving(server) as running, running.client(version=version, raise_failures=True) as client:
        assert await client.request({"op": "one"}) == {"is": 1}
        with pytest.raises(NoHandlerFound):
            await client.request({"op": "two"})
        with pytest.raises(RateLimited):
            await client.request({"op": "one"})


async def test_handlers_that_share_one_filter_count_together_and_two_filters_apart() -> None:
    server, shared = Server(port=0), Rate("2/hour")
    router = Router()
    for name, rate in (("a", shared), ("b", shared), ("c", Rate("2/hour"))):

        @router.operation(name, rate)
        async def answer(client: Any, packet: Any) -> Mapping[str, Any]:
            return {"op": packet["op"]}

    server.include(router)
    async with serving(server) as running, running.client() as client:
        replies = [await client.request({"op": name}) for name in "aabccc"]
    assert ["error" in reply for reply in replies] == [False, False, True, False, False, True]


async def test_a_packet_that_one_filter_checks_for_several_handlers_counts_once() -> None:
    server, rate = Server(port=0), Rate("2/hour")

    @server.add_handler(rate, Filters.HasFields(a=None))
    async def first(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"by": "first"}

    @server.add_handler(rate, Filters.HasFields(b=None))
    async def second(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"by": "second"}

    server.guard(rate)
    async with serving(server) as running, running.client() as client:
        assert [await client.request({"b": 1}) for _ in range(2)] == [{"by": "second"}] * 2
        assert (await client.request({"b": 1}))["error"] == "ERR_RATE_LIMITED"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_packet_passes_no_second_time_after_a_check_that_failed(is_async: bool) -> None:
    def by(client: Any, packet: Any) -> str:
        raise LookupError

    async def by_async(client: Any, packet: Any) -> str:
        raise LookupError

    rate, packet = Rate("1/hour", by_async if is_async else by), Packet({})
    for _ in range(2):
        with pytest.raises(LookupError):
            await asked(rate, packet=packet)


async def test_each_ipv4_address_and_the_64_of_each_ipv6_address_is_limited_by_itself() -> None:
    rate = Rate("1/hour")
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::", "unix:/run/a"):
        assert await asked(rate, address) == 0
    for address in ("192.0.2.1", "2001:db8::2", "2001:db8::ffff:1:1:1", "2001:db8:0:1::9", "unix:/run/a"):
        assert await asked(rate, address) > 0


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("place", ["guard", "handler", "combined"])
async def test_each_api_key_is_limited_by_itself(place: str, once: bool) -> None:
    keys = APIKeyFactory()
    first, second = keys.issue(), keys.issue()
    server = Server(port=0)
    by_key, rate = Filters.APIFactory(keys, "key", tell=True, once=once), Filters.Rate("2/hour", by="key")
    filters = {"guard": [rate], "handler": [by_key, rate], "combined": [by_key & rate]}[place]
    if place == "guard":
        server.guard(by_key)

    @server.add_handler(*filters)
    async def owner(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"id": packet.context["api_key"].id}

    async with (
        serving(server) as running,
        running.client(raise_failures=True) as client,
        running.client(address="192.0.2.9", raise_failures=True) as other,
    ):
        for key in (first, second):
            ids = {(await each.request({"key": key}))["id"] for each in (client, other)}
            assert len(ids) == 1
            with pytest.raises(RateLimited):
                await client.request({"key": key})
        with pytest.raises(Unauthorized):
            await client.request({"key": "wrong"})


async def test_without_a_key_before_it_the_log_says_where_the_key_filter_belongs() -> None:
    server = Server(port=0)

    @server.add_handler(Filters.Rate("2/hour", by="key"))
    async def never(client: Any, packet: Any) -> None:
        raise AssertionError

    async with serving(server) as running:
        async with running.client(raise_failures=True) as client:
            with pytest.raises((NoHandlerFound, HandlerFailed)):
                await client.request({"a": 1})
        assert any("no API key: put Filters.APIFactory before Rate(by='key')" in line for line in running.log)


async def test_a_function_gives_the_subject_and_none_is_not_limited() -> None:
    def plain(client: Any, packet: Any) -> Any:
        return packet.get("user")

    async def asynchronous(client: Any, packet: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return packet.get("user")

    class Called:
        async def __call__(self, client: Any, packet: Any) -> Any:
            return packet.get("user")

    for by in (plain, asynchronous, Called(), functools.partial(asynchronous)):
        rate = Rate("1/hour", by)
        assert await asked(rate, user="alice") == 0
        assert await asked(rate, user="bob") == 0
        assert await asked(rate, user="alice") > 0
        for _ in range(5):
            assert await asked(rate) == 0


async def test_long_subjects_are_kept_as_their_digests() -> None:
    rate = Rate("1/hour", lambda c, p: p["user"])
    long: tuple[Any, ...] = ("x" * 10_000, "x" * 10_000 + "y", b"x" * 10_000)
    for user in long:
        assert await asked(rate, user=user) == 0
        assert await asked(rate, user=user) > 0
    kept = [*rate._window._subjects._new, *rate._window._subjects._old]
    assert max(len(repr(each)) for each in kept) < 60
    assert await asked(rate, user=digest(long[0])) == 0


@pytest.mark.parametrize(
    ("subject", "message"),
    [([1], "returned a list, which has no hash; return a text"), (trio.sleep, "returned an awaitable; define it with")],
)
async def test_a_subject_that_cannot_be_counted_is_an_error(subject: Any, message: str) -> None:
    rate = Rate("1/hour", lambda c, p: subject(0) if callable(subject) else subject)
    with pytest.raises(TypeError, match=message):
        await asked(rate)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("1/second", "ip"), ValueError, r"by='ip'\): write 'address' or 'key', or give a function of client and"),
        (("1/second", None), TypeError, r"by=None\): give 'address', 'key' or a function of client and packet"),
        (("1/second", dict), TypeError, "give 'address', 'key' or a function"),
        (("1/second", lambda p: 1), TypeError, r"it takes \(p\), and is called with a client and a packet"),
        (("1 a second",), ValueError, "'1 a second' is not a limit; write a number of packets"),
        ((5,), TypeError, "are a text; got 5"),
    ],
)
def test_wrong_arguments_are_refused_when_the_filter_is_made(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Rate(*arguments)


@pytest.mark.parametrize(("most", "error"), [(1, ValueError), (-5, ValueError), (2.5, TypeError), (True, TypeError)])
def test_a_wrong_number_of_subjects_is_refused(most: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_subjects"):
        Rate("1/second", max_subjects=most)


async def test_the_number_of_subjects_is_bounded() -> None:
    rate = Rate("1/hour", lambda c, p: p["user"], max_subjects=10)
    for user in range(100):
        assert await asked(rate, user=user) == 0
    assert len(rate._window) <= 10


async def test_a_filter_that_fails_before_it_keeps_a_packet_from_counting() -> None:
    server = Server(port=0)

    @server.add_handler(Filters.HasFields(a=None), Rate("1/hour"))
    async def echo(client: Any, packet: Any) -> Mapping[str, Any]:
        return dict(packet)

    async with serving(server) as running, running.client(raise_failures=True) as client:
        for _ in range(3):
            with pytest.raises(NoHandlerFound):
                await client.request({"b": 1})
        assert await client.request({"a": 1}) == {"a": 1}
        with pytest.raises(FailureReply):
            await client.request({"a": 1})


async def test_the_wait_is_a_number_of_milliseconds_that_is_never_too_short(mock_clock: trio.testing.MockClock) -> None:
    rate = Rate("3/second")
    for _ in range(3):
        assert await asked(rate) == 0
    wait = await asked(rate)
    assert wait == math.ceil(1000 / 3) / 1000
    mock_clock.jump(wait)
    assert await asked(rate) == 0
    assert await asked(rate) > 0


class TestRate(RateContract):
    """The contract of all filters."""


async def test_the_nearest_key_filter_before_it_decides() -> None:
    outer, inner = APIKeyFactory(), APIKeyFactory()
    key, keys = outer.issue(), [inner.issue(), inner.issue()]
    server = Server(port=0)
    server.guard(Filters.APIFactory(outer, "outer"))

    @server.add_handler(Filters.APIFactory(inner, "inner"), Rate("1/hour", by="key"))
    async def echo(client: Any, packet: Any) -> Mapping[str, Any]:
        return {"passed": True}

    async with serving(server) as running, running.client() as client:
        replies = [await client.request({"outer": key, "inner": each}) for each in (*keys, *keys)]
    assert ["passed" in reply for reply in replies] == [True, True, False, False]


@VERSIONS
async def test_peers_of_one_64_count_together_over_their_connections(version: Literal[22, 23]) -> None:
    server = Server(port=0)

    @server.add_handler(Rate("2/hour"))
    async def echo(client: Client, packet: Packet) -> dict[str, Any]:
        return {"network": client.network}

    async with serving(server) as running:
        for address, network in {"2001:db8::1": "2001:db8::/64", "192.0.2.1": "192.0.2.1"}.items():
            for _ in range(2):
                async with running.client(version=version, address=address) as client:
                    assert await client.request({"a": 1}) == {"network": network}
        for address in ("2001:db8::2", "192.0.2.1", "::ffff:192.0.2.1"):  # a peer over IPv4 on a port for IPv6
            async with running.client(version=version, address=address, raise_failures=True) as client:
                with pytest.raises(RateLimited):
                    await client.request({"a": 1})


async def test_addresses_of_one_64_take_one_place() -> None:
    rate = Rate("1000/hour", max_subjects=2)
    for number in range(100):
        assert await asked(rate, f"2001:db8::{number:x}") == 0
    assert len(rate._window) == 1
