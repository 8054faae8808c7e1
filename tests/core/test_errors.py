from __future__ import annotations

import inspect
import pickle

import pytest

import asyncapy.errors
from asyncapy_core import errors
from asyncapy_core.errors import (
    AsyncAPYError,
    BindError,
    ClientDisconnected,
    ConnectionLost,
    EncodeError,
    ErrorCode,
    InvalidHeader,
    MalformedPacket,
    NotConnected,
    PacketTooLarge,
    PluginCollision,
    PluginError,
    ProtocolError,
    ReplyTimeout,
    ServerDisconnected,
    StopPropagation,
    UnknownCodec,
    UnknownFilter,
    UnknownKeyStore,
)

ERRORS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, BaseException)]


def test_the_codes_are_those_of_the_protocol_to_the_letter() -> None:
    assert {code.value for code in ErrorCode} == {
        "ERR_REQUEST_MALFORMED",
        "ERR_HEADER_INVALID",
        "ERR_TIMED_OUT",
        "ERR_SESSION_LIMIT_REACHED",
        "ERR_PACKET_TOO_LARGE",
        "ERR_SERVER_BUSY",
        "ERR_NO_HANDLER",
        "ERR_HANDLER_FAILED",
        "ERR_NO_REPLY",
        "ERR_UNAUTHORIZED",
        "ERR_FORBIDDEN",
        "ERR_INVALID",
        "ERR_RATE_LIMITED",
        "ERR_UNAVAILABLE",
    }
    assert {f"ERR_{code.name}" for code in ErrorCode} == {str(code) for code in ErrorCode}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_of_one_hierarchy_and_described(error: type[BaseException]) -> None:
    assert issubclass(error, AsyncAPYError)
    assert issubclass(error, Exception)
    assert error.__module__ == "asyncapy_core.errors"
    assert error.__doc__
    assert error.__doc__ != Exception.__doc__


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_in_the_documented_module(error: type[BaseException]) -> None:
    assert getattr(asyncapy.errors, error.__name__, None) is error
    assert error.__name__ in asyncapy.errors.__all__


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_keeps_its_message_also_on_the_way_to_another_process(error: type[Exception]) -> None:
    raised = error("what happened")
    assert str(raised) == "what happened"
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is error
    assert str(copy) == "what happened"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError, "ERR_REQUEST_MALFORMED"),
        (MalformedPacket, "ERR_REQUEST_MALFORMED"),
        (InvalidHeader, "ERR_HEADER_INVALID"),
        (PacketTooLarge, "ERR_PACKET_TOO_LARGE"),
    ],
)
def test_an_error_of_the_peer_knows_what_the_peer_is_told(error: type[ProtocolError], code: str) -> None:
    assert error("why").code == code


def test_an_error_of_the_peer_may_have_the_number_of_a_request_also_in_another_process() -> None:
    assert MalformedPacket("why").number == 0
    error = pickle.loads(pickle.dumps(PacketTooLarge("why", number=7)))
    assert (str(error), error.number) == ("why", 7)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (EncodeError, [ValueError]),
        (UnknownCodec, [LookupError]),
        (UnknownFilter, [PluginError, AttributeError]),
        (UnknownKeyStore, [PluginError, ValueError]),
        (PluginCollision, [PluginError]),
        (BindError, [OSError]),
        (ConnectionLost, [ConnectionError, OSError]),
        (ClientDisconnected, [ConnectionLost]),
        (ServerDisconnected, [ConnectionLost]),
        (NotConnected, [ConnectionError]),
        (ReplyTimeout, [TimeoutError]),
    ],
)
def test_an_error_is_also_of_the_kind_that_python_has_for_it(
    error: type[Exception], kinds: list[type[Exception]]
) -> None:
    assert all(issubclass(error, kind) for kind in kinds)


def test_stop_propagation_needs_no_message_and_is_no_error_of_the_peer() -> None:
    assert str(StopPropagation()) == ""
    assert not issubclass(StopPropagation, ProtocolError)


def test_a_client_that_left_may_be_named() -> None:
    client = object()
    assert ClientDisconnected("left", client).client is client
    assert ClientDisconnected("left").client is None
    assert str(ClientDisconnected("left", client)) == "left"
