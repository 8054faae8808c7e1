"""The filter for API keys."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from asyncapy_core import APIKeyFactory, Client, Failure, Filter, KeyRecord, Packet
from asyncapy_core.errors import ErrorCode, KeyStoreUnavailable
from asyncapy_core.logs import RateLimited, safe_str

LONGEST_KEY: Final = 4096
"""Characters of the longest value that is looked up. A longer one is not a key."""

_field_name = TypeAdapter(str)


class APIFactory(Filter):
    """Passes packets with a field that holds a valid API key, and finds ``{"api_key": KeyRecord}``.

    A store that does not answer is ERR_UNAVAILABLE to the client, and a line in the log.

    Args:
        factory: the `APIKeyFactory` of the keys, or an instance of a subclass.
        field_name: the name of the field that holds the key.
        tell: whether a packet without a valid key is answered with ERR_UNAUTHORIZED. Otherwise it does not pass, and
            other handlers may get it. None: only if the filter is a guard.

    Raises:
        TypeError: ``factory`` is not an `APIKeyFactory`.
        ValueError: ``field_name`` is not a string.
    """

    authenticates = True

    def __init__(self, factory: APIKeyFactory, field_name: str, *, tell: bool | None = None) -> None:
        if not isinstance(factory, APIKeyFactory):
            raise TypeError(f"the factory must be an APIKeyFactory; got {factory!r}")
        try:
            self.field_name: str = _field_name.validate_python(field_name, strict=True)
        except ValidationError as error:
            raise ValueError(f"field_name must be the name of a field; got {field_name!r}") from error
        self.factory = factory
        self.tell = tell
        self._should_log = RateLimited()
        if factory.blocking:
            self.check = self._check_without_blocking  # type: ignore[method-assign]  # decided once, not for each packet

    def as_guard(self) -> Filter:
        """Return a filter that answers with ERR_UNAUTHORIZED, unless ``tell`` says otherwise."""
        return APIFactory(self.factory, self.field_name, tell=True) if self.tell is None else self

    def check(self, c: Client, p: Packet) -> Mapping[str, Any] | bool | Awaitable[Mapping[str, Any] | bool]:
        """Return the record of the key if it is valid. With a blocking store the result has to be awaited."""
        key = self._key(p)
        memo = self._memo(p)
        if key is not None and key not in memo:
            with self._failures(c):
                memo[key] = self.factory.check(key)
        return self._verdict(memo.get(key))

    async def _check_without_blocking(self, c: Client, p: Packet) -> Mapping[str, Any] | bool:
        key = self._key(p)
        memo = self._memo(p)
        if key is not None and key not in memo:
            with self._failures(c):
                memo[key] = await self.factory.acheck(key, address=c.address)
        return self._verdict(memo.get(key))

    def _memo(self, packet: Packet) -> dict[str | None, KeyRecord | None]:
        """Return the records that filters with this factory have found for a packet, by key."""
        memo: dict[str | None, KeyRecord | None] = packet.memo.setdefault((APIFactory, id(self.factory)), {})
        return memo

    def _verdict(self, record: KeyRecord | None) -> Mapping[str, Any] | bool:
        if record is not None:
            return {"api_key": record}
        if self.tell:
            raise Failure(ErrorCode.UNAUTHORIZED)
        return False

    @contextlib.contextmanager
    def _failures(self, client: Client) -> Iterator[None]:
        """Log that the store does not answer, and raise the `Failure` for the client."""
        try:
            yield
        except KeyStoreUnavailable as error:
            if self._should_log():
                client.log.error("{API Parser} API keys cannot be checked: %s", safe_str(error))
            raise Failure(ErrorCode.UNAVAILABLE) from error

    def _key(self, packet: Packet) -> str | None:
        """Return the value of the field, or None if it cannot be a key."""
        key = packet.fields.get(self.field_name)
        return key if isinstance(key, str) and len(key) <= LONGEST_KEY else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, APIFactory):
            return NotImplemented
        return (type(self), id(self.factory), self.field_name, self.tell) == (
            type(other),
            id(other.factory),
            other.field_name,
            other.tell,
        )

    def __hash__(self) -> int:
        return hash((type(self), id(self.factory), self.field_name))

    def __repr__(self) -> str:
        return f"APIFactory(<{type(self.factory).__name__}>, {self.field_name!r})"
