"""`is_interrupt` distinguishes Ctrl+C from a KeyboardInterrupt that code raises."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from asyncapy_core.interrupts import is_from_signal, is_interrupt


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """Restore the handler of SIGINT after the test."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted() -> KeyboardInterrupt:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        return error
    raise AssertionError("the signal raised no KeyboardInterrupt")


def by_hand() -> KeyboardInterrupt:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        return error


def raising(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def calling(signum: int, frame: Any) -> None:
    raising(signum, frame)


class Object:
    def __call__(self, signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    method = __call__


@pytest.mark.parametrize(
    "installed", [raising, calling, Object(), Object().method], ids=["function", "nested", "object", "method"]
)
def test_an_interrupt_has_passed_through_the_handler_of_the_signal(installed: Any) -> None:
    signal.signal(signal.SIGINT, installed)
    assert is_interrupt(interrupted())
    assert not is_interrupt(by_hand())
    assert not is_interrupt(KeyboardInterrupt())


def test_the_default_handler_leaves_no_frame_and_is_believed() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert is_interrupt(interrupted())


@pytest.mark.parametrize(
    "installed", [signal.SIG_IGN, signal.SIG_DFL, functools.partial(raising)], ids=["ignored", "default", "partial"]
)
def test_without_a_function_of_python_nothing_is_an_interrupt(installed: Any) -> None:
    signal.signal(signal.SIGINT, installed)
    assert not is_interrupt(by_hand())


def test_no_interrupt_is_raised_in_another_thread() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(is_interrupt(by_hand())))
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), GeneratorExit()], ids=repr)
def test_other_exceptions_are_no_interrupts(error: BaseException) -> None:
    assert not is_interrupt(error)


def test_an_exception_of_any_signal_handler_is_from_a_signal() -> None:
    def handler(signum: int, frame: Any) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGUSR1)
        assert is_from_signal(ended.value)
        assert is_from_signal(interrupted())
        assert not is_from_signal(SystemExit(0))
        assert not is_from_signal(by_hand()) or signal.getsignal(signal.SIGINT) is signal.default_int_handler
        other = threading.Thread(target=lambda: outcomes.append(is_from_signal(ended.value)))
        outcomes: list[bool] = []
        other.start()
        other.join()
        assert outcomes == [False]
    finally:
        signal.signal(signal.SIGUSR1, before)
