"""The filter for API keys."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from pydantic import TypeAdapter, ValidationError

from asyncapy_core import APIKeyFactory, Client, Filter, Packet

LONGEST_KEY: Final = 4096
"""Characters of the longest value that is looked up. A longer one is not a key."""

_field_name = TypeAdapter(str)


class APIFactory(Filter):
    """Passes packets with a field that holds a valid API key.

    Args:
        factory: the `APIKeyFactory` of the keys, or an instance of a subclass.
        field_name: the name of the field that holds the key.

    Raises:
        TypeError: ``factory`` is not an `APIKeyFactory`.
        ValueError: ``field_name`` is not a string.
    """

    authenticates = True

    def __init__(self, factory: APIKeyFactory, field_name: str) -> None:
        if not isinstance(factory, APIKeyFactory):
            raise TypeError(f"the factory must be an APIKeyFactory; got {factory!r}")
        try:
            self.field_name: str = _field_name.validate_python(field_name, strict=True)
        except ValidationError as error:
            raise ValueError(f"field_name must be the name of a field; got {field_name!r}") from error
        self.factory = factory
        if factory.blocking:
            self.check = self._check_without_blocking  # type: ignore[method-assign]  # decided once, not for each packet

    def check(self, c: Client, p: Packet) -> bool | Awaitable[bool]:
        """Return True if the value of the field is a valid key. With a blocking store the result has to be awaited."""
        key = self._key(p)
        return key is not None and key in self.factory

    async def _check_without_blocking(self, c: Client, p: Packet) -> bool:
        key = self._key(p)
        return key is not None and await self._contains(key, c)

    async def _contains(self, key: str, client: Client) -> bool:
        if type(self.factory).acontains is APIKeyFactory.acontains:
            return await self.factory.acontains(key, address=client.address)
        return await self.factory.acontains(key)  # a subclass may take the key only

    def _key(self, packet: Packet) -> str | None:
        """Return the value of the field, or None if it cannot be a key."""
        key = packet.fields.get(self.field_name)
        return key if isinstance(key, str) and len(key) <= LONGEST_KEY else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, APIFactory):
            return NotImplemented
        return (type(self), id(self.factory), self.field_name) == (type(other), id(other.factory), other.field_name)

    def __hash__(self) -> int:
        return hash((type(self), id(self.factory), self.field_name))

    def __repr__(self) -> str:
        return f"APIFactory(<{type(self.factory).__name__}>, {self.field_name!r})"
