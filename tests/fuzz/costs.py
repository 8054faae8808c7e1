"""The CPU time of payloads, and a search for those that cost most: ``costs.py FOLDER SECONDS``; see the Makefile.

A payload is an array of one item, repeated up to `MAX_PACKET`. The search changes the items that cost most, as a fuzzer
does, and writes the worst into the folder. It fails if one costs more than `LIMIT`.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_core.errors import DecodeError
from asyncapy_core.protocol.codec import Codec

MAX_PACKET = 1024 * 1024
LIMIT = 0.15
"""Seconds of CPU for decoding one packet and encoding its fields again."""

SIZES = (390 * 1024, MAX_PACKET)
"""Bytes of the payloads that are tried. The codecs refuse some of more than 400,000 bytes before they decode them."""

KEPT = 24
CORPUS = Path(__file__).parent / "corpus" / "costs"
PIECES = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b'"":',
        b",",
        b"[],",
        b"{},",
        b"null,",
        b"true",
        b"1",
        b"9",
        b"0.",
        b"e30",
        b"E-3",
        b"-",
    ),
    *(b"\\u0041", b"\\n", b"\\ud834\\udd1e", b"\xc4\x80", b" ", b"9" * 19, b"0" * 300, b"9007199254740993", b"5e-324"),
    *(b"\x80", b"\x81", b"\x90", b"\x91", b"\x92", b"\xa0", b"\xa1a", b"\xc0", b"\xc4\x00", b"\xca\x00\x00\x00\x00"),
    *(
        b"\xcf" + b"\xff" * 8,
        b"\xcb\x7f\xef" + b"\xff" * 6,
        b"\xcb" + b"\x00" * 7 + b"\x01",
        b"\xd9\x00",
        b"\xdc\x00\x01",
    ),
]


def json_payload(item: bytes, size: int = MAX_PACKET) -> bytes:
    """Return a JSON object with an array of this item."""
    count = max(1, (size - 8) // (len(item) + 1))
    return b'{"a":[' + b",".join([item] * count) + b"]}"


def ziproto_payload(item: bytes, size: int = MAX_PACKET) -> bytes:
    """Return a ZiProto map with an array of this item."""
    count = max(1, (size - 8) // len(item))
    return b"\x81\xa1a\xdd" + count.to_bytes(4, "big") + item * count


FORMS: list[tuple[Codec, Callable[..., bytes]]] = [
    (JsonCodec(), json_payload),
    (ZiProtoCodec(), ziproto_payload),
]


def echo(codec: Codec, payload: bytes) -> None:
    """Decode a payload and encode its fields, unless it is not a payload."""
    try:
        fields = codec.decode(payload)
    except DecodeError:
        return
    codec.encode(fields)


def cpu_seconds(function: Callable[[], object], repeat: int = 3) -> float:
    """Return the least CPU time of a call, which includes freeing its objects."""
    best = float("inf")
    for _ in range(repeat):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return best


class Search:
    """A search for the items of the costliest payloads.

    Args:
        items: the first items.
        seed: of the random changes.
    """

    def __init__(self, items: list[bytes], seed: int) -> None:
        self._random = random.Random(seed)
        self._worst: dict[bytes, float] = {item: self._cost(item) for item in items}

    @property
    def worst(self) -> list[bytes]:
        """The items found, the costliest first."""
        return sorted(self._worst, key=lambda item: -self._worst[item])

    def step(self) -> None:
        """Change one of the worst items, and keep the result if it costs more than the cheapest of them."""
        item = self._changed(self._random.choice(self.worst))
        if item and len(item) <= 400 and item not in self._worst:
            self._worst[item] = self._cost(item)
            for cheap in self.worst[KEPT:]:
                del self._worst[cheap]

    def _cost(self, item: bytes) -> float:
        payloads = [(codec, form(item, size)) for codec, form in FORMS for size in SIZES]
        return max(cpu_seconds(partial(echo, codec, payload), 1) for codec, payload in payloads)

    def _changed(self, item: bytes) -> bytes:
        start, end = sorted(self._random.randrange(len(item) + 1) for _ in range(2))
        piece = self._random.choice([*PIECES, b"", item, self._random.choice(self.worst), self._random.randbytes(1)])
        return self._random.choice(
            [item[:start] + piece + item[end:], item[:start] + piece + item[start:], item + piece]
        )


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    known = [path.read_bytes() for path in sorted((*CORPUS.iterdir(), *folder.glob("*")))]
    search = Search([*known, *PIECES], random.randrange(2**32))
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        search.step()
        count += 1
    print(f"costs: {count} items tried; the worst:")
    failed = False
    for number, item in enumerate(search.worst[:8]):
        (folder / f"worst-{number}").write_bytes(item)
        for (codec, form), size in itertools.product(FORMS, SIZES):
            cost = cpu_seconds(partial(echo, codec, form(item, size)))
            failed |= cost > LIMIT
            if cost > LIMIT / 2:
                print(f"  {codec.name:8} {cost * 1e3:6.1f} ms, {size} bytes: {item[:50]!r}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
