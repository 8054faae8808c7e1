"""Moves the keys of development versions of 0.6.0, which kept all of them in two hashes, to names of their own.

A store refuses to work while these hashes have keys. So no server changes a key during a migration, and a server that
looked for keys in the wrong place would refuse all of them.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any, Final

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import log
from asyncapy_redis import scripts
from asyncapy_redis.client import RedisClient
from asyncapy_redis.layout import TAGS, Layout, decode, expiry, text

PAGE: Final = 500
LOCK_SECONDS: Final = 60

LOCK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] or redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return 1
end
return 0
"""
"""Take the lock, or keep it for longer. Arguments: token, seconds. Returns 0 if another process has it."""

DROP: Final = """
for number = 1, #ARGV, 2 do
    redis.call('HDEL', KEYS[1], ARGV[number])
    redis.call('HDEL', KEYS[2], ARGV[number + 1])
end
return 1
"""
"""Remove records that were moved. Keys: the two hashes. Arguments: digest and id of each record."""

UNLOCK: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


def check(client: RedisClient, layout: Layout) -> None:
    """Raise KeyStoreError if there are keys to migrate."""
    try:
        number = client.read("HLEN", layout.old[0])
    except KeyStoreUnavailable:
        raise
    except KeyStoreError:  # the user may use the new names only
        log.debug("{Key store} whether there are keys to migrate could not be checked", exc_info=True)
        return
    if number:
        raise KeyStoreError(
            f"{client.where} has {number} keys in the layout of a development version; stop the servers that use that "
            "version, and run asyncapy keys migrate"
        )


def migrate(client: RedisClient, layout: Layout) -> int:
    """Move all keys, and return their number. A call after an interrupted one moves the rest."""
    token = secrets.token_hex(8)
    _lock(client, layout, token)
    try:
        moved, cursor, more = 0, 0, True
        while more:
            reply: tuple[int, dict[bytes, bytes]] = client.read("HSCAN", layout.old[0], cursor, "COUNT", PAGE)
            cursor, page = reply
            _lock(client, layout, token)
            moved += _move(client, layout, page)
            more = cursor != 0
        return moved
    finally:
        with contextlib.suppress(KeyStoreError):
            client.run_script(UNLOCK, [layout.lock], token)


def _move(client: RedisClient, layout: Layout, page: dict[bytes, bytes]) -> int:
    moved: list[bytes] = []
    for digest, value in page.items():
        name = text(digest)
        if name[:2] not in TAGS:
            log.warning("{Key store} %s has the field %.16a, which is not the digest of a key", layout.old[0], name)
            continue
        key_id = value.partition(b"\n")[0]
        keys = [layout.record(name), layout.index(name)]
        client.run_script(scripts.ADD, keys, key_id, value, _expiry(name, value), digest)
        moved += digest, key_id
    if moved:
        client.run_script(DROP, layout.old, *moved)
    return len(moved) // 2


def _expiry(digest: str, value: bytes) -> str:
    try:
        return expiry(decode(digest, value).expires)
    except KeyStoreError as error:  # it is moved as it is, and can be revoked
        log.warning("{Key store} %s", error)
        return ""


def _lock(client: RedisClient, layout: Layout, token: str) -> None:
    taken: Any = client.run_script(LOCK, [layout.lock], token, LOCK_SECONDS)
    if not taken:
        raise KeyStoreError(f"{client.where}: another process migrates these keys; try again when it has finished")
