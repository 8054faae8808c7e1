"""Each rule of docs/protocol.md, section "A session", over a real socket."""

from __future__ import annotations

import json
import uuid
from typing import Any, Literal

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from peer import JSON, ZIPROTO, framed, json_packet, packet, zi_map, zi_packet

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.errors import ClientDisconnected

ECHOED = packet(JSON, b'{"foo":"bar"}')
"""A packet that an echo server returns byte for byte."""


async def serve_uuids(serve: Serve) -> Running:
    server = Server(port=0)

    @server.add_handler()
    async def tell(client: Any, packet: Any) -> None:
        await client.send({"session": str(client.session.session_id)})

    return await serve(server)


async def test_a_connection_is_one_session_with_one_uuid(serve: Serve) -> None:
    running = await serve_uuids(serve)
    async with await running.connect() as one, await running.connect() as other:
        of_one = [await one.ask(a=number) for number in range(3)]
        of_other = await other.ask(a=1)
        assert of_one[0] is not None
        assert of_one == [of_one[0]] * 3
        assert of_one[0] != of_other
        assert uuid.UUID(of_one[0]["session"]).version == 4
        assert running.logged(of_one[0]["session"])


async def test_a_connection_carries_any_number_of_packets_one_after_the_other(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        for number in range(300):
            assert await peer.ask(number=number) == {"number": number}


async def test_a_thousand_packets_in_one_send_get_a_thousand_replies_in_order(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(1000)))
        for number in range(1000):
            assert await peer.json() == {"number": number}
        assert await peer.ask(last=True) == {"last": True}


async def test_replies_are_in_order_when_the_first_handlers_take_longest(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def slow_first(client: Any, packet: Any) -> None:
        if packet["number"] % 3 == 0:
            await trio.sleep((20 - packet["number"]) / 1000)
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(20)))
        for number in range(20):
            assert await peer.json() == {"number": number}


async def test_ten_thousand_pipelined_packets_do_not_keep_others_waiting(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as greedy, await running.connect() as modest, trio.open_nursery() as nursery:
        received: list[dict[str, Any] | None] = []
        begun = trio.Event()

        async def read_all() -> None:
            for _ in range(10_000):
                received.append(await greedy.json())
                begun.set()

        nursery.start_soon(read_all)
        nursery.start_soon(greedy.send, b"".join(json_packet(number=number) for number in range(10_000)))
        await begun.wait()
        assert await modest.ask(modest=True) == {"modest": True}
        assert len(received) < 10_000, "the modest client was served after the greedy one"
    assert received == [{"number": number} for number in range(10_000)]


@pytest.mark.parametrize("data", [ECHOED, zi_packet(foo="bar")], ids=["json", "ziproto"])
async def test_a_packet_may_be_cut_at_every_place(serve: Serve, data: bytes) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        for cut in range(1, len(data)):
            await peer.send(data[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(data[cut:])
            assert await peer.read(len(data)) == data


@pytest.mark.parametrize("data", [ECHOED, zi_packet(foo="bar")], ids=["json", "ziproto"])
async def test_packets_may_come_byte_by_byte(serve: Serve, data: bytes) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send_bytewise(data * 5)
        assert await peer.read(len(data) * 5) == data * 5


async def test_a_packet_that_comes_in_pieces_is_answered_when_its_last_byte_is_there_and_not_before(
    serve: Serve,
) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(ECHOED[:-1])
        with trio.move_on_after(0.1) as waiting:
            await peer.stream.receive_some()
        assert waiting.cancelled_caught, "the server replied to a part of a packet"
        await peer.send(ECHOED[-1:])
        assert await peer.read(len(ECHOED)) == ECHOED


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 10])
async def test_one_and_a_half_packets_get_one_reply_and_then_the_other(serve: Serve, cut: int) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        second = json_packet(number=2)
        await peer.send(json_packet(number=1) + second[:cut])
        assert await peer.json() == {"number": 1}, "the reply does not wait for the rest"
        await trio.sleep(0.05)
        await peer.send(second[cut:])
        assert await peer.json() == {"number": 2}


@pytest.mark.parametrize("size", [1025, 64 * 1024, 1024 * 1024 - 2])
async def test_a_packet_of_any_size_is_answered_whole(serve: Serve, size: int) -> None:
    running = await serve()
    body = b'{"a":"' + b"x" * (size - 8) + b'"}'
    async with running.undisturbed(), await running.connect() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, packet(JSON, body) * 3)
        for _ in range(3):
            assert await peer.reply() == (JSON, body)


async def test_the_first_packet_fixes_the_encoding_when_it_is_ziproto(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(zi_packet(foo="bar") + json_packet(foo="bar") * 2 + zi_packet(foo="bar"))
        for _ in range(4):
            assert await peer.reply() == (ZIPROTO, zi_map(foo="bar"))


async def test_the_first_packet_fixes_the_encoding_when_it_is_json(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(json_packet(foo="bar"))
        assert await peer.json() == {"foo": "bar"}
        for _ in range(2):
            await peer.send(zi_packet(foo="bar"))
            assert await peer.json() == {"foo": "bar"}


async def test_a_later_packet_in_another_encoding_is_decoded_by_its_own_header(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        await peer.send(packet(ZIPROTO, b'{"a":1}'))
        assert await peer.failure(JSON) == "ERR_REQUEST_MALFORMED"


async def test_each_session_has_an_encoding_of_its_own(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as one, await running.connect() as other:
        await one.send(zi_packet(foo="bar"))
        await other.send(json_packet(foo="bar"))
        assert await one.reply() == (ZIPROTO, zi_map(foo="bar"))
        assert await other.json() == {"foo": "bar"}


async def test_a_packet_that_a_handler_builds_keeps_its_own_encoding(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def in_both(client: Any, packet: Any) -> None:
        await client.send(Packet({"foo": "bar"}, "ziproto"))
        await client.send(Packet({"foo": "bar"}, "json"))
        await client.send(packet)

    running = await serve(server)
    for first, echo in (
        (json_packet(foo="bar"), (JSON, b'{"foo":"bar"}')),
        (zi_packet(foo="bar"), (ZIPROTO, zi_map(foo="bar"))),
    ):
        async with await running.connect() as peer:
            await peer.send(first)
            assert await peer.reply() == (ZIPROTO, zi_map(foo="bar"))
            assert await peer.reply() == (JSON, b'{"foo":"bar"}')
            assert await peer.reply() == echo


async def test_a_half_closed_peer_gets_its_replies_and_then_the_end(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(100)))
        await peer.half_close()
        for number in range(100):
            assert await peer.json() == {"number": number}
        assert await peer.closed()


async def test_a_half_closed_peer_gets_the_replies_of_a_handler_that_takes_its_time(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def slow(client: Any, packet: Any) -> None:
        for part in range(3):
            await trio.sleep(0.05)
            await client.send({"part": part})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await peer.half_close()
        for part in range(3):
            assert await peer.json() == {"part": part}
        assert await peer.closed()


async def test_a_half_closed_peer_gets_a_reply_that_is_larger_than_all_buffers(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def large(client: Any, packet: Any) -> None:
        await client.send({"text": "x" * 20_000_000})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await peer.half_close()
        await trio.sleep(0.05)
        assert await peer.reply() == (JSON, b'{"text":"' + b"x" * 20_000_000 + b'"}')
        assert await peer.closed()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 7, 14])
async def test_the_end_inside_a_packet_ends_the_session_at_once_and_no_handler_runs(serve: Serve, length: int) -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> None:
        if "bystander" not in packet:
            seen.append(dict(packet))
        await client.send(packet)

    running = await serve(server)
    data = packet(JSON, b'{"cut":1}')
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(data[:length])
        await trio.testing.wait_all_tasks_blocked()
        await peer.half_close()
        with trio.fail_after(1.9):  # less than the 2 s that the server waits for a peer to close its side
            assert await peer.closed()
            await running.settle(1)
    assert seen == []


async def test_the_packets_before_the_one_that_was_cut_are_answered(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(json_packet(a=1) + json_packet(a=2) + json_packet(a=3)[:-1])
        await peer.half_close()
        assert await peer.json() == {"a": 1}
        assert await peer.json() == {"a": 2}
        assert await peer.closed()


async def test_a_peer_that_leaves_ends_its_session(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed():
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}
        await running.settle(1)


async def test_a_draining_server_ends_an_idle_session_without_a_word(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as idle, await running.connect() as talker:
        assert await talker.ask(a=1) == {"a": 1}
        await running.settle(2)
        running.server.stop()
        assert await idle.closed()
        assert await talker.closed()


async def test_a_draining_server_s_last_reply_is_not_lost_to_what_comes_behind_it(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def reply(client: Any, packet: Any) -> None:
        await client.send({"text": "x" * 1_500_000})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.send(json_packet(a=2))
        assert await peer.json() == {"text": "x" * 1_500_000}


async def test_a_draining_server_answers_the_packet_at_work_and_handles_no_other(serve: Serve) -> None:
    server = Server(port=0)
    begun = trio.Event()
    go_on = trio.Event()
    handled: list[int] = []

    @server.add_handler()
    async def wait(client: Any, packet: Any) -> None:
        handled.append(packet["number"])
        begun.set()
        await go_on.wait()
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(50)))
        await begun.wait()
        running.server.stop()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert await peer.json() == {"number": 0}
        assert await peer.closed()
    assert handled == [0]


@pytest.mark.parametrize("byteorder", ["big", "little"])
@pytest.mark.parametrize("header_size", range(1, 9))
async def test_the_header_may_have_one_to_eight_bytes_in_either_order(
    serve: Serve, header_size: int, byteorder: Literal["big", "little"]
) -> None:
    running = await serve(header_size=header_size, byteorder=byteorder)
    data = framed(JSON, b'{"foo":"bar"}', header_size=header_size, byteorder=byteorder)
    long = framed(
        ZIPROTO, zi_map(**{f"key{n}": "x" * 9 for n in range(15)}), header_size=header_size, byteorder=byteorder
    )
    error = framed(
        JSON, b'{"status":"failure","error":"ERR_REQUEST_MALFORMED"}', header_size=header_size, byteorder=byteorder
    )
    async with await running.connect() as peer:
        await peer.send(data * 3)
        assert await peer.read(len(data) * 3) == data * 3
        await peer.send_bytewise(data)
        assert await peer.read(len(data)) == data
        await peer.send(framed(JSON, b"{}", header_size=header_size, byteorder=byteorder))
        assert await peer.read(len(error)) == error
        assert await peer.closed()
    async with await running.connect() as peer:
        await peer.send(long)
        assert await peer.read(len(long)) == long


async def test_a_header_of_eight_bytes_is_judged_by_all_of_them(serve: Serve) -> None:
    running = await serve(header_size=8)
    async with await running.connect() as peer:
        await peer.send(b"\xff\xff\xff\xff\x00\x00\x00\x0f" + b"\x16\x00" + b'{"foo":"bar"}')
        error = framed(JSON, b'{"status":"failure","error":"ERR_PACKET_TOO_LARGE"}', header_size=8)
        assert await peer.read(len(error)) == error
        assert await peer.closed()


@pytest.mark.parametrize(
    ("body", "fields"),
    [(b"{ }", {}), (b' {"a": 1}\n', {"a": 1}), (b'{"a":1,"a":2}', {"a": 2}), (b'{"a":"\\u0000"}', {"a": "\0"})],
)
async def test_any_json_object_of_three_bytes_or_more_is_dispatched(
    serve: Serve, body: bytes, fields: dict[str, Any]
) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def tell(client: Any, packet: Any) -> None:
        await client.send({"got": packet.fields})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(packet(JSON, body))
        assert await peer.json() == {"got": fields}


async def test_the_smallest_ziproto_map_that_fits_a_packet_is_dispatched(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(packet(ZIPROTO, b"\x81\xa0\xc0"))
        assert await peer.reply() == (ZIPROTO, b"\x81\xa0\xc0")
        await peer.send(packet(ZIPROTO, b"\x80"))
        assert await peer.failure(ZIPROTO) == "ERR_REQUEST_MALFORMED"
        assert await peer.closed()


async def test_the_samples_of_the_protocol_page_are_answered(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(bytes.fromhex("00000010 16 00") + b'{"foo": "bar"}')
        assert await peer.json() == json.loads('{"foo": "bar"}')
    async with await running.connect() as peer:
        sample = bytes.fromhex("0000000b 16 01 81 a3 666f6f a3 626172")
        await peer.send(sample)
        assert await peer.read(len(sample)) == sample


async def test_nothing_can_be_sent_behind_the_reply_to_a_broken_rule(serve: Serve) -> None:
    clients: list[Client] = []
    server = Server(port=0)

    @server.add_handler()
    async def keep(client: Client, packet: Packet) -> None:
        clients.append(client)
        await client.send({"n": 1})

    running = await serve(server)
    async with await running.connect() as peer:
        # In one piece, so that the first reply is held back until the second.
        await peer.send(json_packet(a=1) + packet(JSON, b"no JSON"))
        assert await peer.json() == {"n": 1}
        assert await peer.json() == {"status": "failure", "error": "ERR_REQUEST_MALFORMED"}
        with pytest.raises(ClientDisconnected, match="closed before"):  # the server lingers for a peer that stays
            await clients[0].send({"n": 2})
        assert await peer.reply() is None
