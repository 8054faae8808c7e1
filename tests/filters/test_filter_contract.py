"""The contract suite of `asyncapy_core.testing`, over the filters of this project."""

from __future__ import annotations

from asyncapy_core import Filter
from asyncapy_core.testing import FilterContract, Sample
from asyncapy_filters import APIFactory, Ip
from asyncapy_filters.contracts import (
    KEY,
    KEYS,
    APIFactoryContract,
    FieldsContract,
    HasFieldsContract,
    IpContract,
)


class TestFields(FieldsContract): ...


class TestHasFields(HasFieldsContract): ...


class TestIp(IpContract): ...


class TestAPIFactory(APIFactoryContract): ...


class TestAPIFactoryWithLogIns(APIFactoryContract):
    def filter(self) -> Filter:
        return APIFactory(KEYS, "key", once=True)


class TestACombination(FilterContract):
    passing = (Sample({"key": KEY}, "10.0.0.1"),)
    failing = ({"key": KEY}, Sample({"key": KEY}, "10.0.0.9"), Sample({"key": "?"}, "10.0.0.1"))

    def filter(self) -> Filter:
        return APIFactory(KEYS, "key") & Ip("10.0.0.0/8") & ~Ip("10.0.0.9")
