"""The contracts of the filters of this package, which ``asyncapy plugins test`` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncapy_core import APIKeyFactory, Filter
from asyncapy_core.testing import FilterContract, Sample
from asyncapy_filters import APIFactory, Fields, HasFields, Ip

Samples = Sequence[Mapping[str, Any] | Sample]

KEYS = APIKeyFactory()
"""Keys in memory."""
KEY: str = KEYS.issue()


class FieldsContract(FilterContract):
    """The contract of `Fields`."""

    passing: Samples = ({"foo": 12, "bar": None}, {"foo": "1x", "bar": []})
    failing: Samples = ({"foo": 12}, {"foo": "x", "bar": 1}, {"foo": 1, "bar": 1, "more": 1}, {})

    def filter(self) -> Filter:
        return Fields(foo=r"\d+", bar=None)


class HasFieldsContract(FilterContract):
    """The contract of `HasFields`."""

    passing: Samples = ({"foo": 12}, {"foo": 1, "more": 1})
    failing: Samples = ({"foo": "x"}, {"bar": 1}, {})

    def filter(self) -> Filter:
        return HasFields(foo=r"\d+")


class IpContract(FilterContract):
    """The contract of `Ip`."""

    passing: Samples = (Sample({"a": 1}, "10.1.2.3"), Sample({}, "::1"))
    failing: Samples = ({"a": 1}, Sample({"a": 1}, "11.0.0.1"), Sample({"a": 1}, "unix:/run/x"))

    def filter(self) -> Filter:
        return Ip(["10.0.0.0/8", "::1"])


class APIFactoryContract(FilterContract):
    """The contract of `APIFactory`."""

    passing: Samples = ({"key": KEY}, {"key": KEY, "a": 1})
    failing: Samples = ({"key": "x" * 32}, {"key": None}, {"key": [KEY]}, {"kay": KEY}, {})

    def filter(self) -> Filter:
        return APIFactory(KEYS, "key")
