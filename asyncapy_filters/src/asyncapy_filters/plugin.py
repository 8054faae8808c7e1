"""The plugin module, which the entry point ``filters`` names."""

from __future__ import annotations

from asyncapy_core import Filter, hookimpl
from asyncapy_filters import APIFactory, Fields, HasFields, Ip


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    """Return the filters of this package by class name."""
    return {filter.__name__: filter for filter in (Fields, HasFields, Ip, APIFactory)}


@hookimpl
def asyncapy_contracts() -> list[type]:
    """Return the contract of each filter."""
    from asyncapy_filters import contracts  # noqa: PLC0415  # it imports the server and the clients

    return [
        contracts.FieldsContract,
        contracts.HasFieldsContract,
        contracts.IpContract,
        contracts.APIFactoryContract,
    ]
