"""Reads and purges all records of a store, a page at a time, so that no command keeps Redis from other clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError
from asyncapy_core.storage import log, skip_damaged
from asyncapy_redis import scripts
from asyncapy_redis.client import RedisClient
from asyncapy_redis.layout import TAGS, Layout, decode, text

PAGE: Final = 100
"""Records that one command reads."""

TAGS_AT_ONCE: Final = 32
"""Pages of different hash tags that one round trip reads."""

PURGED_AT_ONCE: Final = 100
"""Records that one script removes."""

Entry = tuple[str, bytes, bytes]
"""Tag, id and digest of a record."""


def read_all(client: RedisClient, layout: Layout) -> Iterator[tuple[str, KeyRecord]]:
    """Yield digests and records; a damaged one is skipped, with a warning. One may come twice."""
    for page in _pages(client, layout):
        found = [(text(digest), value) for (_, _, digest), value in _values(client, layout, page) if value is not None]
        yield from skip_damaged(found, lambda item: (item[0], decode(*item)))


def purge(client: RedisClient, layout: Layout, now: float) -> int:
    """Remove the records that have expired at this UNIX time, and return their number.

    The ids of records that Redis has deleted by itself are removed too, and count.
    """
    purged = 0
    for page in _pages(client, layout):
        expired: dict[str, list[Entry]] = {}
        for entry, value in _values(client, layout, page):
            if value is None or _has_expired(entry[2], value, now):
                expired.setdefault(entry[0], []).append(entry)
        for tag, entries in expired.items():
            for start in range(0, len(entries), PURGED_AT_ONCE):
                part = entries[start : start + PURGED_AT_ONCE]
                keys: list[str | bytes] = [layout.index(tag)]
                keys += [layout.listed(tag, digest) for _, _, digest in part]
                values = [value for _, key_id, digest in part for value in (key_id, digest)]
                purged += int(client.run_script(scripts.PURGE, keys, repr(now), *values))
    return purged


def _pages(client: RedisClient, layout: Layout) -> Iterator[list[Entry]]:
    """Yield the entries of the index, a page of several tags at a time."""
    cursors = dict.fromkeys(sorted(TAGS), 0)
    while cursors:
        tags = list(cursors)[:TAGS_AT_ONCE]
        replies = client.read_all([("HSCAN", layout.index(tag), cursors[tag], "COUNT", PAGE) for tag in tags])
        page: dict[Entry, None] = {}
        for tag, (cursor, entries) in zip(tags, replies, strict=True):
            page |= dict.fromkeys((tag, key_id, digest) for key_id, digest in entries.items())
            cursors[tag] = int(cursor)
            if not cursors[tag]:
                del cursors[tag]
        yield list(page)


def _values(client: RedisClient, layout: Layout, page: list[Entry]) -> Iterator[tuple[Entry, bytes | None]]:
    """Yield the entries with the values of their records; None for a record that Redis has deleted at its expiry."""
    while page:
        by_tag: dict[str, list[Entry]] = {}
        for entry in page:
            by_tag.setdefault(entry[0], []).append(entry)
        names = [[layout.listed(tag, digest) for _, _, digest in entries] for tag, entries in by_tag.items()]
        replies = client.read_all([("MGET", *part) for part in names])
        values = [value for reply in replies for value in reply]
        absent: list[Entry] = []
        for entry, value in zip([entry for entries in by_tag.values() for entry in entries], values, strict=True):
            if value is None:
                absent.append(entry)
            else:
                yield entry, value
        page = []
        listed = client.read_all([("HGET", layout.index(tag), key_id) for tag, key_id, _ in absent])
        for entry, digest in zip(absent, listed, strict=True):
            if digest == entry[2]:
                yield entry, None
            elif digest is not None:  # the key was reissued meanwhile
                page.append((entry[0], entry[1], digest))


def _has_expired(digest: bytes, value: bytes, now: float) -> bool:
    """Return whether a record has expired; log a warning for a damaged one, which has not."""
    try:
        return decode(text(digest), value).expired(now)
    except KeyStoreError as error:
        log.warning("{Key store} %s", error)
        return False
