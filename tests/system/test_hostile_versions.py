"""First and later packets whose version is not that of the session, and lengths that one version only allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from peer import JSON, ZIPROTO, failure, json_packet, packet

MAX_PACKET = 1024 * 1024
H, M, L = "ERR_HEADER_INVALID", "ERR_REQUEST_MALFORMED", "ERR_PACKET_TOO_LARGE"
OTHERS = [version for version in range(256) if version not in (22, 23)]
ENDED = [Answer("FAILURE", 0, failure(H)), Answer("LEAVING", 0, None)]
"""The end of a session of version 23 by an invalid header, before any request."""


async def numbered_peer(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def test_every_other_version_is_refused_in_version_22_when_its_byte_has_arrived(serve: Serve) -> None:
    running = await serve(session_limit=1000)
    async with running.undisturbed():
        for version in OTHERS:
            whole = packet(JSON, b'{"a":1}', version=version)
            for data in (whole, whole[:5]):
                async with await running.connect() as peer:
                    await peer.send(data)
                    assert await peer.failure() == H, version
                    assert await peer.closed()


async def test_every_other_version_ends_a_session_of_each_version_in_that_version(serve: Serve) -> None:
    running = await serve(session_limit=1000)
    async with running.undisturbed():
        for version in OTHERS:
            async with await running.connect() as peer:
                assert await peer.ask(a=1) == {"a": 1}
                await peer.send(packet(JSON, b'{"a":1}', version=version))
                assert await peer.failure() == H, version
                assert await peer.closed()
            async with await numbered_peer(running) as newer:
                await newer.ping()
                await newer.send(packet(JSON, b'{"a":1}', version=version))
                assert await newer.read_all() == ENDED, version


@pytest.mark.parametrize("body", [b'{"a":1}', b"\x0a\0\0\0\1", b"\x7f" * 9, b'{"text":"' + b"x" * 1000 + b'"}'])
async def test_a_packet_of_version_22_with_the_byte_23_is_refused_in_version_23(serve: Serve, body: bytes) -> None:
    running = await serve()
    async with running.undisturbed(), await numbered_peer(running) as peer:
        await peer.send(packet(JSON, body, version=23))
        assert await peer.read_all() == ENDED, "the first byte of the payload is the kind, and no kind has this value"


async def test_a_map_in_ziproto_with_the_byte_23_is_a_packet_of_a_skipped_kind(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await numbered_peer(running) as peer:
        await peer.send(packet(ZIPROTO, b"\x81\xa3foo\xa3bar", version=23))
        await peer.ping()
        assert await peer.ask(a=1) == [Answer("REPLY", 1, {"a": 1})]


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6])
async def test_a_length_too_small_for_version_23_is_malformed_in_version_22(serve: Serve, length: int) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(length.to_bytes(4, "big") + b"\x17" + bytes(6))
        assert await peer.failure() == M
        assert await peer.closed()


@pytest.mark.parametrize("more", [1, 2, 5])
async def test_a_length_that_only_version_23_allows_is_judged_by_the_next_byte(serve: Serve, more: int) -> None:
    running = await serve()
    head = (MAX_PACKET + more).to_bytes(4, "big")
    async with running.undisturbed():
        for version, code in ((22, L), (21, L), (255, L)):
            async with await running.connect() as peer:
                await peer.send(head + bytes((version,)))
                assert await peer.failure() == code, version
                assert await peer.closed()
        large = numbered("REQUEST", 1, payload=b'{"a":"' + b"x" * (MAX_PACKET + more - 7 - 8) + b'"}')
        assert large.startswith(head)
        async with await numbered_peer(running) as newer, trio.open_nursery() as nursery:
            nursery.start_soon(newer.send, large)
            answer = await newer.read()
            assert answer is not None
            assert (answer.kind, len(json.dumps(answer.fields))) == ("REPLY", len(large) - 11 + 1), "json adds a space"


@pytest.mark.parametrize("version", [22, 23, 255])
async def test_a_length_that_no_version_allows_is_refused_at_once(serve: Serve, version: int) -> None:
    running = await serve()
    head = (MAX_PACKET + 6).to_bytes(4, "big")
    async with running.undisturbed():
        for data in (head, head + bytes((version,))):
            async with await running.connect() as peer:
                await peer.send(data)
                assert await peer.failure() == L
                assert await peer.closed()


@pytest.mark.parametrize("first", [json_packet(a=1), numbered("REQUEST", 1, {"a": 1})])
async def test_both_versions_are_served_at_the_same_time(serve: Serve, first: bytes) -> None:
    running = await serve()
    async with await running.connect() as peer, await numbered_peer(running) as newer:
        for byte in first[:-1]:
            await (peer if first[4] == 22 else newer).send(bytes((byte,)))
        other: Any = newer if first[4] == 22 else peer
        assert await other.ask(a=2) in ({"a": 2}, [Answer("REPLY", 1, {"a": 2})])
        await (peer if first[4] == 22 else newer).send(first[-1:])
        if first[4] == 22:
            assert await peer.json() == {"a": 1}
        else:
            assert await newer.read() == Answer("REPLY", 1, {"a": 1})
