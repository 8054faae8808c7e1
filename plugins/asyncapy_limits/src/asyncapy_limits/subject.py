"""The subjects of limits: functions that return the address, the API key or another subject of a packet."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Literal, TypeAlias

from asyncapy_core import Client, KeyRecord, Packet

SubjectFunction: TypeAlias = Callable[[Client, Packet], Hashable | Awaitable[Hashable]]
"""A function of client and packet, plain or ``async``. None as its result: the packet is not limited."""

By: TypeAlias = Literal["address", "key"] | SubjectFunction

LONGEST: Final = 128
"""The most characters or bytes of a subject that is kept as it is; of a longer one, the digest is kept."""


def subject_function(by: By) -> SubjectFunction:
    """Return the function for the argument ``by`` of `asyncapy_limits.Rate`.

    Raises:
        ValueError: ``by`` is another text.
        TypeError: it is neither a text nor a function of two arguments.
    """
    if by == "address":
        return _address
    if by == "key":
        return _key
    if isinstance(by, str):
        raise ValueError(f"Filters.Rate(by={by!r}): write 'address' or 'key', or give a function of client and packet")
    _require_function(by)
    return _checked_async(by) if is_async(by) else _checked(by)


def is_async(function: object) -> bool:
    """Return True for an ``async def``, and for an object whose ``__call__`` is one."""
    call = getattr(function, "__call__", None)  # noqa: B004  # the method itself is wanted
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def name_of(by: object) -> str:
    """Return the argument ``by`` as it is shown: a text, or the name of a function."""
    return repr(by) if isinstance(by, str) else str(getattr(by, "__name__", type(by).__name__))


def _address(client: Client, packet: Packet) -> str:
    """Return the network of a client, as for the limits of the server; for IPv4, without a call of its property."""
    address = client.address
    return address if ":" not in address else client.network


def _key(client: Client, packet: Packet) -> str:
    """Return the id of the API key that a filter before this one has found.

    Raises:
        ValueError: there is none.
    """
    record = packet.memo.get("api_key") or packet.context.get("api_key")
    if not isinstance(record, KeyRecord):
        raise ValueError("no API key: put Filters.APIFactory before Rate(by='key'), as a guard or in the same handler")
    return record.id


def _require_function(function: object) -> None:
    """Raise TypeError unless this is a function of two arguments."""
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"Filters.Rate(by={function!r}): give 'address', 'key' or a function of client and packet")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function that is not written in Python may have no signature
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(
            f"Filters.Rate(by={name_of(function)}): it takes {signature}, and is called with a client and a packet"
        ) from None


def _checked(by: SubjectFunction) -> SubjectFunction:
    name = name_of(by)

    def subject_of(client: Client, packet: Packet) -> Hashable:
        return _check(by(client, packet), name)

    return subject_of


def _checked_async(by: Callable[[Client, Packet], Any]) -> SubjectFunction:
    name = name_of(by)

    async def subject_of(client: Client, packet: Packet) -> Hashable:
        return _check(await by(client, packet), name)

    return subject_of


def _check(subject: object, name: str) -> Hashable:
    """Return a subject, or the digest of one that is long.

    Raises:
        TypeError: it is no subject.
    """
    if type(subject) is str or type(subject) is bytes:
        return subject if len(subject) <= LONGEST else ("digest", digest(subject))  # no text is equal to it
    if inspect.isawaitable(subject):
        if inspect.iscoroutine(subject):
            subject.close()
        raise TypeError(f"by={name} returned an awaitable; define it with 'async def'")
    try:
        hash(subject)
    except TypeError:
        raise TypeError(
            f"by={name} returned a {type(subject).__name__}, which has no hash; return a text, a number or a tuple of "
            "these, or None for a packet that is not limited"
        ) from None
    return subject


def digest(subject: object) -> str:
    """Return a short text for a subject, the same in all processes for texts, bytes, numbers and tuples of these."""
    return hashlib.blake2b(repr(subject).encode(), digest_size=16).hexdigest()
