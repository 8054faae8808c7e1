"""The plugin: what asyncapy-core finds behind the entry point ``sqlite``."""

from __future__ import annotations

from collections.abc import Callable

from asyncapy_core import KeyStore, hookimpl
from asyncapy_sqlite.store import SQLiteKeyStore


@hookimpl
def asyncapy_key_stores() -> dict[str, Callable[[str], KeyStore]]:
    """Bring the scheme ``sqlite``."""
    return {"sqlite": SQLiteKeyStore.from_url}
