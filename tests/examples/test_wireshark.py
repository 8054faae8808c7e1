"""The Wireshark dissector, run by tshark on captures: of the demo, of packets in pieces, of other header settings."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from installed import TSHARK, needs_tshark
from peer import JSON, ZIPROTO, framed, json_packet, packet, zi_map
from tcp_proxy import TcpProxy

ROOT = Path(__file__).parents[2]
PORT = 8081
Chunk = tuple[int, bool, bytes]

pytestmark = needs_tshark


def write_capture(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write chunks as a capture of Ethernet frames, one TCP segment for each chunk."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        sent: dict[tuple[int, bool], int] = {}
        for time, (connection, from_client, data) in enumerate(chunks):
            ports = (40_000 + connection, PORT) if from_client else (PORT, 40_000 + connection)
            seq, ack = (sent.get((connection, way), 1) for way in (from_client, not from_client))
            tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack, 0x50, 0x18, 65535, 0, 0) + data
            ip = (
                struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1") + tcp
            )
            frame = bytes(12) + b"\x08\x00" + ip
            file.write(struct.pack("=IIII", 1_700_000_000 + time, 0, len(frame), len(frame)) + frame)
            sent[connection, from_client] = seq + len(data)


def dissected(path: Path, *options: str) -> list[dict[str, list[str]]]:
    """Return the fields that tshark finds in each frame with AsyncAProto packets."""
    assert TSHARK is not None
    script = f"lua_script:{ROOT / 'wireshark/asyncaproto.lua'}"
    done = subprocess.run(
        [TSHARK, "-X", script, *options, "-r", str(path), "-Y", "asyncaproto", "-T", "json", "--no-duplicate-keys"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Lua" not in done.stderr, done.stderr
    return [frame["_source"]["layers"] for frame in json.loads(done.stdout or "[]")]


def packets(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for frame in frames:
        layer = frame["asyncaproto"]
        found += layer if isinstance(layer, list) else [layer]
    return found


@pytest.fixture(scope="module")
def demo_traffic() -> list[Chunk]:
    """The traffic between the demo and its server."""
    specification = importlib.util.spec_from_file_location("demo", ROOT / "examples/demo.py")
    assert specification is not None
    assert specification.loader is not None
    demo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(demo)
    with subprocess.Popen([sys.executable, str(demo.SERVER)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            port = int(server.stderr.readline().split("127.0.0.1:")[1].split()[0])
            with TcpProxy(port) as proxy:
                shown = demo.Demo()
                demo.talk(shown, proxy.port)
            assert shown.wrong == 0
        finally:
            server.terminate()
    return proxy.heard


def test_the_demo_is_dissected(demo_traffic: list[Chunk], tmp_path: Path) -> None:
    write_capture(tmp_path / "demo.pcap", demo_traffic)
    found = packets(dissected(tmp_path / "demo.pcap"))
    raw = b"".join(data for _, _, data in demo_traffic)
    assert len(found) == raw.count(b"\x16\x00{") + raw.count(b"\x16\x01") + raw.count(b"\x11\x00{")
    assert {each["asyncaproto.encoding"] for each in found} == {"0", "1"}
    assert [each["asyncaproto.error"] for each in found if "asyncaproto.error" in each] == [
        "ERR_NO_HANDLER",
        "ERR_HEADER_INVALID",
    ]
    assert [each["asyncaproto.version"] for each in found].count("17") == 1
    for each in found:
        inner = {"0": "json", "1": "msgpack"}[each["asyncaproto.encoding"]]
        assert any(name.startswith(inner) for name in each), each


def test_packets_are_put_together_from_pieces(tmp_path: Path) -> None:
    stream = json_packet(a=1) + packet(1, b"\x81\xa1a\x01") + json_packet(text="x" * 3000)
    write_capture(tmp_path / "bytes.pcap", [(1, True, bytes((byte,))) for byte in stream])
    write_capture(tmp_path / "whole.pcap", [(1, True, stream)])
    expected = [(str(len(stream[:14]) - 4), "0"), ("6", "1"), ("3014", "0")]
    for name in ("bytes.pcap", "whole.pcap"):
        found = packets(dissected(tmp_path / name))
        assert [(each["asyncaproto.length"], each["asyncaproto.encoding"]) for each in found] == expected


def test_headers_of_another_size_and_order_are_read(tmp_path: Path) -> None:
    write_capture(tmp_path / "odd.pcap", [(1, True, framed(JSON, b'{"a":1}', header_size=2, byteorder="little"))])
    options = ("-o", "asyncaproto.header_size:2", "-o", "asyncaproto.byteorder:little")
    (found,) = packets(dissected(tmp_path / "odd.pcap", *options))
    assert found["asyncaproto.length"] == "9"
    assert found["asyncaproto.text"] == '{"a":1}'


def numbered(kind: int, number: int, body: bytes = b"", encoding: int = JSON) -> bytes:
    """A packet of version 23."""
    return struct.pack(">IBBBI", len(body) + 7, 23, encoding, kind, number) + body


def test_numbered_packets_are_dissected(tmp_path: Path) -> None:
    failure = b'{"status":"failure","error":"ERR_NO_HANDLER"}'
    asked = numbered(0, 1, b'{"a":1}') + numbered(0, 258, zi_map(a="b"), ZIPROTO) + numbered(6, 1) + numbered(7, 3)
    answered = numbered(2, 1, b'{"a":1}') + numbered(3, 1) + numbered(4, 258, failure, ZIPROTO) + numbered(5, 0, b"{}")
    left = numbered(9, 2**32 - 1) + numbered(200, 1, b"\xff")
    chunks = [(1, True, asked[:20]), (1, True, asked[20:]), (1, False, answered), (1, False, left)]
    write_capture(tmp_path / "numbered.pcap", chunks)
    frames = dissected(tmp_path / "numbered.pcap")
    found = packets(frames)
    assert [(each["asyncaproto.kind"], each["asyncaproto.number"]) for each in found] == [
        ("0", "1"), ("0", "258"), ("6", "1"), ("7", "3"), ("2", "1"), ("3", "1"), ("4", "258"), ("5", "0"),
        ("9", "4294967295"), ("200", "1"),
    ]  # fmt: skip
    assert {each["asyncaproto.version"] for each in found} == {"23"}
    assert [each.get("asyncaproto.payload") is not None for each in found] == [
        True, True, False, False, True, False, True, True, False, True
    ]  # fmt: skip
    assert [each.get("asyncaproto.error") for each in found if "asyncaproto.error" in each] == ["ERR_NO_HANDLER"]
    assert [any(name.startswith(("json", "msgpack")) for name in each) for each in found[:2]] == [True, True]
    assert found[0]["asyncaproto.text"] == '{"a":1}'
    assert "expert" not in json.dumps(frames)


def test_kinds_are_named(tmp_path: Path) -> None:
    assert TSHARK is not None
    stream = b"".join(numbered(kind, 7, b"" if kind in {3, 6, 7, 9} else b"{}") for kind in range(10))
    write_capture(tmp_path / "kinds.pcap", [(1, True, stream + numbered(130, 7))])
    script = f"lua_script:{ROOT / 'wireshark/asyncaproto.lua'}"
    done = subprocess.run(
        [TSHARK, "-X", script, "-r", str(tmp_path / "kinds.pcap")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\[(\w+ \d+)", done.stdout.replace("kind 130", "kind_130")) == [
        "REQUEST 7", "REPLY 7", "PART 7", "END 7", "FAILURE 7", "EVENT 7", "CANCEL 7", "PING 7", "PONG 7", "LEAVING 7",
        "kind_130 7",
    ]  # fmt: skip
    assert "[REQUEST 7, JSON, 2 bytes]" in done.stdout
    assert "[END 7]" in done.stdout


def test_numbers_are_read_in_the_byte_order(tmp_path: Path) -> None:
    data = struct.pack("<HBBBI", 9, 23, JSON, 0, 258) + b"{}"
    write_capture(tmp_path / "little.pcap", [(1, True, data)])
    options = ("-o", "asyncaproto.header_size:2", "-o", "asyncaproto.byteorder:little")
    (found,) = packets(dissected(tmp_path / "little.pcap", *options))
    assert (found["asyncaproto.length"], found["asyncaproto.number"]) == ("9", "258")


@pytest.mark.parametrize(
    ("data", "mark"),
    [
        (b"\0\0\0\6\x17\0\0\0\0\0", "A packet of version 23 has a Content-Length of 7 at least"),
        (numbered(10, 1), "Kinds 10 to 127 are errors"),
        (numbered(127, 1), "Kinds 10 to 127 are errors"),
        (numbered(6, 1, b"{}"), "Packets of this kind have no payload"),
        (packet(JSON, b"{ }", version=24), "The version is neither 22 nor 23"),
    ],
)
def test_errors_of_either_version_are_marked(data: bytes, mark: str, tmp_path: Path) -> None:
    write_capture(tmp_path / "wrong.pcap", [(1, True, data)])
    (frame,) = dissected(tmp_path / "wrong.pcap")
    assert mark in json.dumps(frame)


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\0\0\0\1\x16", b"\0\0\0\4\x16\0{}"])
def test_what_is_too_short_is_marked(data: bytes, tmp_path: Path) -> None:
    write_capture(tmp_path / "short.pcap", [(1, True, data)])
    (frame,) = dissected(tmp_path / "short.pcap")
    assert "A packet has a Content-Length of 5 at least" in json.dumps(frame)
