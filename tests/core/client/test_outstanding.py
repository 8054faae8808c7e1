from __future__ import annotations

import pytest

from asyncapy_core.client.idle import LONGEST_DELAY
from asyncapy_core.client.outstanding import KEPT, Outstanding


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outstanding(clock: Clock) -> Outstanding:
    return Outstanding(clock)


def test_a_connection_is_idle_from_its_beginning_and_from_each_last_reply(
    outstanding: Outstanding, clock: Clock
) -> None:
    assert outstanding.idle_for(0)
    for _ in range(3):
        assert not outstanding.idle_for(1)
        clock.now += 1
        assert outstanding.idle_for(1)
        outstanding.sending(b"a")
        outstanding.sending(b"b")
        clock.now += 1
        assert not outstanding.idle_for(0)
        outstanding.received()
        assert not outstanding.idle_for(0)
        outstanding.received()


def test_the_packets_behind_an_idle_time_are_kept_until_the_first_reply(outstanding: Outstanding, clock: Clock) -> None:
    assert outstanding.repeatable == []
    outstanding.sending(b"a")
    outstanding.sending(b"b")
    assert outstanding.repeatable == [b"a", b"b"]
    outstanding.received()
    assert outstanding.repeatable == []
    outstanding.sending(b"c")
    assert outstanding.repeatable == [], "the connection was not idle before it"


@pytest.mark.parametrize(("idle", "delay", "unread"), [(1, 0.9, True), (1, 1, False), (60, LONGEST_DELAY, False)])
def test_packets_were_not_read_if_the_refusal_comes_sooner_than_the_connection_was_idle(
    outstanding: Outstanding, clock: Clock, idle: float, delay: float, unread: bool
) -> None:
    clock.now += idle
    outstanding.sending(b"a")
    clock.now += delay
    assert outstanding.unread_until_now() is unread


def test_packets_that_are_sent_again_are_not_kept(outstanding: Outstanding) -> None:
    outstanding.repeating(2)
    assert outstanding.repeatable == []
    assert not outstanding.idle_for(0)
    outstanding.sending(b"a")
    assert outstanding.repeatable == []
    for _ in range(3):
        assert not outstanding.idle_for(0)
        outstanding.received()
    assert outstanding.idle_for(0)


def test_after_a_packet_without_a_request_the_connection_is_never_idle(outstanding: Outstanding, clock: Clock) -> None:
    outstanding.sending(b"a")
    outstanding.received()
    outstanding.received()
    for _ in range(3):
        clock.now += 60
        assert not outstanding.idle_for(0)
        outstanding.sending(b"b")
        assert not outstanding.idle_for(0)
        assert outstanding.repeatable == []
        outstanding.received()


def test_packets_are_kept_up_to_a_limit_and_a_single_packet_of_any_size(outstanding: Outstanding) -> None:
    large = bytes(KEPT + 1)
    outstanding.sending(large)
    assert outstanding.repeatable == [large]
    outstanding.sending(b"a")
    assert outstanding.repeatable == []
    outstanding.sending(b"a")
    assert outstanding.repeatable == []
    for _ in range(3):
        outstanding.received()
    half = bytes(KEPT // 2)
    outstanding.sending(half)
    outstanding.sending(half)
    assert outstanding.repeatable == [half, half]
    outstanding.sending(b"a")
    assert outstanding.repeatable == []
