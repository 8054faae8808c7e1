"""The tests that every codec has to pass: subclass `CodecContract` in a file that pytest collects.

They are independent of the codec and the test runner; a failed expectation is an AssertionError.
"""

from __future__ import annotations

import copy
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import trio

from asyncapy_core.errors import DecodeError, EncodeError
from asyncapy_core.plugins import PluginManager, hookimpl
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.protocol.wire import WireFormat
from asyncapy_core.server.server import Server
from asyncapy_core.testing.memory import serving

USUAL: dict[str, Any] = {
    "text": 'käse "quoted" \\ \u2028 \U0001f600\x00\x7f',
    "": "an empty name",
    "integers": [0, 1, -1, 127, 128, -128, 255, 65536, 2**31, -(2**31), 2**53, -(2**53)],
    "fractions": [0.1, -2.5, 1e300, 5e-324],
    "constants": [True, False, None],
    "nothing": [{}, [], ""],
    "nested": {"deep": {"er": [[{"est": [1]}]]}},
    "long": "x" * 70_000,
    "many": {f"field {number}": number for number in range(100)},
}
"""Fields that every encoding has to support."""


class CodecContract(ABC):
    """The contract of a codec: subclass it as ``class TestMyCodec(CodecContract)`` and define `codec`.

    Attributes:
        no_maps: payloads that are valid in this encoding but not a map: a list, a number, a string.
        too_deep: payloads with extreme nesting, such as ``[`` a hundred thousand times.
        lowest_id: the lowest wire id that the codec may have; 0 and 1 belong to JSON and ZiProto.
        carries: values that the codec returns as they were given, and that JSON does not have, such as ``math.nan``,
            ``b"bytes"`` or a date. Of other such values it has to raise EncodeError.
    """

    no_maps: Sequence[bytes] = ()
    too_deep: Sequence[bytes] = ()
    lowest_id: int = 2
    carries: Sequence[Any] = ()

    @abstractmethod
    def codec(self) -> Codec:
        """Return a codec."""

    def test_has_a_name_and_a_wire_id(self) -> None:
        codec = self.codec()
        assert isinstance(codec, Codec)
        assert type(codec.name) is str
        assert codec.name
        assert codec.name == codec.name.strip().lower()
        assert type(codec.wire_id) is int
        assert self.lowest_id <= codec.wire_id <= 255

    def test_returns_what_was_given(self) -> None:
        codec = self.codec()
        for fields in self._samples():
            payload = codec.encode(fields)
            assert type(payload) is bytes
            decoded = codec.decode(payload)
            assert _same(decoded, fields), f"{fields!r} came back as {decoded!r}"

    def test_keeps_the_order_of_fields(self) -> None:
        codec = self.codec()
        fields = dict.fromkeys(("zz", "a", "m", "b"))
        assert list(codec.decode(codec.encode(fields))) == list(fields)

    def test_leaves_what_it_encodes_as_it_was(self) -> None:
        codec = self.codec()
        fields = copy.deepcopy(USUAL)
        codec.encode(fields)
        assert fields == USUAL

    def test_gives_each_packet_objects_of_its_own(self) -> None:
        codec = self.codec()
        payload = codec.encode({"a": {"b": [1]}})
        codec.decode(payload)["a"]["b"].append(2)
        assert codec.decode(payload) == {"a": {"b": [1]}}

    def test_carries_bytes_and_sets_as_they_are_or_says_that_it_cannot(self) -> None:
        codec = self.codec()
        for value in (b"\x00\xff", b"", bytearray(b"abc"), {1}):
            try:
                payload = codec.encode({"a": value})
            except EncodeError:
                continue
            assert codec.decode(payload)["a"] != repr(value), f"{value!r} became its repr"

    def test_carries_64_levels(self) -> None:
        codec = self.codec()
        fields: dict[str, Any] = {"bottom": 1}
        for _ in range(63):
            fields = {"down": fields}
        assert codec.decode(codec.encode(fields)) == fields

    def test_refuses_what_it_cannot_carry(self) -> None:
        codec = self.codec()
        endless: list[Any] = []
        endless.append(endless)
        for value in (object(), len, math.nan, math.inf, -math.inf, endless, 1j, "\ud800"):
            if any(_is_alike(value, carried) for carried in self.carries):
                continue
            for fields in ({"a": value}, {"a": [{"b": value}]}):
                try:
                    payload = codec.encode(fields)
                except EncodeError:
                    continue
                raise AssertionError(
                    f"{value!r} became {payload[:40]!r}: raise EncodeError, or put it into carries if it comes back"
                )

    def test_refuses_all_that_is_cut_short(self) -> None:
        codec = self.codec()
        payload = codec.encode({"text": "käse", "list": [1, 2.5, None, {"a": [True]}], "n": 2**40})
        for length in range(len(payload)):
            self._refused(payload[:length])

    def test_refuses_what_has_more_behind_it(self) -> None:
        payload = self.codec().encode({"a": 1})
        for tail in (payload, b"\x00", b"x", b"}"):
            self._refused(payload + tail)

    def test_refuses_what_is_no_map(self) -> None:
        for payload in self.no_maps:
            self._refused(payload)

    def test_refuses_what_is_nested_without_end(self) -> None:
        for payload in self.too_deep:
            self._refused(payload)

    def test_raises_nothing_but_decode_errors(self) -> None:
        codec = self.codec()
        chance = random.Random(0)  # noqa: S311  # the same bytes in each run
        usual = codec.encode({"text": "käse", "list": [1, 2.5, None, {"a": [True]}], "n": 2**40})
        for _ in range(3000):
            payload = bytearray(usual)
            for _ in range(chance.randint(1, 4)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            for each in (bytes(payload), chance.randbytes(chance.randint(0, 30))):
                try:
                    fields = codec.decode(each)
                except DecodeError:
                    continue
                assert type(fields) is dict, f"{each!r} became {fields!r}"
                assert all(type(name) is str for name in fields), f"{each!r} became {fields!r}"
                codec.encode(fields)  # a handler may send any packet back

    def test_serves(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        codec = self.codec()
        plugins = PluginManager(discover=False)
        plugins.register(_Plugin(codec), "contract")
        server = Server(plugins=plugins, logging_level="CRITICAL")

        @server.add_handler()
        async def echo(client: Any, packet: Any) -> None:
            assert client.encoding == codec.name
            await client.send(packet)

        async with serving(server) as running:
            async with running.client(encoding=codec.name, plugins=plugins) as client:
                for fields in self._samples():
                    assert _same(await client.request(fields), fields)
            async with await running.connect() as stream:
                cut = codec.encode({"text": "cut short"})[:-1]
                await stream.send_all(WireFormat().encode(codec.wire_id, cut))
                reply = bytearray()
                async for data in stream:
                    reply += data
            assert codec.decode(bytes(reply[6:])) == {"status": "failure", "error": "ERR_REQUEST_MALFORMED"}

    def _samples(self) -> Iterator[dict[str, Any]]:
        yield USUAL
        yield {"a": None}
        for name, value in USUAL.items():
            yield {name: value}
        for value in self.carries:
            yield {"a": value, "nested": {"deep": [value, {"er": value}]}}

    def _refused(self, payload: bytes) -> None:
        try:
            fields = self.codec().decode(payload)
        except DecodeError:
            return
        raise AssertionError(f"{payload[:40]!r} was decoded as {fields!r}; raise DecodeError")


class _Plugin:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @hookimpl
    def asyncapy_codecs(self) -> list[Codec]:
        return [self._codec]


def _is_alike(one: Any, other: Any) -> bool:
    """Return whether a codec carries one value if it carries another: the same, or one of the same type of objects."""
    if isinstance(one, (float, str)):
        return _same(one, other)
    return type(one) is type(other)


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same types; 1, 1.0 and True differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124  # not a number
