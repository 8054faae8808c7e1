"""Opens key stores by URL, through the plugin for the URL's scheme."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

from asyncapy_core.errors import UnknownKeyStore
from asyncapy_core.keys.store import KeyStore, MemoryKeyStore
from asyncapy_core.plugins.manager import default_manager

INSTALL_HINTS: Final = {"sqlite": "asyncapy-sqlite", "redis": "asyncapy-redis", "rediss": "asyncapy-redis"}
"""The distribution to install for a scheme, by the part of the scheme before a ``+``."""


def open_store(url: str, *, create: bool = True) -> KeyStore:
    """Open the key store with this URL.

    Args:
        url: the URL.
        create: with False, a store that does not exist, such as a missing file, is an error. An opener that takes an
            argument ``create`` is called with it; other stores are opened as usual.

    Raises:
        UnknownKeyStore: no installed plugin provides the scheme.
        PluginCollision: two plugins provide the scheme.
        KeyStoreError: the store cannot be opened.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UnknownKeyStore("a key store is given as a URL, such as 'memory://' or 'sqlite:///keys.db'")
    if scheme == "memory":
        return MemoryKeyStore()
    stores = default_manager().key_stores
    try:
        opener: Callable[..., KeyStore] = stores[scheme]
    except KeyError:
        raise UnknownKeyStore(_advice(scheme, ["memory", *stores])) from None
    return opener(url) if create or not _takes_create(opener) else opener(url, create=False)


def _takes_create(opener: Callable[..., KeyStore]) -> bool:
    try:
        return "create" in inspect.signature(opener).parameters
    except ValueError:  # a callable written in C
        return False


def _advice(scheme: str, installed: list[str]) -> str:
    import difflib  # noqa: PLC0415  # only for a mistake

    text = f"no installed plugin provides key stores for {scheme}:// (installed: {'://, '.join(installed)}://)"
    kind = scheme.partition("+")[0]
    if kind in INSTALL_HINTS and kind not in installed:
        return f"{text}; pip install {INSTALL_HINTS[kind]}"
    close = difflib.get_close_matches(scheme, [*installed, *INSTALL_HINTS], n=1)
    return f"{text}; did you mean {close[0]}://?" if close else text
