"""The plugin: what asyncapy-core finds behind the entry point ``filters``."""

from __future__ import annotations

from asyncapy_core import Filter, hookimpl
from asyncapy_filters import APIFactory, Fields, HasFields, Ip


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    """Bring the filters of this package under their class names."""
    return {filter.__name__: filter for filter in (Fields, HasFields, Ip, APIFactory)}
