"""The tests that every filter has to pass: subclass `FilterContract` in a file that pytest collects.

They are independent of the filter and the test runner; a failed expectation is an AssertionError.
"""

from __future__ import annotations

import copy
import functools
import marshal
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from asyncapy_core.errors import Failure
from asyncapy_core.plugins import PluginManager, hookimpl
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter, check
from asyncapy_core.routing.selection import is_selected
from asyncapy_core.server.detached import Detached
from asyncapy_core.server.server import Server
from asyncapy_core.testing.memory import serving

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client

ODD_VALUES: tuple[Any, ...] = (None, True, 0, -1, 2**80, 0.5, "", "x" * 100_000, "\x00\u2028", [], [[]], {}, {"a": []})
"""Values that a peer may send in place of the expected one. A filter must not raise for any of them."""


@dataclass(frozen=True)
class Sample:
    """A packet and its sender.

    Attributes:
        fields: the fields of the packet.
        address: the IP address of the client.
        tls_peer: the subject of the client's certificate.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    address: str = "127.0.0.1"
    tls_peer: Mapping[str, str] | None = None


class FilterContract(ABC):
    """The contract of a filter: subclass it as ``class TestMyFilter(FilterContract)``, define `filter`, give samples.

    It is for filters whose result depends on the packet and the client only, and for filters that limit, such as rate
    limiters. Plain and async filters have the same contract; each test runs in one trio run.

    Attributes:
        passing: packets that pass, at least one: a mapping, or a `Sample` if the sender matters.
        failing: packets that do not pass, at least one. A filter that limits need not have any.
        limit: for a filter that limits, how many packets of one client a new filter passes before one fails.
    """

    passing: Sequence[Mapping[str, Any] | Sample] = ()
    failing: Sequence[Mapping[str, Any] | Sample] = ()
    limit: int | None = None

    @abstractmethod
    def filter(self) -> Filter:
        """Return the filter. All filters that one test gets must have the same results.

        With `limit`, each has to be new, and has to count for itself.
        """

    def test_passes_what_it_should(self) -> None:
        trio.run(self._decide, self.passing, True)  # noqa: FBT003  # the result of the filter

    def test_keeps_out_what_it_should(self) -> None:
        trio.run(self._decide, self.failing, False)  # noqa: FBT003  # the result of the filter

    async def _decide(self, samples: Sequence[Mapping[str, Any] | Sample], passes: bool) -> None:  # noqa: FBT001
        for sample in self._samples(samples):
            assert await _ask(self.filter(), sample) is passes, f"{sample} {'does not pass' if passes else 'passes'}"

    def test_combines_with_others(self) -> None:
        trio.run(self._combine)

    async def _combine(self) -> None:
        yes, no = _Constant(True), _Constant(False)  # noqa: FBT003  # the result of the filter
        for samples, passes in ((self.passing, True), (self.failing, False)):
            for sample in self._samples(samples):
                assert await _ask(~self.filter(), sample) is not passes
                assert await _ask(~~self.filter(), sample) is passes
                for combined in (self.filter() & yes, yes & self.filter(), self.filter() | no, no | self.filter()):
                    assert await _ask(combined, sample) is passes, f"{combined!r}, {sample}"
                assert await _ask(self.filter() & no, sample) is False
                assert await _ask(self.filter() | yes, sample) is True

    def test_decides_the_same_when_asked_again(self) -> None:
        trio.run(self._decide_again)

    async def _decide_again(self) -> None:
        for sample in self._samples([*self.passing, *self.failing]):
            first = await _ask(self.filter(), sample)
            assert await _ask(self.filter(), sample) is first, f"{sample}: two filters differ"
            if self.limit is None:
                filter = self.filter()
                for _ in range(2):
                    assert await _ask(filter, sample) is first, f"{sample}; a filter that limits has to set limit"

    def test_limits_the_packets_of_a_client(self) -> None:
        trio.run(self._limit)

    async def _limit(self) -> None:
        if self.limit is None:
            return
        for sample in self._samples(self.passing):
            filter, peer = self.filter(), _peer(sample)
            for number in range(self.limit + 1):
                passes = await _passes(filter, peer.client, peer.packet(sample.fields))
                assert passes is (number < self.limit), f"{sample}: packet {number + 1} of a client, limit {self.limit}"

    def test_leaves_the_packet_and_the_client_as_they_were(self) -> None:
        for sample in self._samples([*self.passing, *self.failing]):
            before = copy.deepcopy(dict(sample.fields))
            peer = _peer(sample)
            packet = peer.packet(sample.fields)
            trio.run(_passes, self.filter(), peer.client, packet)
            assert packet == before
            client = peer.client
            assert (client.address, client.encoding, client.tls_peer) == (sample.address, "json", sample.tls_peer)
            assert peer.sent == []
            assert not peer.closed

    def test_raises_nothing_whatever_a_peer_sends(self) -> None:
        trio.run(self._ask_for_anything)

    async def _ask_for_anything(self) -> None:
        filter = self.filter()
        names = {name for sample in self._samples([*self.passing, *self.failing]) for name in sample.fields}
        await _ask(filter, Sample())
        for sample in self._samples([*self.passing, *self.failing]):
            for name in names | {"unheard of", ""}:
                for value in ODD_VALUES:
                    odd = {**sample.fields, name: value}
                    assert await _ask(filter, Sample(odd, sample.address, sample.tls_peer)) in {True, False}

    def test_passes_only_packets_that_it_selects(self) -> None:
        trio.run(self._select)

    async def _select(self) -> None:
        selection = self.filter().selects()
        assert self.filter().selects() == selection, "the result of selects() must never change"
        if selection is None:
            return
        for sample in self._samples([*self.passing, *self.failing]):
            for value in (*ODD_VALUES, sample.fields.get(selection[0])):
                odd = Sample({**sample.fields, selection[0]: value}, sample.address, sample.tls_peer)
                if await _ask(self.filter(), odd):
                    assert is_selected(selection, odd.fields), f"{odd} passes, although selects() returns {selection}"

    def test_says_what_it_is(self) -> None:
        filter = self.filter()
        assert not re.search(" at 0x[0-9a-f]+>", repr(filter)), (
            f"{filter!r} does not describe the filter; give it a __repr__, which 'asyncapy explain' and the log show"
        )
        assert repr(filter) == repr(self.filter()), "equal filters must have the same repr"

    def test_guards_a_handler(self) -> None:
        trio.run(self._guard)

    async def _guard(self) -> None:
        for samples, passes in ((self.passing, True), (self.failing, False)):
            for sample in self._samples(samples):
                if sample.tls_peer is None:  # the server has no TLS
                    await self._serve(sample, passes)

    async def _serve(self, sample: Sample, passes: bool) -> None:  # noqa: FBT001  # the result of the filter
        plugins = PluginManager(discover=False)
        plugins.register(_MarshalPlugin(), "contract")
        server = Server(plugins=plugins, logging_level="CRITICAL")

        @server.add_handler(self.filter())
        async def inner(client: Any, packet: Any) -> None:
            await client.send({"reached": True})

        wanted = {"reached": True} if passes else {"status": "failure", "error": "ERR_NO_HANDLER"}
        async with serving(server) as running:
            encoding = _MarshalPlugin.name
            async with running.client(address=sample.address, plugins=plugins, encoding=encoding) as client:
                assert await client.request(sample.fields) == wanted, f"{sample}"

    def _samples(self, given: Sequence[Mapping[str, Any] | Sample]) -> Iterator[Sample]:
        assert given or (self.limit is not None and self.passing), (
            "give samples of both kinds, as in passing = [{'text': 'HELLO'}] and failing = [{'text': 'hello'}]"
        )
        return (each if isinstance(each, Sample) else Sample(each) for each in given)


class _Constant(Filter):
    def __init__(self, answer: bool) -> None:  # noqa: FBT001  # the result of the filter
        self._answer = answer

    def check(self, c: Client, p: Packet) -> bool:
        return self._answer


class _MarshalPlugin:
    """A codec for all values that a sample may hold, used in memory only, so that no codec has to be installed."""

    name = "marshal"
    wire_id = 255

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        return b"\x00" + marshal.dumps(dict(fields))  # the empty map alone is too short for a payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = marshal.loads(payload[1:])  # noqa: S302  # this process has written it
        return fields

    @hookimpl
    def asyncapy_codecs(self) -> list[Codec]:
        return [self]


@functools.cache
def _server() -> Server:
    """Return the ``client.server`` of all samples, which never serves."""
    return Server(plugins=PluginManager(discover=False))


def _peer(sample: Sample) -> Detached:
    return Detached(sample.address, server=_server(), tls_peer=sample.tls_peer)


async def _ask(filter: Filter, sample: Sample) -> bool:
    peer = _peer(sample)
    return await _passes(filter, peer.client, peer.packet(sample.fields))


async def _passes(filter: Filter, client: Client, packet: Packet) -> bool:
    """Return True if a filter passes. A `Failure` is an answer, with which a packet does not pass."""
    try:
        return await check(filter, client, packet)
    except Failure:
        return False
