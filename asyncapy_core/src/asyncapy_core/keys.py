"""`APIKeyFactory`: issues, checks and revokes API keys.

Makes the keys and their digests; where these are kept is the business of a `KeyStore`, which never sees a key.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any, Final

from asyncapy_core.errors import UnknownKeyStore
from asyncapy_core.keystore import KeyRecord, KeyStore, MemoryKeyStore
from asyncapy_core.plugins.manager import default_manager

MINIMUM_SIZE: Final = 8
MAXIMUM_SIZE: Final = 1024


class APIKeyFactory:
    """Manages API keys and what is known of each.

    Keys are made by `secrets`, of letters, digits, ``-`` and ``_``, 6 bits of chance each. To keep them elsewhere, give
    it another store, or subclass it and override ``issue``, ``get``, ``update``, ``reissue`` and ``revoke``.

    Args:
        size: the length of a key in characters, 8 to 1024.
        store: a `KeyStore`, or the URL of one, such as ``"memory://"``; plugins bring further schemes.

    Raises:
        TypeError: ``size`` is not an integer.
        ValueError: ``size`` is out of range.
        UnknownKeyStore: no installed plugin provides the scheme of ``store``.
    """

    def __init__(self, size: int = 32, *, store: str | KeyStore = "memory://") -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size must be an integer, the length of a key in characters; got {size!r}")
        if not MINIMUM_SIZE <= size <= MAXIMUM_SIZE:
            raise ValueError(f"size must be {MINIMUM_SIZE} to {MAXIMUM_SIZE} characters; got {size}")
        self.size = size
        self.store = open_store(store) if isinstance(store, str) else store

    def issue(self, metadata: dict[str, Any] | None = None) -> str:
        """Return a new key, with ``metadata`` attached to it."""
        key = self.new_key()
        record = KeyRecord(id=secrets.token_hex(4), metadata=_metadata(metadata), issued=time.time())
        self.store.add(digest(key), record)
        return key

    def get(self, key: str) -> dict[str, Any]:
        """Return the metadata of a key.

        Raises:
            KeyError: the key does not exist.
        """
        return self._record(key).metadata

    def reissue(self, key: str) -> str:
        """Replace a key by a new one that has the same metadata, in one step, and return the new one.

        Raises:
            KeyError: the key does not exist.
        """
        self._record(key)
        new = self.new_key()
        try:
            self.store.replace(digest(key), digest(new))
        except KeyError:
            raise _no_such_key() from None
        return new

    def revoke(self, key: str) -> None:
        """Forget a key and its metadata.

        Raises:
            KeyError: the key does not exist.
        """
        self._record(key)
        try:
            self.store.remove(digest(key))
        except KeyError:
            raise _no_such_key() from None

    def update(self, key: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a key.

        Raises:
            KeyError: the key does not exist.
        """
        self._record(key)
        try:
            self.store.update(digest(key), _metadata(metadata))
        except KeyError:
            raise _no_such_key() from None

    def __contains__(self, key: object) -> bool:
        """Say whether this is a valid key; anything at all may be asked for."""
        if not isinstance(key, str):
            return False
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def new_key(self) -> str:
        """Return a random key of ``size`` characters that is not kept anywhere yet."""
        return secrets.token_urlsafe(self.size)[: self.size]

    def _record(self, key: str) -> KeyRecord:
        if not isinstance(key, str):
            raise TypeError(f"an API key is a string; got a {type(key).__name__}")
        try:
            record = self.store.get(digest(key))
        except KeyError:
            raise _no_such_key() from None
        if record.expires is not None and record.expires <= time.time():
            raise _no_such_key()
        return record


def digest(key: str) -> str:
    """Return what stores see of a key: its SHA-256, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def open_store(url: str) -> KeyStore:
    """Return the key store that a URL names, opened by the plugin that provides its scheme.

    Raises:
        UnknownKeyStore: no installed plugin provides the scheme.
        PluginCollision: two plugins do.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UnknownKeyStore(f"a key store is given as a URL, such as 'memory://'; got no scheme in {scheme[:20]!r}")
    if scheme == "memory":
        return MemoryKeyStore()
    stores = default_manager().key_stores
    try:
        opener = stores[scheme]
    except KeyError:
        known = ", ".join(["memory", *stores])
        raise UnknownKeyStore(
            f"no installed plugin provides key stores for {scheme}:// (installed: {known}); "
            f"try pip install asyncapy-{scheme}"
        ) from None
    return opener(url)


def _metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dictionary; got a {type(metadata).__name__}")
    return metadata


def _no_such_key() -> KeyError:
    return KeyError("no such API key")
