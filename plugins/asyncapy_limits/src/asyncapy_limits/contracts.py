"""The contract of the filter of this package, which ``asyncapy plugins test`` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncapy_core import Filter
from asyncapy_core.testing import FilterContract, Sample
from asyncapy_limits.rate import Rate


class RateContract(FilterContract):
    """The contract of `Rate`."""

    passing: Sequence[Mapping[str, Any] | Sample] = ({"a": 1}, Sample({}, "2001:db8::1"), Sample({}, "unix:/run/x"))
    limit: int | None = 3

    def filter(self) -> Filter:
        return Rate("3/minute; 100/hour")
