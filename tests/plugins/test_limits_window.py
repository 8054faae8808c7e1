"""Limits in memory: their texts, the algorithm against a reference model, and the bound on the memory."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_limits.limit import Limit, parse_limits
from asyncapy_limits.subjects import Subjects
from asyncapy_limits.window import Window


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("100/second", [(100, 1)]),
        ("100/second; 5000/hour", [(100, 1), (5000, 3600)]),
        ("20/10 seconds", [(20, 10)]),
        (" 1 / minute ;2/2 days; ", [(1, 60), (2, 172800)]),
    ],
)
def test_a_text_has_one_limit_or_several(text: str, limits: list[tuple[int, int]]) -> None:
    assert parse_limits(text.rstrip()) == tuple(itertools.starmap(Limit, limits))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a limit; write a number of packets, '/', and second"),
        ("100", "'100' is not a limit"),
        ("fast", "'fast' is not a limit"),
        ("100/fortnight", "'100/fortnight' is not a limit"),
        ("-1/second", "'-1/second' is not a limit"),
        ("1.5/second", "'1.5/second' is not a limit"),
        ("1/second;; 2/hour", "'' is not a limit"),
        ("1/second, 2/hour", "'1/second, 2/hour' is not a limit"),
        ("١/second", "is not a limit"),
        ("0/second", "a limit of 0 packets; write 1 to 1000000000"),
        ("1000000001/second", "a limit of 1000000001 packets"),
        ("1/0 seconds", "a period of 0 seconds; write 1 second to 366 days"),
        ("1/367 days", "a period of 31708800 seconds"),
    ],
)
def test_a_wrong_text_is_a_value_error_with_the_text_and_the_wanted_form(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("/", ".")) as caught:
        parse_limits(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 5, b"1/second", ["1/second"]])
def test_limits_that_are_no_text_are_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"are a text; got .*; write one such as '100/second; 5000/hour'"):
        parse_limits(wrong)


class Reference:
    """The virtual scheduling form of the algorithm (ITU-T I.371), with exact numbers: a theoretical arrival time."""

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self.arrivals: dict[object, list[Fraction]] = {}

    def wait(self, subject: object, now: Fraction) -> Fraction:
        arrivals = [max(now, each) for each in self.arrivals.get(subject, [now] * len(self.limits))]
        steps = [Fraction(limit.period, limit.count) for limit in self.limits]
        terms = zip(arrivals, steps, self.limits, strict=True)
        wait = max(arrival + step - limit.period - now for arrival, step, limit in terms)
        if wait <= 0:
            self.arrivals[subject] = [arrival + step for arrival, step in zip(arrivals, steps, strict=True)]
        return max(wait, Fraction(0))


limits = st.lists(
    st.builds(Limit, st.sampled_from([1, 2, 5, 8, 40]), st.sampled_from([1, 2, 10, 60])), min_size=1, max_size=3
).map(tuple)
pauses = st.integers(0, 400).map(lambda units: Fraction(units, 40))  # steps of all these limits are whole units


@given(limits, st.lists(st.tuples(pauses | st.just(Fraction(0)), st.sampled_from("ab")), max_size=80))
def test_a_packet_passes_exactly_if_the_reference_passes_it(
    limits: tuple[Limit, ...], packets: list[tuple[Fraction, str]]
) -> None:
    window, reference, now = Window(limits, 100), Reference(limits), Fraction(0)
    for pause, subject in packets:
        now += pause
        assert window.take(subject, float(now)) == pytest.approx(float(reference.wait(subject, now)), abs=1e-6)


@given(limits, st.lists(pauses, max_size=80), st.integers(0, 10**7))
def test_after_the_wait_that_it_names_a_packet_passes_and_not_before(
    limits: tuple[Limit, ...], gaps: list[Fraction], start: int
) -> None:
    window, now = Window(limits, 100), float(start)
    for gap in gaps:
        now += float(gap)
        wait = window.take("a", now)
        if wait:
            early = now + wait - max(limit.period / limit.count for limit in limits) / 100
            assert early <= now or window.take("a", early) > 0
            now += wait
            assert window.take("a", now) == 0


@given(limits, st.lists(pauses, max_size=100))
def test_no_period_has_more_than_twice_the_limit_and_all_time_no_more_than_one_burst_above_it(
    limits: tuple[Limit, ...], gaps: list[Fraction]
) -> None:
    window, now, passed = Window(limits, 100), Fraction(0), []
    for gap in gaps:
        now += gap / 8
        if not window.take("a", float(now)):
            passed.append(now)
    for limit, (index, begin) in itertools.product(limits, enumerate(passed)):
        for number, end in enumerate(passed[index:], 1):
            assert number <= limit.count + (end - begin) * limit.count / limit.period + Fraction(1, 100)


def test_a_refused_packet_counts_for_no_limit() -> None:
    window = Window(parse_limits("1/second; 3/hour"), 10)
    assert [window.take("a", 0) for _ in range(3)] == [0, 1, 1]
    assert [window.take("a", now) for now in (1, 2)] == [0, 0]
    assert window.take("a", 3) == pytest.approx(1197)


def test_a_whole_burst_passes_at_once_whatever_the_count() -> None:
    for count, start in itertools.product((3, 7, 10, 1000, 9999), (0.0, 1e6 + 0.1)):
        window = Window((Limit(count, 1),), 10)
        assert [window.take("a", start) for _ in range(count)] == [0.0] * count
        assert window.take("a", start) > 0


def test_another_run_of_trio_whose_clock_is_behind_or_ahead_starts_anew() -> None:
    window = Window(parse_limits("1/hour"), 10)
    assert window.take("a", 1_000_000) == 0
    assert window.take("a", 1_000_000) == 3600
    assert window.take("a", 5) == 0
    assert window.take("a", 5) == 3600
    assert window.take("a", 1_000_000) == 0


def test_subjects_that_expired_are_dropped_when_others_come() -> None:
    window = Window(parse_limits("5/minute"), 1000)
    for number in range(300):
        window.take(number, 0)
    window.take("a", 60)
    assert len(window) == 301
    window.take("a", 121)
    assert len(window) == 1


def test_no_subject_is_forgotten_before_its_period_has_passed() -> None:
    window = Window(parse_limits("1/minute"), 1000)
    for now in range(0, 600, 7):
        window.take("other", now)
    assert window.take("a", 600) == 0
    for now in range(601, 660):
        window.take(now, now)
        assert window.take("a", now) > 0, now


def test_the_number_of_subjects_is_bounded_and_the_longest_unseen_are_forgotten() -> None:
    window = Window(parse_limits("1/hour"), 100)
    window.take("kept", 0)
    for number in range(10_000):
        window.take(number, number / 1000)
        assert window.take("kept", number / 1000) > 0
        assert len(window) <= 100
    assert window.take(9_999, 10) > 0  # at least half of the places hold the last subjects
    assert window.take(9_960, 10) > 0
    assert window.take(0, 10) == 0


def test_a_table_holds_two_values_at_least() -> None:
    table: Subjects[int] = Subjects(2, 10)
    for number in range(5):
        table.add(number, number, 0)
        assert table.find(number, 0) == number
        assert len(table) <= 2
