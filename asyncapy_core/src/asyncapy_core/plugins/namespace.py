"""`Filters`: the filters of installed plugins, as attributes, looked up on use."""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING, Any

from asyncapy_core.errors import UnknownFilter
from asyncapy_core.plugins.manager import default_manager
from asyncapy_core.routing.filter import Filter

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client

__all__ = ["Filter", "Filters"]


class _FilterNamespace(ABCMeta):
    """Resolves ``Filters.X`` to the filter class that a plugin provides under the name X."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        manager = default_manager()
        try:
            return manager.filters[name]
        except KeyError:
            raise UnknownFilter(_advice(name)) from None

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *default_manager().filters]


class Filters(Filter, metaclass=_FilterNamespace):
    """The filters of all installed plugins, such as ``Filters.Fields`` and ``Filters.Ip``."""

    def check(self, c: Client, p: Packet) -> bool:
        """Pass every packet. This class is a namespace; the filters are its attributes."""
        return True


def _advice(name: str) -> str:
    import difflib  # noqa: PLC0415  # only for a mistake

    manager = default_manager()
    installed = list(manager.filters)
    unfinished = " and ".join(record.title for record in manager.unfinished)
    if unfinished:
        return (
            f"no plugin provides a filter {name!r} while {unfinished} is being imported or collected "
            f"(found: {', '.join(installed) or 'none'}); use its own filters, and those that use it, in a function"
        )
    text = f"no installed plugin provides a filter {name!r} (installed: {', '.join(installed) or 'none'})"
    close = difflib.get_close_matches(name, installed, n=1)
    if close:
        return f"{text}; did you mean {close[0]!r}?"
    broken = "; ".join(f"{record.title} is quarantined: {record.reason}" for record in manager.problems)
    if broken:
        return f"{text}; {broken}"
    return f"{text}; pip install asyncapy-filters brings the documented ones"
