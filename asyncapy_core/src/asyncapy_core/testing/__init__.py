"""For tests, of this project and of those who write plugins for it: contract suites."""

from asyncapy_core.testing.keystores import KeyStoreContract

__all__ = ["KeyStoreContract"]
