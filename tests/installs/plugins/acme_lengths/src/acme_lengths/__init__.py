"""A filter for AsyncAPY: ``Filters.Lengths("text", longest=10)`` passes packets with a text of this length at most."""

from __future__ import annotations

from pydantic import BaseModel, Field

from asyncapy_core import Client, Filter, Packet, hookimpl
from asyncapy_core.interfaces import ServerInterface


class asyncapy_options(BaseModel):
    """The options of this plugin, in the section ``[plugin:acme_lengths]``."""

    longest: int = Field(default=100, ge=0, description="the characters of a text, unless the filter has a limit")


class _Arguments(BaseModel):
    field: str
    longest: int | None = Field(default=None, ge=0)


class Lengths(Filter):
    """Passes packets whose field is a text that is not too long.

    Args:
        field: the field.
        longest: the most characters; the option ``longest`` of the plugin by default.
    """

    def __init__(self, field: str, longest: int | None = None) -> None:
        arguments = _Arguments(field=field, longest=longest)
        self.field, self.longest = arguments.field, arguments.longest

    def check(self, c: Client, p: Packet) -> bool:
        """Return whether the text is short enough."""
        text = p.get(self.field)
        longest = c.server.state.acme_longest if self.longest is None else self.longest
        return isinstance(text, str) and len(text) <= longest

    def __repr__(self) -> str:
        return f"Lengths({self.field!r}, longest={self.longest})"


@hookimpl
def asyncapy_filters() -> dict[str, type[Filter]]:
    """Return the filters of this plugin."""
    return {"Lengths": Lengths}


@hookimpl
def asyncapy_setup(server: ServerInterface, options: asyncapy_options) -> None:
    """Let the filters find the option."""
    server.state.acme_longest = options.longest
