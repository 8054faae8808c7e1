"""`Filter`, the base of all filters, and `Filters`, which has an attribute for each installed filter."""

from typing import TYPE_CHECKING

from asyncapy_core import Filter

if TYPE_CHECKING:
    import asyncapy_filters
    from asyncapy_core.plugins.filters import Filters as _Installed

    class Filters(_Installed):
        """For type checkers: the filters that come with asyncapy, by name."""

        APIFactory = asyncapy_filters.APIFactory
        Fields = asyncapy_filters.Fields
        HasFields = asyncapy_filters.HasFields
        Ip = asyncapy_filters.Ip
else:
    from asyncapy_core import Filters

__all__ = ["Filter", "Filters"]
