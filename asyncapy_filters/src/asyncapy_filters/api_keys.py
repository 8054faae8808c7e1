"""The filter for API keys."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from asyncapy_core import APIKeyFactory, Client, Failure, Filter, KeyRecord, Packet
from asyncapy_core.errors import ErrorCode, KeyStoreUnavailable
from asyncapy_core.logs import RateLimited, safe_str

LONGEST_KEY: Final = 4096
"""Characters of the longest value that is looked up. A longer one is not a key."""

_field_name = TypeAdapter(str)
_NOT_ASKED: Final = object()


class APIFactory(Filter):
    """Passes packets with a field that holds a valid API key, and finds ``{"api_key": KeyRecord}``.

    The record is also ``packet.memo["api_key"]``, for the filters behind this one: findings reach the context of a
    packet only when all filters of a handler have passed.

    A store that does not answer is ERR_UNAVAILABLE to the client, and a line in the log.

    Args:
        factory: the `APIKeyFactory` of the keys, or an instance of a subclass.
        field_name: the name of the field that holds the key.
        tell: whether a packet without a valid key is answered with ERR_UNAUTHORIZED. Otherwise it does not pass, and
            other handlers may get it. None: only if the filter is a guard.
        once: whether the key is a log-in of the session: later packets pass without the field, until the key is revoked
            or expires, which closes the session within a second. Another value of the field ends the log-in, and is a
            new one if it is a valid key; None counts as no field. See `asyncapy_core.APIKeyFactory.alog_in`.

    Raises:
        TypeError: ``factory`` is not an `APIKeyFactory`.
        ValueError: ``field_name`` is not a string.
    """

    authenticates = True

    def __init__(
        self, factory: APIKeyFactory, field_name: str, *, tell: bool | None = None, once: bool = False
    ) -> None:
        if not isinstance(factory, APIKeyFactory):
            raise TypeError(f"the factory must be an APIKeyFactory; got {factory!r}")
        try:
            self.field_name: str = _field_name.validate_python(field_name, strict=True)
        except ValidationError as error:
            raise ValueError(f"field_name must be the name of a field; got {field_name!r}") from error
        self.factory = factory
        self.tell = tell
        self.once = once
        self._should_log = RateLimited()
        if once:
            self.check = self._check_log_in  # type: ignore[method-assign]  # decided once, not for each packet
        elif factory.blocking:
            self.check = self._check_without_blocking  # type: ignore[method-assign]  # as above

    def schema(self) -> dict[str, Any]:
        """Return a schema with the field of the key, which is a secret."""
        field = {"type": "string", "writeOnly": True, "description": "an API key"}
        errors = [ErrorCode.UNAVAILABLE.value, *([ErrorCode.UNAUTHORIZED.value] if self.tell else [])]
        required = [] if self.once else [self.field_name]
        return {"properties": {self.field_name: field}, "required": required, "x-errors": errors}

    def as_guard(self) -> Filter:
        """Return a filter that answers with ERR_UNAUTHORIZED, unless ``tell`` says otherwise."""
        return APIFactory(self.factory, self.field_name, tell=True, once=self.once) if self.tell is None else self

    def check(self, c: Client, p: Packet) -> Mapping[str, Any] | bool | Awaitable[Mapping[str, Any] | bool]:
        """Return the record of the key if it is valid. With ``once`` or a blocking store it has to be awaited."""
        key = self._key(p)
        memo = self._memo(p)
        if key is not None and key not in memo:
            try:
                memo[key] = self.factory.check(key)
            except KeyStoreUnavailable as error:
                raise self._unavailable(c, error) from error
        return self._verdict(p, memo.get(key))

    async def _check_without_blocking(self, c: Client, p: Packet) -> Mapping[str, Any] | bool:
        key = self._key(p)
        memo = self._memo(p)
        if key is not None and key not in memo:
            try:
                memo[key] = await self.factory.acheck(key, address=c.address)
            except KeyStoreUnavailable as error:
                raise self._unavailable(c, error) from error
        return self._verdict(p, memo.get(key))

    async def _check_log_in(self, c: Client, p: Packet) -> Mapping[str, Any] | bool:
        key = self._key(p)
        if key is None and p.fields.get(self.field_name) is not None:
            self.factory.log_out(c)
            return self._verdict(p, None)
        if key is not None and self._memo(p).get(key, _NOT_ASKED) is None:
            return self._verdict(p, None)
        try:
            record = await self.factory.alog_in(c, key)
        except KeyStoreUnavailable as error:
            raise self._unavailable(c, error) from error
        if key is not None and record is None:
            self._memo(p)[key] = None
        return self._verdict(p, record)

    def _memo(self, packet: Packet) -> dict[str | None, KeyRecord | None]:
        """Return the records that filters with this factory have found for a packet, by key."""
        memo: dict[str | None, KeyRecord | None] = packet.memo.setdefault((APIFactory, id(self.factory)), {})
        return memo

    def _verdict(self, packet: Packet, record: KeyRecord | None) -> Mapping[str, Any] | bool:
        if record is not None:
            packet.memo["api_key"] = record
            return {"api_key": record}
        if self.tell:
            raise Failure(ErrorCode.UNAUTHORIZED)
        return False

    def _unavailable(self, client: Client, error: KeyStoreUnavailable) -> Failure:
        """Log that the store does not answer, and return the failure for the client."""
        if self._should_log():
            client.log.error("{API Parser} API keys cannot be checked: %s", safe_str(error))
        return Failure(ErrorCode.UNAVAILABLE)

    def _key(self, packet: Packet) -> str | None:
        """Return the value of the field, or None if it cannot be a key."""
        key = packet.fields.get(self.field_name)
        return key if isinstance(key, str) and len(key) <= LONGEST_KEY else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, APIFactory):
            return NotImplemented
        return (type(self), id(self.factory), self.field_name, self.tell, self.once) == (
            type(other),
            id(other.factory),
            other.field_name,
            other.tell,
            other.once,
        )

    def __hash__(self) -> int:
        return hash((type(self), id(self.factory), self.field_name))

    def __repr__(self) -> str:
        once = ", once=True" if self.once else ""
        return f"APIFactory(<{type(self.factory).__name__}>, {self.field_name!r}{once})"
