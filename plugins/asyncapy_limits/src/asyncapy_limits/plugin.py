"""The plugin module, which the entry point ``limits`` names."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field, SecretStr, field_validator

from asyncapy_core import Filter, Handler, Server, hookimpl
from asyncapy_core.errors import ConfigError
from asyncapy_limits import Rate
from asyncapy_limits.batching import leave_all
from asyncapy_limits.stores import open_store, set_store


class Options(BaseModel):
    """The options in ``[plugin:limits]`` (INI) or ``[plugins.limits]`` (TOML)."""

    store: SecretStr | None = Field(
        default=None, description="the URL of the Redis or Valkey in which servers count shared limits together"
    )

    @field_validator("store")
    @classmethod
    def _check_store(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            open_store(url.get_secret_value())
        return url


asyncapy_options = Options


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    """Return the filter of this package by its name."""
    return {"Rate": Rate}


@hookimpl
def asyncapy_wrap(server: Server, handler: Handler, options: Options) -> None:
    """Note the store of the server, and look whether the filters of a handler have one. No handler is wrapped.

    Raises:
        ConfigError: a filter needs a store, and there is none.
    """
    if options.store is not None:
        set_store(server, open_store(options.store.get_secret_value()))
        return
    for rate in _rates(handler.filters):
        if rate.needs_store:
            raise ConfigError(
                f"{rate!r} of the handler {handler.name!r} needs a store: set store = redis://... in [plugin:limits], "
                "or give store= to the filter"
            )


@hookimpl
async def asyncapy_shutdown(server: Server) -> None:
    """Tell the stores that this server counts no more, so that others may take larger leases."""
    await leave_all()


@hookimpl
def asyncapy_contracts() -> list[type]:
    """Return the contract of the filter."""
    from asyncapy_limits import contracts  # noqa: PLC0415  # it imports the server and the clients

    return [contracts.RateContract]


def _rates(filters: object) -> Iterator[Rate]:
    """Yield the rates among filters, and within combinations of filters."""
    for filter in filters if isinstance(filters, (list, tuple)) else ():
        if isinstance(filter, Rate):
            yield filter
        yield from _rates(getattr(filter, "operands", ()))
