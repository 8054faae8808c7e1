"""The schemas of filters, and the fields that filters examine. A filter of a third party may return anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asyncapy_core.logs import reason_of
from asyncapy_typed.model_types import property_names

if TYPE_CHECKING:
    from asyncapy_core.routing.filter import Filter


def schema_of_filter(filter: Filter) -> Mapping[str, Any] | None:
    """Return the schema of a filter, or None if it has none.

    Raises:
        TypeError: its method ``schema`` raised, or returned another object; the message names the filter.
    """
    try:
        schema = filter.schema()
    except Exception as error:  # a filter may raise anything
        raise TypeError(f"schema() of the filter {filter!r} raised {reason_of(error)}") from error
    if schema is None or isinstance(schema, Mapping):
        return schema
    raise TypeError(f"schema() of the filter {filter!r} returned {schema!r}; return a mapping or None")


def fields_of(filters: Iterable[Any]) -> frozenset[str]:
    """Return the names of the fields that filters examine, those of combined filters among them.

    Raises:
        TypeError: as for `schema_of_filter`.
    """
    schemas = [schema_of_filter(filter) for filter in filters]
    return frozenset(name for schema in schemas if schema is not None for name in property_names(schema, {}))
