"""API keys in an SQLite file: ``APIKeyFactory(store="sqlite:///keys.db")``."""

from asyncapy_sqlite.store import SQLiteKeyStore

__all__ = ["SQLiteKeyStore"]
