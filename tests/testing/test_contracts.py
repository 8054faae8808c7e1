"""The contracts accept all that the protocols allow, when it is declared, and notice false declarations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import pytest
import trio

from asyncapy_core import Codec, Failure, Filter
from asyncapy_core.errors import DecodeError, EncodeError
from asyncapy_core.testing import CodecContract, FilterContract, Sample


class MessagePack:
    """A codec that carries bytes and all floats, which JSON does not have."""

    name = "msgpack"
    wire_id = 77

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        try:
            packed: bytes = msgpack.packb(dict(fields))
        except Exception as error:
            raise EncodeError(f"{error}") from error
        return packed

    def decode(self, payload: bytes) -> dict[str, Any]:
        try:
            fields = msgpack.unpackb(payload, strict_map_key=False)
        except Exception as error:
            raise DecodeError(f"{error}") from error
        if type(fields) is not dict or not all(type(name) is str for name in fields):
            raise DecodeError("not a map")
        return fields


class TestMessagePack(CodecContract):
    carries: Sequence[Any] = (math.nan, math.inf, -math.inf, b"bytes")

    def codec(self) -> Codec:
        return MessagePack()


def failures(contract: type[CodecContract | FilterContract]) -> set[str]:
    """Run the tests of a contract, and return the names of those that fail."""
    found = set()
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract(), name)()
            except AssertionError:
                found.add(name)
    return found


@pytest.mark.parametrize("carries", [(), (math.nan,), (b"", math.inf, -math.inf)])
def test_a_value_that_is_carried_and_not_declared_is_a_failure(carries: tuple[Any, ...]) -> None:
    class Undeclared(TestMessagePack):
        __test__ = False

    Undeclared.carries = carries
    assert failures(Undeclared) == {"test_refuses_what_it_cannot_carry"}


def test_a_value_that_is_declared_and_comes_back_as_another_is_a_failure() -> None:
    class Tuples(TestMessagePack):
        __test__ = False
        carries = (*TestMessagePack.carries, (1, 2))

    assert failures(Tuples) == {"test_returns_what_was_given", "test_serves"}


def test_a_value_that_is_declared_and_refused_is_an_error() -> None:
    class Complex(TestMessagePack):
        __test__ = False
        carries = (*TestMessagePack.carries, 1j)

    with pytest.raises(EncodeError):
        Complex().test_returns_what_was_given()


class Limit(Filter):
    """Passes the first packets of each address."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[str, int] = {}

    def check(self, c: Any, p: Any) -> Any:
        self._seen[c.address] = self._seen.get(c.address, 0) + 1
        return self._seen[c.address] <= self._most

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._most})"


class AsyncLimit(Limit):
    """A limit that belongs to one trio run, as a connection to a store does."""

    token: trio.lowlevel.TrioToken | None = None

    async def check(self, c: Any, p: Any) -> bool:
        token = trio.lowlevel.current_trio_token()
        self.token = self.token or token
        assert self.token is token
        await trio.lowlevel.checkpoint()
        return bool(super().check(c, p))


class TestLimit(FilterContract):
    passing: Sequence[Mapping[str, Any] | Sample] = ({"a": 1}, {"b": 2})
    limit: int | None = 1

    def filter(self) -> Filter:
        return Limit(1)


class TestAsyncLimit(TestLimit):
    limit = 3

    def filter(self) -> Filter:
        return AsyncLimit(3)


class TestALimitThatSaysSo(TestLimit):
    """A limit that answers a packet beyond it with a failure."""

    def filter(self) -> Filter:
        class Answering(Limit):
            def check(self, c: Any, p: Any) -> Any:
                if not super().check(c, p):
                    raise Failure("ERR_RATE_LIMITED", retry_after=1)
                return True

        return Answering(1)


class TestALimitOfSomePackets(TestLimit):
    failing = ({},)

    def filter(self) -> Filter:
        class Named(Limit):
            def check(self, c: Any, p: Any) -> Any:
                return len(p) > 0 and super().check(c, p)

        return Named(1)


class Undeclared(TestLimit):
    __test__ = False
    limit = None
    failing = ({"c": 3},)


class Wrong(TestLimit):
    __test__ = False
    limit = 2


def test_a_filter_that_limits_has_to_say_so() -> None:
    assert "test_decides_the_same_when_asked_again" in failures(Undeclared)


def test_a_limit_has_to_be_what_it_says() -> None:
    assert failures(Wrong) == {"test_limits_the_packets_of_a_client"}


def test_samples_have_to_be_given() -> None:
    class Nothing(TestLimit):
        __test__ = False
        passing = ()

    assert "test_passes_what_it_should" in failures(Nothing)
