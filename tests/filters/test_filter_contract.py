"""The contract suite of `asyncapy_core.testing`, over the filters of this project."""

from __future__ import annotations

from asyncapy.util import APIKeyFactory
from asyncapy_core import Filter
from asyncapy_core.testing import FilterContract, Sample
from asyncapy_filters import APIFactory, Fields, HasFields, Ip

KEYS = APIKeyFactory()
KEY = KEYS.issue()


class TestFields(FilterContract):
    passing = ({"foo": 12, "bar": None}, {"foo": "1x", "bar": []})
    failing = ({"foo": 12}, {"foo": "x", "bar": 1}, {"foo": 1, "bar": 1, "more": 1}, {})

    def filter(self) -> Filter:
        return Fields(foo=r"\d+", bar=None)


class TestHasFields(FilterContract):
    passing = ({"foo": 12}, {"foo": 1, "more": 1})
    failing = ({"foo": "x"}, {"bar": 1}, {})

    def filter(self) -> Filter:
        return HasFields(foo=r"\d+")


class TestIp(FilterContract):
    passing = (Sample({"a": 1}, "10.1.2.3"), Sample({}, "::1"))
    failing = ({"a": 1}, Sample({"a": 1}, "11.0.0.1"), Sample({"a": 1}, "unix:/run/x"))

    def filter(self) -> Filter:
        return Ip(["10.0.0.0/8", "::1"])


class TestAPIFactory(FilterContract):
    passing = ({"key": KEY}, {"key": KEY, "a": 1})
    failing = ({"key": "x" * 32}, {"key": None}, {"key": [KEY]}, {"kay": KEY}, {})

    def filter(self) -> Filter:
        return APIFactory(KEYS, "key")


class TestACombination(FilterContract):
    passing = (Sample({"key": KEY}, "10.0.0.1"),)
    failing = ({"key": KEY}, Sample({"key": KEY}, "10.0.0.9"), Sample({"key": "?"}, "10.0.0.1"))

    def filter(self) -> Filter:
        return APIFactory(KEYS, "key") & Ip("10.0.0.0/8") & ~Ip("10.0.0.9")
