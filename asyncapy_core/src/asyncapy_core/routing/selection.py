"""`SelectionTable`: the handlers of a group by the text of a field, so that few of them are matched against a packet.

The result of `Filter.selects` is a field and its text. The table returns the handlers whose first filter can pass, in
their order; it does not replace the filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncapy_core.routing.handler import Handler

MIN_HANDLERS: Final = 3
"""A group with fewer handlers that select packets is matched in its order: that is as quick."""

_ABSENT: Final = object()

Ranked = tuple[int, "Handler"]
"""A handler, and its place in the group."""


class Prefix(str):
    """A text in the result of `Filter.selects`: the field begins with it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Prefix({str.__repr__(self)})"


def text_of(value: object) -> str | None:
    """Return the text that `Filter.selects` is compared with: ``str(value)``, or None for bytes, maps and arrays.

    Raises:
        Exception: any exception of ``str`` for a value that no codec of AsyncAPY returns.
    """
    if type(value) is str:
        return value
    return None if isinstance(value, (bytes, dict, list, tuple)) else str(value)


def is_selected(selection: tuple[str, str], fields: Mapping[str, Any]) -> bool:
    """Return True if these fields have the field and the text of a result of `Filter.selects`."""
    field, wanted = selection
    text = text_of(fields[field]) if field in fields else None
    if text is None:
        return False
    return text.startswith(wanted) if isinstance(wanted, Prefix) else text == wanted


class SelectionTable:
    """The handlers of one group.

    Args:
        handlers: the handlers, in the order in which they are matched.
    """

    __slots__ = ("_branches", "_by_text", "_field", "_handlers", "_others")

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = tuple(handlers)
        self._branches: dict[str, _Branch] = {}
        self._others: list[Ranked] = []
        for ranked in enumerate(handlers):
            selection = ranked[1].selection
            if selection is None:
                self._others.append(ranked)
            else:
                field, text = selection
                self._branches.setdefault(field, _Branch()).add(text, ranked)
        self._field: str | None = None
        self._by_text: dict[str, tuple[Handler, ...]] = {}
        if len(self._branches) == 1:
            self._complete()

    @staticmethod
    def of(handlers: Sequence[Handler]) -> SelectionTable | None:
        """Return a table, or None if too few of the handlers select packets."""
        selecting = sum(handler.selection is not None for handler in handlers)
        return SelectionTable(handlers) if selecting >= MIN_HANDLERS else None

    def candidates(self, fields: Mapping[str, Any]) -> Sequence[Handler]:
        """Return the handlers whose first filter can pass a packet with these fields, in their order."""
        if self._field is not None:
            value = fields.get(self._field)
            if type(value) is str and (handlers := self._by_text.get(value)) is not None:
                return handlers
        found = list(self._others)
        for field, branch in self._branches.items():
            value = fields.get(field, _ABSENT)
            if value is _ABSENT:
                continue
            try:
                text = text_of(value)
            except Exception:
                return self._handlers  # the filters find out and report it
            if text is not None:
                found += branch.find(text)
        return [handler for _, handler in sorted(found)]

    def _complete(self) -> None:
        """Note all handlers that can pass for each text, as there is one field only."""
        ((self._field, branch),) = self._branches.items()
        for text in branch.texts:
            ranked = sorted([*self._others, *branch.find(text)])
            self._by_text[text] = tuple(handler for _, handler in ranked)


class _Branch:
    """The handlers that select packets by one field."""

    __slots__ = ("_lengths", "_whole", "_with_prefix")

    def __init__(self) -> None:
        self._whole: dict[str, list[Ranked]] = {}
        self._with_prefix: dict[str, list[Ranked]] = {}
        self._lengths: set[int] = set()

    @property
    def texts(self) -> set[str]:
        """All texts and prefixes."""
        return {*self._whole, *self._with_prefix}

    def add(self, text: str, ranked: Ranked) -> None:
        """Add a handler for the packets whose field is this text, or begins with this `Prefix`."""
        if isinstance(text, Prefix):
            self._with_prefix.setdefault(str(text), []).append(ranked)
            self._lengths.add(len(text))
        else:
            self._whole.setdefault(text, []).append(ranked)

    def find(self, text: str) -> list[Ranked]:
        """Return the handlers for a field with this text, in no order."""
        found = list(self._whole.get(text, ()))
        for length in self._lengths:
            if length <= len(text):
                found += self._with_prefix.get(text[:length], ())
        return found
