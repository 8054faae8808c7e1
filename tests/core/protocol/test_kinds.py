from __future__ import annotations

import pytest

from asyncapy_core.protocol.kinds import RECEIVED, WITH_PAYLOAD, WITHOUT_PAYLOAD, Kind, Role

TABLE = [
    (0, "REQUEST", "client", "map"),
    (1, "REPLY", "server", "map"),
    (2, "PART", "server", "map"),
    (3, "END", "server", "none"),
    (4, "FAILURE", "server", "map"),
    (5, "EVENT", "server", "map"),
    (6, "CANCEL", "client", "none"),
    (7, "PING", "both", "none"),
    (8, "PONG", "both", "map or none"),
    (9, "LEAVING", "server", "none"),
]
"""The table of docs/protocol.md, "Version 23"."""


def test_there_are_no_other_kinds() -> None:
    assert [(int(kind), kind.name) for kind in Kind] == [row[:2] for row in TABLE]


@pytest.mark.parametrize(("value", "name", "sender", "payload"), TABLE)
def test_a_kind_has_its_senders_and_its_payload(value: int, name: str, sender: str, payload: str) -> None:
    kind = Kind(value)
    assert (kind in RECEIVED[Role.SERVER]) == (sender != "server")
    assert (kind in RECEIVED[Role.CLIENT]) == (sender != "client")
    assert (kind in WITH_PAYLOAD) == (payload == "map")
    assert (kind in WITHOUT_PAYLOAD) == (payload == "none")
