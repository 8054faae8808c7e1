"""The plugin module, which the entry point ``limits`` names."""

from __future__ import annotations

from asyncapy_core import Filter, hookimpl
from asyncapy_limits import Rate


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    """Return the filter of this package by its name."""
    return {"Rate": Rate}


@hookimpl
def asyncapy_contracts() -> list[type]:
    """Return the contract of the filter."""
    from asyncapy_limits import contracts  # noqa: PLC0415  # it imports the server and the clients

    return [contracts.RateContract]
