"""Looks for settings of a Redis server with which issued keys can be lost, or revoked keys come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

OLDEST: Final = (6,)
"""The oldest supported version."""


def describe(info: Mapping[str, Any]) -> str:
    """Return name, version and role of a server from its reply to INFO."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version"))
    replicas = info.get("connected_slaves", 0)
    return f"{name} {version}, {info.get('role')}, {replicas} {'replica' if replicas == 1 else 'replicas'}"


def find_weaknesses(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weaknesses of a server from its reply to INFO."""
    version = str(info.get("redis_version", ""))
    if version and tuple(int(part) for part in version.split(".")[:1] if part.isdecimal()) < OLDEST:
        yield f"its version is {version}; key stores need Redis 6 or later"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        keys = "API keys" if policy.startswith("allkeys") else "API keys with an expiry"
        yield f"{keys} are deleted when its memory is full, as its maxmemory-policy is {policy}; set noeviction"
    if not info.get("aof_enabled", 1):
        yield (
            "it has no append-only file: after a crash, keys that were issued since the last snapshot are lost and "
            "revoked keys are valid again; set appendonly to yes"
        )
    for field, file in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(field, "ok") != "ok":
            yield f"it cannot write its {file}; see its log"
