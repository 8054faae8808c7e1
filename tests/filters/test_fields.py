from __future__ import annotations

import re
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy.filters import Filter, Filters
from asyncapy_core import Client, Packet
from asyncapy_filters import Fields, HasFields

NO_CLIENT = cast("Client", None)


def passes(filter: HasFields, **fields: Any) -> bool:
    return filter.check(NO_CLIENT, Packet(fields))


def test_the_filter_of_the_documentation_passes_the_packet_of_the_documentation() -> None:
    filter = Filters.Fields(foo=r"\d+", bar=None)
    assert isinstance(filter, Fields)
    assert isinstance(filter, Filter)
    assert passes(filter, foo=12355, bar="anything")
    assert not passes(filter, foo="abc", bar="anything")


def test_exactly_the_named_fields_are_wanted() -> None:
    filter = Fields(a=None, b=None)
    assert passes(filter, a=1, b=2)
    assert passes(filter, b=None, a=[])
    assert not passes(filter, a=1)
    assert not passes(filter, a=1, b=2, c=3)
    assert not passes(filter)


def test_the_looser_filter_wants_at_least_the_named_fields() -> None:
    filter = HasFields(a=None, b="x")
    assert passes(filter, a=1, b="x")
    assert passes(filter, a=1, b="x", c=3)
    assert not passes(filter, a=1, c=3)
    assert not passes(filter, a=1, b="y", c=3)
    assert passes(HasFields(), a=1)


def test_without_any_name_only_an_empty_packet_passes() -> None:
    assert passes(Fields())
    assert not passes(Fields(), a=1)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "abcdef", True),
        ("abc$", "abcdef", False),
        ("bc", "abc", False),
        ("", "", True),
        ("", "anything", True),
        ("x", "", False),
        (".", "\n", False),
        (r"\d+", 12, True),
        (r"-?\d", -1, True),
        (r"1\.5", 1.5, True),
        ("True", True, True),
        ("true", True, False),
        ("None", None, True),
        ("null", None, False),
        (".*", b"abc", False),
        (".*", ["abc"], False),
        (".*", ("abc",), False),
        (".*", {"abc": 1}, False),
        (".*", [], False),
        (re.compile("ABC", re.IGNORECASE), "abcdef", True),
        (re.compile("ABC"), "abc", False),
    ],
)
def test_a_value_is_matched_from_its_beginning(pattern: Any, value: Any, expected: bool) -> None:
    assert passes(Fields(a=pattern), a=value) is expected
    assert passes(HasFields(a=pattern), a=value, more=1) is expected


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "x", b"x", [], [1], {}, {"b": 1}], ids=repr)
def test_none_passes_any_value(value: Any) -> None:
    assert passes(Fields(a=None), a=value)


@pytest.mark.parametrize("kind", [Fields, HasFields])
def test_a_string_of_more_than_8192_characters_matches_no_expression(kind: type[HasFields]) -> None:
    expression = r".*@.*\.com"  # takes the square of the length: 4 s for 80 kB
    assert passes(kind(a=expression), a="@" * 8188 + ".com")
    assert not passes(kind(a=expression), a="@" * 8189 + ".com")
    assert passes(kind(a=None), a="@" * 8193)


def test_a_subclass_may_match_longer_strings() -> None:
    class Long(HasFields):
        max_length = 10_000

    assert passes(Long(a="@+$"), a="@" * 10_000)
    assert not passes(Long(a="@+$"), a="@" * 10_001)


def test_all_patterns_have_to_match() -> None:
    filter = Fields(a="x", b="y")
    assert passes(filter, a="x", b="y")
    assert not passes(filter, a="x", b="n")
    assert not passes(filter, a="n", b="y")


@pytest.mark.parametrize("kind", [Fields, HasFields])
@pytest.mark.parametrize("value", [5, True, b"x", ["x"], {}, re.compile(b"x"), str], ids=repr)
def test_what_is_neither_none_nor_an_expression_is_a_value_error_that_names_the_field(kind: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Filters.{kind.__name__}\(foo=.*a field takes None, .* or a regular"):
        kind(ok=None, foo=value)


@pytest.mark.parametrize("pattern", ["(", "[", "*", r"\d{2,1}", "(?P<a>x)(?P<a>y)"])
def test_an_expression_that_is_wrong_is_a_value_error_that_names_the_field(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"foo=.* is not a regular expression: "):
        Fields(foo=pattern)


@pytest.mark.parametrize("name", ["self", "cls", "c", "p", "fields", "check", "names", "a b", ""])
def test_a_field_may_have_any_name(name: str) -> None:
    assert passes(Fields(**{name: "x"}), ok=1) is False
    assert Fields(**{name: "x"}).check(NO_CLIENT, Packet({name: "xyz"}))
    assert HasFields(**{name: None}).check(NO_CLIENT, Packet({name: 1, "more": 2}))


def test_fields_are_given_by_name_only() -> None:
    with pytest.raises(TypeError):
        cast("Any", Fields)("foo")


def test_a_filter_is_shown_as_it_is_written() -> None:
    assert repr(Fields(a=r"\d", b=None)) == r"Fields(a='\\d', b=None)"
    assert repr(HasFields()) == "HasFields()"


def test_filters_are_equal_when_they_are_of_one_kind_and_expect_the_same() -> None:
    assert Fields(a="x", b=None) == Fields(b=None, a="x")
    assert hash(Fields(a="x", b=None)) == hash(Fields(b=None, a="x"))
    assert HasFields(a=None) == HasFields(a=None)
    for other in (Fields(a="y", b=None), Fields(a="x"), HasFields(a="x", b=None), Fields(), {"a": "x", "b": None}):
        assert Fields(a="x", b=None) != other
        assert other != Fields(a="x", b=None)


@given(
    st.dictionaries(st.sampled_from("abc"), st.none() | st.sampled_from(["x", "y"])),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["x", "xy", "y", "z"])),
)
def test_both_filters_agree_with_their_description(patterns: dict[str, str | None], fields: dict[str, Any]) -> None:
    match = all(
        name in fields and (pattern is None or re.match(pattern, fields[name])) for name, pattern in patterns.items()
    )
    assert HasFields(**patterns).check(NO_CLIENT, Packet(fields)) is match
    assert Fields(**patterns).check(NO_CLIENT, Packet(fields)) is (match and set(patterns) == set(fields))
