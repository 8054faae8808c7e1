"""`Filter`, the base of all filters, and `Filters`, which has an attribute for each installed filter."""

# ruff: noqa: PLC0414, PLC0415  # an import with `as` makes a class an attribute that may be used as a type, too

from typing import TYPE_CHECKING

from asyncapy_core import Filter, Prefix

if TYPE_CHECKING:
    from asyncapy_core.plugins.namespace import Filters as _Installed

    class Filters(_Installed):
        """For type checkers: the filters that come with asyncapy, by name, and all others as Any."""

        from asyncapy_filters import APIFactory as APIFactory
        from asyncapy_filters import Fields as Fields
        from asyncapy_filters import HasFields as HasFields
        from asyncapy_filters import Ip as Ip
else:
    from asyncapy_core import Filters

__all__ = ["Filter", "Filters", "Prefix"]
