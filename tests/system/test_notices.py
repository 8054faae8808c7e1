"""The warnings of a starting server about handlers that can never run."""

from __future__ import annotations

from typing import Any

import pytest

from asyncapy import Server
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.testing import serving

KEYS, OTHER_KEYS = APIKeyFactory(), APIKeyFactory()
IP = Filters.Ip("10.0.0.0/8")


class Short(Filter):
    """A filter with a constant repr and no equality of its own."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def check(self, c: Any, p: Any) -> bool:
        return self.answer

    def __repr__(self) -> str:
        return "Short()"


async def early(client: Any, packet: Any) -> None: ...


async def late(client: Any, packet: Any) -> None: ...


@pytest.mark.parametrize(
    ("before", "behind", "never"),
    [
        ((), (), True),
        ((), (IP,), True),
        ((IP,), (), False),
        ((IP,), (IP, Filters.Fields(a=None)), True),
        ((Filters.Fields(a=r"\d"),), (Filters.Fields(a=r"\d"),), True),
        ((Filters.Fields(a=r"\d"),), (Filters.Fields(a=r"\w"),), False),
        ((Filters.Fields(a=None),), (Filters.HasFields(a=None),), False),
        ((Filters.HasFields(a=None) | IP,), (Filters.HasFields(a=None) | IP,), True),
        ((Filters.HasFields(a=None) | IP,), (Filters.HasFields(a=None) & IP,), False),
        ((~Filters.HasFields(a=None),), (~Filters.HasFields(a=None),), True),
        ((Filters.APIFactory(KEYS, "key"),), (Filters.APIFactory(KEYS, "key"),), True),
        ((Filters.APIFactory(KEYS, "key"),), (Filters.APIFactory(OTHER_KEYS, "key"),), False),
        ((Filters.Ip("10.0.0.0/8"),), (Filters.Ip("10.0.0.0/8"),), False),  # each may change while the server runs
        ((Short(answer=False),), (Short(answer=True),), False),
    ],
)
async def test_a_handler_is_said_to_never_run_only_where_that_is_sure(
    before: tuple[Filter, ...], behind: tuple[Filter, ...], never: bool
) -> None:
    server = Server()
    server.register_handler(early, *before)
    server.register_handler(late, *behind)
    async with serving(server) as running:
        warnings = [line for line in running.log if "can never run" in line]
    assert bool(warnings) is never
    if never:
        assert "'late' in group 0 can never run: 'early', before it, takes all of its packets" in warnings[0]


async def test_another_group_is_another_matter() -> None:
    server = Server()
    server.register_handler(early)
    server.register_handler(late, group=1)
    async with serving(server) as running:
        assert not [line for line in running.log if "can never run" in line]


def test_equal_filters_have_equal_hashes() -> None:
    for one, other in (
        (Filters.Fields(a=None), Filters.Fields(a=None)),
        (Filters.APIFactory(KEYS, "a"), Filters.APIFactory(KEYS, "a")),
        (~Filters.Fields(a=None), ~Filters.Fields(a=None)),
    ):
        assert one == other
        assert hash(one) == hash(other)
    assert Filters.Fields(a=None) != "Fields(a=None)"
    assert Filters.APIFactory(KEYS, "a") != KEYS
    assert ~Filters.Fields(a=None) != Filters.Fields(a=None)
