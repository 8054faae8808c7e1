"""The plugin module, which the entry point ``sqlite`` names."""

from __future__ import annotations

from collections.abc import Callable

from asyncapy_core import KeyStore, hookimpl
from asyncapy_sqlite.store import SQLiteKeyStore


@hookimpl
def asyncapy_key_stores() -> dict[str, Callable[[str], KeyStore]]:
    """Return the URL scheme ``sqlite``."""
    return {"sqlite": SQLiteKeyStore.from_url}
