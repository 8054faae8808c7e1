"""The parts that key stores share: the cache of records, options in URLs, metadata as text."""

from __future__ import annotations

import time
from typing import Any

import pytest

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError
from asyncapy_core.storage import (
    RecordCache,
    check_timeout,
    checked_record,
    metadata_text,
    skip_damaged,
    take_seconds,
)

RECORD = KeyRecord("id", {"list": [1]})


def test_a_recall_lasts_from_the_question_and_not_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recall = RecordCache(0.5)

    def answers_at(then: float) -> KeyRecord:
        nonlocal now
        now = then
        return RECORD

    recall.read("d", lambda: answers_at(100.4))
    assert recall.get("d") == RECORD
    now = 100.51
    assert recall.get("d") is None
    recall.read("d", lambda: answers_at(101.1))
    assert recall.get("d") is None


def test_an_answer_that_crossed_a_change_is_returned_and_not_recalled() -> None:
    recall = RecordCache(60)

    def changed_meanwhile() -> KeyRecord:
        recall.forget("d")
        return RECORD

    assert recall.read("d", changed_meanwhile) == RECORD
    assert recall.get("d") is None
    assert recall.read("d", lambda: RECORD) == RECORD
    assert recall.get("d") == RECORD
    recall.forget("d", "other")
    assert recall.get("d") is None


def test_what_was_read_is_the_callers_own() -> None:
    recall = RecordCache(60)
    recall.read("d", lambda: RECORD).metadata["list"].append(2)
    assert recall.get("d") == KeyRecord("id", {"list": [1]})


def test_what_is_not_there_is_a_key_error_and_asked_for_each_time() -> None:
    recall, answers = RecordCache(60), [RECORD, None]
    with pytest.raises(KeyError, match="d"):
        recall.read("d", answers.pop)
    assert recall.read("d", answers.pop) == RECORD


def test_a_recall_holds_no_more_than_its_size() -> None:
    recall = RecordCache(60, size=3)
    for name in ("a", "b", "c", "a", "d"):
        recall.read(name, lambda: RECORD)
    assert [name for name in "abcd" if recall.get(name)] == ["a", "c", "d"]


def test_a_recall_of_no_seconds_keeps_nothing() -> None:
    recall = RecordCache(0)
    recall.read("d", lambda: RECORD)
    assert recall.get("d") is None


@pytest.mark.parametrize(
    ("seconds", "size", "message"),
    [
        (-1, 1, "recall_seconds is -1; it must be 0 or more"),
        (float("inf"), 1, "recall_seconds is inf"),
        (float("nan"), 1, "recall_seconds is nan"),
        (1, 0, "a recall of 0 records"),
    ],
)
def test_a_recall_without_an_end_is_refused(seconds: float, size: int, message: str) -> None:
    with pytest.raises(KeyStoreError, match=message):
        RecordCache(seconds, size)


def test_the_time_that_a_call_may_take_is_more_than_none_and_at_most_an_hour() -> None:
    check_timeout(3600)
    for seconds in (0, -1, 3601, float("nan")):
        with pytest.raises(KeyStoreError, match=f"timeout is {seconds}; it must be more than 0 and at most 3600"):
            check_timeout(seconds)


def test_seconds_are_taken_out_of_the_options_of_a_url() -> None:
    options = {"timeout": "1.5", "recall_seconds": "0", "prefix": "x"}
    assert take_seconds(options, "url") == {"timeout": 1.5, "recall_seconds": 0}
    assert options == {"prefix": "x"}
    with pytest.raises(KeyStoreError, match=r"url: timeout and recall_seconds are numbers of seconds: .*'soon'"):
        take_seconds({"timeout": "soon"}, "url")


def nested(levels: int) -> Any:
    value: Any = 1
    for number in range(levels):
        value = {"a": value} if number % 2 else [value, 2]
    return value


NOT_JSON = [{"a": float("nan")}, {"a": {1}}, {"a": b"x"}, {"a": nested(100)}, {"a": nested(100_000)}]


@pytest.mark.parametrize("metadata", NOT_JSON, ids=["a number", "a set", "bytes", "nested", "nested deep"])
def test_metadata_is_json(metadata: dict[str, Any]) -> None:
    assert metadata_text({"a": [1, None, "x"]}) == '{"a": [1, null, "x"]}'
    with pytest.raises(KeyStoreError, match="this metadata cannot be kept, as it is not JSON"):
        metadata_text(metadata)


def test_metadata_may_be_nested_a_hundred_levels_deep() -> None:
    metadata = {"a": nested(99)}
    text = metadata_text(metadata)
    record = checked_record("x", key_id="id", metadata=text, issued=1, expires=None)
    assert RecordCache(60).read("d", lambda: record) == record


VALUES: dict[str, Any] = {"key_id": "id", "metadata": '{"a": [1]}', "issued": 1.5, "expires": None}


@pytest.mark.parametrize(
    ("values", "record"),
    [
        ({}, KeyRecord("id", {"a": [1]}, 1.5)),
        ({"key_id": b"id", "metadata": '{"ä": 1}'.encode(), "issued": b"1.5"}, KeyRecord("id", {"ä": 1}, 1.5)),
        ({"issued": 2, "expires": "3"}, KeyRecord("id", {"a": [1]}, 2.0, 3.0)),
    ],
)
def test_a_record_is_made_from_texts_their_bytes_and_numbers(values: dict[str, Any], record: KeyRecord) -> None:
    assert checked_record("x", **{**VALUES, **values}) == record


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"key_id": b"\xff"}, "'utf-8' codec"),
        ({"key_id": None}, "a NoneType in place of a text"),
        ({"metadata": b"\xff"}, "'utf-8' codec"),
        ({"metadata": "{"}, "Expecting"),
        ({"metadata": "[1]"}, "its metadata is a list, not a JSON object"),
        ({"metadata": '{"a": NaN}'}, "its metadata has NaN"),
        ({"metadata": "[" * 100_000}, "nested too deep"),
        ({"metadata": '{"a":' * 101 + "1" + "}" * 101}, "nested more than 100 levels deep"),
        ({"metadata": '{"a": ' + "9" * 10_000 + "}"}, "integer string conversion"),
        ({"issued": "soon"}, "could not convert"),
        ({"issued": None}, "a NoneType in place of a text"),
        ({"issued": float("nan")}, "the time nan"),
        ({"expires": "inf"}, "the time inf"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(KeyStoreError, match=f"^the record x is damaged: .*{reason}"):
        checked_record("the record x", **{**VALUES, **values})


def test_damaged_records_are_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def read(text: str) -> tuple[str, KeyRecord]:
        return text, checked_record(f"the record {text}", **{**VALUES, "metadata": text})

    assert [digest for digest, _ in skip_damaged(["{}", "[]", '{"a": 1}', "x"], read)] == ["{}", '{"a": 1}']
    messages = [record.getMessage() for record in caplog.records if record.name == "asyncapy.keys"]
    named = [message.partition(" is damaged")[0] for message in messages]
    assert named == ["{Key store} the record []", "{Key store} the record x"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_confirmed_record_is_recalled_from_the_last_confirmation(clock: list[float]) -> None:
    recall = RecordCache(0.5)
    recall.read("before", lambda: RECORD)
    clock[0] = 100.1
    recall.read("after", lambda: RECORD)
    recall.confirm(100.1, 100.4)
    clock[0] = 100.9
    assert [name for name in ("before", "after") if recall.get(name)] == ["after"]
    clock[0] = 100.91
    assert recall.get("after") is None
    assert recall.was_read("after")
    recall.confirm(100.1, 101.0)
    assert recall.get("after") == RECORD
    recall.confirm(100.2, 101.0)
    assert recall.get("after") is None
    assert not recall.was_read("never")


def test_without_confirmations_a_record_is_recalled_from_its_own_read(clock: list[float]) -> None:
    recall = RecordCache(0.5)
    recall.read("d", lambda: RECORD)
    recall.confirm(100.0, 100.4)
    recall.distrust()
    clock[0] = 100.5
    assert recall.get("d") == RECORD
    clock[0] = 100.51
    assert recall.get("d") is None


def test_a_confirmation_does_not_outlive_a_fork(clock: list[float]) -> None:
    recall = RecordCache(0.5)
    recall.read("d", lambda: RECORD)
    recall.confirm(100.0, 100.4)
    recall.after_fork_in_child()
    clock[0] = 100.6
    assert recall.get("d") is None


def test_a_change_of_one_record_does_not_keep_the_reads_of_others_out() -> None:
    recall = RecordCache(60)

    def other_changed() -> KeyRecord:
        recall.forget("other")
        return RECORD

    recall.read("d", other_changed)
    assert recall.get("d") == RECORD


def test_reads_that_a_change_crossed_keep_no_later_read_out() -> None:
    recall = RecordCache(60)

    def changed_and_read_again() -> KeyRecord:
        recall.forget("d")
        recall.read("d", lambda: RECORD)
        return KeyRecord("old")

    assert recall.read("d", changed_and_read_again) == KeyRecord("old")
    assert recall.get("d") == RECORD


def test_of_two_reads_at_a_time_both_are_dropped_by_a_change() -> None:
    recall = RecordCache(60)

    def read_meanwhile() -> KeyRecord:
        recall.read("d", changed)
        return RECORD

    def changed() -> KeyRecord:
        recall.forget("d")
        return RECORD

    recall.read("d", read_meanwhile)
    assert recall.get("d") is None
    recall.read("d", lambda: recall.read("d", lambda: RECORD))
    assert recall.get("d") == RECORD


def test_a_read_that_fails_changes_nothing() -> None:
    recall = RecordCache(60)

    def fail() -> KeyRecord:
        raise KeyStoreError("away")

    for _ in range(2):
        with pytest.raises(KeyStoreError):
            recall.read("d", fail)
    recall.read("d", lambda: RECORD)
    with pytest.raises(KeyStoreError):
        recall.read("d", fail)
    assert recall.get("d") is RECORD


def test_a_record_that_is_gone_is_not_recalled() -> None:
    recall = RecordCache(60)
    recall.read("d", lambda: RECORD)
    with pytest.raises(KeyError):
        recall.read("d", lambda: None)
    assert recall.get("d") is None


def test_watchers_learn_what_is_forgotten_and_when_to_look_again(caplog: pytest.LogCaptureFixture) -> None:
    recall, seen = RecordCache(60), list[str | None]()

    def fail(digest: str | None) -> None:
        raise ValueError("a mistake")

    end_failing = recall.watch(fail)
    end = recall.watch(seen.append)
    recall.forget("a", "b")
    end_failing()
    recall.clear()
    recall.distrust()
    assert seen == ["a", "b", None, None]
    end()
    end()
    recall.forget("c")
    assert len(seen) == 4
    assert caplog.text.count("a function that watches for changed keys failed") == 2
